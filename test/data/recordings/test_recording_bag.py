# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recorded data becomes a bag whose sensors, motion and labels are those of the data."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from helpers.made_up_keyframe import (
    CAMERA_TO_EGO,
    EGO_AT_IMAGE,
    EGO_AT_SWEEP,
    IMAGE_NS,
    POINTS,
    SWEEP_NS,
    write_keyframe,
)
from helpers.quick_first import quick_first

from aqr_perception.bags.poses import matrix
from aqr_perception.bags.reader import BagReader
from aqr_perception.cli import main
from aqr_perception.data.recordings.bag_frames import bag_frames
from aqr_perception.data.recordings.keyframes import read_keyframes
from aqr_perception.data.recordings.recorded_data import Recording
from aqr_perception.data.recordings.recorded_frames import recorded_frames
from aqr_perception.data.rig_file import read_rig
from aqr_perception.data.sources.bags import BagDataset
from aqr_perception.geometry import box_corners, project, rigid_transform, transform_points

SETS = ("pandar64", "kitti_raw", "kitti_object", "ddad_scene_01", "ddad_scene_02")
OBJECT = {"class": "car", "box": [10.0, 1.0, 0.5, 4.0, 2.0, 1.5, 0.4], "velocity": [1.0, None], "lidar_points": 1}


def change(folder: Path, **entries: Any) -> None:
    path = folder / "keyframe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_keyframe(tmp_path / "keyframe")
    change(folder, objects=[OBJECT])
    return folder


def converted(source: Path, target: Path, *options: str) -> dict[str, list[Any]]:
    assert main(["convert", str(source), str(target), *options]) == 0
    found: dict[str, list[Any]] = defaultdict(list)
    with BagReader(target) as bag:
        for message in bag:
            found[message.topic].append(message.decode())
    return found


def test_a_converted_keyframe_has_its_pictures_points_poses_and_labels(folder: Path, tmp_path: Path) -> None:
    found = converted(folder, tmp_path / "bag.mcap")
    (image,), (info,) = found["/front/image_raw/compressed"], found["/front/camera_info"]
    assert bytes(image.data) == (folder / "front.jpg").read_bytes()
    assert (info.width, info.height, info.k[0]) == (40, 24, 30.0)
    (cloud,) = found["/lidar/points"]
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "intensity", "ring"]
    floats = np.frombuffer(cloud.data, np.uint8).reshape(2, cloud.point_step)[:, :16].copy().view("<f4")
    np.testing.assert_array_equal(floats, POINTS[:, :4])
    poses = {
        entry.header.stamp.sec * 10**9 + entry.header.stamp.nanosec: matrix(entry.transform)
        for message in found["/tf"]
        for entry in message.transforms
    }
    np.testing.assert_allclose(poses[SWEEP_NS], EGO_AT_SWEEP, atol=1e-9)
    np.testing.assert_allclose(poses[IMAGE_NS], EGO_AT_IMAGE, atol=1e-9)
    mounts = {entry.child_frame_id: matrix(entry.transform) for entry in found["/tf_static"][0].transforms}
    np.testing.assert_allclose(mounts["front"], CAMERA_TO_EGO, atol=1e-9)
    (truth,), (labels,) = found["/ground_truth/objects"], found["/ground_truth/detections"]
    assert (truth.detections[0].class_name, truth.detections[0].velocity.x) == ("car", 1.0)
    assert np.isnan(truth.detections[0].velocity.y), "an unknown velocity stays unknown"
    assert labels.detections[0].results[0].hypothesis.class_id == "car"
    assert labels.detections[0].bbox.size.x == 4.0


def test_the_parameter_file_names_the_bags_topics(folder: Path, tmp_path: Path) -> None:
    found = converted(folder, tmp_path / "bag.mcap")
    values = yaml.safe_load((tmp_path / "bag.yaml").read_text())["/**"]["ros__parameters"]
    camera = values["camera"]["front"]
    assert {camera["image_topic"], camera["info_topic"], values["lidar_topic"]} <= found.keys()
    assert (camera["compressed"], camera["rectified"], values["fixed_frame"]) == (True, True, "odom")
    assert values["model_frame"] == "", "two points show no ground: no frame of the model is guessed"


def test_the_parameter_file_reads_the_bag_with_its_labels(folder: Path, tmp_path: Path) -> None:
    converted(folder, tmp_path / "bag.mcap")
    rig = read_rig(tmp_path / "bag.yaml")
    assert rig.labels == "/ground_truth/objects"
    data = BagDataset(tmp_path / "bag.mcap", rig=rig)
    labelled = data[0]
    assert [labelled.truth.classes[label] for label in labelled.truth.labels] == ["car"]
    content = json.loads((folder / "keyframe.json").read_text())
    del content["objects"]
    (folder / "keyframe.json").write_text(json.dumps(content))
    converted(folder, tmp_path / "plain.mcap")
    assert "data" not in yaml.safe_load((tmp_path / "plain.yaml").read_text())


def test_unknown_motion_is_no_motion_of_zero(folder: Path, tmp_path: Path) -> None:
    change(folder, ego_motion="unknown")
    found = converted(folder, tmp_path / "bag.mcap")
    assert "/tf" not in found
    assert yaml.safe_load((tmp_path / "bag.yaml").read_text())["/**"]["ros__parameters"]["fixed_frame"] == ""


