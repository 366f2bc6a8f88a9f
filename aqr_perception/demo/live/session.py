# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Playback of a drive with failing sensors into a perception node, and the recording of its outputs."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import rclpy
from rclpy.signals import SignalHandlerOptions

from aqr_perception.bags.reader import BagMessage, BagReader
from aqr_perception.benchmarks.live.node_process import stop
from aqr_perception.benchmarks.live.spinning import spinning
from aqr_perception.demo.failures import FailingBag, Failure
from aqr_perception.demo.live.answer_gate import AnswerGate
from aqr_perception.demo.live.recorder import OutputRecorder
from aqr_perception.demo.recording import Recording
from aqr_perception.models.weights.shipped import RANDOM
from aqr_perception.nodes.bag_player import BagPlayer
from aqr_perception.nodes.transport import transport_environment
from aqr_perception.simulator.bag import TRUTH_TOPIC

_START_SECONDS = 120.0
_LAST_OUTPUT_SECONDS = 5.0
_LAST_PICTURES_SECONDS = 1.0
_POLL = 0.05
_LIDAR_TIMEOUT = 0.5
"""Seconds of the drive: longer than two sweeps are apart."""


class DemoError(ValueError):
    """The node did not start or stopped early; the text names its log file."""


@dataclass(frozen=True)
class Session:
    """Settings for playing a drive into a node.

    Attributes:
        config: parameter file of the node.
        preset, checkpoint: the node's model; without a checkpoint it has random weights.
        log: file for the output of the node.
        rate: largest playback speed; 1 is real time. The playback waits for the node where it is slower.
        overrides: further parameters of the node, as ``name:=value``.
        progress: show a progress bar.
    """

    config: Path
    preset: str
    checkpoint: Path | None
    log: Path
    rate: float = 1.0
    overrides: tuple[str, ...] = ()
    progress: bool = True

    def play(self, bag: Path, failures: Sequence[Failure]) -> Recording:
        """Play a bag into a new node process; return what the node published.

        Raises:
            BagError: see `FailingBag`; the bag has no true objects.
            DemoError: the node did not start or stopped early.
        """
        with FailingBag(bag, failures) as drive, self._perception_node() as process, _rclpy_context():
            node = rclpy.create_node("aqr_perception_demo")
            topics = [topic.name for topic in drive.topics]
            cameras = [name.split("/")[1] for name in topics if name.endswith("/camera_info")]
            recorder = OutputRecorder(node, cameras)
            played = [name for name in topics if name not in (TRUTH_TOPIC, "/clock")]
            with spinning(node), BagPlayer(node, drive, played, clock=True) as player:
                self._wait_until(lambda: bool(recorder.model), process, "become active")
                if not player.wait_for_subscribers(_START_SECONDS):
                    raise DemoError(f"the node does not subscribe to all of {', '.join(played)}; check {self.config}")
                is_lost = partial(_is_lost, drive.start_ns, failures)
                gate = AnswerGate(recorder, _sweep_stamps(drive), is_lost)

                def hold(message: BagMessage) -> None:
                    self._check_running(process)
                    gate.hold(message.stamp_ns)

                started = time.monotonic()
                player.play(self.rate, progress=self.progress, hold=hold)
                seconds = time.monotonic() - started
                gate.wait_for_last(_LAST_OUTPUT_SECONDS)
                # Pictures of the last frame follow its detections.
                self._wait_until(lambda: recorder.seconds_since_output > _LAST_PICTURES_SECONDS, process, "finish")
            recorder.close()
            return recorder.recording(self.checkpoint is not None, seconds, gate.seconds)

    @contextmanager
    def _perception_node(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the perception node in a separate process."""
        model = (f"model.preset:={self.preset}", f"model.checkpoint:={self.checkpoint or RANDOM}")
        parameters = [*model, f"lidar_timeout:={_lidar_timeout(self.rate):.3f}", *self.overrides]
        command = ["perception_node", "--ros-args", "--params-file", str(self.config)]
        command += [word for parameter in parameters for word in ("-p", parameter)]
        # Passive, because idle OpenMP threads must not spin on cores that the player needs.
        environment = {**os.environ, **transport_environment(), "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        if shutil.which(command[0]) is None:
            raise DemoError(f"found no {command[0]} on the path; build the package and source its setup file")
        with self.log.open("w") as log:
            # A new process session: Ctrl-C reaches only this process, which then stops the node.
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        try:
            yield process
        finally:
            stop(process)

    def _check_running(self, process: "subprocess.Popen[bytes]") -> None:
        if process.poll() is not None:
            raise DemoError(f"the node exited with status {process.returncode}; read its log, {self.log}")

    def _wait_until(self, condition: Callable[[], bool], process: "subprocess.Popen[bytes]", action: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            self._check_running(process)
            if time.monotonic() > deadline:
                raise DemoError(f"the node did not {action} within {_START_SECONDS:.0f} s; see {self.log}")
            time.sleep(_POLL)


def _sweep_stamps(bag: BagReader) -> list[int]:
    """Return the stamps of all sweeps, also of those that the failing LiDAR does not send."""
    return [message.stamp_ns for message in bag.messages([TRUTH_TOPIC])]


def _is_lost(start_ns: int, failures: Sequence[Failure], stamp_ns: int) -> bool:
    """Return whether the LiDAR does not send the sweep of a stamp."""
    seconds = (stamp_ns - start_ns) / 1e9
    return any(failure.sensor == "lidar" and failure.is_active(seconds) for failure in failures)


def _lidar_timeout(rate: float) -> float:
    """Return the wall-clock seconds without a sweep after which the node takes the LiDAR for lost."""
    return _LIDAR_TIMEOUT / min(rate, 1.0)


@contextmanager
def _rclpy_context() -> Iterator[None]:
    os.environ.update(transport_environment())
    # Without rclpy's signal handlers, which would shut the context down during playback.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield
    finally:
        rclpy.try_shutdown()
