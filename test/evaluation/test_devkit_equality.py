# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scores on nuScenes' tables, compared with those of nuscenes-devkit's own `DetectionEval`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.nuscenes_tables import ATTRIBUTES, SPLIT, VERSION, write_drive
from helpers.quick_first import quick_first
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.data_classes import DetectionMetrics
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name, detection_name_to_rel_attributes
from nuscenes.nuscenes import NuScenes

from aqr_perception.data.sources.nuscenes import NuScenesDataset
from aqr_perception.evaluation.metrics import ERRORS, DetectionScores, EvaluationError, evaluate
from aqr_perception.evaluation.nuscenes_results import write_results
from aqr_perception.frame import CLASSES, Detections, GroundTruth

CATEGORIES = (
    "vehicle.car",
    "vehicle.truck",
    "vehicle.construction",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.trailer",
    "movable_object.barrier",
    "vehicle.motorcycle",
    "vehicle.bicycle",
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "movable_object.trafficcone",
    "static_object.bicycle_rack",
    "animal",
)
RACK = "static_object.bicycle_rack"
Pairs = list[tuple[Detections, GroundTruth]]


def scattered(random: np.random.Generator, count: int, categories: tuple[str, ...] = CATEGORIES) -> dict[str, Any]:
    """Return objects within 65 m of the drive, some of them without points or hit by radar alone."""
    objects: dict[str, Any] = {}
    for number in range(count):
        category = categories[number % len(categories)]
        name = category_to_detection_name(category)
        known = [each for each in ATTRIBUTES if name and each in detection_name_to_rel_attributes(name)]
        distance, direction = random.uniform(3, 65), random.uniform(0, 2 * np.pi)
        points = [(5, 0), (0, 3), (0, 0), (2, 1)][random.choice(4, p=[0.5, 0.2, 0.1, 0.2])]
        objects[f"object-{number}"] = {
            "category": category,
            "at": [400 + distance * np.cos(direction), 900 + distance * np.sin(direction), random.uniform(0, 2)],
            "size": random.uniform(5, 15, 3).tolist() if category == RACK else random.uniform(0.3, 6, 3).tolist(),
            "velocity": random.choice([0, 0, 1]) * np.append(random.normal(0, 4, 2), 0),
            "yaw": random.uniform(-np.pi, np.pi),
            "attribute": random.choice([*known, ""]) if known else "",
            "points": points,
            "samples": tuple(np.flatnonzero(random.random(3) < 0.8).tolist()),
        }
    return objects


def with_cycles_in_racks(random: np.random.Generator, objects: dict[str, Any]) -> dict[str, Any]:
    """Return the objects with a bicycle or motorcycle near the middle of each rack."""
    racks = {name: entry for name, entry in objects.items() if entry["category"] == RACK}
    added = {
        f"in-{name}": entry
        | {
            "category": random.choice(["vehicle.bicycle", "vehicle.motorcycle"]),
            "at": [*(np.array(entry["at"][:2]) + random.normal(0, 2, 2)), entry["at"][2]],
            "attribute": "cycle.without_rider",
            "size": [0.7, 1.8, 1.2],
        }
        for name, entry in racks.items()
    }
    return objects | added


def detected(random: np.random.Generator, truth: GroundTruth, noise: float) -> Detections:
    """Return most of the objects, inaccurately and some twice or with another class, and false positives."""
    found = np.flatnonzero(random.random(len(truth)) < 0.85)
    found = np.concatenate([found, found[random.random(len(found)) < 0.2]])
    boxes = np.nan_to_num(truth.boxes[found].astype(float))
    boxes += random.normal(0, noise, boxes.shape) * [0.7, 0.7, 0.2, 0.2, 0.2, 0.2, 0.3, 0.5, 0.5]
    false = np.c_[random.uniform(-60, 60, (8, 2)), random.uniform(-2, 2, (8, 1)), random.uniform(0.5, 5, (8, 3))]
    boxes = np.concatenate([boxes, np.c_[false, random.uniform(-4, 4, (8, 3))]])
    boxes[:, 3:6] = boxes[:, 3:6].clip(0.1)
    labels = np.concatenate([truth.labels[found], random.integers(0, 10, 8)])
    labels = np.where(random.random(len(labels)) < 0.9, labels, random.integers(0, 10, len(labels)))
    scores = random.random(len(labels)).round(1) if noise > 0.5 else random.random(len(labels))
    return detections_of(boxes, labels, scores)


