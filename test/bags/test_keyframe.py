"""A keyframe's folder becomes a bag with the usual topics and frames."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.keyframe import read_keyframe, write_keyframe_bag
from aqr_perception.bags.reader import read
from aqr_perception.geometry import invert, rigid_transform

SWEEP_NS = 1_500_000_000_500_000_000
IMAGE_NS = SWEEP_NS - 40_000_000
LIDAR_TO_EGO = rigid_transform([1.0, 0.0, 1.8], [0.0, 0.0, -0.7, 0.7])
CAMERA_TO_EGO = rigid_transform([1.7, 0.0, 1.5], [-0.5, 0.5, -0.5, 0.5])
EGO_AT_SWEEP = rigid_transform([400.0, 1200.0, 0.0], [0.0, 0.0, 0.3, 0.9])
EGO_AT_IMAGE = EGO_AT_SWEEP @ rigid_transform([-0.4, 0.01, 0.0], [0.0, 0.0, 0.001, 1.0])
LIDAR_TO_CAMERA = invert(CAMERA_TO_EGO) @ invert(EGO_AT_IMAGE) @ EGO_AT_SWEEP @ LIDAR_TO_EGO
POINTS = np.array([[10, 1, 0.5, 200, 3], [-4, 20, -1, 17, 31]], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "keyframe"
    folder.mkdir()
    POINTS.tofile(folder / "lidar.bin")
    cv2.imwrite(str(folder / "front.jpg"), np.full((24, 40, 3), 90, np.uint8))
    description = {
        "stamp": SWEEP_NS / 1e9,
        "ego_to_global": EGO_AT_SWEEP.tolist(),
        "lidar": {"file": "lidar.bin", "stamp": SWEEP_NS / 1e9, "lidar_to_ego": LIDAR_TO_EGO.tolist()},
        "cameras": {
            "CAM_FRONT": {
                "file": "front.jpg",
                "width": 40,
                "height": 24,
                "stamp": IMAGE_NS / 1e9,
                "intrinsics": [[30.0, 0.0, 20.0], [0.0, 30.0, 12.0], [0.0, 0.0, 1.0]],
                "camera_to_ego": CAMERA_TO_EGO.tolist(),
                "lidar_to_camera": LIDAR_TO_CAMERA.tolist(),
            }
        },
    }
    (folder / "keyframe.json").write_text(json.dumps(description))
    return folder


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


def test_a_folder_that_is_no_keyframe_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"none: found no readable .*keyframe\.json"):
        read_keyframe(tmp_path / "none")
    (folder / "front.jpg").unlink()
    with pytest.raises(BagError, match=r"front\.jpg"):
        read_keyframe(folder)
    (folder / "keyframe.json").write_text("{}")
    with pytest.raises(BagError, match=r"KeyError: 'lidar'"):
        read_keyframe(folder)


def test_the_command_line_writes_the_bag(folder: Path, tmp_path: Path) -> None:
    from aqr_perception.cli import main

    assert main(["convert", "keyframe", str(folder), str(tmp_path / "bag.mcap"), "--repeats", "2"]) == 0
    assert len(by_topic(tmp_path / "bag.mcap")["/LIDAR_TOP"]) == 2
