# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recordings in other layouts as labelled frames: KITTI's object benchmark and DDAD's scenes, made up."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from aqr_perception.data.recordings.kitti_object import read_kitti_object
from aqr_perception.data.recordings.recorded_data import RecordingError
from aqr_perception.data.rig_file import Rig, RigCamera
from aqr_perception.data.sources.bad_frames import GoodFrames, readable
from aqr_perception.data.sources.catalogue import open_data
from aqr_perception.data.sources.recorded import RecordingDataset, find_recordings
from aqr_perception.geometry import box_corners, project, quaternion_xyzw, rigid_transform, transform_points
from aqr_perception.models.config.presets import load_preset

# KITTI's axes: camera x right, y down, z forward; LiDAR x forward, y left, z up.
TO_CAMERA = np.array([[0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, -0.3]])
P2 = np.array([[60.0, 0, 40, 6.0], [0, 60, 24, 0], [0, 0, 1, 0]])
CAR = "Car 0.00 0 0.0 30 10 50 30 1.5 1.8 4.0 {x} 1.0 {z} {turn}"


def row(numbers: np.ndarray) -> str:
    return " ".join(f"{number:.6f}" for number in numbers.ravel())


def write_frame(root: Path, number: str, labels: str, points: np.ndarray | None = None) -> None:
    part = root / "training"
    for name in ("velodyne", "image_2", "calib", "label_2"):
        (part / name).mkdir(parents=True, exist_ok=True)
    inside = np.array([[10.3, 0.0, -0.5, 0.5], [10.5, 0.2, -0.4, 1.0], [30, 5, 1, 0.1]])
    (inside if points is None else points).astype("<f4").tofile(part / "velodyne" / f"{number}.bin")
    cv2.imwrite(str(part / "image_2" / f"{number}.png"), np.full((48, 80, 3), 90, np.uint8))
    calibration = f"P0: {row(P2)}\nP2: {row(P2)}\nR0_rect: {row(np.eye(3))}\nTr_velo_to_cam: {row(TO_CAMERA)}\n"
    (part / "calib" / f"{number}.txt").write_text(calibration)
    (part / "label_2" / f"{number}.txt").write_text(labels)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    dont_care = "DontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10"
    write_frame(tmp_path, "000000", CAR.format(x=0.1, z=10, turn=-1.57079633) + "\n" + dont_care + "\n")
    write_frame(tmp_path, "000001", CAR.format(x=2, z=12, turn=0).replace("Car", "Tram") + "\n")
    return tmp_path


def dataset(root: Path, rig: Rig | None = None, skip_bad: bool = False) -> RecordingDataset:
    return RecordingDataset(root, find_recordings(root, "train", rig), rig=rig, skip_bad=skip_bad)


def test_a_label_is_a_box_in_the_lidars_frame(root: Path) -> None:
    labelled = dataset(root)[0]
    (box,) = labelled.truth.boxes
    np.testing.assert_allclose(box[:7], [10.3, 0.0, -0.45, 4.0, 1.8, 1.5, 0.0], atol=1e-4)
    assert np.isnan(box[7:]).all() and labelled.truth.lidar_points.tolist() == [2]
    assert labelled.frame.points is not None
    np.testing.assert_allclose(labelled.frame.points[:, 3], [127.5, 255, 25.5])
    (view,) = labelled.frame.cameras
    corners = box_corners(labelled.truth.boxes)[0]
    pixels, depths = project(view.intrinsics, transform_points(view.extrinsics, corners))
    rectified = np.c_[corners, np.ones(8)] @ TO_CAMERA.T
    expected = np.c_[rectified, np.ones(8)] @ P2.T
    np.testing.assert_allclose(pixels, expected[:, :2] / expected[:, 2:], atol=1e-3)
    assert (depths > 0).all()


@pytest.mark.parametrize(("turn", "yaw"), [(0.0, -np.pi / 2), (-np.pi / 2, 0.0), (np.pi / 2, np.pi), (0.4, -1.9708)])
def test_the_rotation_about_the_cameras_axis_is_a_yaw(tmp_path: Path, turn: float, yaw: float) -> None:
    write_frame(tmp_path, "000000", CAR.format(x=0, z=10, turn=turn))
    (labels,) = read_kitti_object(tmp_path, "000000").labels
    assert np.cos(labels.objects[0].box[6] - yaw) == pytest.approx(1.0, abs=1e-6)


