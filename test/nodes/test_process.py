# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node's process: its start with wrong arguments and parameters, and its end by signals."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from helpers.own_domain import DOMAIN  # noqa: E402
from helpers.shared_memory import segments_of  # noqa: E402
from helpers.vehicle import RunningNode, Vehicle, configuration  # noqa: E402
from helpers.waiting import wait_for  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.time import Time  # noqa: E402

from aqr_perception.nodes import perception_node  # noqa: E402
from aqr_perception.nodes.input import transforms  # noqa: E402
from aqr_perception.nodes.input.assembler import Assembler  # noqa: E402
from aqr_perception.nodes.input.frame_request import AssemblerSettings  # noqa: E402
from aqr_perception.nodes.stop_signals import StopSignals  # noqa: E402

IN_TIME = 2.0
SLOW_PRESET = "cmt_voxel0075_vov_1600x640"
"""A model whose construction takes seconds."""


class Stopped:
    """A request to stop that comes before the node has started: the start is run, and then the end."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.requested.set()

    def wait_for_clean_up(self) -> None:
        """Do nothing: no signal comes."""

    def say_goodbye_by(self, farewell: Callable[[], object]) -> None:
        """Do nothing: the end comes in time."""


class Process:
    """The node's process with its output in a file."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / "node.log"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(["perception_node", *arguments], stdout=output, stderr=subprocess.STDOUT)

    def wait_for(self, text: str, seconds: float = 60.0) -> str:
        deadline = time.monotonic() + seconds
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, f"no {text!r} in {self.log.read_text()!r}"
            assert self.process.poll() is None or text in self.log.read_text(), self.log.read_text()
            time.sleep(0.02)
        return self.log.read_text()

    def end(self, *signals: int) -> tuple[int, float]:
        """Send signals; return the exit status and the seconds until the end."""
        asked = time.monotonic()
        for one in signals:
            self.process.send_signal(one)
            time.sleep(0.02)
        try:
            return self.process.wait(timeout=20), time.monotonic() - asked
        finally:
            self.process.kill()

    def ends_well(self, *signals: int) -> bool:
        status, seconds = self.end(*signals)
        assert "Traceback" not in self.log.read_text()
        return status == 0 and seconds < IN_TIME


def parameter_file(folder: Path, text: str, section: str = "/**") -> str:
    path = folder / "parameters.yaml"
    path.write_text(yaml.safe_dump({section: {"ros__parameters": yaml.safe_load(text)}}))
    return str(path)


# --- Start ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--ros-args", "--params-file", "/nowhere.yaml"], ("--params-file /nowhere.yaml", "no such file")),
        (["--ros-args", "-p", "score_threshold"], ("score_threshold",)),
        (["--ros-args", "-r", "__ns:=no namespace"], ("no namespace",)),
        (["--ros-args", "--log-level", "loud"], ("loud",)),
        (["--ros-args", "--bogus"], ("--bogus",)),
        (["config:=my.yaml"], ("config:=my.yaml", "--params-file")),
    ],
)
def test_wrong_arguments_end_the_start_with_one_line_that_names_them(
    capfd: pytest.CaptureFixture[str], arguments: list[str], named: tuple[str, ...]
) -> None:
    assert perception_node.main(arguments) == 1
    output = "".join(capfd.readouterr())
    (line,) = (line for line in output.splitlines() if line.startswith("perception_node: cannot start: "))
    assert all(part in line for part in named), line
    assert "Traceback" not in output


def unreadable(folder: Path, text: str) -> list[str]:
    """Return the arguments with a file that ROS 2 cannot read."""
    path = folder / "parameters.yaml"
    indented = text.replace("\n", "\n    ")
    path.write_text(f"/**:\n  ros__parameters:\n    {indented}\n")
    return ["--ros-args", "--params-file", str(path)]


@pytest.mark.parametrize("text", ["output_frame:", "cameras: [front, 2]", "a: &a 1\nb: *a", "cameras: [front"])
def test_files_that_ros_cannot_read_end_the_start_with_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    arguments = unreadable(tmp_path, text)
    assert perception_node.main(arguments) == 1
    output = "".join(capfd.readouterr())
    (line,) = (line for line in output.splitlines() if line.startswith("perception_node: "))
    assert arguments[-1] in line
    assert "Traceback" not in output


