"""nuScenes tables -> labelled frames, on a made-up drive; and a keyframe's folder as a set of one frame."""

import json
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from nuscenes.nuscenes import NuScenes

from aqr_perception.frame import CLASSES, LabelledFrame
from aqr_perception.geometry import box_corners, invert, project, quaternion_xyzw, rigid_transform, transform_points
from aqr_perception.training.data.nuscenes import KeyframeDataset, NuScenesDataset
from aqr_perception.training.data.nuscenes_tables import NuScenesError

VERSION, SPLIT, SCENE = "v1.0-mini", "mini_val", "scene-0103"
KEYFRAME = Path(__file__).parents[3] / ".." / "shared" / "reference" / "nuscenes_keyframe"
START_US = 1_500_000_000_000_000
SAMPLE_US, SWEEP_US, SWEEPS = 500_000, 50_000, 3
"""Three sweeps lead to each of the three keyframes; the last is the keyframe's."""
LIDAR_TO_EGO = rigid_transform([0.9, 0.0, 1.8], [0.0, 0.0, -0.7071, 0.7071])
CAMERA_DELAY_US = {"CAM_FRONT": -35_000, "CAM_BACK": 2_000}
CAMERA_TO_EGO = {
    "CAM_FRONT": rigid_transform([1.7, 0.0, 1.5], [-0.5, 0.5, -0.5, 0.5]),
    "CAM_BACK": rigid_transform([0.0, 0.0, 1.5], [0.5, 0.5, -0.5, -0.5]),
}
INTRINSICS = np.array([[60.0, 0, 40], [0, 60, 24], [0, 0, 1]])
LANDMARKS = np.random.default_rng(0).uniform((395, 880, 0), (440, 920, 5), (40, 3))
"""Points that stand still in the world, which every sweep sees."""
ON_THE_ROOF = np.array([0.3, -0.2, -0.1])
PEDESTRIAN_VELOCITY = np.array([1.2, -0.5, 0.0])


def ego_pose(stamp_us: int) -> NDArray[np.float64]:
    """A vehicle that drives a curve at 8 m/s, on a slope."""
    seconds = (stamp_us - START_US) / 1e6
    yaw = 0.4 + 0.2 * seconds
    turn = rigid_transform(
        [400 + 8 * seconds, 900 + seconds**2, 0.1 * seconds], [0, 0, np.sin(yaw / 2), np.cos(yaw / 2)]
    )
    return turn @ rigid_transform([0, 0, 0], [0.01, 0.02, 0, 1])


@dataclass
class Drive:
    """Writes tables record by record."""

    root: Path

    def __post_init__(self) -> None:
        names = "category attribute visibility instance sensor calibrated_sensor ego_pose log scene sample"
        self.tables: dict[str, list[dict[str, Any]]] = {
            name: [] for name in (*names.split(), "sample_data", "sample_annotation", "map")
        }

    def add(self, table: str, token: str, **fields: object) -> str:
        self.tables[table].append({"token": token, **fields})
        return token

    def add_pose(self, table: str, token: str, pose: NDArray[np.float64], **fields: object) -> str:
        rotation = np.roll(quaternion_xyzw(pose), 1).tolist()
        return self.add(table, token, translation=pose[:3, 3].tolist(), rotation=rotation, **fields)

    def write(self) -> None:
        (self.root / VERSION).mkdir(parents=True)
        for name, records in self.tables.items():
            if name in ("sample_data", "sample_annotation"):
                link(records)
            (self.root / VERSION / f"{name}.json").write_text(json.dumps(records))


def link(records: list[dict[str, Any]]) -> None:
    """Fill in prev and next along each sensor's or instance's records, which are in order of time."""
    last: dict[str, dict[str, Any]] = {}
    for record in records:
        chain = record.get("instance_token") or record["calibrated_sensor_token"]
        record["prev"], record["next"] = "", ""
        if chain in last:
            record["prev"], last[chain]["next"] = last[chain]["token"], record["token"]
        last[chain] = record


