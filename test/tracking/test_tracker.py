# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Identity of objects across frames."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.benchmarks import tracking_time
from aqr_perception.frame import CLASSES, Detections
from aqr_perception.geometry import invert, rigid_transform
from aqr_perception.tracking.track_list import Tracks, moved
from aqr_perception.tracking.track_options import TrackingOptions
from aqr_perception.tracking.tracker import Tracker

STEP_NS = 100_000_000
CAR, PEDESTRIAN = CLASSES.index("car"), CLASSES.index("pedestrian")
STANDING = np.eye(4)


def found(
    boxes: Sequence[Sequence[float]] | np.ndarray,
    labels: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    lidar: float = 0.5,
    camera: float = 0.5,
) -> Detections:
    """Return detections of (x, y, velocity x, velocity y)."""
    given_boxes = np.asarray(boxes, float).reshape(-1, 4)
    count = len(given_boxes)
    whole = np.zeros((count, 9), np.float32)
    whole[:, :2], whole[:, 3:6], whole[:, 7:9] = given_boxes[:, :2], (4, 2, 1.5), given_boxes[:, 2:]
    return Detections(
        whole,
        np.asarray([0.8] * count if scores is None else scores, np.float32),
        np.asarray([CAR] * count if labels is None else labels, np.int64),
        np.full(count, lidar, np.float32),
        np.full(count, camera, np.float32),
        np.zeros((count, 0), np.float32),
    )


def permuted(detections: Detections, order: np.ndarray) -> Detections:
    parts = ("boxes", "scores", "labels", "lidar_weight", "camera_weight", "camera_weights")
    return Detections(*(getattr(detections, part)[order] for part in parts), detections.classes)