def test_a_rig_file_gives_names_and_classes(root: Path) -> None:
    rig = Rig((RigCamera("front", channel="image_2"),), classes={"Tram": "bus"}, source="rig.yaml")
    frame = dataset(root, rig)[1]
    assert frame.frame.cameras[0].name == "front"
    assert [frame.truth.classes[label] for label in frame.truth.labels] == ["bus"]
    with pytest.raises(RecordingError, match=r"rig\.yaml: cameras: rear: .*out of image_2"):
        dataset(root, replace(rig, cameras=(RigCamera("rear", channel="image_7"),)))


def test_the_split_files_of_kitti_are_obeyed(root: Path) -> None:
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "train.txt").write_text("000000\n")
    assert len(dataset(root)) == 1
    (root / "ImageSets" / "train.txt").write_text("000000\n000009\n")
    with pytest.raises(RecordingError, match=r"train\.txt: found frames without a sweep, 000009"):
        dataset(root)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("label_2/000001.txt", b"Car 0 0\n", r"label_2/000001\.txt:1: found 'Car 0 0', needed KITTI's 15 fields"),
        ("label_2/000001.txt", CAR.format(x=1, z=2, turn="nan").encode(), r"000001\.txt:1: .*finite"),
        (
            "label_2/000001.txt",
            CAR.format(x=1, z=2, turn=0).replace("1.8", "0").encode(),
            r"\(Car\): found the box size",
        ),
        ("calib/000001.txt", b"P2: 1 2 3\n", r"calib/000001\.txt: P2: found 3 numbers, needed 12"),
        ("image_2/000001.png", b"no picture", r"image_2/000001\.png: found no readable image"),
    ],
)
def test_a_broken_file_is_named_or_left_out(root: Path, file: str, content: bytes, said: str) -> None:
    (root / "training" / file).write_bytes(content)
    with pytest.raises(RecordingError, match=said):
        dataset(root)
    data = dataset(root, skip_bad=True)
    assert len(data) == 1 and data.left_out == 1


def test_a_picture_of_another_size_than_its_calibration_is_refused(root: Path) -> None:
    cv2.imwrite(str(root / "training/image_2/000000.png"), np.zeros((24, 40, 3), np.uint8))
    with pytest.raises(RecordingError, match=r"000000\.png: found 40 x 24 pixels with the principal point \(40, 24\)"):
        dataset(root)


def test_bad_sweeps_are_found_at_access_and_skipped_on_request(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "training/velodyne/000001.bin").write_bytes(bytes(17))
    data = dataset(root)
    with pytest.raises(RecordingError, match=r"000001\.bin: found no readable sweep \(17 bytes"):
        data[1]
    assert readable(data) == [0]
    good = GoodFrames(data)
    assert good[1].frame.stamp_ns == data[0].frame.stamp_ns and "left out, 1 so far" in caplog.text
    preset = load_preset("aqr_tiny")
    frames = open_data("recordings", "val", preset, root, skip_bad=True).frames
    assert len(frames) == 1 and frames[0].frame.stamp_ns == data[0].frame.stamp_ns


def pose(matrix: np.ndarray) -> dict[str, dict[str, float]]:
    x, y, z, w = quaternion_xyzw(matrix).tolist()
    place = dict(zip("xyz", matrix[:3, 3].tolist(), strict=True))
    return {"rotation": {"qx": x, "qy": y, "qz": z, "qw": w}, "translation": place}