def add_sensor_data(drive: Drive, sample: str, channel: str, stamp_us: int, file: str, key: bool) -> None:
    pose = drive.add_pose("ego_pose", f"pose-{channel}-{stamp_us}", ego_pose(stamp_us), timestamp=stamp_us)
    drive.add(
        "sample_data",
        f"{channel}-{stamp_us}",
        sample_token=sample,
        ego_pose_token=pose,
        calibrated_sensor_token=f"calibrated-{channel}",
        timestamp=stamp_us,
        fileformat=file[-3:],
        is_key_frame=key,
        height=48,
        width=80,
        filename=file,
    )


def add_sweep(drive: Drive, sample: str, stamp_us: int, key: bool) -> None:
    world_to_lidar = invert(ego_pose(stamp_us) @ LIDAR_TO_EGO)
    points = np.vstack((transform_points(world_to_lidar, LANDMARKS), ON_THE_ROOF))
    intensity_ring = np.tile([120.0, 7.0], (len(points), 1))
    file = f"sweeps/{stamp_us}.bin"
    np.hstack((points, intensity_ring)).astype("<f4").tofile(drive.root / file)
    add_sensor_data(drive, sample, "LIDAR_TOP", stamp_us, file, key)


OBJECTS: dict[str, dict[str, Any]] = {
    # category, where, velocity, points, visibility token, samples in which it is seen
    "parked": {"category": "vehicle.car", "at": [425.0, 908, 0.8], "size": [2.0, 4.5, 1.6], "samples": (0, 1, 2)},
    "walking": {
        "category": "human.pedestrian.adult",
        "at": [420.0, 912, 0.9],
        "size": [0.6, 0.7, 1.8],
        "velocity": PEDESTRIAN_VELOCITY,
        "visibility": "2",
        "samples": (0, 1, 2),
    },
    "once": {
        "category": "movable_object.trafficcone",
        "at": [412.0, 907, 0.4],
        "size": [0.4, 0.4, 0.8],
        "samples": (1,),
    },
    "by_radar": {
        "category": "vehicle.truck",
        "at": [432.0, 920, 1.5],
        "size": [2.5, 9, 3],
        "points": (0, 2),
        "samples": (0,),
    },
    "unseen": {
        "category": "vehicle.car",
        "at": [430.0, 905, 0.8],
        "size": [2, 4, 1.5],
        "points": (0, 0),
        "samples": (0,),
    },
    "dog": {"category": "animal", "at": [415.0, 905, 0.3], "size": [0.3, 0.9, 0.5], "samples": (0, 1, 2)},
}


def add_objects(drive: Drive, index: int, sample: str, stamp_us: int) -> None:
    for name, entry in OBJECTS.items():
        if index not in entry["samples"]:
            continue
        seconds = (stamp_us - START_US) / 1e6
        yaw = 0.7 if name == "parked" else -2.0
        pose = rigid_transform([0, 0, 0], [0, 0, np.sin(yaw / 2), np.cos(yaw / 2)])
        pose[:3, 3] = np.array(entry["at"]) + seconds * np.asarray(entry.get("velocity", np.zeros(3)))
        lidar, radar = entry.get("points", (5, 0))
        drive.add_pose(
            "sample_annotation",
            f"{name}-{index}",
            pose,
            sample_token=sample,
            instance_token=name,
            visibility_token=entry.get("visibility", "4"),
            attribute_tokens=[],
            size=entry["size"],
            num_lidar_pts=lidar,
            num_radar_pts=radar,
        )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drive = Drive(tmp_path_factory.mktemp("nuscenes"))
    for folder in ("samples", "sweeps", "maps"):
        (drive.root / folder).mkdir()
    (drive.root / "maps" / "map.png").touch()
    drive.add("log", "log")
    drive.add("map", "map", log_tokens=["log"], category="semantic_prior", filename="maps/map.png")
    drive.add("scene", "other", log_token="log", name="scene-0061", first_sample_token="", last_sample_token="")
    drive.add("scene", "scene", log_token="log", name=SCENE, first_sample_token="sample-0")
    for name, entry in OBJECTS.items():
        drive.add("category", entry["category"], name=entry["category"])
        drive.add("instance", name, category_token=entry["category"])
    mounts = {"LIDAR_TOP": LIDAR_TO_EGO, **CAMERA_TO_EGO}
    for channel, mount in mounts.items():
        camera = channel in CAMERA_TO_EGO
        drive.add("sensor", channel, channel=channel, modality="camera" if camera else "lidar")
        matrix = INTRINSICS.tolist() if camera else []
        drive.add_pose(
            "calibrated_sensor", f"calibrated-{channel}", mount, sensor_token=channel, camera_intrinsic=matrix
        )
    for index in range(3):
        sample, stamp = f"sample-{index}", START_US + index * SAMPLE_US
        following = f"sample-{index + 1}" if index < 2 else ""
        drive.add("sample", sample, scene_token="scene", timestamp=stamp, prev="", next=following)
        for sweep in reversed(range(SWEEPS)):
            add_sweep(drive, sample, stamp - sweep * SWEEP_US, key=sweep == 0)
        for channel, delay in CAMERA_DELAY_US.items():
            file = f"samples/{channel}-{index}.jpg"
            cv2.imwrite(str(drive.root / file), np.full((48, 80, 3), 60 + 40 * index, np.uint8))
            add_sensor_data(drive, sample, channel, stamp + delay, file, key=True)
        add_objects(drive, index, sample, stamp)
    drive.write()
    return drive.root


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