@pytest.mark.parametrize("text", ["output_frame:", "cameras: [front"])
def test_the_process_of_a_start_that_fails_ends_with_status_1_and_the_line(tmp_path: Path, text: str) -> None:
    """ROS 2 finds the first fault, this package the second."""
    arguments = unreadable(tmp_path, text)
    process = Process(tmp_path, *arguments)
    try:
        assert process.process.wait(timeout=60) == 1
    finally:
        process.process.kill()
    (line,) = (line for line in process.log.read_text().splitlines() if line.startswith("perception_node: "))
    assert arguments[-1] in line
    assert "Traceback" not in process.log.read_text()


def test_a_wrong_parameter_leaves_the_node_alive_and_unconfigured_with_the_reason(tmp_path: Path) -> None:
    path = parameter_file(tmp_path, "{max_sweeps: 50, camera_wait: soon, scor_threshold: 0.4}")
    process = Process(tmp_path, "--ros-args", "--params-file", path)
    text = process.wait_for("cannot configure")
    assert "max_sweeps is 50, but must be in 0..20" in text
    assert "camera_wait is 'soon', but must be a number" in text
    assert "scor_threshold is not a parameter of this node and has no effect; did you mean score_threshold?" in text
    assert process.process.poll() is None
    assert process.ends_well(signal.SIGINT)


def test_wrong_values_that_are_corrected_at_run_time_let_the_node_configure(tmp_path: Path) -> None:
    given = {"score_threshold": 3.0, "max_detections": "many", "model.checkpoint": str(tmp_path / "outside.pth")}
    given["model.directories"] = ["/opt/models"]
    context = rclpy.Context()
    context.init()
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = perception_node.PerceptionNode(context=context, parameter_overrides=overrides)

    def corrected(name: str, value: object) -> bool:
        return node.set_parameters([Parameter(name, value=value)])[0].successful

    try:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert corrected("score_threshold", 0)  # an integer for a double
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert corrected("max_detections", 100)
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert corrected("model.checkpoint", "random")
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert not corrected("model.checkpoint", str(tmp_path / "outside.pth"))
        assert not corrected("model.directories", [""])
    finally:
        node.close()
        node.destroy_node()
        context.shutdown()


@pytest.mark.parametrize(
    ("section", "arguments", "is_heard"),
    [
        ("/**", ["-r", "__ns:=/robot1"], True),
        ("/**", ["-r", "__node:=eyes"], True),
        ("aqr_perception", ["-r", "__ns:=/robot1"], False),
        ("aqr_perception", ["-r", "__node:=eyes"], False),
    ],
)
def test_a_file_holds_in_a_namespace_and_under_another_name_or_its_node_says_that_it_does_not(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, section: str, arguments: list[str], is_heard: bool
) -> None:
    path = parameter_file(tmp_path, "{autostart: false, max_sweeps: 50}", section)
    given = ["--ros-args", "--params-file", path, *arguments, "-p", "autostart:=false", "-p", "no_such_parameter:=1"]
    assert perception_node.main(given, cast(StopSignals, Stopped())) == 0
    output = "".join(capfd.readouterr())
    assert "no_such_parameter is not a parameter of this node" in output
    assert (f"{path} has no effect: found sections /aqr_perception" in output) is not is_heard


HEAVY = ("torch", "cv2", "scipy", "matplotlib", "tf2_ros")
"""Packages whose imports take a second or more together."""

FIRST_REPORT = f"""
import os, sys, time
from aqr_perception.nodes.health.health_publisher import HealthPublisher
from aqr_perception.nodes.perception_node import main

def publish(self, now):
    ticks = open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]
    started = float(ticks) / os.sysconf("SC_CLK_TCK")
    print(time.clock_gettime(time.CLOCK_BOOTTIME) - started, [name for name in {HEAVY} if name in sys.modules])
    sys.stdout.flush()
    os._exit(0)

HealthPublisher._publish_if_due = publish
main([])
"""


def test_the_first_report_comes_before_all_that_takes_long() -> None:
    seconds, heavy = subprocess.check_output([sys.executable, "-c", FIRST_REPORT], text=True).split(maxsplit=1)
    print(f"the first report comes {float(seconds):.2f} s after the start of the process")
    assert heavy.strip() == "[]"


