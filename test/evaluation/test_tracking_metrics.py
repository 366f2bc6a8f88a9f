# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""AMOTA and its companions, from the devkit."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.nuscenes_tables import SPLIT, VERSION, write_drive

pytest.importorskip("pandas", reason="needs the extra `tracking`")
pytest.importorskip("motmetrics", reason="needs the extra `tracking`")

from aqr_perception.data.sources.nuscenes import NuScenesDataset
from aqr_perception.demo.failures import FAILURES
from aqr_perception.devices import NumberFormats
from aqr_perception.evaluation import drive_detections, tracked_drives
from aqr_perception.evaluation.drive_detections import DetectedFrame, LabelledDrive, StoredDrives
from aqr_perception.evaluation.metrics import EvaluationError
from aqr_perception.evaluation.nuscenes_results import write_tracks
from aqr_perception.evaluation.tracking_metrics import TrackedFrame, evaluate_tracks
from aqr_perception.frame import CameraView, Detections, Frame, GroundTruth, LabelledFrame
from aqr_perception.options import DetectionOptions
from aqr_perception.tracking.track_list import Tracks
from aqr_perception.tracking.track_options import TrackingOptions


def frames(ids: list[list[int]]) -> list[TrackedFrame]:
    """Return frames of two true cars, tracked exactly, with these ids; 0: not tracked."""
    result = []
    for index, row in enumerate(ids):
        boxes = np.array([[5.0, 10.0, 0, 4, 2, 1.5, 0, 0, 0], [5.0, -10.0, 0, 4, 2, 1.5, 0, 0, 0]])
        labels = np.zeros(2, np.int64)
        truth = GroundTruth(boxes.astype(np.float32), labels, np.array([70, 71]), np.ones(2, np.int64), np.ones((2, 1)))
        zeros = np.zeros(2)
        tracks = Tracks(
            np.array(row),
            boxes,
            zeros + 0.8,
            labels,
            zeros,
            labels,
            labels,
            zeros,
            zeros,
            np.zeros((2, 2)),
            truth.classes,
        )
        result.append(TrackedFrame(500_000_000 * index, np.eye(4), truth, tracks.keep(np.array(row) > 0)))
    return result


def test_perfect_tracks_have_no_error() -> None:
    scores = evaluate_tracks({"drive": frames([[1, 2]] * 6)})
    assert scores.amota == pytest.approx(1.0) and scores.amotp == pytest.approx(0.0, abs=1e-6)
    assert (scores.switches, scores.fragmentations, scores.classes) == (0, 0, ("car",))


def test_a_changed_id_is_a_switch() -> None:
    scores = evaluate_tracks({"drive": frames([[1, 2]] * 3 + [[1, 3]] * 3)})
    assert scores.switches == 1 and scores.amota < 1.0


def test_nothing_to_track_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="found no object with points and an identity"):
        evaluate_tracks({"drive": []})


def test_the_failures_are_of_the_demos_kinds_and_follow_each_other() -> None:
    sensors = {(failure.sensor, failure.effect) for failure in FAILURES}
    camera, begin, end = drive_detections.BLACK_CAMERA
    assert {(camera, "black"), ("lidar", "gone")} <= sensors
    assert 0 < begin < end <= drive_detections.LIDAR_GONE[0] < drive_detections.LIDAR_GONE[1]


@pytest.mark.parametrize(
    ("names", "black"),
    [
        (["back", "front"], "front"),
        (["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_BACK"], "CAM_FRONT"),
        (["camera_01", "camera_05"], "camera_01"),
    ],
)
def test_the_front_camera_goes_black_under_any_name(names: list[str], black: str) -> None:
    grey = np.full((2, 2, 3), 9, np.uint8)
    views = tuple(CameraView(name, grey, np.eye(3), np.eye(4)) for name in names)
    truth = GroundTruth(*frames([[1, 2]])[0].truth.keep(np.zeros(2, bool)).__dict__.values())
    truth = replace(truth, visibility=np.zeros((0, len(names)), np.float32))
    failing = drive_detections.with_failures(LabelledFrame(Frame(0, None, views), truth), 7.0)
    assert [view.name for view in failing.frame.cameras if not view.image.any()] == [black]


class Finder:
    """A detector that finds every object of `frames`, but none while the LiDAR is gone."""

    remembers = False
    device, formats = torch.device("cpu"), NumberFormats(torch.float32, torch.float32)

    def __init__(self, weight: float = 0.0) -> None:
        self.frames = 0
        state = {"weight": torch.tensor([weight])}
        self.model = SimpleNamespace(preset="preset", state_dict=lambda: state)

    def forget(self) -> None:
        pass

    def detect(self, frame: Frame, options: DetectionOptions) -> SimpleNamespace:
        self.frames += 1
        boxes = frames([[1, 2]])[0].truth.boxes[: 0 if frame.points is None else 2]
        weight = np.full(len(boxes), 0.9, np.float32)
        labels, by_camera = np.zeros(len(boxes), np.int64), np.zeros((len(boxes), 0), np.float32)
        return SimpleNamespace(detections=Detections(boxes, weight, labels, weight, weight, by_camera))


def made_up_drive(name: str = "drive", count: int = 40) -> LabelledDrive:
    def begin() -> list[LabelledFrame]:
        return [
            LabelledFrame(Frame(each.stamp_ns, np.zeros((0, 5), np.float32)), each.truth)
            for each in frames([[1, 2]] * count)
        ]

    return LabelledDrive(name, count, begin, {"name": name})