def test_earlier_keyframes_of_the_scene_come_before_a_keyframe(dataset: NuScenesDataset) -> None:
    assert [entry.frame.stamp_ns for entry in dataset.before(2, 2)] == [dataset[i].frame.stamp_ns for i in (0, 1)]
    assert len(dataset.before(1, 2)) == 1 and dataset.before(0, 2) == ()
    standing = []
    for entry in (*dataset.before(2, 2), dataset[2]):
        assert entry.frame.to_fixed is not None
        (parked,) = entry.truth.boxes[entry.truth.labels == CLASSES.index("car")][:1]
        standing.append(transform_points(entry.frame.to_fixed, parked[None])[0])
    np.testing.assert_allclose(standing, np.repeat(standing[-1:], 3, axis=0), atol=1e-3)


def test_points_that_stand_still_lie_on_each_other_over_all_sweeps(dataset: NuScenesDataset) -> None:
    for labelled in dataset:
        points = points_of(labelled)
        for lag in np.unique(points[:, 4]):
            sweep = points[points[:, 4] == lag][: len(LANDMARKS)]
            np.testing.assert_allclose(transform_points(labelled.model_to_world, sweep), LANDMARKS, atol=1e-4)


def test_lags_tell_the_age_of_each_sweep(dataset: NuScenesDataset) -> None:
    lags = np.unique(points_of(dataset[1])[:, 4])
    np.testing.assert_allclose(lags, [0, 0.05, 0.1, 0.5, 0.55, 0.6], atol=1e-6)


@pytest.mark.parametrize("sweeps", [1, 2, 5])
def test_a_cloud_holds_the_newest_sweeps_and_fewer_at_the_start_of_a_scene(root: Path, sweeps: int) -> None:
    frames = list(NuScenesDataset(root, VERSION, SPLIT, sweeps))
    assert len(np.unique(points_of(frames[0])[:, 4])) == min(sweeps, SWEEPS)
    assert len(np.unique(points_of(frames[2])[:, 4])) == sweeps


def test_points_on_the_vehicle_leave_past_sweeps_and_stay_in_the_keyframes(dataset: NuScenesDataset) -> None:
    points = points_of(dataset[0])
    newest, older = points[points[:, 4] == 0], points[points[:, 4] > 0]
    np.testing.assert_allclose(newest[-1, :3], ON_THE_ROOF, atol=1e-6)
    assert len(older) == (SWEEPS - 1) * len(LANDMARKS)
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


def test_boxes_go_back_to_where_they_are_in_the_world(dataset: NuScenesDataset) -> None:
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


