"""A keyframe's folder becomes a bag with the usual topics and frames."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.made_up_keyframe import (
    CAMERA_TO_EGO,
    EGO_AT_IMAGE,
    EGO_AT_SWEEP,
    IMAGE_NS,
    LIDAR_TO_EGO,
    POINTS,
    SWEEP_NS,
    write_keyframe,
)

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.keyframe import write_keyframe_bag
from aqr_perception.bags.reader import read
from aqr_perception.geometry import rigid_transform


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_keyframe(tmp_path / "keyframe")


def by_topic(path: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for entry in read(path):
        found.setdefault(entry.topic, []).append(entry.decode())
    return found


def stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def matrix(stamped: Any) -> np.ndarray:
    move, turn = stamped.transform.translation, stamped.transform.rotation
    return rigid_transform([move.x, move.y, move.z], [turn.x, turn.y, turn.z, turn.w])


def test_pictures_points_and_calibration_are_the_keyframes(folder: Path, tmp_path: Path) -> None:
    found = by_topic(write_keyframe_bag(folder, tmp_path / "bag.mcap"))
    (image,) = found["/CAM_FRONT/image_rect_compressed"]
    assert bytes(image.data) == (folder / "front.jpg").read_bytes()
    assert (stamp_ns(image), image.header.frame_id) == (IMAGE_NS, "CAM_FRONT")
    (info,) = found["/CAM_FRONT/camera_info"]
    assert (info.width, info.height, info.k[0], info.p[2]) == (40, 24, 30.0, 20.0)
    (cloud,) = found["/LIDAR_TOP"]
    assert (stamp_ns(cloud), cloud.header.frame_id, cloud.width) == (SWEEP_NS, "LIDAR_TOP", 2)
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "intensity", "ring"]
    floats = np.frombuffer(cloud.data, np.uint8).reshape(2, cloud.point_step)[:, :16].copy().view("<f4")
    np.testing.assert_array_equal(floats, POINTS[:, :4])


def test_the_ego_pose_at_the_images_stamp_follows_from_lidar_to_camera(folder: Path, tmp_path: Path) -> None:
    found = by_topic(write_keyframe_bag(folder, tmp_path / "bag.mcap"))
    poses = {stamp_ns(entry): matrix(entry) for message in found["/tf"] for entry in message.transforms}
    np.testing.assert_allclose(poses[SWEEP_NS], EGO_AT_SWEEP, atol=1e-9)
    np.testing.assert_allclose(poses[IMAGE_NS], EGO_AT_IMAGE, atol=1e-9)
    assert min(poses) < IMAGE_NS < SWEEP_NS < max(poses), "look-ups between the stamps never need extrapolation"
    mounts = {entry.child_frame_id: matrix(entry) for entry in found["/tf_static"][0].transforms}
    np.testing.assert_allclose(mounts["LIDAR_TOP"], LIDAR_TO_EGO, atol=1e-9)
    np.testing.assert_allclose(mounts["CAM_FRONT"], CAMERA_TO_EGO, atol=1e-9)


def test_repeated_sweeps_see_the_same_world(folder: Path, tmp_path: Path) -> None:
    found = by_topic(write_keyframe_bag(folder, tmp_path / "bag.mcap", repeats=3, period=0.1))
    sweeps = [stamp_ns(cloud) for cloud in found["/LIDAR_TOP"]]
    assert sweeps == [SWEEP_NS, SWEEP_NS + 100_000_000, SWEEP_NS + 200_000_000]
    assert len(found["/CAM_FRONT/image_rect_compressed"]) == len(found["/CAM_FRONT/camera_info"]) == 3
    poses = {stamp_ns(entry): matrix(entry) for message in found["/tf"] for entry in message.transforms}
    for sweep in sweeps:
        np.testing.assert_allclose(poses[sweep], EGO_AT_SWEEP, atol=1e-9)
        np.testing.assert_allclose(poses[sweep - 40_000_000], EGO_AT_IMAGE, atol=1e-9)


def test_raw_pictures_are_the_decoded_ones(folder: Path, tmp_path: Path) -> None:
    found = by_topic(write_keyframe_bag(folder, tmp_path / "bag", raw=True))
    (image,) = found["/CAM_FRONT/image_rect_color"]
    decoded = cv2.imread(str(folder / "front.jpg"))
    np.testing.assert_array_equal(np.asarray(image.data).reshape(24, 40, 3), decoded)


def test_repeats_that_overlap_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"2 repeats 0\.04 s apart"):
        write_keyframe_bag(folder, tmp_path / "bag", repeats=2, period=0.04)
    assert not (tmp_path / "bag").exists()


def test_the_command_line_writes_the_bag(folder: Path, tmp_path: Path) -> None:
    from aqr_perception.cli import main

    assert main(["convert", "keyframe", str(folder), str(tmp_path / "bag.mcap"), "--repeats", "2"]) == 0
    assert len(by_topic(tmp_path / "bag.mcap")["/LIDAR_TOP"]) == 2