@st.composite
def drives(draw: st.DrawFn) -> list[Detections]:
    """Frames of moving objects with missing and false detections."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 12))
    place, velocity = rng.uniform(-20, 20, (count, 2)), rng.normal(0, 5, (count, 2))
    labels = rng.choice([CAR, PEDESTRIAN], count)
    frames = []
    for index in range(draw(st.integers(2, 8))):
        seen = rng.random(count) < 0.8
        now = place + 0.1 * index * velocity + rng.normal(0, 0.3, place.shape)
        boxes = np.c_[now, velocity][seen]
        frames.append(found(boxes, labels[seen], rng.uniform(0.2, 1.0, int(seen.sum()))))
    return frames


def track(frames: Sequence[Detections], poses: Sequence[np.ndarray] | None = None) -> list[Tracks]:
    tracker = Tracker()
    poses = [STANDING] * len(frames) if poses is None else poses
    return [
        tracker.update(index * STEP_NS, frame, pose)
        for index, (frame, pose) in enumerate(zip(frames, poses, strict=True))
    ]


def same(first: Tracks, second: Tracks) -> bool:
    return all(np.array_equal(value, getattr(second, name)) for name, value in first.__dict__.items())


@given(drives(), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_detections_changes_nothing(frames: list[Detections], seed: int) -> None:
    rng = np.random.default_rng(seed)
    shuffled = [permuted(frame, rng.permutation(len(frame))) for frame in frames]
    assert all(same(*pair) for pair in zip(track(frames), track(shuffled), strict=True))


@given(drives())
@settings(max_examples=40, deadline=None)
def test_no_id_is_twice_in_a_frame_and_none_returns(frames: list[Detections]) -> None:
    ended: set[int] = set()
    before: set[int] = set()
    for tracks in track(frames):
        now = set(tracks.ids.tolist())
        assert len(now) == len(tracks)
        ended |= before - now
        assert not now & ended
        before = now


@given(drives(), st.floats(-3.1, 3.1), st.floats(-500, 500), st.floats(-500, 500))
@settings(max_examples=40, deadline=None)
def test_the_frame_of_the_world_does_not_matter(frames: list[Detections], turn: float, x: float, y: float) -> None:
    world = rigid_transform([x, y, 3.0], [0, 0, np.sin(turn / 2), np.cos(turn / 2)])
    for here, there in zip(track(frames), track(frames, [world] * len(frames)), strict=True):
        assert here.ids.tolist() == there.ids.tolist()
        assert here.missed.tolist() == there.missed.tolist()
        back = moved(there.boxes, invert(world))
        np.testing.assert_allclose(back[:, [0, 1, 7, 8]], here.boxes[:, [0, 1, 7, 8]], atol=1e-6)


@given(st.floats(-20, 20), st.floats(-20, 20), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_constant_velocity_object_keeps_its_id_through_five_missed_frames(vx: float, vy: float, told: bool) -> None:
    tracker = Tracker()
    for index in range(30):
        missed = 15 <= index < 20
        velocity = [vx, vy] if told else [np.nan, np.nan]
        boxes = [] if missed else [[vx * 0.1 * index, vy * 0.1 * index, *velocity]]
        if not told and np.hypot(vx, vy) * 0.1 > TrackingOptions().max_distance:
            return
        tracks = tracker.update(index * STEP_NS, found(boxes), STANDING)
        assert tracks.ids.tolist() == [1]
        assert tracks.predicted.tolist() == [missed]
        assert tracks.missed[0] == (index - 14 if missed else 0)
    assert tracks.hits.tolist() == [25]
    assert tracks.ages[0] == pytest.approx(2.9)
    np.testing.assert_allclose(tracks.boxes[0, 7:9], [vx, vy], atol=0.3)


def test_a_predicted_object_moves_on_fades_and_ends_after_max_age() -> None:
    tracker = Tracker(TrackingOptions(max_age=1.0))
    for index in range(5):
        tracker.update(index * STEP_NS, found([[index, 0, 10, 0]]), STANDING)
    shown = [tracker.update(index * STEP_NS, found([]), STANDING) for index in range(5, 16)]
    assert [len(tracks) for tracks in shown] == [1] * 10 + [0]
    assert shown[9].predicted.all()
    assert shown[9].boxes[0, 0] == pytest.approx(14, abs=0.1)
    scores = [float(tracks.scores[0]) for tracks in shown[:10]]
    variances = [float(tracks.velocity_variance[0]) for tracks in shown[:10]]
    assert scores == sorted(scores, reverse=True) and variances == sorted(variances)
    assert tracker.update(16 * STEP_NS, found([[16, 0, 10, 0]]), STANDING).ids.tolist() == [2]


def test_the_vehicles_motion_is_not_the_objects() -> None:
    tracker = Tracker()
    for index in range(20):
        pose = rigid_transform([20.0 * 0.1 * index, 0, 0], [0, 0, np.sin(0.05 * index), np.cos(0.05 * index)])
        place = (invert(pose) @ [30.0, 5.0, 0, 1])[:2]
        tracks = tracker.update(index * STEP_NS, found([[*place, 0, 0]]), pose)
        assert tracks.ids.tolist() == [1]
    np.testing.assert_allclose(tracks.boxes[0, [0, 1, 7, 8]], [30, 5, 0, 0], atol=1e-4)


@pytest.mark.parametrize("jump_ns", [0, -STEP_NS, -(10**12)])
def test_time_that_does_not_advance_ends_all_tracks_and_ids_do_not_return(jump_ns: int) -> None:
    tracker = Tracker()
    start = 2 * 10**12
    assert tracker.update(start, found([[0, 0, 0, 0], [9, 0, 0, 0]]), STANDING).ids.tolist() == [1, 2]
    tracks = tracker.update(start + jump_ns, found([[0, 0, 0, 0]]), STANDING)
    assert tracks.ids.tolist() == [3] and tracks.ages.tolist() == [0.0]


def test_trackers_share_a_source_of_ids() -> None:
    ids = itertools.count(7)
    assert [Tracker(ids=ids).update(0, found([[0, 0, 0, 0]]), STANDING).ids.tolist() for _ in range(2)] == [[7], [8]]


def test_birth_needs_a_score_and_continuation_does_not() -> None:
    tracker = Tracker(TrackingOptions(birth_score=0.5))
    place = [[0.0, 0.0, 0.0, 0.0]]
    assert len(tracker.update(0, found(place, scores=[0.4]), STANDING)) == 0
    assert len(tracker.update(STEP_NS, found(place, scores=[0.6]), STANDING)) == 1
    assert tracker.update(2 * STEP_NS, found(place, scores=[0.2]), STANDING).missed.tolist() == [0]


def test_a_track_is_shown_after_min_hits() -> None:
    tracker = Tracker(TrackingOptions(min_hits=3))
    counts = [len(tracker.update(index * STEP_NS, found([[0, 0, 0, 0]]), STANDING)) for index in range(4)]
    assert counts == [0, 0, 1, 1]


def test_a_track_keeps_its_class() -> None:
    tracker = Tracker()
    tracker.update(0, found([[0, 0, 0, 0]]), STANDING)
    tracks = tracker.update(STEP_NS, found([[0, 0, 0, 0]], labels=[PEDESTRIAN]), STANDING)
    assert tracks.labels.tolist() == [CAR, PEDESTRIAN] and tracks.missed.tolist() == [1, 0]


def test_weights_move_smoothly_to_the_sensor_that_is_left() -> None:
    tracker = Tracker()
    place = [[0.0, 0.0, 0.0, 0.0]]
    weights = [tracker.update(0, found(place, lidar=1.0, camera=0.0), STANDING).weights[0]]
    for index in range(1, 40):
        weights.append(tracker.update(index * STEP_NS, found(place, lidar=0.0, camera=1.0), STANDING).weights[0])
    lidar = np.array(weights)[:, 0]
    assert (np.diff(lidar) < 0).all() and 0.85 < lidar[1] < 1 and lidar[-1] < 0.05


def test_boxes_that_are_not_finite_are_left_out() -> None:
    assert len(Tracker().update(0, found([[np.nan, 0, 0, 0], [1, 0, np.nan, np.nan]]), STANDING)) == 1


def test_crossing_objects_keep_their_ids_where_the_nearest_neighbour_swaps_them() -> None:
    def swapped(tracker: Tracker) -> bool:
        for index in range(21):
            x = -4.0 + 0.4 * index + 0.2
            tracks = tracker.update(index * 5 * STEP_NS, found([[x, 0.3, 0.8, 0], [-x, -0.3, -0.8, 0]]), STANDING)
            first = tracks.boxes[:, 1].argmax()
            if index == 0:
                upper = tracks.ids[first]
        return bool(tracks.ids[first] != upper)

    assert not swapped(Tracker(TrackingOptions(max_age=3.0)))
    fast = [[[4.0 * index, 0, 8, 0], [4.0 * index + 5, 0, 8, 0]] for index in range(6)]
    ids = {
        method: [
            tracks.ids[tracks.boxes[:, 0].argmin()]
            for tracker in [Tracker(method=method)]
            for index, boxes in enumerate(fast)
            for tracks in [tracker.update(index * 5 * STEP_NS, found(boxes), STANDING)]
        ]
        for method in ("kalman", "nearest")
    }
    assert len(set(ids["kalman"])) == 1 < len(set(ids["nearest"]))


@pytest.mark.parametrize("scene", ["ddad_scene_01", "ddad_scene_02"])
def test_true_boxes_of_real_drives_keep_their_ids(scene: str, shared_reference: Path) -> None:
    tracker = Tracker()
    ids: dict[int, int] = {}
    files = sorted((shared_reference / "real" / scene).glob("*/keyframe.json"))
    assert len(files) == 3
    for file in files:
        content = json.loads(file.read_text())
        objects = content["objects"]
        pose = np.array(content["ego_to_global"]) @ np.array(content["lidar"]["lidar_to_ego"])
        boxes = np.array([[*entry["box"], *entry["velocity"]] for entry in objects], float).astype(np.float32)
        labels = np.array([CLASSES.index(entry["class"]) for entry in objects])
        weight = np.full(len(objects), 0.5, np.float32)
        detections = Detections(boxes, weight + 0.4, labels, weight, weight, np.zeros((len(objects), 0), np.float32))
        tracks = tracker.update(round(content["stamp"] * 1e9), detections, pose)
        in_world = moved(boxes.astype(float), pose)
        for entry, box in zip(objects, in_world, strict=True):
            apart = np.hypot(*(tracks.boxes[:, :2] - box[:2]).T)
            nearest = int(tracks.ids[apart.argmin()])
            assert apart.min() < 0.5
            assert ids.setdefault(entry["track"], nearest) == nearest
    assert len(set(ids.values())) == len(ids)


def test_the_benchmark_measures_frames() -> None:
    measured = tracking_time.run(objects=20, repeats=5)
    assert 0 < measured.median <= measured.p95
    assert "20 objects" in str(measured)
