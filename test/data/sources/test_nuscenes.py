# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""nuScenes tables as labelled frames, on a synthetic drive."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.nuscenes_tables import (
    CAMERA_DELAY_US,
    CAMERA_TO_EGO,
    INTRINSICS,
    LANDMARKS,
    OBJECTS,
    ON_THE_ROOF,
    PEDESTRIAN_VELOCITY,
    SAMPLE_US,
    SPLIT,
    START_US,
    SWEEPS,
    VERSION,
    ego_pose,
    write_drive,
)
from numpy.typing import NDArray
from nuscenes.nuscenes import NuScenes

from aqr_perception.data.rig_file import Rig, RigCamera
from aqr_perception.data.sources.nuscenes import NuScenesDataset
from aqr_perception.data.sources.nuscenes_tables import NuScenesError, class_of_category
from aqr_perception.frame import CLASSES, LabelledFrame
from aqr_perception.geometry import box_corners, invert, project, transform_points


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nuscenes")
    write_drive(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(root: Path) -> NuScenesDataset:
    return NuScenesDataset(root, VERSION, SPLIT)


@pytest.fixture(scope="module")
def tables(root: Path) -> NuScenes:
    return NuScenes(VERSION, str(root), verbose=False)


def points_of(labelled: LabelledFrame) -> NDArray[np.float32]:
    assert labelled.frame.points is not None
    return labelled.frame.points


def labels_of(labelled: LabelledFrame) -> list[str]:
    return [CLASSES[label] for label in labelled.truth.labels]


def test_frames_are_the_keyframes_of_the_splits_scenes_in_order(dataset: NuScenesDataset) -> None:
    assert dataset.tokens == ("sample-0", "sample-1", "sample-2")
    assert [entry.frame.stamp_ns for entry in dataset] == [(START_US + i * SAMPLE_US) * 1000 for i in range(3)]


def test_earlier_frames_are_the_scenes_earlier_keyframes(dataset: NuScenesDataset) -> None:
    assert [entry.frame.stamp_ns for entry in dataset.earlier_frames(2, 2)] == [
        dataset[i].frame.stamp_ns for i in (0, 1)
    ]
    assert len(dataset.earlier_frames(1, 2)) == 1 and dataset.earlier_frames(0, 2) == ()
    standing = []
    for entry in (*dataset.earlier_frames(2, 2), dataset[2]):
        assert entry.frame.to_fixed is not None
        (parked,) = entry.truth.boxes[entry.truth.labels == CLASSES.index("car")][:1]
        standing.append(transform_points(entry.frame.to_fixed, parked[None])[0])
    np.testing.assert_allclose(standing, np.repeat(standing[-1:], 3, axis=0), atol=1e-3)


def test_static_points_coincide_in_all_sweeps(dataset: NuScenesDataset) -> None:
    for labelled in dataset:
        points = points_of(labelled)
        for lag in np.unique(points[:, 4]):
            sweep = points[points[:, 4] == lag][: len(LANDMARKS)]
            np.testing.assert_allclose(transform_points(labelled.model_to_world, sweep), LANDMARKS, atol=1e-4)


def test_lags_are_the_ages_of_the_sweeps(dataset: NuScenesDataset) -> None:
    lags = np.unique(points_of(dataset[1])[:, 4])
    np.testing.assert_allclose(lags, [0, 0.05, 0.1, 0.5, 0.55, 0.6], atol=1e-6)


@pytest.mark.parametrize("sweeps", [1, 2, 5])
def test_a_point_cloud_holds_the_newest_sweeps_and_fewer_at_the_start_of_a_scene(root: Path, sweeps: int) -> None:
    frames = list(NuScenesDataset(root, VERSION, SPLIT, sweeps))
    assert len(np.unique(points_of(frames[0])[:, 4])) == min(sweeps, SWEEPS)
    assert len(np.unique(points_of(frames[2])[:, 4])) == sweeps


def test_sweeps_are_as_far_apart_as_the_model_needs(root: Path) -> None:
    dense, spaced = (NuScenesDataset(root, VERSION, SPLIT, 3, sweep_interval=interval) for interval in (0.0, 0.1))
    newest, *past = np.unique(points_of(dense[2])[:, 4])
    assert len(past) == 2
    ages = np.unique(points_of(spaced[2])[:, 4])
    assert ages[0] == newest
    assert len(ages) == 3
    assert np.diff(ages).min() >= 0.09


def test_points_on_the_vehicle_are_kept_in_all_sweeps(dataset: NuScenesDataset) -> None:
    """As in the published models' training."""
    points = points_of(dataset[0])
    newest, older = points[points[:, 4] == 0], points[points[:, 4] > 0]
    np.testing.assert_allclose(newest[-1, :3], ON_THE_ROOF, atol=1e-6)
    assert len(older) == (SWEEPS - 1) * (len(LANDMARKS) + 1)
    assert (points[:, 3] == 120).all()


def test_boxes_are_those_of_the_devkit_in_the_lidar_frame(dataset: NuScenesDataset, tables: NuScenes) -> None:
    for labelled, token in zip(dataset, dataset.tokens, strict=True):
        _, boxes, _ = tables.get_sample_data(tables.get("sample", token)["data"]["LIDAR_TOP"])
        by_centre = {tuple(np.round(box.center, 2)): box for box in boxes}
        for box in labelled.truth.boxes.astype(np.float64):
            reference = by_centre[tuple(np.round(box[:3], 2))]
            np.testing.assert_allclose(box[:3], reference.center, atol=1e-4)
            np.testing.assert_allclose(box[[4, 3, 5]], reference.wlh, atol=1e-6)
            difference = box[6] - reference.orientation.yaw_pitch_roll[0]
            assert np.cos(difference) == pytest.approx(1, abs=1e-8)


def test_model_to_world_returns_boxes_to_their_world_positions(dataset: NuScenesDataset) -> None:
    for index, labelled in enumerate(dataset):
        walking = labels_of(labelled).index("pedestrian")
        parked = labels_of(labelled).index("car")
        centres = transform_points(labelled.model_to_world, labelled.truth.boxes)
        moved = index * SAMPLE_US / 1e6 * PEDESTRIAN_VELOCITY
        np.testing.assert_allclose(centres[parked], OBJECTS["parked"]["at"], atol=1e-4)
        np.testing.assert_allclose(centres[walking], OBJECTS["walking"]["at"] + moved, atol=1e-4)


def test_velocities_are_given_in_the_lidar_frame_and_unknown_ones_are_nan(dataset: NuScenesDataset) -> None:
    labelled = dataset[1]
    velocities = dict(zip(labels_of(labelled), labelled.truth.boxes[:, 7:9], strict=True))
    expected = invert(labelled.model_to_world)[:2, :3] @ PEDESTRIAN_VELOCITY
    np.testing.assert_allclose(velocities["pedestrian"], expected, atol=1e-4)
    np.testing.assert_allclose(velocities["car"], 0, atol=1e-6)
    assert np.isnan(velocities["traffic_cone"]).all()


def test_objects_without_a_point_or_a_detection_class_are_left_out(dataset: NuScenesDataset) -> None:
    assert sorted(labels_of(dataset[0])) == ["car", "pedestrian", "truck"]
    assert sorted(labels_of(dataset[1])) == ["car", "pedestrian", "traffic_cone"]
    truck = labels_of(dataset[0]).index("truck")
    assert dataset[0].truth.lidar_points[truck] == 0
    assert dataset[0].truth.lidar_points.sum() == 10


def test_a_track_is_one_object_in_all_frames(dataset: NuScenesDataset) -> None:
    named = [dict(zip(labels_of(entry), entry.truth.tracks.tolist(), strict=True)) for entry in dataset]
    assert named[0]["car"] == named[1]["car"] == named[2]["car"]
    assert named[0]["pedestrian"] == named[1]["pedestrian"] == named[2]["pedestrian"]
    assert len({track for names in named for track in names.values()}) == 4


def test_extrinsics_include_the_vehicles_motion_between_sweep_and_image(dataset: NuScenesDataset) -> None:
    labelled = dataset[1]
    lidar_landmarks = transform_points(invert(labelled.model_to_world), LANDMARKS)
    for channel, view in zip(CAMERA_TO_EGO, labelled.frame.cameras, strict=True):
        stamp = START_US + SAMPLE_US + CAMERA_DELAY_US[channel]
        in_camera = transform_points(invert(ego_pose(stamp) @ CAMERA_TO_EGO[channel]), LANDMARKS)
        np.testing.assert_allclose(transform_points(view.extrinsics, lidar_landmarks), in_camera, atol=1e-6)
        assert view.age == pytest.approx(-CAMERA_DELAY_US[channel] / 1e6)
        assert np.array_equal(view.intrinsics, INTRINSICS)
        assert abs(int(view.image.mean()) - 100) <= 2


def test_cameras_have_the_names_of_the_node_and_the_simulator(dataset: NuScenesDataset) -> None:
    assert [view.name for view in dataset[0].frame.cameras] == ["front", "back"]


def test_visibility_is_the_tables_bin_in_the_camera_that_shows_the_object(
    dataset: NuScenesDataset,
) -> None:
    labelled = dataset[0]
    front = labelled.frame.cameras[0]
    seen = dict(zip(labels_of(labelled), labelled.truth.visibility, strict=True))
    corners = box_corners(labelled.truth.boxes[[labels_of(labelled).index("pedestrian")]])[0]
    pixels, depths = project(front.intrinsics, transform_points(front.extrinsics, corners))
    assert ((depths > 0) & (pixels >= 0).all(axis=1) & (pixels < (80, 48)).all(axis=1)).all()
    np.testing.assert_allclose(seen["pedestrian"], [0.5, 0.0])
    np.testing.assert_allclose(seen["car"], [0.9, 0.0])


def test_label_sets_agree_with_the_frames_and_need_no_files(dataset: NuScenesDataset) -> None:
    assert dataset.label_sets() == [frozenset(entry.truth.labels.tolist()) for entry in dataset]


def test_a_data_set_can_be_pickled_for_worker_processes(dataset: NuScenesDataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(points_of(copy[2]), points_of(dataset[2]))


def test_without_the_devkit_the_error_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nuscenes.nuscenes", None)
    with pytest.raises(NuScenesError, match="pip install --no-deps nuscenes-devkit"):
        NuScenesDataset(root, VERSION, SPLIT)


def test_a_missing_version_names_the_existing_ones(root: Path) -> None:
    with pytest.raises(NuScenesError, match=r"v1\.0-trainval: no such folder; .*v1\.0-mini"):
        NuScenesDataset(root, "v1.0-trainval", "train")


def test_an_unknown_split_names_the_known_ones(root: Path) -> None:
    with pytest.raises(NuScenesError, match=r"'vall'.*mini_val"):
        NuScenesDataset(root, VERSION, "vall")


def test_a_split_without_scenes_in_this_version_is_refused(root: Path) -> None:
    with pytest.raises(NuScenesError, match="no scene of split 'test'"):
        NuScenesDataset(root, VERSION, "test")


def test_no_sweep_at_all_is_refused(root: Path) -> None:
    with pytest.raises(NuScenesError, match="sweeps is 0"):
        NuScenesDataset(root, VERSION, SPLIT, sweeps=0)


@pytest.mark.parametrize("file", ["samples/CAM_BACK-2.jpg", f"sweeps/{START_US + 2 * SAMPLE_US}.bin"])
def test_a_missing_file_is_named(root: Path, dataset: NuScenesDataset, file: str) -> None:
    there, away = root / file, root / "away"
    there.rename(away)
    try:
        with pytest.raises(NuScenesError, match=file.replace(".", r"\.")):
            dataset[2]
    finally:
        away.rename(there)


def test_broken_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / VERSION).mkdir()
    with pytest.raises(NuScenesError, match="cannot read the tables"):
        NuScenesDataset(tmp_path, VERSION, SPLIT)


@pytest.mark.parametrize(
    ("category", "classes", "expected"),
    [
        ("human.pedestrian.adult", CLASSES, "pedestrian"),
        ("vehicle.bus.bendy", ("car", "bus"), "bus"),
        ("vehicle.bus.bendy", ("car",), None),
        ("animal", CLASSES, None),
        ("animal", ("animal", "car"), "animal"),
        ("vehicle.emergency.police", ("car", "police"), "police"),
        ("human.pedestrian.child", ("pedestrian", "child"), "child"),
        ("human.pedestrian.adult", ("pedestrian", "child"), "pedestrian"),
        ("static_object.bicycle_rack", CLASSES, None),
    ],
)
def test_a_category_counts_as_the_own_class_of_its_name_or_else_as_the_devkits(
    category: str, classes: tuple[str, ...], expected: str | None
) -> None:
    assert class_of_category(category, classes) == expected


def test_objects_have_the_given_classes(root: Path) -> None:
    classes = ("animal", "car")
    truth = NuScenesDataset(root, VERSION, SPLIT, classes=classes)[0].truth
    assert truth.classes == classes
    assert sorted(classes[label] for label in truth.labels) == ["animal", "car"]
    with pytest.raises(NuScenesError, match=r"found objects of .*vehicle\.car.*needed .*\(crane\)"):
        NuScenesDataset(root, VERSION, SPLIT, classes=("crane",))


def edited(root: Path, change: Callable[[dict[str, Any]], dict[str, Any]], table: str = "sample_annotation") -> Path:
    """Write a drive with changed records and return its folder."""
    write_drive(root)
    file = root / VERSION / f"{table}.json"
    file.write_text(json.dumps([change(record) for record in json.loads(file.read_text())]))
    return root


@pytest.mark.parametrize("column", ["num_radar_pts", "visibility_token", "attribute_tokens"])
def test_a_column_that_other_cars_do_not_have_may_be_missing(tmp_path: Path, column: str) -> None:
    root = edited(tmp_path, lambda record: {key: value for key, value in record.items() if key != column})
    truth = NuScenesDataset(root, VERSION, SPLIT)[0].truth
    assert labels_of(NuScenesDataset(root, VERSION, SPLIT)[0])[:2] == ["car", "pedestrian"]
    assert truth.world is not None and truth.world.attributes == ("",) * len(truth)


def test_a_missing_entry_is_named_with_its_sample(tmp_path: Path) -> None:
    root = edited(tmp_path, lambda record: {key: value for key, value in record.items() if key != "num_lidar_pts"})
    with pytest.raises(NuScenesError, match=r"sample sample-0\): found no 'num_lidar_pts'"):
        NuScenesDataset(root, VERSION, SPLIT)


def renamed(folder: Path, names: dict[str, str]) -> Path:
    return edited(folder, lambda record: {**record, "channel": names.get(*[record["channel"]] * 2)}, "sensor")


def test_the_one_lidar_is_used_whatever_its_channel(tmp_path: Path) -> None:
    data = NuScenesDataset(renamed(tmp_path, {"LIDAR_TOP": "LIDAR_FRONT"}), VERSION, SPLIT)
    points = data[0].frame.points
    assert points is not None and len(points)


def test_of_several_lidars_the_rig_file_chooses_one(tmp_path: Path) -> None:
    root = renamed(tmp_path, {"LIDAR_TOP": "LIDAR_FRONT"})
    path = root / VERSION / "sensor.json"
    rear = {"token": "rear", "channel": "LIDAR_REAR", "modality": "lidar"}
    path.write_text(json.dumps([*json.loads(path.read_text()), rear]))
    with pytest.raises(NuScenesError, match=r"found LIDAR_FRONT, LIDAR_REAR.*lidar_channel in a rig file"):
        NuScenesDataset(root, VERSION, SPLIT)
    data = NuScenesDataset(root, VERSION, SPLIT, rig=Rig(lidar_channel="LIDAR_FRONT"))
    assert len(data) == 3 and data[0].frame.frame_id == "LIDAR_FRONT"
    with pytest.raises(NuScenesError, match="lidar_channel is 'LIDAR_TOP', but the tables have LIDAR_FRONT"):
        NuScenesDataset(root, VERSION, SPLIT, rig=Rig(lidar_channel="LIDAR_TOP"))


def test_cameras_of_any_name_are_used(tmp_path: Path) -> None:
    root = renamed(tmp_path, {"CAM_FRONT": "CAMERA_A", "CAM_BACK": "CAMERA_B"})
    assert [view.name for view in NuScenesDataset(root, VERSION, SPLIT)[1].frame.cameras] == ["camera_a", "camera_b"]
    cameras = (RigCamera("rear", channel="CAMERA_B"), RigCamera("front", channel="CAMERA_A"))
    frame = NuScenesDataset(root, VERSION, SPLIT, rig=Rig(cameras))[1].frame
    assert [view.name for view in frame.cameras] == ["rear", "front"]
    wrong = Rig((RigCamera("front", channel="CAM_FRONT"),), source="rig.yaml")
    with pytest.raises(NuScenesError, match=r"rig.yaml: .*found channels CAM_FRONT, needed .*CAMERA_A, CAMERA_B"):
        NuScenesDataset(root, VERSION, SPLIT, rig=wrong)


def test_categories_of_ones_own_are_classes_or_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def bare(record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "name": {"vehicle.car": "PKW"}.get(record["name"], record["name"])}

    root = edited(tmp_path, bare, "category")
    names = {name for frame in NuScenesDataset(root, VERSION, SPLIT) for name in labels_of(frame)}
    assert "car" not in names and "categories PKW are left out" in caplog.text
    mapped = NuScenesDataset(root, VERSION, SPLIT, rig=Rig(classes={"PKW": "car"}))
    assert "car" in {name for frame in mapped for name in labels_of(frame)}


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_intrinsics_follow_pictures_of_another_size(tmp_path: Path, scale: float) -> None:
    root = edited(tmp_path, dict)
    for path in (root / "samples").rglob("*.jpg"):
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), None, fx=scale, fy=scale))
    view = NuScenesDataset(root, VERSION, SPLIT)[1].frame.cameras[0]
    np.testing.assert_allclose(view.intrinsics[0], [60 * scale, 0, 40 * scale])