# --- End -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
@pytest.mark.parametrize("delay", [0.03, 0.3, 1.2])
def test_a_signal_while_the_process_starts_ends_it_without_a_traceback(
    tmp_path: Path, signals: tuple[int, ...], delay: float
) -> None:
    process = Process(tmp_path)
    time.sleep(delay)
    assert process.ends_well(*signals), process.log.read_text()


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)])
def test_a_signal_while_the_first_model_is_loaded_ends_the_process(tmp_path: Path, signals: tuple[int, ...]) -> None:
    process = Process(tmp_path, "--ros-args", "-p", f"model.preset:={SLOW_PRESET}", "-p", "model.checkpoint:=random")
    process.wait_for("loading")
    assert process.ends_well(*signals), process.log.read_text()
    assert "running" not in process.log.read_text(), "the model was loaded before the signal"


@pytest.fixture
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM,)])
def test_a_signal_amid_frames_and_while_another_model_loads_ends_the_process(
    ros: None, tmp_path: Path, signals: tuple[int, ...]
) -> None:
    node = RunningNode(configuration(tmp_path), log=tmp_path / "node.log")
    vehicle = Vehicle()
    try:
        vehicle.wait_until_connected()
        vehicle.next_frame()
        vehicle.drive()
        loads = vehicle.set_parameters(model__preset=SLOW_PRESET)
        assert loads.successful, loads.reason
        for _ in range(3):
            vehicle.next_frame()
            vehicle.send()
        asked = time.monotonic()
        for one in signals:
            os.kill(node.process.pid, one)
            time.sleep(0.02)
        assert node.process.wait(timeout=20) == 0
        assert time.monotonic() - asked < IN_TIME
        vehicle.wait_for(lambda: "aqr_perception" not in vehicle.node.get_node_names(), "its disappearance", 5.0)
    finally:
        node.process.kill()
        vehicle.close()
    assert "Traceback" not in node.log.read_text()


@pytest.mark.parametrize("model_loads", [False, True])
def test_the_end_of_the_process_frees_its_shared_memory(ros: None, tmp_path: Path, model_loads: bool) -> None:
    overrides = {"model.preset": SLOW_PRESET} if model_loads else {}
    node = RunningNode(configuration(tmp_path, **overrides), log=tmp_path / "node.log")
    vehicle = Vehicle()
    try:
        vehicle.wait_for(lambda: "loading" in node.log.read_text(), "the loading of the model", 40.0)
        if not model_loads:
            vehicle.wait_until_connected()
        segments = segments_of(node.process.pid)
        assert segments
        assert all(segment.exists() for segment in segments)
        assert node.stop() == 0
        assert not any(segment.exists() for segment in segments)
    finally:
        node.process.kill()
        vehicle.close()


def test_the_process_ends_even_if_its_shared_memory_cannot_be_removed() -> None:
    code = "from aqr_perception.nodes import stop_signals as s; s._own_locks = lambda: 1 / 0; s.StopSignals.exit(3)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, check=False).returncode == 3