def test_distortion_goes_into_the_calibration_and_the_parameters(folder: Path, tmp_path: Path) -> None:
    cameras = json.loads((folder / "keyframe.json").read_text())["cameras"]
    cameras["CAM_FRONT"]["distortion"] = {"model": "plumb_bob", "coefficients": [-0.1, 0.02, 0.0, 0.0, 0.0]}
    change(folder, cameras=cameras)
    found = converted(folder, tmp_path / "bag.mcap")
    assert found["/front/camera_info"][0].d.tolist() == [-0.1, 0.02, 0.0, 0.0, 0.0]
    values = yaml.safe_load((tmp_path / "bag.yaml").read_text())["/**"]["ros__parameters"]
    assert values["camera"]["front"]["rectified"] is False


@pytest.mark.parametrize(
    ("entry", "value", "named"),
    [
        ("lidar", {"file": "lidar.bin", "stamp": 1.0}, "lidar_to_ego"),
        ("ego_to_global", [[1.0]], "ego_to_global"),
        ("cameras", {"CAM_FRONT": {"file": "front.jpg"}}, "keyframe.json"),
    ],
)
def test_a_broken_description_is_named_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: str, value: Any, named: str
) -> None:
    change(folder, **{entry: value})
    assert main(["convert", str(folder), str(tmp_path / "bag.mcap")]) == 1
    assert named in capsys.readouterr().err
    assert not (tmp_path / "bag.mcap").exists()


def test_a_picture_of_another_size_than_its_calibration_ends_the_conversion(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(folder / "front.jpg"), np.zeros((12, 20, 3), np.uint8))
    assert main(["convert", str(folder), str(tmp_path / "bag.mcap")]) == 1
    assert "20 x 12 pixels, needed 40 x 24" in capsys.readouterr().err
    assert list(tmp_path.glob("bag*")) == []


def test_a_folder_of_no_known_layout_names_the_layouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path), str(tmp_path / "bag.mcap")]) == 1
    text = capsys.readouterr().err
    assert all(name in text for name in ("nuScenes", "KITTI", "DGP", "keyframe.json"))


@pytest.mark.parametrize("name", quick_first(SETS, quick=2))
def test_a_bag_of_real_frames_gives_the_frames_of_the_data(shared_reference: Path, tmp_path: Path, name: str) -> None:
    source = shared_reference / "real" / name
    converted(source, tmp_path / "bag.mcap")
    recording = read_keyframes(source)
    expected = [recorded.frame() for recorded in recorded_frames(recording)]
    found = list(bag_frames(tmp_path / "bag.mcap", len(expected)))
    assert [frame.stamp_ns for frame in found] == [frame.stamp_ns for frame in expected]
    for frame, wanted in zip(found, expected, strict=True):
        assert frame.points is not None and wanted.points is not None
        np.testing.assert_allclose(frame.points[:, :4], wanted.points[:, :4], atol=1e-4)
        views = {view.name: view for view in frame.cameras}
        assert views.keys() == {view.name for view in wanted.cameras}
        for view in wanted.cameras:
            ahead = np.array([[0.0, 0, 20], [5, 2, 20]])
            at = transform_points(views[view.name].extrinsics, transform_points(np.linalg.inv(view.extrinsics), ahead))
            np.testing.assert_allclose(at, ahead, atol=0.05)  # DDAD's cameras have poses of their own at one stamp


@pytest.mark.parametrize("name", quick_first(["nuscenes_keyframe", *(f"real/{name}" for name in SETS[2:])], quick=2))
def test_the_points_of_a_labelled_object_are_inside_its_outline(shared_reference: Path, name: str) -> None:
    recording = read_keyframes(shared_reference / name)
    inside, all_points = outline_points(recording)
    assert all_points > 0
    assert inside >= 0.95 * all_points, f"{inside} of {all_points}"


def outline_points(recording: Recording) -> tuple[int, int]:
    """Return the points of all boxes that are in view, and those of them inside their box's projected outline."""
    inside = total = 0
    labels = {entry.stamp_ns: entry for entry in recording.labels}
    for recorded in recorded_frames(recording):
        frame = recorded.frame()
        assert frame.points is not None
        for entry in labels[frame.stamp_ns].objects:
            pose = rigid_transform(entry.box[:3], entry.quaternion())
            local = transform_points(np.linalg.inv(pose), frame.points)
            members = frame.points[(np.abs(local) <= entry.box[3:6] / 2).all(axis=1)]
            corners = transform_points(pose, box_corners(np.array([[0, 0, 0, *entry.box[3:6], 0.0]]))[0])
            for view in frame.cameras:
                pixels, depths = project(view.intrinsics, transform_points(view.extrinsics, corners))
                height, width = view.image.shape[:2]
                if not len(members) or (depths < 1).any() or (pixels < 0).any() or (pixels > (width, height)).any():
                    continue
                outline = cv2.convexHull(pixels.astype(np.float32))
                hits, _ = project(view.intrinsics, transform_points(view.extrinsics, members))
                inside += sum(cv2.pointPolygonTest(outline, (float(u), float(v)), True) > -1.0 for u, v in hits)
                total += len(hits)
    return inside, total
