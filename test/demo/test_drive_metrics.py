# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Metrics of a recorded drive."""

import dataclasses
import math

import numpy as np
from helpers.recorded_drives import BLACK, GONE, boxes_at, detections_at, recorded_drive, truth_at
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aqr_perception.demo.drive_metrics import MATCH_DISTANCE, detected_objects, evaluated_objects, summary, timeline
from aqr_perception.demo.recording import Recording

CENTRES = arrays(np.float32, st.tuples(st.integers(0, 12), st.just(2)), elements=st.floats(-25, 25, width=32))


def as_boxes(centres: np.ndarray) -> np.ndarray:
    return boxes_at(*(tuple(centre) for centre in centres.tolist()))


@given(CENTRES)
def test_exact_detections_detect_every_object(centres: np.ndarray) -> None:
    truth = truth_at(0, as_boxes(centres))
    assert detected_objects(detections_at(truth.boxes), truth).all() and evaluated_objects(truth).all()


@given(CENTRES, CENTRES)
def test_a_detection_matches_at_most_one_object_and_only_a_near_one(detected: np.ndarray, true: np.ndarray) -> None:
    truth = truth_at(0, as_boxes(true))
    hit = detected_objects(detections_at(as_boxes(detected)), truth)
    assert hit.sum() <= len(detected)
    for centre in true[hit]:
        assert np.hypot(*(detected - centre).T).min() <= MATCH_DISTANCE + 1e-5


@given(CENTRES, CENTRES)
def test_more_detections_never_reduce_the_detected_objects(detected: np.ndarray, true: np.ndarray) -> None:
    truth = truth_at(0, as_boxes(true))
    few = detections_at(as_boxes(detected))
    scores = np.r_[few.scores, np.full(len(true), 0.1, np.float32)]
    more = detections_at(np.r_[few.boxes, truth.boxes], scores)
    assert detected_objects(more, truth).sum() >= detected_objects(few, truth).sum()


def test_a_detection_of_another_class_matches_nothing() -> None:
    truth = truth_at(0, boxes_at((10.0, 0.0)), np.array([8]))
    assert not detected_objects(detections_at(truth.boxes), truth).any()


def test_classes_are_compared_by_name() -> None:
    truth = dataclasses.replace(truth_at(0, boxes_at((10.0, 0.0))), classes=("forklift", "car"))
    detections = detections_at(truth.boxes)
    assert not detected_objects(detections, truth).any()
    forklift = dataclasses.replace(detections, labels=detections.labels + 1, classes=("car", "forklift"))
    assert detected_objects(forklift, truth).all() and evaluated_objects(truth).all()


def test_objects_out_of_range_or_hidden_from_the_lidar_are_not_evaluated() -> None:
    truth = truth_at(0, boxes_at((45.0, 0.0), (45.0, 0.0), (10.0, 0.0), (55.0, 0.0)), np.array([0, 8, 0, 0]))
    truth = dataclasses.replace(truth, hit=np.array([True, True, False, True]))
    assert evaluated_objects(truth).tolist() == [True, False, False, False]


def test_exact_detections_give_recall_one_during_every_failure() -> None:
    figures = recorded_drive().summary
    assert figures.recall == 1.0 and figures.recall_by_failure == {BLACK: 1.0, GONE: 1.0}
    assert (figures.sweeps_processed, figures.sweeps, figures.median_milliseconds) == (20, 20, 400.0)


def test_the_summary_has_the_failing_cameras_weight_before_and_during_its_failure() -> None:
    figures = recorded_drive().summary
    np.testing.assert_allclose((figures.weight_before, figures.weight_during), (0.8, 0.2), atol=1e-6)
    assert figures.failing_camera == "front"


def test_signed_weights_are_summarised_like_others() -> None:
    drive = recorded_drive(black_weight=-0.6)
    np.testing.assert_allclose((drive.summary.weight_before, drive.summary.weight_during), (0.8, -0.6), atol=1e-6)
    assert "0.80 before its failure, -0.60 during it" in dict(drive.summary.lines())["Weight of camera front"]


def test_one_negative_weight_or_map_shows_that_weights_are_signed() -> None:
    drive = recorded_drive()
    assert not drive.recording.signed and not drive.timeline.signed
    assert recorded_drive(black_weight=-0.6).timeline.signed
    frame, *others = drive.recording.frames
    map_only = dataclasses.replace(frame, negative_maps=True)
    lidar_only = dataclasses.replace(
        frame, detections=dataclasses.replace(frame.detections, lidar_weight=-frame.detections.lidar_weight)
    )
    for changed in (map_only, lidar_only):
        assert timeline(Recording([*others, changed], "", True), drive.truth, drive.failures).signed


def test_the_weight_of_a_camera_is_the_mean_over_detections_in_its_view() -> None:
    drive = recorded_drive()
    frames = []
    for frame in drive.recording.frames:
        weights = frame.detections.camera_weights.copy()
        weights[1] = 0.0  # the second object is out of view
        frames.append(
            dataclasses.replace(frame, detections=dataclasses.replace(frame.detections, camera_weights=weights))
        )
    changed = timeline(dataclasses.replace(drive.recording, frames=frames), drive.truth, drive.failures)
    np.testing.assert_allclose(changed.failing_camera_weight, drive.timeline.failing_camera_weight)


def test_a_frame_at_the_edge_of_a_failure_is_not_evaluated() -> None:
    """Its images may be older than the failure, and its sweep newer."""
    drive = recorded_drive()
    frames = [
        dataclasses.replace(frame, detections=detections_at(boxes_at()))
        if abs(drive.truth.seconds(frame.stamp_ns) - BLACK.begin) < 0.01
        else frame
        for frame in drive.recording.frames
    ]
    changed = timeline(Recording(frames, "", True), drive.truth, drive.failures)
    figures = summary(changed, drive.truth, drive.failures)
    assert (figures.recall, figures.recall_by_failure[BLACK]) == (1.0, 1.0)


def test_the_summary_counts_sweeps_without_detections() -> None:
    drive = recorded_drive()
    fewer = dataclasses.replace(drive, recording=Recording(drive.recording.frames[::2], "", True))
    assert (fewer.summary.sweeps_processed, fewer.summary.sweeps) == (10, 20)


def test_the_summary_of_no_frames_is_unknown() -> None:
    drive = recorded_drive()
    empty = dataclasses.replace(drive, recording=Recording([], "", False))
    assert math.isnan(empty.summary.recall) and empty.summary.sweeps_processed == 0
    lines = empty.summary.lines()
    assert len(lines) == 5 and all("nan" not in value for _, value in lines) and "unknown" in lines[1][1]
