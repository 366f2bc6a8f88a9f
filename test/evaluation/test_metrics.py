# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""nuScenes detection metrics of perfect, wrong and missing detections."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
from nuscenes.eval.detection.constants import TP_METRICS
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionMetrics

from aqr_perception.evaluation.devkit_boxes import derived_attribute
from aqr_perception.evaluation.metrics import ERRORS, OWN_CLASS_RANGE, EvaluationError, evaluate
from aqr_perception.frame import CLASSES, Detections, GroundTruth

ALL = np.arange(len(CLASSES))
Labelled = TypeVar("Labelled", Detections, GroundTruth)


def truth_of(labels: np.ndarray, seed: int = 0) -> GroundTruth:
    """Return moving objects at least 7 m apart, all within the shortest range, in random order."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(-3, 4), np.arange(-3, 4)), -1).reshape(-1, 2) * 7.0
    grid = grid[np.linalg.norm(grid, axis=1) < 28]
    count = len(labels)
    boxes = np.zeros((count, 9), np.float32)
    boxes[:, :2] = random.permutation(grid)[:count]
    boxes[:, 2] = random.uniform(-1, 1, count)
    boxes[:, 3:6] = random.uniform(0.3, 8, (count, 3))
    boxes[:, 6] = random.uniform(-np.pi, np.pi, count)
    direction = random.uniform(-np.pi, np.pi, count)
    boxes[:, 7:] = random.uniform(1, 9, (count, 1)) * np.stack((np.cos(direction), np.sin(direction)), -1)
    return GroundTruth(
        boxes, np.asarray(labels, np.int64), np.arange(count), np.ones(count, np.int64), np.ones((count, 6), np.float32)
    )


def detections_of(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Detections:
    weight = np.ones(len(labels), np.float32)
    return Detections(boxes, scores.astype(np.float32), labels, weight, weight, np.ones((len(labels), 6), np.float32))


def perfect(truth: GroundTruth, seed: int = 0) -> Detections:
    scores = np.random.default_rng(seed).uniform(0.05, 1, len(truth))
    return detections_of(truth.boxes.copy(), truth.labels, scores)


def changed(change: Callable[[np.ndarray], None], truth: GroundTruth) -> Detections:
    detections = perfect(truth)
    change(detections.boxes)
    return detections


@settings(max_examples=25, deadline=None)
@given(
    frames=st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=4).filter(any),
    seed=st.integers(0, 2**32 - 1),
)
def test_perfect_detections_score_one(frames: list[list[int]], seed: int) -> None:
    truths = [truth_of(np.array(labels, int), seed + index) for index, labels in enumerate(frames)]
    scores = evaluate([(perfect(truth, seed), truth) for truth in truths])
    assert scores.mean_ap == pytest.approx(1)
    assert scores.nds == pytest.approx(1, abs=1e-6)
    assert set(scores.classes) == {CLASSES[label] for labels in frames for label in labels}
    assert scores.objects == sum(map(len, frames)) and scores.frames == len(frames)


@settings(max_examples=10, deadline=None)
@given(missed=st.integers(1, 17), seed=st.integers(0, 1000))
def test_every_missed_object_costs_average_precision(missed: int, seed: int) -> None:
    """Holds down to a recall of 0.1, below which nuScenes counts nothing."""
    truth = truth_of(np.zeros(20, int), seed)
    detections = perfect(truth)
    columns = (detections.boxes, detections.labels, detections.scores)
    fewer, one_more = (detections_of(*(column[first:] for column in columns)) for first in (missed, missed - 1))
    assert evaluate([(fewer, truth)]).mean_ap < evaluate([(one_more, truth)]).mean_ap


def test_confident_false_positives_cost_most() -> None:
    truth = truth_of(np.zeros(20, int))
    detections = perfect(truth)
    false_positives = detections.boxes + np.float32([4.5, 0, 0, 0, 0, 0, 0, 0, 0])
    boxes, labels = np.concatenate((detections.boxes, false_positives)), np.zeros(40, int)

    def score(false_positive_scores: np.ndarray) -> float:
        together = detections_of(boxes, labels, np.concatenate((detections.scores, false_positive_scores)))
        return evaluate([(together, truth)]).mean_ap

    shuffled = np.random.default_rng(1).permutation(detections.scores)
    assert score(np.full(20, 0.01)) > score(shuffled) > score(np.full(20, 1.0))


def test_a_duplicate_detection_is_a_false_positive() -> None:
    truth = truth_of(np.zeros(4, int))
    detections = perfect(truth)
    twice = detections_of(
        np.repeat(detections.boxes, 2, axis=0), np.repeat(detections.labels, 2), np.repeat(detections.scores, 2)
    )
    assert evaluate([(twice, truth)]).mean_ap < 0.8


def _shift(boxes: np.ndarray) -> None:
    boxes[:, 0] += 0.3


def _turn(boxes: np.ndarray) -> None:
    boxes[:, 6] += 0.1


def _reverse(boxes: np.ndarray) -> None:
    boxes[:, 6] += np.pi


def _shrink(boxes: np.ndarray) -> None:
    boxes[:, 3:6] *= 0.9


def _speed_up(boxes: np.ndarray) -> None:
    boxes[:, 7:] *= 1 + 0.4 / np.linalg.norm(boxes[:, 7:], axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("change", "error", "size"),
    [
        (_shift, "ATE", 0.3),
        (_shrink, "ASE", 1 - 0.9**3),
        (_turn, "AOE", 0.1),
        # Barriers look the same after half a turn and cones have no heading: eight of nine classes are off by pi.
        (_reverse, "AOE", np.pi * 8 / 9),
        (_speed_up, "AVE", 0.4),
    ],
)
def test_a_wrong_box_value_changes_only_its_own_error(
    change: Callable[[np.ndarray], None], error: str, size: float
) -> None:
    truth = truth_of(np.repeat(ALL, 3))
    scores = evaluate([(changed(change, truth), truth)])
    assert scores.mean_ap == pytest.approx(1)
    assert scores.errors == pytest.approx(dict.fromkeys(ERRORS, 0) | {error: size}, abs=1e-3)
    assert scores.nds == pytest.approx(1 - min(size, 1) / 10, abs=1e-3)


def test_a_standing_object_detected_as_moving_is_an_attribute_error() -> None:
    truth = truth_of(np.arange(5))
    truth.boxes[:, 7:] = 0

    def creep(boxes: np.ndarray) -> None:
        boxes[:, 7] = 0.3

    errors = evaluate([(changed(creep, truth), truth)]).errors
    assert errors["AAE"] == 1 and errors["AVE"] == pytest.approx(0.3)


def test_attributes_follow_class_and_speed() -> None:
    still, fast = np.zeros(2), np.array([0.15, 0.15])
    assert {
        name: (derived_attribute(name, still), derived_attribute(name, fast)) for name in ("car", "bus", "pedestrian")
    } == {
        "car": ("vehicle.parked", "vehicle.moving"),
        "bus": ("vehicle.stopped", "vehicle.moving"),
        "pedestrian": ("pedestrian.standing", "pedestrian.moving"),
    }
    assert (derived_attribute("bicycle", still), derived_attribute("bicycle", fast)) == (
        "cycle.without_rider",
        "cycle.with_rider",
    )
    none = (("barrier", fast), ("traffic_cone", still), ("car", still * np.nan))
    assert [derived_attribute(name, velocity) for name, velocity in none] == [""] * 3


def test_an_unknown_velocity_is_excluded_from_the_errors() -> None:
    truth = truth_of(np.zeros(6, int))
    detections = perfect(truth)
    truth.boxes[:2, 7:] = np.nan
    errors = evaluate([(detections, truth)]).errors
    assert errors["AVE"] == 0 and errors["AAE"] == 0


def test_objects_without_a_lidar_point_count_only_on_request() -> None:
    truth = truth_of(np.zeros(8, int))
    detections = perfect(truth)
    seen = detections_of(detections.boxes[4:], detections.labels[4:], detections.scores[4:])
    hidden = dataclasses.replace(truth, lidar_points=np.repeat([0, 5], 4))
    assert evaluate([(seen, hidden)]).mean_ap == pytest.approx(1)
    assert evaluate([(seen, hidden)]).objects == 4
    everything = evaluate([(seen, hidden)], need_lidar_points=False)
    assert everything.objects == 8 and everything.mean_ap < 0.6


def test_each_class_has_its_own_range() -> None:
    truth = truth_of(ALL)
    truth.boxes[:, :2] = np.stack((np.full(10, 45.0), np.arange(10)), -1)
    scores = evaluate([(perfect(truth), truth)])
    assert scores.classes == ("car", "truck", "construction_vehicle", "bus", "trailer")


def devkit_box(token: str, name: str, box: np.ndarray, score: float) -> DetectionBox:
    x, y, z, length, width, height, yaw, *velocity = box.tolist()
    rotation = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
    attribute = derived_attribute(name, box[7:9])
    return DetectionBox(
        token, (x, y, z), (width, length, height), rotation, velocity, (0, 0, 0), -1, name, score, attribute
    )


def test_with_all_classes_the_figures_equal_the_devkits() -> None:
    """Compares with the devkit's summary of boxes of all classes together."""
    random = np.random.default_rng(3)
    config = config_factory("detection_cvpr_2019")
    true, predicted, pairs = EvalBoxes(), EvalBoxes(), []
    turn, offset = 2.1, np.array([412.0, 1630.0])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    def in_world(boxes: np.ndarray) -> np.ndarray:
        boxes = boxes.astype(float)
        return np.c_[boxes[:, :2] @ rotation.T + offset, boxes[:, 2:6], boxes[:, 6] + turn, boxes[:, 7:] @ rotation.T]

    for frame in range(4):
        truth = truth_of(np.concatenate((ALL, ALL)), frame)
        noise = random.normal(0, 1, truth.boxes.shape) * [0.7, 0.7, 0.1, 0.1, 0.1, 0.1, 0.3, 0.5, 0.5]
        detections = detections_of(
            (truth.boxes + noise).clip([-99, -99, -9, 0.1, 0.1, 0.1, -9, -9, -9], 99).astype(np.float32),
            np.where(random.random(20) < 0.8, truth.labels, random.integers(0, 10, 20)),
            random.uniform(0, 1, 20),
        )
        pairs.append((detections, truth))
        for group, boxes, labels, scores in (
            (true, truth.boxes, truth.labels, np.full(20, -1.0)),
            (predicted, detections.boxes, detections.labels, detections.scores),
        ):
            near = [np.hypot(*box[:2]) < config.class_range[CLASSES[n]] for box, n in zip(boxes, labels, strict=True)]
            world = zip(in_world(boxes)[near], labels[near], scores[near], strict=True)
            group.add_boxes(
                str(frame),
                [devkit_box(str(frame), CLASSES[label], box, float(score)) for box, label, score in world],
            )
    metrics = DetectionMetrics(config)
    for name in CLASSES:
        for distance in config.dist_ths:
            curves = accumulate(true, predicted, name, config.dist_fcn_callable, distance)
            metrics.add_label_ap(name, distance, calc_ap(curves, config.min_recall, config.min_precision))
        curves = accumulate(true, predicted, name, config.dist_fcn_callable, config.dist_th_tp)
        skipped = {"traffic_cone": ("attr_err", "vel_err", "orient_err"), "barrier": ("attr_err", "vel_err")}
        for error in TP_METRICS:
            value = np.nan if error in skipped.get(name, ()) else calc_tp(curves, config.min_recall, error)
            metrics.add_label_tp(name, error, value)

    ours = evaluate(pairs)
    assert 0.1 < ours.mean_ap < 0.9
    assert ours.mean_ap == pytest.approx(metrics.mean_ap) and ours.nds == pytest.approx(metrics.nd_score)
    assert {ERRORS[name]: error for name, error in ours.errors.items()} == pytest.approx(metrics.tp_errors, abs=1e-5)


