# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Playback of bags over DDS, with the recorded messages, timing and QoS."""

import importlib
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from helpers.own_domain import DOMAIN
from helpers.shared_memory import segments_of
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from aqr_perception.bags import messages
from aqr_perception.bags.errors import BagError
from aqr_perception.bags.messages import TYPESTORE
from aqr_perception.bags.reader import BagReader
from aqr_perception.bags.writer import BagWriter
from aqr_perception.nodes import bag_player
from aqr_perception.nodes.bag_player import BagPlayer, main

START = 1_500_000_000_000_000_000
MS = 1_000_000
PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    path = tmp_path / "bag.mcap"
    with BagWriter(path) as writer:
        static = messages.tf([messages.transform(START, "base_link", "lidar", np.eye(4))])
        writer.write("/tf_static", static, START, latched=True)
        for index in range(4):
            stamp_ns = START + index * 50 * MS
            writer.write("/image", messages.image(stamp_ns, "camera", PIXELS), stamp_ns)
    return path


class Listener:
    """Subscribes in a separate context and thread, and keeps the messages."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = Node("listener", context=self.context)
        self.received: dict[str, list[Any]] = {}
        self.order: list[str] = []
        self._arrived = threading.Condition()
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def listen(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> None:
        self.received[topic] = []
        self.node.create_subscription(kind, topic, lambda message: self._keep(topic, message), qos)

    def _keep(self, topic: str, message: Any) -> None:
        with self._arrived:
            self.received[topic].append(message)
            self.order.append(topic)
            self._arrived.notify_all()

    def wait_for(self, topic: str, count: int) -> list[Any]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.received[topic]) >= count, timeout=10.0)
            return list(self.received[topic])

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(10.0)
        assert not self._thread.is_alive()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    started = Listener()
    yield started
    started.close()


def stamps_ns(received: list[Any]) -> list[int]:
    return [message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec for message in received]


def test_every_message_arrives_in_order_and_unchanged(bag: Path, listener: Listener) -> None:
    listener.listen(Image, "/image")
    assert main([str(bag), "--rate", "4", "--wait", "5", "--topics", "/image"]) == 0
    images = listener.wait_for("/image", 4)
    assert stamps_ns(images) == [START + index * 50 * MS for index in range(4)]
    assert bytes(images[0].data) == PIXELS.tobytes()
    assert images[0].header.frame_id == "camera"


def test_a_part_of_the_bag_can_be_played(bag: Path, listener: Listener) -> None:
    listener.listen(Image, "/image")
    part = ["--start", "0.05", "--duration", "0.1", "--topics", "/image", "--wait", "5"]
    assert main([str(bag), *part]) == 0
    assert stamps_ns(listener.wait_for("/image", 2)) == [START + 50 * MS, START + 100 * MS]


def test_late_subscribers_receive_latched_topics(bag: Path, listener: Listener) -> None:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = Node("player", context=context)
    try:
        with BagReader(bag) as reader, BagPlayer(node, reader) as player:
            assert player.play(rate=20.0, progress=False) == 5
            late = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            listener.listen(TFMessage, "/tf_static", late)
            (static,) = listener.wait_for("/tf_static", 1)
            assert static.transforms[0].child_frame_id == "lidar"
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_the_clock_follows_the_time_of_the_bag(bag: Path, listener: Listener) -> None:
    listener.listen(Clock, "/clock", 100)
    listener.listen(Image, "/image")
    assert main([str(bag), "--clock", "--topics", "/image", "--wait", "5"]) == 0
    listener.wait_for("/image", 4)
    times = [tick.clock.sec * 1_000_000_000 + tick.clock.nanosec for tick in listener.wait_for("/clock", 1)]
    assert times == sorted(times)
    assert START <= times[0] <= times[-1] <= START + 150 * MS


def test_a_loop_plays_until_interrupted(bag: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    original, rounds = BagPlayer.play, []

    def play_and_interrupt(self: BagPlayer, *arguments: Any) -> int:
        rounds.append(original(self, *arguments))
        if len(rounds) == 3:
            raise KeyboardInterrupt
        return rounds[-1]

    monkeypatch.setattr(BagPlayer, "play", play_and_interrupt)
    assert main([str(bag), "--loop", "--rate", "50", "--wait", "0"]) == 0
    assert rounds == [5, 5, 5]
    assert not rclpy.ok(), "the context is shut down after an interrupt, too"


def test_topics_with_unknown_types_are_skipped_and_named(
    tmp_path: Path, listener: Listener, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bag"
    with BagWriter(path) as writer:
        writer.write("/image", messages.image(START, "camera", PIXELS), START)
        text = TYPESTORE.types["std_msgs/msg/String"](data="hello")
        writer.write("/text", text, START)
    installed = importlib.import_module

    def without_std_msgs(name: str) -> Any:
        if name.startswith("std_msgs"):
            raise ModuleNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(bag_player.importlib, "import_module", without_std_msgs)
    listener.listen(Image, "/image")
    with caplog.at_level(logging.WARNING, "bag_player"):
        assert main([str(path), "--wait", "5"]) == 0
    listener.wait_for("/image", 1)
    assert "/text is not played: found type std_msgs/msg/String" in caplog.text


def test_missing_and_broken_bags_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    assert main([str(tmp_path / "none.mcap")]) == 1
    assert "none.mcap: found no such file or folder, needed a bag" in caplog.text
    (tmp_path / "broken.mcap").write_bytes(b"\x89MCAP0\r\n and so on")
    assert main([str(tmp_path / "broken.mcap")]) == 1
    assert "broken.mcap: found a broken bag" in caplog.text


def test_unknown_topics_and_empty_parts_are_named(
    bag: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    assert main([str(bag), "--topics", "/radar"]) == 1
    assert "found no topic /radar, needed one of /image, /tf_static" in caplog.text
    assert main([str(bag), "--start", "100", "--wait", "0"]) == 1
    assert "found no message in the part to play" in caplog.text


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--rate", "fast"], ["--start", "-1"], ["--duration", "0"]])
def test_options_out_of_range_are_refused(bag: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(bag), *arguments])
    assert caught.value.code == 2


def write_drive(path: Path, statics: int, *, latched: bool = True, calibration_ms: int = 0) -> Path:
    """Write static transforms, a CameraInfo and ten clouds, one every 100 ms."""
    with BagWriter(path) as writer:
        for index in range(statics):
            transform = messages.transform(START, "base_link", f"sensor_{index}", np.eye(4))
            writer.write("/tf_static", messages.tf([transform]), START + index, latched=latched)
        info = messages.camera_info(START, "camera", (4, 2), np.eye(3))
        points = np.zeros(3, [(name, "<f4") for name in ("x", "y", "z", "intensity")])
        entries = [(START + calibration_ms * MS, "/camera_info", info)]
        entries += [
            (START + index * 100 * MS, "/points", messages.cloud(START + index * 100 * MS, "sensor_0", points))
            for index in range(10)
        ]
        for stamp_ns, topic, message in sorted(entries, key=lambda entry: entry[0]):
            writer.write(topic, message, stamp_ns)
    return path


LATE = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def children(received: list[Any]) -> set[str]:
    return {transform.child_frame_id for message in received for transform in message.transforms}


@pytest.mark.parametrize("latched", [True, False], ids=["recorded as latched", "recorded as volatile"])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_late_subscribers_receive_all_static_transforms_and_the_calibration_from_any_start(
    tmp_path: Path, listener: Listener, latched: bool, start: float
) -> None:
    path = write_drive(tmp_path / "drive.mcap", statics=20, latched=latched)
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = Node("player", context=context)
    try:
        with BagReader(path) as reader, BagPlayer(node, reader) as player:
            player.play(rate=50.0, start=start, progress=False)
            listener.listen(TFMessage, "/tf_static", LATE)
            listener.listen(CameraInfo, "/camera_info", LATE)
            listener.wait_for("/tf_static", 1)
            listener.wait_for("/camera_info", 1)
            assert children(listener.received["/tf_static"]) == {f"sensor_{index}" for index in range(20)}
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.parametrize("calibration_ms", [0, 150, 900])
def test_latched_messages_come_before_the_first_sweep(tmp_path: Path, listener: Listener, calibration_ms: int) -> None:
    path = write_drive(tmp_path / "drive.mcap", statics=3, calibration_ms=calibration_ms)
    for kind, topic in ((TFMessage, "/tf_static"), (CameraInfo, "/camera_info")):
        listener.listen(kind, topic, LATE)
    listener.listen(PointCloud2, "/points")
    assert main([str(path), "--start", "0.35", "--wait", "5"]) == 0
    listener.wait_for("/points", 6)
    first_sweep = listener.order.index("/points")
    assert {"/tf_static", "/camera_info"} <= set(listener.order[:first_sweep])


def test_a_static_transform_that_changes_keeps_the_value_of_its_time(tmp_path: Path, listener: Listener) -> None:
    path = tmp_path / "drive.mcap"
    with BagWriter(path) as writer:
        for index, height in enumerate((1.0, 2.0, 3.0)):
            at_height = np.eye(4)
            at_height[2, 3] = height
            transform = messages.transform(START, "base_link", "lidar", at_height)
            writer.write("/tf_static", messages.tf([transform]), START + index * 100 * MS, latched=True)
    listener.listen(TFMessage, "/tf_static", LATE)
    assert main([str(path), "--start", "0.15", "--rate", "5", "--wait", "5"]) == 0
    heights = [message.transforms[0].transform.translation.z for message in listener.wait_for("/tf_static", 2)]
    assert heights == [2.0, 3.0]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["import", "waiting", "playing"])
def test_the_process_ends_in_time_on_signals_at_any_moment(
    bag: Path, listener: Listener, end: signal.Signals, moment: str
) -> None:
    topic = {"import": "/image", "waiting": "/tf_static", "playing": "/image"}[moment]
    listener.listen(Image, "/image")
    command = ["bag_player", str(bag), "--loop", "--clock", "--wait", "60", "--topics", topic]
    player = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        if moment == "import":
            time.sleep(0.3)  # longer than Python's start, shorter than the imports
        elif moment == "waiting":
            deadline = time.monotonic() + 20.0
            while "bag_player" not in listener.node.get_node_names():
                assert time.monotonic() < deadline
                time.sleep(0.05)
        else:
            listener.wait_for("/image", 6)
        segments = segments_of(player.pid)
        assert bool(segments) is (moment != "import")
        player.send_signal(end)
        asked = time.monotonic()
        player.send_signal(signal.SIGINT)
        _, errors = player.communicate(timeout=20)
    finally:
        player.kill()
    assert (player.returncode, errors) == (0, "")
    assert time.monotonic() - asked < 2.0
    assert not any(segment.exists() for segment in segments)


def test_a_bag_without_any_playable_topic_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bag"
    with BagWriter(path):
        pass
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = Node("player", context=context)
    try:
        with BagReader(path) as reader, pytest.raises(BagError, match="found no topic with an installed message type"):
            BagPlayer(node, reader)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
