"""The demo's figures say what happened."""

import dataclasses
import math

import numpy as np
from helpers.played_drives import BLACK, GONE, boxes, detections_at, played, truth_at
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aqr_perception.demo.figures import MATCH_DISTANCE, counted, found, summary, timeline
from aqr_perception.demo.recording import Recording

CENTRES = arrays(np.float32, st.tuples(st.integers(0, 12), st.just(2)), elements=st.floats(-25, 25, width=32))


def as_boxes(centres: np.ndarray) -> np.ndarray:
    return boxes(*(tuple(centre) for centre in centres.tolist()))


@given(CENTRES)
def test_perfect_detections_find_every_object(centres: np.ndarray) -> None:
    truth = truth_at(0, as_boxes(centres))
    assert found(detections_at(truth.boxes), truth).all() and counted(truth).all()


@given(CENTRES, CENTRES)
def test_a_detection_finds_one_object_at_most_and_only_a_near_one(seen: np.ndarray, real: np.ndarray) -> None:
    truth = truth_at(0, as_boxes(real))
    hit = found(detections_at(as_boxes(seen)), truth)
    assert hit.sum() <= len(seen)
    for centre in real[hit]:
        assert np.hypot(*(seen - centre).T).min() <= MATCH_DISTANCE + 1e-5


@given(CENTRES, CENTRES)
def test_more_detections_never_lose_an_object(seen: np.ndarray, real: np.ndarray) -> None:
    truth = truth_at(0, as_boxes(real))
    few = detections_at(as_boxes(seen))
    scores = np.r_[few.scores, np.full(len(real), 0.1, np.float32)]
    more = detections_at(np.r_[few.boxes, truth.boxes], scores)
    assert found(more, truth).sum() >= found(few, truth).sum()


def test_a_detection_of_another_class_finds_nothing() -> None:
    truth = truth_at(0, boxes((10.0, 0.0)), np.array([8]))
    assert not found(detections_at(truth.boxes), truth).any()


def test_objects_too_far_for_their_class_or_hidden_from_the_lidar_do_not_count() -> None:
    truth = truth_at(0, boxes((45.0, 0.0), (45.0, 0.0), (10.0, 0.0), (55.0, 0.0)), np.array([0, 8, 0, 0]))
    truth = dataclasses.replace(truth, hit=np.array([True, True, False, True]))
    assert counted(truth).tolist() == [True, False, False, False]


def test_a_perfect_drive_has_recall_one_whichever_sensor_fails() -> None:
    drive = played()
    told = drive.summary
    assert told.recall == 1.0 and told.recall_failing == {BLACK: 1.0, GONE: 1.0}
    assert (told.answered, told.frames, told.median_milliseconds) == (20, 20, 400.0)


def test_the_failing_cameras_weight_is_told_before_and_during_its_failure() -> None:
    told = played().summary
    np.testing.assert_allclose((told.weight_before, told.weight_failing), (0.8, 0.2), atol=1e-6)
    assert told.watched == "front"


def test_a_cameras_weight_is_of_the_detections_that_it_sees() -> None:
    drive = played()
    answers = []
    for answer in drive.recording.answers:
        weights = answer.detections.camera_weights.copy()
        weights[1] = 0.0  # the second object is beside the vehicle
        answers.append(
            dataclasses.replace(answer, detections=dataclasses.replace(answer.detections, camera_weights=weights))
        )
    course = timeline(dataclasses.replace(drive.recording, answers=answers), drive.truth, drive.failures)
    np.testing.assert_allclose(course.watched_weight, drive.course.watched_weight)


def test_a_frame_at_a_failures_edge_counts_on_neither_side() -> None:
    """Its pictures may be from before the failure, its sweep from after."""
    drive = played()
    answers = [
        dataclasses.replace(answer, detections=detections_at(boxes()))
        if abs(drive.truth.seconds(answer.stamp_ns) - BLACK.begin) < 0.01
        else answer
        for answer in drive.recording.answers
    ]
    course = timeline(Recording(answers, "", True), drive.truth, drive.failures)
    told = summary(course, drive.truth, drive.failures)
    assert (told.recall, told.recall_failing[BLACK]) == (1.0, 1.0)


def test_frames_that_are_not_answered_are_told() -> None:
    drive = played()
    fewer = dataclasses.replace(drive, recording=Recording(drive.recording.answers[::2], "", True))
    assert (fewer.summary.answered, fewer.summary.frames) == (10, 20)


def test_nothing_to_tell_is_told_as_unknown() -> None:
    drive = played()
    empty = dataclasses.replace(drive, recording=Recording([], "", False))
    assert math.isnan(empty.summary.recall) and empty.summary.answered == 0
    lines = empty.summary.lines()
    assert len(lines) == 5 and all("nan" not in value for _, value in lines) and "unknown" in lines[1][1]
