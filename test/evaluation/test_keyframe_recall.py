# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recall and false alarms count what their rule says."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.made_up_keyframe import write_keyframe

from aqr_perception.cli import main
from aqr_perception.data.recordings.recorded_data import LabelledObject, Labels
from aqr_perception.evaluation.keyframe_recall import ClassCount, count, judged_area
from aqr_perception.frame import CLASSES, CameraView, Detections, Frame

OPTICAL = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def detections(*centres: tuple[float, float], name: str = "car") -> Detections:
    boxes = np.array([[x, y, 0, 4, 2, 1.5, 0, 0, 0] for x, y in centres], np.float32).reshape(-1, 9)
    ones = np.ones(len(boxes), np.float32)
    labels = np.full(len(boxes), CLASSES.index(name))
    return Detections(boxes, ones, labels, ones, ones, np.ones((len(boxes), 0), np.float32))


def labels(*objects: tuple[str, float, float, int], everywhere: bool = True) -> Labels:
    entries = [
        LabelledObject(name, np.array([x, y, 0, 4, 2, 1.5, 0, 0, 0]), lidar_points=hits) for name, x, y, hits in objects
    ]
    return Labels(0, tuple(entries), everywhere, {"front": np.array([[40.0, 0, 60, 60]])})


def counted(found: Detections, truth: Labels, to_model: np.ndarray | None = None) -> ClassCount:
    return count("car", found, truth, np.eye(4) if to_model is None else to_model, lambda _: truth.everywhere)


def test_a_car_within_two_metres_is_found_once_and_a_second_detection_is_a_false_alarm() -> None:
    assert counted(detections((10, 1.5), (10, 0)), labels(("car", 10, 0, 5))) == ClassCount(1, 1, 1)
    assert counted(detections((10, 2.5)), labels(("car", 10, 0, 5))) == ClassCount(1, 0, 1)


def test_objects_with_few_points_or_far_away_neither_count_nor_make_false_alarms() -> None:
    truth = labels(("car", 10, 0, 4), ("car", 30.5, 0, 50))
    assert counted(detections((10, 0), (29.5, 0), (40, 0)), truth) == ClassCount(0, 0, 0)


def test_a_car_on_a_truck_is_a_false_alarm() -> None:
    assert counted(detections((10, 0)), labels(("truck", 10, 0, 50))) == ClassCount(0, 0, 1)


def test_labels_are_compared_in_the_models_frame() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[0, -1], [1, 0]]
    assert counted(detections((0, 10)), labels(("car", 10, 0, 5)), turn) == ClassCount(1, 1, 0)


def test_where_only_pictures_are_labelled_nothing_else_is_judged() -> None:
    intrinsics = np.array([[50.0, 0, 50], [0, 50, 30], [0, 0, 1]])
    view = CameraView("front", np.zeros((60, 100, 3), np.uint8), intrinsics, OPTICAL)
    judged = judged_area(labels(everywhere=False), Frame(0, None, (view,)))
    assert judged(np.array([10.0, 5.0, 0.0])), "in the picture"
    assert not judged(np.array([10.0, 0.0, 0.0])), "in an ignored region"
    assert not judged(np.array([-10.0, 0.0, 0.0])), "behind the camera"


def test_data_without_labels_or_folders_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--data", "keyframes"]) == 1
    assert "--data keyframes FOLDER..." in capsys.readouterr().err
    folder = write_keyframe(tmp_path / "keyframe")
    assert main(["evaluate", "--data", "keyframes", str(folder), "--checkpoint", "random"]) == 1
    assert "found no labels in keyframe" in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_for_each_threshold(shared_reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, figures = shared_reference / "nuscenes_keyframe", tmp_path / "recall.json"
    command = ["evaluate", "--data", "keyframes", str(folder), "--checkpoint", "random", "--json", str(figures)]
    assert main([*command, "--thresholds", "0.011"]) == 0
    alone = json.loads(figures.read_text())
    assert main([*command, "--thresholds", "0", "0.011", "0"]) == 0
    assert json.loads(figures.read_text())[3:] == alone, "found with the lowest threshold, once"
    capsys.readouterr()
    assert main([*command, "--thresholds", "0", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("Score threshold 0:") < printed.index("Score threshold 1:")
    rows = json.loads(figures.read_text())
    assert [row["score_threshold"] for row in rows] == [0.0] * 3 + [1.0] * 3
    alarms = [sum(count["false_alarms"] for count in row["counts"].values()) for row in rows]
    assert sum(alarms[:3]) > 0
    assert alarms[3:] == [0] * 3
    assert main([*command, "--thresholds", "1.5"]) == 1
    assert "score_threshold is 1.5" in capsys.readouterr().err