def test_a_truth_without_objects_is_an_error() -> None:
    nothing = truth_of(np.array([], int))
    with pytest.raises(EvaluationError, match="found no object within the range of its class in 1 frames"):
        evaluate([(perfect(nothing), nothing)])
    with pytest.raises(EvaluationError, match="0 frames"):
        evaluate([])


def test_more_detections_than_nuscenes_allows_are_rejected() -> None:
    truth = truth_of(np.zeros(1, int))
    many = detections_of(np.repeat(truth.boxes, 501, axis=0), np.zeros(501, int), np.linspace(0, 1, 501))
    with pytest.raises(EvaluationError, match="501 detections, but nuScenes allows 500"):
        evaluate([(many, truth)])


def of_classes(labelled: Labelled, classes: tuple[str, ...]) -> Labelled:
    return dataclasses.replace(labelled, classes=classes)


def test_an_own_class_has_the_average_precision_computed_by_hand() -> None:
    """One object; a confident false positive, then the hit: precision rises linearly to 1/2 at full recall."""
    boxes = np.zeros((2, 9), np.float32)
    boxes[:, 3:6] = 2
    boxes[1, 0] = 20
    truth = of_classes(truth_of(np.zeros(1, int)), ("forklift",))
    truth = dataclasses.replace(truth, boxes=boxes[:1])
    found = of_classes(detections_of(boxes[::-1], np.zeros(2, int), np.array([0.9, 0.5])), ("forklift",))
    scores = evaluate([(found, truth)])
    recalls = np.arange(11, 101) / 100  # nuScenes leaves out recalls and precisions up to 0.1
    assert scores.mean_ap == pytest.approx(np.clip(recalls / 2 - 0.1, 0, None).mean() / 0.9)
    assert scores.classes == ("forklift",)
    assert scores.class_errors["forklift"] == pytest.approx({"ATE": 0, "ASE": 0, "AOE": 0, "AVE": 0})


