# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keyframe bags hold the usual topics and frames, and the geometry of the keyframe."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.keyframe_bag import write_keyframe_bag
from helpers.made_up_keyframe import (
    CAMERA_TO_EGO,
    EGO_AT_IMAGE,
    EGO_AT_SWEEP,
    IMAGE_NS,
    LIDAR_TO_CAMERA,
    LIDAR_TO_EGO,
    POINTS,
    SWEEP_NS,
    write_keyframe,
)
from helpers.nuscenes_keyframe import read_keyframe
from helpers.recorded_messages import read

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


def test_the_frame_of_a_keyframe_has_its_stamps_points_and_extrinsics(folder: Path) -> None:
    frame = read_keyframe(folder).frame()
    (view,) = frame.cameras
    assert (frame.stamp_ns, view.name) == (SWEEP_NS, "front")
    assert view.age == pytest.approx((SWEEP_NS - IMAGE_NS) / 1e9)
    np.testing.assert_allclose(view.extrinsics, LIDAR_TO_CAMERA, atol=1e-9)
    assert view.image.shape == (24, 40, 3)
    assert frame.points is not None
    np.testing.assert_array_equal(frame.points[:, :4], POINTS[:, :4])
    assert not frame.points[:, 4].any(), "the file's ring is no lag"


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


def test_repeated_sweeps_have_the_same_pose(folder: Path, tmp_path: Path) -> None:
    found = by_topic(write_keyframe_bag(folder, tmp_path / "bag.mcap", repeats=3))
    sweeps = [stamp_ns(cloud) for cloud in found["/LIDAR_TOP"]]
    assert sweeps == [SWEEP_NS, SWEEP_NS + 100_000_000, SWEEP_NS + 200_000_000]
    assert len(found["/CAM_FRONT/image_rect_compressed"]) == len(found["/CAM_FRONT/camera_info"]) == 3
    poses = {stamp_ns(entry): matrix(entry) for message in found["/tf"] for entry in message.transforms}
    for sweep in sweeps:
        np.testing.assert_allclose(poses[sweep], EGO_AT_SWEEP, atol=1e-9)
        np.testing.assert_allclose(poses[sweep - 40_000_000], EGO_AT_IMAGE, atol=1e-9)


def test_raw_pictures_are_decoded_jpegs(folder: Path, tmp_path: Path) -> None:
    found = by_topic(write_keyframe_bag(folder, tmp_path / "bag", raw=True))
    (image,) = found["/CAM_FRONT/image_rect_color"]
    decoded = cv2.imread(str(folder / "front.jpg"))
    np.testing.assert_array_equal(np.asarray(image.data).reshape(24, 40, 3), decoded)
