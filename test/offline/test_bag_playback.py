# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""When frames become due in bag time, and which transforms they find."""

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

import numpy as np

from aqr_perception.bags import messages
from aqr_perception.bags.reader import BagReader
from aqr_perception.bags.writer import BagWriter
from aqr_perception.decoding.message_error import TransformError
from aqr_perception.nodes.input.frame_request import AssemblerSettings, CameraSettings
from aqr_perception.nodes.input.transforms import FrameTransforms
from aqr_perception.offline.bag_playback import BagPlayback
from aqr_perception.offline.offline_error import OfflineError

START, MS = 1_700_000_000_000_000_000, 1_000_000
POINTS = np.ones(3, np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")]))
FRONT = CameraSettings("front", "/front/image_raw", "/front/camera_info")


def at(milliseconds: float) -> int:
    return START + round(milliseconds * MS)


class Bag:
    """A bag that is being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: list[tuple[int, str, object]] = []

    def sweep(self, stamp: float, recorded: float | None = None) -> None:
        self._add("/points", messages.cloud(at(stamp), "lidar", POINTS), stamp if recorded is None else recorded)

    def image(self, stamp: float, recorded: float | None = None, info: bool = True) -> None:
        pixels = np.zeros((4, 6, 3), np.uint8)
        when = stamp if recorded is None else recorded
        if info:
            self._add("/front/camera_info", messages.camera_info(at(stamp), "cam", (6, 4), np.eye(3)), when)
        self._add("/front/image_raw", messages.image(at(stamp), "cam", pixels), when)

    def pose(self, stamp: float, recorded: float) -> None:
        self._add("/tf", messages.tf([messages.transform(at(stamp), "odom", "lidar", np.eye(4))]), recorded)

    def _add(self, topic: str, message: object, recorded: float) -> None:
        self._entries.append((at(recorded), topic, message))

    def written(self) -> BagReader:
        with BagWriter(self.path) as writer:
            for recorded, topic, message in sorted(self._entries, key=lambda entry: entry[0]):
                writer.write(topic, message, recorded)
        return BagReader(self.path)


@pytest.fixture
def bag(tmp_path: Path) -> Bag:
    return Bag(tmp_path / "made_up.mcap")


def test_a_frame_is_due_when_its_image_comes_or_the_wait_ends_in_bag_time(bag: Bag) -> None:
    for stamp, delay in ((0.0, 0.0), (100.0, 0.0), (200.0, 20.0)):
        bag.image(stamp - 10, recorded=stamp - 10 + 1.5 * delay)
        bag.sweep(stamp)
    bag.sweep(300.0)  # without image, for which the next frame does not wait
    bag.sweep(400.0)
    settings = AssemblerSettings((FRONT,), "/points", camera_wait=0.05, max_camera_age=0.05)
    with bag.written() as reader:
        frames = list(BagPlayback(reader, settings, print).frames())
    assert [(due.request.stamp_ns - START) / MS for due in frames] == [0, 100, 200, 300, 400]
    assert [len(due.request.cameras) for due in frames] == [1, 1, 1, 0, 0]
    waits = [(due.due_ns - due.request.stamp_ns) / MS for due in frames]
    assert waits[:3] == [0, 0, 20]
    assert 50 <= waits[3] <= 70
    assert waits[4] == 0
    assert [due.number for due in frames] == [1, 2, 3, 4, 5]


def test_the_last_sweep_of_a_bag_is_answered_after_its_wait(bag: Bag) -> None:
    bag.image(-10.0)
    bag.sweep(0.0)
    bag.sweep(500.0)
    with bag.written() as reader:
        settings = AssemblerSettings((FRONT,), "/points", camera_wait=0.2, max_camera_age=0.1)
        assert len(list(BagPlayback(reader, settings, print).frames())) == 2


def test_a_long_silence_costs_no_polls_and_loses_no_frame(bag: Bag) -> None:
    bag.sweep(0.0)
    bag.sweep(3_600_000.0)
    bag.sweep(3_600_100.0)
    bag.sweep(3_600_200.0)
    polls = 0
    with bag.written() as reader:
        playback = BagPlayback(reader, AssemblerSettings((), "/points"), print)
        poll = playback.assembler.poll

        def counted():
            nonlocal polls
            polls += 1
            return poll()

        playback.assembler.poll = counted
        stamps = [(due.request.stamp_ns - START) / MS for due in playback.frames()]
    assert stamps[0] == 0 and stamps[-1] == 3_600_200
    assert polls < 500


def test_late_transforms_are_found_within_the_wait_and_not_after_it(bag: Bag) -> None:
    for number in range(8):
        bag.sweep(100.0 * number)
        bag.pose(100.0 * number, recorded=100.0 * number + 60)
    found: dict[float, list[bool]] = {}
    for wait in (0.08, 0.03):
        bag.path = bag.path.with_name(f"{wait}.mcap")
        with bag.written() as reader:
            playback = BagPlayback(reader, AssemblerSettings((), "/points"), print)
            found[wait] = []
            for due in playback.frames():
                transforms = FrameTransforms(playback.buffer, "", wait, clock=playback.clock, pause=playback.pause)
                stamp_ns = due.request.stamp_ns
                try:
                    transforms.lookup("odom", stamp_ns, "lidar", stamp_ns)
                    found[wait].append(True)
                except TransformError:
                    found[wait].append(False)
    assert found[0.08] == [True] * 8
    assert found[0.03][0] is False  # there is no earlier transform that could hold


def test_time_that_jumps_back_in_a_bag_starts_a_new_epoch(bag: Bag) -> None:
    for number in range(6):
        bag.sweep(100.0 * number + 60_000, recorded=100.0 * number)
    for number in range(6):
        bag.sweep(100.0 * number, recorded=600 + 100.0 * number)
    warnings: list[str] = []
    with bag.written() as reader:
        frames = list(BagPlayback(reader, AssemblerSettings((), "/points"), warnings.append).frames())
    assert frames[0].epoch == 0
    assert frames[-1].epoch == 1
    assert any("jumped back by" in warning for warning in warnings)
    assert len(frames) >= 10


def test_a_calibration_that_is_recorded_after_the_first_images_is_there(bag: Bag) -> None:
    bag.image(-10.0, info=False)
    bag.sweep(0.0)
    bag.image(90.0)
    bag.sweep(100.0)
    with bag.written() as reader:
        settings = AssemblerSettings((FRONT,), "/points", max_camera_age=0.05)
        frames = list(BagPlayback(reader, settings, print).frames())
    assert [len(due.request.cameras) for due in frames] == [1, 1]


def test_topics_of_another_type_and_missing_ones_are_named(bag: Bag) -> None:
    bag.sweep(0.0)
    bag.image(0.0)
    compressed = CameraSettings("front", "/front/image_raw", "/front/camera_info", compressed=True)
    warnings: list[str] = []
    with bag.written() as reader:
        with pytest.raises(OfflineError, match=r"camera\.front\.image_topic.*set camera\.front\.compressed to false"):
            BagPlayback(reader, AssemblerSettings((compressed,), "/points"), print)
        with pytest.raises(OfflineError, match="needed one of /other; name the bag's topics"):
            BagPlayback(reader, AssemblerSettings((), "/other"), print)
        rear = CameraSettings("rear", "/rear/image_raw", "/rear/camera_info")
        BagPlayback(reader, AssemblerSettings((rear,), "/points"), warnings.append)
    assert len(warnings) == 2 and "camera.rear.image_topic is /rear/image_raw" in warnings[0]