def store(folder: Path, detector: Finder) -> StoredDrives:
    return StoredDrives(folder, detector, DetectionOptions())  # type: ignore[arg-type]


@pytest.mark.slow
def test_both_trackers_get_the_same_drives_with_and_without_failures(tmp_path: Path) -> None:
    drive = made_up_drive()
    detected = dict(store(tmp_path, Finder()).detect([drive]))
    tracked = tracked_drives.track(detected, TrackingOptions(max_age=5.0, death_score=0.0))
    results = tracked_drives.score(tracked)
    assert results["clean", "kalman"].amota == pytest.approx(1.0)
    assert results["failures", "kalman"].switches == 0
    lost = [len(frame.tracks) for frame in tracked["failures", "kalman"]["drive"]]
    assert lost == [0 if 24 <= index < 32 else 2 for index in range(40)]
    assert results["clean", "nearest"].frames == 40
    assert tracked_drives.table(results).count("\n") == 5
    assert "no LiDAR from 12 to 16 s" in tracked_drives.failures_line(results, [drive])


def test_drives_that_end_before_the_failures_have_no_rows_of_failures(tmp_path: Path) -> None:
    drive = made_up_drive(count=8)
    tracked = tracked_drives.track(dict(store(tmp_path, Finder()).detect([drive])), TrackingOptions())
    assert {condition for condition, _ in tracked} == {"clean"}
    results = tracked_drives.score(tracked)
    assert "all end before the first failure" in tracked_drives.failures_line(results, [drive])


def test_an_interrupted_run_continues_and_other_weights_begin_again(tmp_path: Path) -> None:
    drives = [made_up_drive("first"), made_up_drive("second")]
    first = Finder()
    before = dict(store(tmp_path, first).detect(drives[:1]))
    once = first.frames
    second = Finder()
    after = dict(store(tmp_path, second).detect(drives))
    assert (once, second.frames, list(after)) == (40 + 8, once, ["first", "second"])
    for mine, stored in zip(before["first"], after["first"], strict=True):
        np.testing.assert_array_equal(mine.truth.boxes, stored.truth.boxes)
        np.testing.assert_array_equal(mine.detections["failures"].scores, stored.detections["failures"].scores)
    (tmp_path / "first.pt").write_bytes(b"cut off")
    assert store(tmp_path, Finder()).stored(drives[0]) is None
    other = Finder(weight=1.0)
    list(store(tmp_path, other).detect(drives))
    assert other.frames == 2 * once


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_figures_on_nuscenes_tables_equal_those_of_the_devkits_own_class(tmp_path: Path, seed: int) -> None:
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.tracking.evaluate import TrackingEval

    random = np.random.default_rng(seed)
    root = tmp_path / "nuscenes"
    root.mkdir()
    categories = ("vehicle.car", "human.pedestrian.adult", "vehicle.bicycle", "static_object.bicycle_rack")
    objects = {
        f"object-{number}": {
            "category": categories[number % 4 if number % 16 == 3 else number % 3],
            "at": [400 + random.uniform(-45, 45), 900 + random.uniform(-45, 45), 1.0],
            "size": [9.0, 9.0, 3.0] if number % 16 == 3 else [1.9, 4.5, 1.6],
            "velocity": np.append(random.normal(0, 2, 2), 0),
            "yaw": random.uniform(-3, 3),
            "attribute": "",
            "points": [(5, 0), (0, 3), (0, 0)][random.choice(3, p=[0.7, 0.15, 0.15])],
            "samples": [(0, 1, 2), (0, 2), (1, 2)][number % 3],
        }
        for number in range(32)
    }
    write_drive(root, objects)
    data = NuScenesDataset(root, VERSION, SPLIT, sweeps=1)
    (drive,) = tracked_drives.recorded_drives(data, {})
    detected = []
    for labelled in drive.begin():
        truth = labelled.truth
        boxes = np.nan_to_num(truth.boxes) + random.normal(0, [0.4] * 2 + [0] * 7, (len(truth), 9)).astype(np.float32)
        scores = random.uniform(0.3, 1, len(truth)).astype(np.float32)
        found = random.random(len(truth)) < 0.8
        weight = np.ones(int(found.sum()), np.float32)
        detections = Detections(
            boxes[found], scores[found], truth.labels[found], weight, weight, np.ones((len(weight), 2), np.float32)
        )
        both = {"clean": detections, "failures": detections}
        detected.append(DetectedFrame(labelled.frame.stamp_ns, labelled.model_to_world, truth, both))
    tracked = tracked_drives.track({drive.name: detected}, TrackingOptions())["clean", "kalman"]
    ours = evaluate_tracks(tracked)
    results = tmp_path / "tracks.json"
    assert write_tracks(results, tracked[drive.name], cameras=True, lidar=True) == 3
    config = config_factory("tracking_nips_2019")
    devkit = TrackingEval(config, str(results), SPLIT, str(tmp_path / "out"), VERSION, str(root), verbose=False)
    theirs = devkit.evaluate()[0]
    assert 0 < ours.amota < 1
    assert set(ours.classes) == {"car", "pedestrian", "bicycle"}
    assert ours.amota == pytest.approx(theirs.compute_metric("amota"), abs=1e-9)
    assert ours.amotp == pytest.approx(theirs.compute_metric("amotp"), abs=1e-9)
    assert ours.switches == theirs.compute_metric("ids")
    assert ours.fragmentations == theirs.compute_metric("frag")
