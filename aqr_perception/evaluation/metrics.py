# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""nuScenes detection metrics (arXiv:1903.11027, section 3), computed with nuscenes-devkit's functions.

The devkit does the matching, average precision and true-positive errors, with the thresholds, ranges and weights of its
configuration ``detection_cvpr_2019``. There are two sets of rules:

``devkit``
    All figures equal those of the devkit's `DetectionEval` on the same boxes: boxes are compared in the world frame,
    ranges are measured from the vehicle's origin, objects with LiDAR or radar points count, bicycles and motorcycles in
    racks do not, true objects have their annotated attributes, and means are over all ten classes, where an absent
    class has AP 0 and errors 1. They need truth with `GroundTruth.world` and nuScenes' ten classes, and are the default
    there.
``own``
    As above, except that attributes on both sides are derived from class and speed, and that only classes in the truth
    count, and only errors that one of these defines. AAE then measures whether motion is recognised. It is lower than
    the official AAE, which also distinguishes parked from stopped vehicles and sitting from standing people. Classes
    outside nuScenes' ten are matched by the same rules, within `OWN_CLASS_RANGE`; they have no attribute. Truth
    without `GroundTruth.world` is compared in the model frame, with ranges from its origin.

`Detections` have no attributes. Class and speed determine them in both sets of rules, by the rule of mmdetection3d and
therefore of CMT's submissions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
from nuscenes.eval.detection.constants import DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionConfig, DetectionMetrics

from aqr_perception.evaluation.devkit_boxes import (
    OWN_CLASS_RANGE,
    DevkitBoxes,
    EvaluationError,
    annotated_attributes,
    derived_attributes,
    devkit_name,
    sensor_points,
    world_boxes,
)
from aqr_perception.frame import CLASSES, Detections, GroundTruth

__all__ = ["ERRORS", "OWN_CLASS_RANGE", "DetectionScores", "EvaluationError", "Rules", "evaluate"]

Rules = Literal["devkit", "own"]

ERRORS: Mapping[str, str] = {
    "ATE": "trans_err",
    "ASE": "scale_err",
    "AOE": "orient_err",
    "AVE": "vel_err",
    "AAE": "attr_err",
}
"""True-positive errors and their devkit names: translation (m), scale (1 - IoU), orientation (rad), velocity (m/s),
attribute (1 - accuracy)."""

_UNDEFINED = {"traffic_cone": ("AOE", "AVE", "AAE"), "barrier": ("AVE", "AAE")}


@dataclass(frozen=True)
class DetectionScores:
    """nuScenes detection metrics of a set of frames.

    Attributes:
        mean_ap: AP, averaged over `classes` and the distances 0.5, 1, 2 and 4 m.
        nds: nuScenes detection score from `mean_ap` and `errors`.
        errors: ATE, ASE, AOE, AVE and AAE, averaged over `classes`, without errors that no class defines.
        ap: average precision by class and distance in metres.
        class_errors: errors by class, without errors that the class does not define.
        classes: classes that all means are over: all ten with the devkit's rules, those in the ground truth with own
            rules.
        frames, objects: numbers of frames, and of true objects that count.
        rules: see the module.
        absent: those of `classes` without a true object, with AP 0 and errors 1.
    """

    mean_ap: float
    nds: float
    errors: Mapping[str, float]
    ap: Mapping[str, Mapping[float, float]]
    class_errors: Mapping[str, Mapping[str, float]]
    classes: tuple[str, ...]
    frames: int
    objects: int
    rules: Rules = "own"
    absent: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def evaluate(
    pairs: Iterable[tuple[Detections, GroundTruth]], *, need_lidar_points: bool = True, rules: Rules | None = None
) -> DetectionScores:
    """Return the nuScenes metrics (arXiv:1903.11027, section 3) of detections against their ground truth.

    Args:
        pairs: detections and ground truth of each frame. Average precision needs detections with all scores.
        need_lidar_points: whether to ignore true objects without a LiDAR or radar point, as the devkit does. Use the
            truth of the frame with all sensors even if a sensor failed; otherwise, objects that the failure hides do
            not count as missed. Use False for data without LiDAR.
        rules: see the module; by default the devkit's where the first frame's truth allows them, own ones otherwise.

    Raises:
        EvaluationError: the ground truth has no object or does not allow the devkit's rules, a frame has more
            detections than nuScenes allows, or the classes of detections and ground truth differ.
    """
    config = config_factory("detection_cvpr_2019")
    predicted, true = DevkitBoxes(config), DevkitBoxes(config)
    frames, all_classes = 0, None
    for frames, (detections, truth) in enumerate(pairs, start=1):
        if len(detections) > config.max_boxes_per_sample:
            raise EvaluationError(
                f"frame {frames} has {len(detections)} detections, but nuScenes allows {config.max_boxes_per_sample}; "
                "lower max_detections"
            )
        all_classes = all_classes or truth.classes
        if detections.classes != all_classes or truth.classes != all_classes:
            raise EvaluationError(
                f"frame {frames} has detections of the classes {', '.join(detections.classes)} and true objects of "
                f"{', '.join(truth.classes)}, needed {', '.join(all_classes)} for both, as in the first frame's truth; "
                "relabel the truth with GroundTruth.relabelled"
            )
        rules = rules or ("own" if _devkit_problem(truth) else "devkit")
        _check_rules(rules, truth, frames)
        if need_lidar_points:
            truth = truth.keep(sensor_points(truth) > 0)
        _add(frames, detections, truth, rules, predicted, true)
    present = tuple(name for name in all_classes or () if true.objects[name])
    if not present:
        raise EvaluationError(
            f"found no object within the range of its class in {frames} frames, needed at least one"
            + (" with a LiDAR point; for data without LiDAR, use need_lidar_points=False" if need_lidar_points else "")
        )
    classes = CLASSES if rules == "devkit" else present
    metrics = DetectionMetrics(config)
    for name in classes:
        _score_class(metrics, config, name, true.boxes[name], predicted.boxes[name])
    return _summary(metrics, config, classes, frames, true.objects, rules or "own")


