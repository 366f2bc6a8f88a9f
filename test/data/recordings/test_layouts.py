# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""KITTI raw drives, DGP scenes and nuScenes scenes read as recordings."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import nuscenes_tables

from aqr_perception.data.recordings.recognition import open_recording
from aqr_perception.data.recordings.recorded_data import RecordingError
from aqr_perception.geometry import invert, quaternion_xyzw, rigid_transform, transform_points

POINTS = np.array([[10, 1, -1, 0.5], [20, -3, 0, 1.0]], np.float32)
VELO_TO_CAM = np.array([[0.0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, -0.3], [0, 0, 0, 1]])


def kitti_drive(folder: Path) -> Path:
    drive = folder / "2011_09_26_drive_0001_sync"
    for sensor in ("velodyne_points", "image_02", "oxts"):
        (drive / sensor / "data").mkdir(parents=True)
        times = "".join(f"2011-09-26 13:02:2{index}.500000123\n" for index in (5, 6))
        (drive / sensor / "timestamps.txt").write_text(times)
    for index in range(2):
        POINTS.tofile(drive / f"velodyne_points/data/000000000{index}.bin")
        cv2.imwrite(str(drive / f"image_02/data/000000000{index}.png"), np.zeros((24, 40, 3), np.uint8))
        latitude = 49.0 + index * 1e-4
        (drive / f"oxts/data/000000000{index}.txt").write_text(f"{latitude} 8.4 110.0 0.0 0.0 {np.pi / 2} 0 0 0\n")
    rotation, place = VELO_TO_CAM[:3, :3].reshape(-1), VELO_TO_CAM[:3, 3]
    numbers = " ".join(map(str, rotation))
    (folder / "calib_velo_to_cam.txt").write_text(f"calib_time: x\nR: {numbers}\nT: {' '.join(map(str, place))}\n")
    (folder / "calib_imu_to_velo.txt").write_text("R: 1 0 0 0 1 0 0 0 1\nT: 0 0 0\n")
    (folder / "calib_cam_to_cam.txt").write_text(
        "R_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: 30 0 20 3.0 0 30 12 0 0 0 1 0\n"
    )
    return drive


def test_a_kitti_drive_has_stamps_intensities_projection_and_motion(tmp_path: Path) -> None:
    recording = open_recording(kitti_drive(tmp_path))
    assert [sweep.stamp_ns % 10**9 for sweep in recording.sweeps] == [500_000_123] * 2
    points = recording.sweeps[0].read()
    np.testing.assert_allclose(points[:, 3], [127.5, 255.0])
    assert (points[:, 4] == -1).all()
    image = recording.images[0]
    projection = np.c_[image.intrinsics, np.zeros(3)] @ invert(image.camera_to_vehicle)
    expected = np.array([[30.0, 0, 20, 3], [0, 30, 12, 0], [0, 0, 1, 0]]) @ VELO_TO_CAM
    np.testing.assert_allclose(projection, expected, atol=1e-9)
    first, second = (recording.poses[sweep.stamp_ns] for sweep in recording.sweeps)
    moved = (invert(first) @ second)[:3, 3]
    assert moved[0] == pytest.approx(np.radians(1e-4) * 6378137.0, rel=1e-3), "north is ahead at a yaw of 90 degrees"
    assert abs(moved[1]) < 1e-3


def test_a_kitti_drive_without_calibration_names_the_file(tmp_path: Path) -> None:
    drive = kitti_drive(tmp_path)
    (tmp_path / "calib_velo_to_cam.txt").unlink()
    with pytest.raises(RecordingError, match=r"calib_velo_to_cam\.txt"):
        open_recording(drive)


def test_times_that_fit_no_file_are_refused(tmp_path: Path) -> None:
    drive = kitti_drive(tmp_path)
    (drive / "velodyne_points" / "timestamps.txt").write_text("2011-09-26 13:02:25.5\n")
    with pytest.raises(RecordingError, match="1 times, needed 2"):
        open_recording(drive)


CAMERA = rigid_transform([1.5, 0.2, 1.3], [-0.5, 0.5, -0.5, 0.5])
VEHICLE = rigid_transform([100.0, 50.0, 3.0], [0.0, 0.0, 0.6, 0.8])


def dgp_pose(matrix: np.ndarray) -> dict:
    x, y, z, w = quaternion_xyzw(matrix).tolist()
    place = dict(zip("xyz", matrix[:3, 3].tolist(), strict=True))
    return {"translation": place, "rotation": {"qx": x, "qy": y, "qz": z, "qw": w}}