def write_scene(folder: Path, sides: tuple[float, float, float] = (1.8, 4.0, 1.5)) -> Path:
    """Write a scene in DGP's layout: two samples, a LiDAR and one camera on a vehicle that drives 1 m between them."""
    for name in ("calibration", "ontology", "point_cloud", "rgb", "bounding_box_3d"):
        (folder / name).mkdir(parents=True)
    camera = rigid_transform([1.0, 0.0, 1.5], [-0.5, 0.5, -0.5, 0.5])
    lens = {"fx": 60.0, "fy": 60.0, "cx": 40.0, "cy": 24.0, "skew": 0.0}
    calibration = {
        "names": ["LIDAR", "CAMERA_01"],
        "extrinsics": [pose(np.eye(4)), pose(camera)],
        "intrinsics": [lens] * 2,
    }
    (folder / "calibration" / "c.json").write_text(json.dumps(calibration))
    items = [{"id": 0, "name": "Car"}, {"id": 1, "name": "Wheeled Slow"}]
    (folder / "ontology" / "o.json").write_text(json.dumps({"items": items}))
    cv2.imwrite(str(folder / "rgb" / "front.jpg"), np.full((48, 80, 3), 90, np.uint8))
    samples, data = [], []
    for number in range(2):
        vehicle = rigid_transform([float(number), 0, 0], [0, 0, 0, 1])
        stamp = f"2019-05-03T21:39:53.{number}00000Z"
        points = np.array([[10.0 - number, 0, 0, 0.5], [20, 3, 0, 1.0]], np.float32)
        np.savez(folder / "point_cloud" / f"{number}.npz", data=points)
        width, length, height = sides
        boxes = [
            {"class_id": kind, "instance_id": kind,
             "box": {"pose": pose(rigid_transform([10.0 - number, y, 0], [0, 0, 0, 1])), "width": width,
                     "length": length, "height": height}}
            for kind, y in ((0, 0.0), (1, 4.0))
        ]  # fmt: skip
        (folder / "bounding_box_3d" / f"{number}.json").write_text(json.dumps({"annotations": boxes}))
        cloud = {"filename": f"point_cloud/{number}.npz", "point_format": ["X", "Y", "Z", "INTENSITY"],
                 "annotations": {"1": f"bounding_box_3d/{number}.json"}, "pose": pose(vehicle)}  # fmt: skip
        image = {
            "filename": "rgb/front.jpg",
            "width": 80,
            "height": 48,
            "annotations": {},
            "pose": pose(vehicle @ camera),
        }
        for name, datum in (("LIDAR", {"point_cloud": cloud}), ("CAMERA_01", {"image": image})):
            data.append({"key": f"{name}{number}", "id": {"name": name, "timestamp": stamp}, "datum": datum})
        samples.append({"calibration_key": "c", "datum_keys": [f"LIDAR{number}", f"CAMERA_01{number}"]})
    scene = {"samples": samples, "data": data, "ontologies": {"1": "o"}}
    (folder / "scene_0.json").write_text(json.dumps(scene))
    return folder


def test_scenes_in_the_layout_of_ddad_are_labelled_frames(tmp_path: Path) -> None:
    write_scene(tmp_path / "000000")
    rig = Rig((RigCamera("front", channel="CAMERA_01"),), classes={"Wheeled Slow": "bicycle"})
    data = dataset(tmp_path, rig)
    frame = RecordingDataset(tmp_path, find_recordings(tmp_path, "val", rig), sweeps=2, rig=rig)[1]
    assert len(data) == 2 and [view.name for view in frame.frame.cameras] == ["front"]
    assert [frame.truth.classes[label] for label in frame.truth.labels] == ["car", "bicycle"]
    np.testing.assert_allclose(frame.truth.boxes[0, :7], [9, 0, 0, 4.0, 1.8, 1.5, 0], atol=1e-6)
    assert frame.truth.lidar_points.tolist() == [1, 0]
    points = frame.frame.points
    assert points is not None and len(points) == 4
    np.testing.assert_allclose(points[2], [9, 0, 0, 127.5, 0.1], atol=1e-5)  # the past sweep, 1 m of motion later


@pytest.mark.parametrize(("mapped", "names"), [("truck", ["truck", "bicycle"]), ("", ["bicycle"])])
def test_the_rig_files_mapping_goes_before_that_of_the_layout(tmp_path: Path, mapped: str, names: list[str]) -> None:
    write_scene(tmp_path / "000000")
    rig = Rig((RigCamera("front", channel="CAMERA_01"),), classes={"Car": mapped, "Wheeled Slow": "bicycle"})
    data = dataset(tmp_path, rig)
    truth = data[0].truth
    assert [truth.classes[label] for label in truth.labels] == names
    assert data.label_sets()[0] == set(truth.labels.tolist())


def test_an_empty_box_of_a_scene_is_named(tmp_path: Path) -> None:
    write_scene(tmp_path / "000000", (1.8, 0.0, 1.5))
    with pytest.raises(RecordingError, match=r"000000 at 1556919593000000000 ns: object 0 \(car\): found the box size"):
        dataset(tmp_path)


def test_the_real_frames_of_kitti_project_onto_their_objects(shared_reference: Path) -> None:
    """The benchmark's folder layout, with the numbers of a real frame, gives the reference's boxes."""
    folder = shared_reference / "real" / "kitti_object"
    if not folder.is_dir():
        pytest.skip("needs the real frames")
    data = open_data("recordings", "val", load_preset("aqr_tiny"), folder).frames
    assert len(data) == 3
    for index in range(3):
        labelled = data[index]
        assert (labelled.truth.lidar_points > 0).all() and len(labelled.frame.cameras) == 1