def detections_of(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Detections:
    weight = np.ones(len(labels), np.float32)
    return Detections(
        boxes.astype(np.float32), scores.astype(np.float32), labels, weight, weight, np.ones((len(labels), 2))
    )


def perfect(truth: GroundTruth) -> Detections:
    boxes = np.nan_to_num(truth.boxes)
    return detections_of(boxes, truth.labels, np.linspace(0.9, 0.5, len(truth)))


def truths_of(folder: Path, objects: dict[str, Any], classes: tuple[str, ...] = CLASSES) -> list[GroundTruth]:
    write_drive(folder, objects)
    data = NuScenesDataset(folder, VERSION, SPLIT, sweeps=1, classes=classes)
    return [data[index].truth for index in range(len(data))]


def devkit_scores(folder: Path, pairs: Pairs) -> DetectionMetrics:
    """Return what the devkit's own class makes of the result file."""
    results = folder / "results.json"
    write_results(results, pairs, cameras=True, lidar=True)
    tables = NuScenes(VERSION, str(folder), verbose=False)
    config = config_factory("detection_cvpr_2019")
    evaluation = DetectionEval(tables, config, str(results), SPLIT, str(folder / "devkit"), verbose=False)
    return evaluation.evaluate()[0]


def assert_equal(ours: DetectionScores, devkits: DetectionMetrics) -> None:
    assert ours.rules == "devkit" and ours.classes == CLASSES
    assert ours.mean_ap == pytest.approx(devkits.mean_ap, abs=1e-9)
    assert ours.nds == pytest.approx(devkits.nd_score, abs=1e-9)
    assert {ERRORS[name]: error for name, error in ours.errors.items()} == pytest.approx(devkits.tp_errors, abs=1e-9)
    for name in CLASSES:
        expected = {distance: devkits.get_label_ap(name, distance) for distance in devkits.cfg.dist_ths}
        assert ours.ap[name] == pytest.approx(expected, abs=1e-9), name
        of_class = {ERRORS[error]: value for error, value in ours.class_errors[name].items()}
        defined = {key: devkits.get_label_tp(name, key) for key in ERRORS.values()}
        defined = {key: value for key, value in defined.items() if not np.isnan(value)}
        assert of_class == pytest.approx(defined, abs=1e-9), name


@pytest.mark.parametrize("seed", quick_first(range(8), quick=3))
def test_all_figures_equal_those_of_the_devkits_own_class(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    objects = with_cycles_in_racks(random, scattered(random, 20 + 15 * seed))
    truths = truths_of(tmp_path, objects)
    pairs = [(detected(random, truth, noise=[0.1, 1.0][seed % 2]), truth) for truth in truths]
    ours = evaluate(pairs)
    assert_equal(ours, devkit_scores(tmp_path, pairs))
    assert ours.mean_ap > 0


@pytest.mark.parametrize("categories", [("vehicle.car",), ("vehicle.bicycle", RACK), ("movable_object.barrier",)])
def test_classes_without_a_true_object_count_as_they_do_there(tmp_path: Path, categories: tuple[str, ...]) -> None:
    random = np.random.default_rng(1)
    objects = with_cycles_in_racks(random, scattered(random, 40, categories))
    pairs = [(perfect(truth), truth) for truth in truths_of(tmp_path, objects)]
    ours = evaluate(pairs)
    assert_equal(ours, devkit_scores(tmp_path, pairs))
    assert len(ours.absent) == 9 - ("vehicle.bicycle" in categories) * (ours.ap["motorcycle"][4.0] > 0)


def one(category: str, at: tuple[float, float], **fields: object) -> dict[str, Any]:
    return {"category": category, "at": [*at, 1.0], "size": [1.0, 2.0, 1.5], "samples": (0, 1, 2)} | fields


def test_objects_that_only_radar_hit_count(tmp_path: Path) -> None:
    objects = {
        "lidar": one("vehicle.truck", (420, 899), points=(5, 3)),
        "radar": one("vehicle.truck", (428, 915), points=(0, 3)),
        "neither": one("vehicle.truck", (410, 915), points=(0, 0)),
    }
    scores = evaluate([(perfect(truth), truth) for truth in truths_of(tmp_path, objects)])
    assert scores.objects == 6 and list(scores.ap["truck"].values()) == pytest.approx([1] * 4)


def test_cycles_in_a_rack_do_not_count_and_their_detections_are_no_false_ones(tmp_path: Path) -> None:
    objects = {
        "rack": one(RACK, (420, 899), size=[4.0, 8.0, 3.0]),
        "parked": one("vehicle.bicycle", (420.5, 899.5)),
        "also": one("vehicle.motorcycle", (419.5, 898.5)),
        "free": one("vehicle.bicycle", (410, 912)),
        "car": one("vehicle.car", (420, 899)),
    }
    truths = truths_of(tmp_path, objects)
    scores = evaluate([(perfect(truth), truth) for truth in truths])
    assert [*scores.ap["bicycle"].values(), *scores.ap["car"].values()] == pytest.approx([1] * 8)
    assert scores.objects == 6 and "motorcycle" in scores.absent


def test_ranges_start_at_the_vehicles_origin_not_at_the_lidar(tmp_path: Path) -> None:
    """The LiDAR is 0.9 m ahead of it: a car ahead is in range of the LiDAR only, a car behind of the origin only."""
    heading = np.array([np.cos(0.4), np.sin(0.4)])
    (ahead, behind) = (tuple(np.array([400, 900]) + way * heading) for way in (50.4, -49.6))
    objects = {"ahead": one("vehicle.car", ahead, samples=(0,)), "behind": one("vehicle.car", behind, samples=(0,))}
    truth = truths_of(tmp_path, objects)[0]
    ranges = np.linalg.norm(truth.boxes[:, :2], axis=1)
    assert sorted(ranges > 50) == [False, True]
    assert evaluate([(perfect(truth), truth)]).objects == 1
    scores = evaluate([(perfect(truth.keep(ranges > 50)), truth)])
    assert list(scores.ap["car"].values()) == pytest.approx([1] * 4)


def test_own_rules_derive_attributes_on_both_sides_and_count_present_classes_only(tmp_path: Path) -> None:
    objects = {"waiting": one("vehicle.car", (420, 899), attribute="vehicle.stopped")}
    pairs = [(perfect(truth), truth) for truth in truths_of(tmp_path, objects)]
    official, own = evaluate(pairs), evaluate(pairs, rules="own")
    assert official.class_errors["car"]["AAE"] == 1 and official.mean_ap == pytest.approx(0.1)
    assert own.class_errors["car"]["AAE"] == 0 and own.mean_ap == pytest.approx(1) and own.classes == ("car",)


def test_own_classes_have_own_rules_and_the_devkits_filters(tmp_path: Path) -> None:
    objects = {"dog": one("animal", (420, 899)), "car": one("vehicle.car", (410, 912), points=(0, 2))}
    pairs = [(perfect(truth), truth) for truth in truths_of(tmp_path, objects, ("animal", "car"))]
    pairs = [(dataclasses.replace(found, classes=truth.classes), truth) for found, truth in pairs]
    scores = evaluate(pairs)
    assert scores.rules == "own" and scores.mean_ap == pytest.approx(1) and scores.objects == 6
    with pytest.raises(EvaluationError, match="has the classes animal, car, not nuScenes' ten"):
        evaluate(pairs, rules="devkit")
    write_results(tmp_path / "results.json", pairs, cameras=True, lidar=False)
    content = json.loads((tmp_path / "results.json").read_text())
    assert [[entry["detection_name"] for entry in boxes] for boxes in content["results"].values()] == [["car"]] * 3
    assert content["meta"] == dict.fromkeys(("use_radar", "use_map", "use_external", "use_lidar"), False) | {
        "use_camera": True
    }


def test_the_devkits_rules_are_refused_without_annotations_in_the_world_frame(tmp_path: Path) -> None:
    (truth, *_) = truths_of(tmp_path, {"car": one("vehicle.car", (420, 899))})
    made_up = dataclasses.replace(truth, world=None)
    with pytest.raises(EvaluationError, match="frame 1: its truth has no annotations in the world frame"):
        evaluate([(perfect(truth), made_up)], rules="devkit")
    assert evaluate([(perfect(truth), made_up)]).rules == "own"
    with pytest.raises(EvaluationError, match="frame 2: its truth has no annotations"):
        evaluate([(perfect(truth), truth), (perfect(truth), made_up)])
    with pytest.raises(EvaluationError, match="frame 1 is not a sample of nuScenes' tables"):
        write_results(tmp_path / "results.json", [(perfect(truth), made_up)], cameras=True, lidar=True)
    with pytest.raises(EvaluationError, match="rules is 'official', but must be one of devkit, own"):
        evaluate([(perfect(truth), truth)], rules="official")  # type: ignore[arg-type]


def test_an_attribute_that_nuscenes_does_not_have_is_named(tmp_path: Path) -> None:
    (truth, *_) = truths_of(tmp_path, {"car": one("vehicle.car", (420, 899))})
    assert truth.world is not None
    odd = dataclasses.replace(truth, world=dataclasses.replace(truth.world, attributes=("vehicle.asleep",)))
    with pytest.raises(EvaluationError, match=r"sample-0: found the attribute 'vehicle\.asleep'.*--rules own"):
        evaluate([(perfect(odd), odd)])
    assert evaluate([(perfect(odd), odd)], rules="own").mean_ap == pytest.approx(1)


def test_selected_objects_keep_their_annotations(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    truth = truths_of(tmp_path, scattered(random, 30))[0]
    cars = truth.relabelled(("car", "bus"))
    assert cars.world is not None and truth.world is not None and 0 < len(cars) < len(truth)
    assert len(cars.world.boxes) == len(cars.world.attributes) == len(cars)
    in_world = cars.boxes[:, :3] @ truth.world.model_to_world[:3, :3].T + truth.world.model_to_world[:3, 3]
    np.testing.assert_allclose(in_world, cars.world.boxes[:, :3], atol=1e-3)