def test_extrinsics_take_the_vehicles_motion_between_sweep_and_picture_into_account(dataset: NuScenesDataset) -> None:
    labelled = dataset[1]
    lidar_landmarks = transform_points(invert(labelled.model_to_world), LANDMARKS)
    for channel, view in zip(CAMERA_TO_EGO, labelled.frame.cameras, strict=True):
        stamp = START_US + SAMPLE_US + CAMERA_DELAY_US[channel]
        in_camera = transform_points(invert(ego_pose(stamp) @ CAMERA_TO_EGO[channel]), LANDMARKS)
        np.testing.assert_allclose(transform_points(view.extrinsics, lidar_landmarks), in_camera, atol=1e-6)
        assert view.age == pytest.approx(-CAMERA_DELAY_US[channel] / 1e6)
        assert np.array_equal(view.intrinsics, INTRINSICS)
        assert abs(int(view.image.mean()) - 100) <= 2


def test_cameras_go_by_the_names_that_the_node_and_the_simulator_use(dataset: NuScenesDataset) -> None:
    assert [view.name for view in dataset[0].frame.cameras] == ["front", "back"]


def test_visibility_is_the_tables_bin_in_the_camera_that_has_the_object_in_its_picture(
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


def test_a_set_travels_to_worker_processes(dataset: NuScenesDataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(points_of(copy[2]), points_of(dataset[2]))


def test_without_the_devkit_the_error_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nuscenes.nuscenes", None)
    with pytest.raises(NuScenesError, match="pip install --no-deps nuscenes-devkit"):
        NuScenesDataset(root, VERSION, SPLIT)


def test_a_missing_version_names_those_that_are_there(root: Path) -> None:
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


@pytest.fixture(scope="module")
def keyframe() -> LabelledFrame:
    if not KEYFRAME.is_dir():
        pytest.skip("the reference keyframe is not beside this checkout")
    frames = KeyframeDataset(KEYFRAME)
    assert len(frames) == 1
    return frames[0]


def test_a_keyframes_points_lie_in_its_boxes_as_often_as_it_says(keyframe: LabelledFrame) -> None:
    points = points_of(keyframe)
    assert points.shape == (34688, 5) and (points[:, 4] == 0).all()
    for box, expected in zip(keyframe.truth.boxes.astype(np.float64), keyframe.truth.lidar_points, strict=True):
        pose = rigid_transform(box[:3], [0, 0, np.sin(box[6] / 2), np.cos(box[6] / 2)])
        local = transform_points(invert(pose), points.astype(np.float64))
        inside = (np.abs(local) <= box[3:6] / 2).all(axis=1).sum()
        assert abs(inside - expected) <= max(2, 0.15 * expected)


def test_a_keyframes_calibration_is_the_given_one(keyframe: LabelledFrame) -> None:
    cameras = json.loads((KEYFRAME / "keyframe.json").read_text())["cameras"]
    for view, (name, camera) in zip(keyframe.frame.cameras, cameras.items(), strict=True):
        assert f"cam_{view.name}" == name.lower()
        np.testing.assert_allclose(view.extrinsics, camera["lidar_to_camera"], atol=1e-5)
        assert view.image.shape == (900, 1600, 3)


def test_a_keyframes_objects_are_seen_where_they_stand(keyframe: LabelledFrame) -> None:
    truth = keyframe.truth
    assert 50 < len(truth) < 69
    assert truth.visibility.shape == (len(truth), 6)
    ahead = (np.abs(truth.boxes[:, 0]) < 0.3 * truth.boxes[:, 1]) & (truth.boxes[:, 1] > 10)
    assert (truth.visibility[ahead, 0] > 0.5).all() and ahead.any()
    assert (truth.visibility[ahead, 3] == 0).all()


def test_a_keyframe_without_objects_says_what_is_missing(tmp_path: Path) -> None:
    np.zeros((1, 5), np.float32).tofile(tmp_path / "lidar.bin")
    lidar = {"file": "lidar.bin", "stamp": 0.0, "lidar_to_ego": np.eye(4).tolist()}
    record = {"stamp": 0.0, "ego_to_global": np.eye(4).tolist(), "lidar": lidar, "cameras": {}}
    (tmp_path / "keyframe.json").write_text(json.dumps(record))
    with pytest.raises(NuScenesError, match=r"keyframe\.json.*objects"):
        KeyframeDataset(tmp_path)


def test_a_folder_that_is_no_keyframe_is_named(tmp_path: Path) -> None:
    with pytest.raises(NuScenesError, match="keyframe"):
        KeyframeDataset(tmp_path / "nowhere")