def _devkit_problem(truth: GroundTruth) -> str | None:
    """Return why the devkit's rules cannot be used; None if they can."""
    if truth.world is None:
        return "has no annotations in the world frame, which only nuScenes' tables give"
    if set(truth.classes) != set(CLASSES):
        return f"has the classes {', '.join(truth.classes)}, not nuScenes' ten"
    return None


def _check_rules(rules: Rules, truth: GroundTruth, frame: int) -> None:
    if rules not in get_args(Rules):
        raise EvaluationError(f"rules is {rules!r}, but must be one of {', '.join(get_args(Rules))}")
    problem = _devkit_problem(truth) if rules == "devkit" else None
    if problem is not None:
        raise EvaluationError(f"frame {frame}: its truth {problem}, but rules 'devkit' need both; use rules 'own'")


def _add(
    frame: int, detections: Detections, truth: GroundTruth, rules: Rules, predicted: DevkitBoxes, true: DevkitBoxes
) -> None:
    """Add a frame's detections and true objects to the devkit's boxes."""
    world = truth.world
    true_names, found_names = ([each.classes[label] for label in each.labels] for each in (truth, detections))
    true_boxes = world_boxes(truth.boxes, None) if world is None else world.boxes
    found_boxes = world_boxes(detections.boxes, None if world is None else world.model_to_world)
    if rules == "devkit" and world is not None:
        attributes = annotated_attributes(world)
    else:
        attributes = derived_attributes(true_names, true_boxes)
    true.add(frame, true_boxes, true_names, attributes, world=world)
    found_attributes = derived_attributes(found_names, found_boxes)
    predicted.add(frame, found_boxes, found_names, found_attributes, detections.scores, world)


def _undefined(name: str) -> tuple[str, ...]:
    """Return the errors that a class does not define."""
    return _UNDEFINED.get(name, () if name in DETECTION_NAMES else ("AAE",))


def _score_class(
    metrics: DetectionMetrics, config: DetectionConfig, name: str, true: EvalBoxes, predicted: EvalBoxes
) -> None:
    for distance in config.dist_ths:
        curves = accumulate(true, predicted, devkit_name(name), config.dist_fcn_callable, distance)
        metrics.add_label_ap(name, distance, calc_ap(curves, config.min_recall, config.min_precision))
        if distance == config.dist_th_tp:
            for error, key in ERRORS.items():
                if error not in _undefined(name):
                    metrics.add_label_tp(name, key, calc_tp(curves, config.min_recall, key))


def _summary(
    metrics: DetectionMetrics,
    config: DetectionConfig,
    classes: tuple[str, ...],
    frames: int,
    objects: Mapping[str, int],
    rules: Rules,
) -> DetectionScores:
    class_errors = {
        name: {error: metrics.get_label_tp(name, key) for error, key in ERRORS.items() if error not in _undefined(name)}
        for name in classes
    }
    defined = [error for error in ERRORS if any(error in errors for errors in class_errors.values())]
    errors = {
        error: float(np.nanmean([of_class[error] for of_class in class_errors.values() if error in of_class]))
        for error in defined
    }
    # NDS, equation 3 of the paper, over the defined errors.
    error_score = sum(max(0.0, 1.0 - error) for error in errors.values())
    nds = (config.mean_ap_weight * metrics.mean_ap + error_score) / (config.mean_ap_weight + len(errors))
    return DetectionScores(
        mean_ap=metrics.mean_ap,
        nds=nds,
        errors=errors,
        ap={name: {distance: metrics.get_label_ap(name, distance) for distance in config.dist_ths} for name in classes},
        class_errors=class_errors,
        classes=classes,
        frames=frames,
        objects=sum(objects.values()),
        rules=rules,
        absent=tuple(name for name in classes if not objects[name]),
    )