def test_cropped_pictures_are_refused_by_file(tmp_path: Path) -> None:
    root = edited(tmp_path, dict)
    for path in (root / "samples").rglob("*.jpg"):
        cv2.imwrite(str(path), cv2.imread(str(path))[:20])
    with pytest.raises(NuScenesError, match=r"\.jpg: found 80 x 20 pixels, needed the shape .* 80 x 48"):
        NuScenesDataset(root, VERSION, SPLIT)[1]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (bytes(19), "19 bytes"),
        (np.array([[1, 2, np.nan, 0, 0]], "<f4").tobytes(), "1 of 1 points that are not finite"),
        (np.array([[1, 2, 1e6, 0, 0]], "<f4").tobytes(), "a coordinate of 1e"),
        (b"# .PCD v0.7 - Point Cloud", "a PCD file"),
    ],
)
def test_a_broken_sweep_is_named_with_its_file(tmp_path: Path, content: bytes, found: str) -> None:
    root = edited(tmp_path, dict)
    for path in root.rglob("*.bin"):
        path.write_bytes(content)
    with pytest.raises(NuScenesError, match=rf"\.bin: found .*{found}.*needed"):
        NuScenesDataset(root, VERSION, SPLIT)[1]


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e3])
def test_times_in_another_unit_are_refused(tmp_path: Path, unit: float) -> None:
    root = edited(tmp_path, lambda record: {**record, "timestamp": round(record["timestamp"] * unit)}, "sample")
    with pytest.raises(NuScenesError, match=r"sample.json: scene .*needed (times in units|ascending)"):
        NuScenesDataset(root, VERSION, SPLIT)