def test_own_classes_score_as_vehicles_do_but_have_no_attribute() -> None:
    truth = truth_of(np.repeat([0, 1], 8))
    found = perfect(truth)
    found.boxes[:, 0] += np.random.default_rng(0).uniform(-2, 2, 16).astype(np.float32)
    vehicles = evaluate([(of_classes(found, ("car", "truck")), of_classes(truth, ("car", "truck")))])
    own = evaluate([(of_classes(found, ("forklift", "truck")), of_classes(truth, ("forklift", "truck")))])
    assert own.ap["forklift"] == vehicles.ap["car"] and own.ap["truck"] == vehicles.ap["truck"]
    expected = {name: error for name, error in vehicles.class_errors["car"].items() if name != "AAE"}
    assert own.class_errors["forklift"] == expected
    assert own.errors["AAE"] == vehicles.class_errors["truck"]["AAE"]


def test_own_classes_count_within_50_metres() -> None:
    truth = of_classes(truth_of(np.zeros(2, int)), ("forklift",))
    truth.boxes[:, :2] = [[OWN_CLASS_RANGE - 0.1, 0], [OWN_CLASS_RANGE + 0.1, 0]]
    assert evaluate([(of_classes(perfect(truth), ("forklift",)), truth)]).objects == 1


def test_detections_and_truth_of_different_classes_are_refused() -> None:
    truth = truth_of(np.zeros(2, int))
    with pytest.raises(EvaluationError, match=r"frame 1 has detections of the classes forklift, car .* of car, truck"):
        evaluate([(of_classes(perfect(truth), ("forklift", "car")), truth)])
    other = of_classes(truth, ("forklift", "car"))
    with pytest.raises(EvaluationError, match="frame 2 has detections of the classes forklift, car "):
        evaluate([(perfect(truth), truth), (of_classes(perfect(truth), other.classes), other)])
