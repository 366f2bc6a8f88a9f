# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensors fail on schedule, and only then."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.bags import messages
from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import stamp_to_ns
from aqr_perception.bags.reader import BagReader
from aqr_perception.bags.writer import BagWriter
from aqr_perception.demo.failing_pictures import dirty_picture, turned_picture
from aqr_perception.demo.failures import FAILURES, FailingBag, Failure

START = 1_700_000_000_000_000_000
STEP = 100_000_000
COUNT = 20
IMAGE, CLOUD, OTHER = "/front/image_raw/compressed", "/lidar/points", "/back/image_raw/compressed"


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("failures") / "drive.mcap"
    rng = np.random.default_rng(0)
    records = np.zeros(3, np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")]))
    with BagWriter(path) as writer:
        for index in range(COUNT):
            stamp_ns = START + index * STEP
            for topic in (IMAGE, OTHER):
                picture = rng.integers(0, 255, (24, 40, 3), dtype=np.uint8)
                jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
                writer.write(topic, messages.compressed_image(stamp_ns, topic, jpeg), stamp_ns)
            writer.write(CLOUD, messages.cloud(stamp_ns, "lidar", records), stamp_ns)
    return path


def test_the_demo_has_the_documented_failures() -> None:
    assert [(str(failure), failure.begin, failure.end) for failure in FAILURES] == [
        ("camera front black", 3.0, 6.0),
        ("LiDAR gone", 7.0, 10.0),
        ("camera front_left dirty", 11.0, 14.0),
        ("camera back misaligned by 4°", 15.0, 18.0),
    ]


@given(st.integers(0, COUNT), st.integers(0, COUNT), st.integers(0, COUNT), st.integers(0, COUNT))
@settings(max_examples=12, deadline=None)
def test_messages_change_only_during_failures(bag: Path, black: int, bright: int, gone: int, back: int) -> None:
    schedule = (
        Failure("front", IMAGE, "black", black / 10, bright / 10),
        Failure("lidar", CLOUD, "gone", gone / 10, back / 10),
    )
    with BagReader(bag) as intact, FailingBag(bag, schedule) as failing:
        recorded, played = list(intact), list(failing)
    kept = [message for message in recorded if message.topic != CLOUD or not gone <= _index(message.stamp_ns) < back]
    assert [(message.topic, message.stamp_ns) for message in played] == [(m.topic, m.stamp_ns) for m in kept]
    for before, after in zip(kept, played, strict=True):
        if before.topic == IMAGE and black <= _index(before.stamp_ns) < bright:
            content, original = after.decode(), before.decode()
            assert content.header.frame_id == original.header.frame_id and content.format == original.format
            assert stamp_to_ns(content.header.stamp) == stamp_to_ns(original.header.stamp)
            picture = cv2.imdecode(content.data, cv2.IMREAD_COLOR)
            assert picture is not None and picture.shape == (24, 40, 3) and not picture.any()
        else:
            assert after.data == before.data


def _index(stamp_ns: int) -> int:
    return (stamp_ns - START) // STEP


def test_without_failures_a_part_of_the_bag_is_unchanged(bag: Path) -> None:
    with BagReader(bag) as intact, FailingBag(bag, ()) as failing:
        part = ((CLOUD,), START + 3 * STEP, START + 9 * STEP)
        assert [m.data for m in failing.messages(*part)] == [m.data for m in intact.messages(*part)]


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure("front", CLOUD, "black", 0, 1), "found sensor_msgs/msg/PointCloud2, needed .*CompressedImage"),
        (Failure("lidar", "/nowhere", "gone", 0, 1), "/nowhere: found no such topic"),
        (Failure("front", CLOUD, "dirty", 0, 1), "found sensor_msgs/msg/PointCloud2, needed .*CompressedImage"),
        (Failure("front", IMAGE, "misaligned", 0, 1), "found no /front/camera_info, needed the intrinsics"),
    ],
)
def test_impossible_failures_are_refused_and_named(bag: Path, failure: Failure, error: str) -> None:
    with pytest.raises(BagError, match=error):
        FailingBag(bag, (failure,))


def scene() -> np.ndarray:
    picture = np.full((96, 264, 3), 110, np.uint8)
    picture[40:50, 128:137] = 255
    return picture


def test_a_dirty_lens_keeps_its_mud_and_hides_less_than_all() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(90, 200, (96, 264, 3), dtype=np.uint8) for _ in range(2))
    muddy = [dirty_picture(picture).astype(int) for picture in (first, second)]
    hidden = [(picture.max(-1) < 80) for picture in muddy]
    assert (hidden[0] == hidden[1]).mean() > 0.97 and 0.15 < hidden[0].mean() < 0.7
    free = ~hidden[0]
    assert abs(muddy[0] - first)[free].mean() > 5, "what the mud leaves is blurred"
    np.testing.assert_array_equal(muddy[0], dirty_picture(first))


def test_a_turned_camera_shows_what_is_ahead_at_the_angles_pixels() -> None:
    intrinsics = np.array([[200.0, 0, 132], [0, 200, 45], [0, 0, 1]])
    for degrees in (4.0, -4.0):
        bright = np.argwhere(turned_picture(scene(), intrinsics, degrees)[..., 0] > 200)
        moved = 132 - 200 * np.tan(np.radians(degrees))
        assert abs(bright[:, 1].mean() - moved) < 1.0 and abs(bright[:, 0].mean() - 44.5) < 1.0
    np.testing.assert_array_equal(turned_picture(scene(), intrinsics, 0.0), scene())


def test_a_misaligned_cameras_pictures_are_turned_by_its_own_intrinsics(tmp_path: Path) -> None:
    intrinsics = np.array([[200.0, 0, 132], [0, 200, 45], [0, 0, 1]])
    with BagWriter(tmp_path / "drive.mcap") as writer:
        info = messages.camera_info(START, "front", (264, 96), intrinsics)
        writer.write("/front/camera_info", info, START)
        png = cv2.imencode(".png", scene())[1].tobytes()
        writer.write(IMAGE, messages.compressed_image(START, "front", png, "png"), START + STEP)
    with FailingBag(tmp_path / "drive.mcap", [Failure("front", IMAGE, "misaligned", 0.0, 1.0)]) as failing:
        (played,) = failing.messages([IMAGE])
    seen = cv2.imdecode(played.decode().data, cv2.IMREAD_COLOR).astype(int)
    assert abs(seen - turned_picture(scene(), intrinsics).astype(int)).mean() < 3