def test_bad_records_can_be_left_out_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = edited(tmp_path, lambda record: record | ({"size": [0, 1, 1]} if record["token"] == "parked-1" else {}))
    data = NuScenesDataset(root, VERSION, SPLIT, skip_bad=True)
    other = tmp_path / "whole"
    other.mkdir()
    whole = NuScenesDataset(edited(other, dict), VERSION, SPLIT)
    assert data.left_out == 1 and "left out: " in caplog.text and "parked-1" in caplog.text
    assert len(data) == len(whole) and len(data[1].truth) == len(whole[1].truth) - 1


@pytest.mark.parametrize(
    ("entry", "value"),
    [("size", [0.0, 4.5, 1.6]), ("size", [2.0, -4.5, 1.6]), ("translation", [400.0, float("nan"), 1.0])],
)
def test_an_impossible_box_is_named_with_its_annotation(tmp_path: Path, entry: str, value: list[float]) -> None:
    root = edited(tmp_path, lambda record: record | ({entry: value} if record["token"] == "parked-1" else {}))
    with pytest.raises(NuScenesError, match=r"sample_annotation parked-1 \(sample sample-1\)"):
        NuScenesDataset(root, VERSION, SPLIT)


def test_several_attributes_of_an_object_are_refused_as_the_devkit_does(tmp_path: Path) -> None:
    two = ["vehicle.moving", "vehicle.parked"]
    root = edited(tmp_path, lambda record: record | {"attribute_tokens": two})
    with pytest.raises(NuScenesError, match="found 2 attributes, needed at most one"):
        NuScenesDataset(root, VERSION, SPLIT)


