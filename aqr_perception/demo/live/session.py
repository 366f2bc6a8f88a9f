"""Plays a drive, with sensors that fail, into the perception node in a process of its own, and records its answers."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from aqr_perception.demo.failures import FailingBag, Failure
from aqr_perception.demo.live.recorder import AnswerRecorder
from aqr_perception.demo.recording import Recording
from aqr_perception.models.weights.shipped import RANDOM
from aqr_perception.nodes.bag_player import BagPlayer
from aqr_perception.simulator.bag import TRUTH_TOPIC

_START_SECONDS = 120.0
_LAST_ANSWER_SECONDS = 5.0
_STOP_SECONDS = 20.0
_POLL = 0.05


class DemoError(ValueError):
    """The node did not start or went away; the text says where it tells why."""


@dataclass(frozen=True)
class Session:
    """How a drive is played.

    Attributes:
        config: the node's parameter file.
        preset, checkpoint: the node's model; without a checkpoint its weights are random.
        log: file for what the node says.
        rate: seconds of the drive in a second.
        overrides: further parameters of the node, as ``name:=value``.
        progress: show a bar.
    """

    config: Path
    preset: str
    checkpoint: Path | None
    log: Path
    rate: float = 0.25
    overrides: tuple[str, ...] = ()
    progress: bool = True

    def play(self, bag: Path, failures: Sequence[Failure]) -> Recording:
        """Return what the node published.

        Raises:
            BagError: see `FailingBag`.
            DemoError: the node did not start, or went away.
        """
        with FailingBag(bag, failures) as drive, self._node() as node, _context():
            ours = rclpy.create_node("aqr_perception_demo")
            names = [topic.name for topic in drive.topics]
            cameras = [name.split("/")[1] for name in names if name.endswith("/camera_info")]
            recorder = AnswerRecorder(ours, cameras)
            played = [name for name in names if name not in (TRUTH_TOPIC, "/clock")]
            with _spun(ours), BagPlayer(ours, drive, played, clock=True) as player:
                self._wait_for(lambda: bool(recorder.model), node, "become active")
                if not player.wait_for_subscribers(_START_SECONDS):
                    raise DemoError(f"the node does not listen to all of {', '.join(played)}; check {self.config}")
                player.play(self.rate, progress=self.progress)
                self._wait_for(lambda: recorder.silence > _LAST_ANSWER_SECONDS, node, "finish")
            recorder.close()
            return recorder.recording(trained=self.checkpoint is not None)

    @contextmanager
    def _node(self) -> Iterator[subprocess.Popen]:
        parameters = [f"model.preset:={self.preset}", f"model.checkpoint:={self.checkpoint or RANDOM}", *self.overrides]
        command = ["perception_node", "--ros-args", "--params-file", str(self.config)]
        command += [word for parameter in parameters for word in ("-p", parameter)]
        # Threads that wait for work must not take the cores from those that have it.
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        if shutil.which(command[0]) is None:
            raise DemoError(f"found no {command[0]} on the path; build the package and source its setup file")
        with self.log.open("w") as log:
            # In a session of its own: an interrupt from the terminal reaches us alone, and we stop it in order.
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        try:
            yield process
        finally:
            _stop(process)

    def _wait_for(self, holds: Callable[[], bool], node: subprocess.Popen, what: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not holds():
            if node.poll() is not None:
                raise DemoError(f"the node ended with status {node.returncode}; its last words are in {self.log}")
            if time.monotonic() > deadline:
                raise DemoError(f"the node did not {what} within {_START_SECONDS:.0f} s; see {self.log}")
            time.sleep(_POLL)


def _stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _context() -> Iterator[None]:
    # Not rclpy's own handlers: they would take the context away while the bag is being played.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield
    finally:
        rclpy.try_shutdown()


@contextmanager
def _spun(node: rclpy.node.Node) -> Iterator[None]:
    """Let a node hear in a thread of its own."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        with suppress(ExternalShutdownException):  # that is how it ends
            executor.spin()

    thread = threading.Thread(target=spin, name="demo recorder", daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown()
        thread.join()