def dgp_scene(folder: Path) -> Path:
    for name in ("calibration", "ontology", "boxes", "rgb"):
        (folder / name).mkdir(parents=True)
    np.savez(folder / "cloud.npz", data=POINTS)
    cv2.imwrite(str(folder / "rgb" / "a.jpg"), np.zeros((24, 40, 3), np.uint8))
    lens = {"fx": 30.0, "fy": 31.0, "cx": 20.0, "cy": 12.0, "skew": 0.0}
    sensors = {
        "names": ["LIDAR", "CAMERA_01"],
        "extrinsics": [dgp_pose(np.eye(4)), dgp_pose(CAMERA)],
        "intrinsics": [dict.fromkeys(lens, 0.0), lens],
    }
    (folder / "calibration" / "key.json").write_text(json.dumps(sensors))
    (folder / "ontology" / "names.json").write_text(json.dumps({"items": [{"id": 2, "name": "Car"}]}))
    box = {"pose": dgp_pose(rigid_transform([10, 1, -1], [0, 0, 0, 1])), "length": 4.0, "width": 2.0, "height": 1.5}
    annotation = {"class_id": 2, "instance_id": 7, "num_points": 99, "box": box}
    (folder / "boxes" / "a.json").write_text(json.dumps({"annotations": [annotation]}))
    cloud = {
        "filename": "cloud.npz",
        "point_format": ["X", "Y", "Z", "INTENSITY"],
        "annotations": {"1": "boxes/a.json"},
    }
    image = {"filename": "rgb/a.jpg", "width": 40, "height": 24, "annotations": {}, "pose": dgp_pose(VEHICLE @ CAMERA)}
    stamp = "2019-05-03T21:39:53.820375Z"
    scene = {
        "data": [
            {
                "key": "a",
                "id": {"name": "LIDAR", "timestamp": stamp},
                "datum": {"point_cloud": cloud | {"pose": dgp_pose(VEHICLE)}},
            },
            {"key": "b", "id": {"name": "CAMERA_01", "timestamp": stamp}, "datum": {"image": image}},
        ],
        "samples": [{"calibration_key": "key", "datum_keys": ["a", "b"]}],
        "ontologies": {"1": "names"},
    }
    (folder / "scene_0.json").write_text(json.dumps(scene))
    return folder


def test_a_dgp_scene_has_poses_of_the_vehicle_boxes_and_recounted_points(tmp_path: Path) -> None:
    recording = open_recording(dgp_scene(tmp_path / "scene"))
    (sweep,), (image,), (labels,) = recording.sweeps, recording.images, recording.labels
    assert sweep.stamp_ns == 1556919593_820375000
    np.testing.assert_allclose(sweep.read()[:, 3], [127.5, 255.0])
    np.testing.assert_allclose(recording.poses[sweep.stamp_ns], VEHICLE, atol=1e-9)
    assert (image.camera, image.intrinsics[1, 1]) == ("camera_01", 31.0)
    (entry,) = labels.objects
    assert (entry.class_name, entry.track, entry.lidar_points) == ("car", 7, 1)
    assert recording.notes == ()


def test_tenfold_times_of_dgp_scenes_are_divided_with_a_note(tmp_path: Path) -> None:
    folder = dgp_scene(tmp_path / "scene")
    path = folder / "scene_0.json"
    path.write_text(path.read_text().replace("2019-05-03T21:39:53.820375Z", "2464-11-12T01:04:10.027900Z"))
    recording = open_recording(folder)
    assert recording.sweeps[0].stamp_ns == 1561645825_002790000
    assert any("divided by ten" in note for note in recording.notes)


def test_a_nuscenes_scene_has_all_sweeps_images_and_the_keyframes_objects(tmp_path: Path) -> None:
    pytest.importorskip("nuscenes")
    nuscenes_tables.write_drive(tmp_path)
    recording = open_recording(tmp_path, nuscenes_tables.SCENE)
    assert len(recording.sweeps) == 3 * nuscenes_tables.SWEEPS
    assert len(recording.labels) == 3
    assert set(recording.cameras) == {"front", "back"}
    to_world = recording.poses[recording.sweeps[0].stamp_ns] @ recording.sweeps[0].lidar_to_vehicle
    landmarks = transform_points(to_world, recording.sweeps[0].read()[:-1])
    np.testing.assert_allclose(landmarks, nuscenes_tables.LANDMARKS, atol=1e-3)
    with pytest.raises(RecordingError, match=r"scene-0103.*--scene"):
        open_recording(tmp_path, "scene-9999")
