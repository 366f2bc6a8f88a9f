"""AMOTA and its companions, from the devkit."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pandas", reason="needs the extra `tracking`")
pytest.importorskip("motmetrics", reason="needs the extra `tracking`")

from aqr_perception.demo.failures import FAILURES
from aqr_perception.evaluation import tracked_drives
from aqr_perception.evaluation.metrics import EvaluationError
from aqr_perception.evaluation.tracking_metrics import TrackedFrame, evaluate_tracks
from aqr_perception.frame import Detections, Frame, GroundTruth, LabelledFrame
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
    with pytest.raises(EvaluationError, match="found no tracked object"):
        evaluate_tracks({"drive": []})


def test_the_failures_are_the_demos() -> None:
    black, gone = FAILURES
    assert (black.sensor, black.begin, black.end) == tracked_drives.BLACK_CAMERA
    assert (gone.begin, gone.end) == tracked_drives.LIDAR_GONE


def test_both_trackers_get_the_same_drives_with_and_without_failures() -> None:
    """A detector that finds every object, but none while the LiDAR is gone."""

    def drive() -> list[LabelledFrame]:
        return [
            LabelledFrame(Frame(each.stamp_ns, np.zeros((0, 5), np.float32)), each.truth)
            for each in frames([[1, 2]] * 40)
        ]

    def detect(frame: Frame, options: DetectionOptions) -> SimpleNamespace:
        boxes = frames([[1, 2]])[0].truth.boxes[: 0 if frame.points is None else 2]
        weight = np.full(len(boxes), 0.9, np.float32)
        labels, by_camera = np.zeros(len(boxes), np.int64), np.zeros((len(boxes), 0), np.float32)
        return SimpleNamespace(detections=Detections(boxes, weight, labels, weight, weight, by_camera))

    detector = SimpleNamespace(detect=detect)
    results = tracked_drives.run(
        detector, {"drive": drive}, TrackingOptions(max_age=5.0, death_score=0.0), DetectionOptions()
    )
    assert results["clean", "kalman"].amota == pytest.approx(1.0)
    assert results["failures", "kalman"].switches == 0
    assert results["clean", "nearest"].frames == 40
    assert tracked_drives.table(results).count("\n") == 5