def test_truth_has_the_tables_radar_points_attributes_racks_and_poses(tmp_path: Path) -> None:
    common: dict[str, Any] = {"at": [420.0, 912, 0.9], "size": [2.0, 4.0, 1.0], "samples": (0, 1)}
    objects = {
        "car": common | {"category": "vehicle.car", "attribute": "vehicle.stopped"},
        "truck": common | {"category": "vehicle.truck", "points": (0, 3)},
        "rack": common | {"category": "static_object.bicycle_rack", "points": (0, 0)},
    }
    write_drive(tmp_path, objects)
    labelled = NuScenesDataset(tmp_path, VERSION, SPLIT)[1]
    truth, world = labelled.truth, labelled.truth.world
    assert world is not None and truth.radar_points is not None
    assert truth.radar_points.tolist() == [0, 3] and world.attributes == ("vehicle.stopped", "")
    assert world.token == "sample-1" and world.bicycle_racks[:, :6].tolist() == [[*common["at"], *common["size"]]]
    np.testing.assert_allclose(world.ego_position, ego_pose(START_US + SAMPLE_US)[:3, 3])
    np.testing.assert_allclose(world.model_to_world, labelled.model_to_world)
    np.testing.assert_allclose(world.boxes[:, :6], [[*common["at"], *common["size"]]] * 2)
    np.testing.assert_allclose(transform_points(world.model_to_world, truth.boxes), world.boxes[:, :3], atol=1e-4)