@pytest.mark.parametrize(("farewell", "said"), [("os.write(1, b'goodbye')", b"goodbye"), ("time.sleep(60)", b"")])
def test_a_process_that_is_stuck_says_goodbye_and_ends_even_if_that_is_stuck_too(farewell: str, said: bytes) -> None:
    code = f"""
import os, signal, time
from aqr_perception.nodes.stop_signals import StopSignals
signals = StopSignals()
signals.wait_for_clean_up()
signals.say_goodbye_by(lambda: {farewell})
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=30, capture_output=True, check=True)
    assert ended.stdout == said


class Neighbour:
    """A node that sees which nodes there are.

    Its domain has no nodes of this process, because a node must be told from others of the same name.
    """

    def __init__(self) -> None:
        self._context = rclpy.Context()
        self._context.init(domain_id=DOMAIN)
        self._node = rclpy.create_node("neighbour", context=self._context)

    def sees_it(self) -> bool:
        return "aqr_perception" in self._node.get_node_names()

    def close(self) -> None:
        self._node.destroy_node()
        self._context.try_shutdown()


@pytest.fixture
def neighbour() -> Iterator[Neighbour]:
    neighbour = Neighbour()
    yield neighbour
    neighbour.close()


@pytest.mark.parametrize("preset", ["aqr_tiny", SLOW_PRESET])
@pytest.mark.parametrize("said", ["loading", "running"])
def test_other_nodes_notice_the_end_of_the_process_at_once(
    neighbour: Neighbour, tmp_path: Path, preset: str, said: str
) -> None:
    arguments = ["-p", f"model.preset:={preset}"]
    node = RunningNode(configuration(tmp_path), *arguments, log=tmp_path / "node.log", domain=DOMAIN)
    try:
        wait_for(lambda: said in node.log.read_text() and neighbour.sees_it(), 90.0)
        asked = time.monotonic()
        assert node.stop() == 0
        ended = time.monotonic() - asked
        # Without a goodbye, DDS takes the node for lost after 20 s.
        wait_for(lambda: not neighbour.sees_it(), 5.0, f"the end took {ended:.1f} s")
    finally:
        node.process.kill()


# --- Cycles --------------------------------------------------------------------------------------------------------


def test_cycles_of_configure_and_cleanup_leave_no_entity_behind(ros: None, tmp_path: Path) -> None:
    node = RunningNode(configuration(tmp_path, autostart=False), log=tmp_path / "node.log")
    vehicle = Vehicle()

    def entities() -> list[tuple[str, str, int]]:
        mine = ("aqr_perception", "/")
        graph = vehicle.node
        found = [("publisher", topic) for topic, _ in graph.get_publisher_names_and_types_by_node(*mine)]
        found += [("subscriber", topic) for topic, _ in graph.get_subscriber_names_and_types_by_node(*mine)]
        found += [("service", name) for name, _ in graph.get_service_names_and_types_by_node(*mine)]
        counts = {
            "publisher": graph.count_publishers,
            "subscriber": graph.count_subscribers,
            "service": lambda name: len([one for one, _ in graph.get_service_names_and_types() if one == name]),
        }
        return sorted((kind, name, counts[kind](name)) for kind, name in found)

    def threads() -> int:
        return len(os.listdir(f"/proc/{node.process.pid}/task"))

    try:
        vehicle.wait_for(lambda: "aqr_perception" in vehicle.node.get_node_names(), "the node", 40.0)

        # One client for all: the answer to a client that is not yet discovered can be lost.
        client = vehicle.node.create_client(ChangeState, "/aqr_perception/change_state")
        vehicle.wait_for(client.service_is_ready, "the service", 40.0)
        time.sleep(0.5)

        def cycle() -> None:
            for transition in (
                Transition.TRANSITION_CONFIGURE,
                Transition.TRANSITION_ACTIVATE,
                Transition.TRANSITION_DEACTIVATE,
                Transition.TRANSITION_CLEANUP,
            ):
                answer = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
                vehicle.wait_for(answer.done, f"an answer to transition {transition}", 40.0)
                assert answer.result().success

        cycle()
        time.sleep(0.5)
        before, threads_before = entities(), threads()
        assert ("publisher", "/parameter_events") in [entity[:2] for entity in before]
        for _ in range(9):
            cycle()
        vehicle.wait_for(lambda: entities() == before, f"the entities {before}; now {entities()}")
        # Threads of PyTorch come and go; one left by each cycle would add nine.
        assert threads() <= threads_before + 4
        assert "/tf2_frames" not in dict(vehicle.node.get_service_names_and_types())
    finally:
        vehicle.close()
        assert node.stop() == 0, node.log.read_text()


def test_the_transform_buffer_leaves_nothing_at_the_node_and_is_emptied_when_the_clock_jumps_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []

    class OfOneConfiguration(transforms.TransformBuffer):
        def __init__(self, *arguments: object, **named: object) -> None:
            assert not arguments and not named, "tf2's buffer of a node leaves a service at it"
            super().__init__()
            self.cleared = 0
            made.append(self)

        def clear(self) -> None:
            self.cleared += 1

    monkeypatch.setattr(transforms, "TransformBuffer", OfOneConfiguration)
    context = rclpy.Context()
    context.init()
    node = perception_node.PerceptionNode(context=context)
    clock = node.get_clock()
    node.set_parameters([Parameter("use_sim_time", value=True)])
    try:
        for number in range(1, 4):
            settings = AssemblerSettings(lidar_topic="/points")
            node._assembler = Assembler(settings, node._on_time_jump, clock_ns=node._clock_ns)
            node._pipeline = SimpleNamespace(forget=lambda: None)
            node._buffer = node._transform_buffer()
            clock.set_ros_time_override(Time(seconds=10, clock_type=clock.clock_type))
            clock.set_ros_time_override(Time(seconds=5, clock_type=clock.clock_type))
            node.close()
            assert [buffer.cleared for buffer in made] == [1] * number
    finally:
        node.destroy_node()
        context.shutdown()
