"""nuScenes detection metrics (arXiv:1903.11027, section 3), computed with nuscenes-devkit's functions.

The devkit does the matching, average precision and true-positive errors, with the thresholds, ranges and weights of its
configuration ``detection_cvpr_2019``. Four things differ:

- Boxes are compared in the model frame, each frame as its own sample, and ranges are measured from its origin. The
  devkit compares in the world frame and measures ranges from the ego vehicle's origin, 0.94 m from nuScenes' LiDAR.
- Neither `Detections` nor `GroundTruth` has attributes. Both get theirs from class and speed, by the rule with which
  mmdetection3d, and so CMT's authors, fill in their submissions. AAE then measures whether motion was recognised. It is
  lower than the official AAE, whose truth also tells parked from stopped vehicles and sitting from standing people.
- Classes outside nuScenes' ten are matched by the same rules, within `OWN_CLASS_RANGE`. They have no attribute.
- Only classes in the truth count, and only errors that the class defines (cones have no heading, velocity or attribute,
  barriers no velocity or attribute). The devkit gives an absent class AP 0 and errors 1, which would penalise a small
  set of frames for missing classes. With all ten classes, the figures equal the devkit's.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
from nuscenes.eval.detection.constants import DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig, DetectionMetrics

from aqr_perception.frame import Detections, GroundTruth

ERRORS: Mapping[str, str] = {
    "ATE": "trans_err",
    "ASE": "scale_err",
    "AOE": "orient_err",
    "AVE": "vel_err",
    "AAE": "attr_err",
}
"""True-positive errors and their devkit names: translation (m), scale (1 - IoU), orientation (rad), velocity (m/s),
attribute (1 - accuracy)."""

OWN_CLASS_RANGE = 50.0
"""Range in metres of a class outside nuScenes' ten: that of its vehicles."""

_STAND_IN = "car"
"""Class of the devkit's boxes for a class outside nuScenes' ten, which the devkit refuses: it has no special rules."""

_UNDEFINED = {"traffic_cone": ("AOE", "AVE", "AAE"), "barrier": ("AVE", "AAE")}
_MOVING_SPEED = 0.2  # m/s, as in mmdetection3d


class EvaluationError(ValueError):
    """There is nothing to score, or detections and truth do not fit; the message says what is wrong."""


@dataclass(frozen=True)
class DetectionScores:
    """nuScenes detection metrics of a set of frames.

    Attributes:
        mean_ap: AP, averaged over `classes` and the distances 0.5, 1, 2 and 4 m.
        nds: nuScenes detection score from `mean_ap` and `errors`.
        errors: ATE, ASE, AOE, AVE and AAE, averaged over `classes`; an error that no class defines is absent.
        ap: by class and distance in metres.
        class_errors: errors that the class defines, by class.
        classes: classes in the truth; all means are over these.
        frames, objects: numbers of frames, and of true objects within the range of their class.
    """

    mean_ap: float
    nds: float
    errors: Mapping[str, float]
    ap: Mapping[str, Mapping[float, float]]
    class_errors: Mapping[str, Mapping[str, float]]
    classes: tuple[str, ...]
    frames: int
    objects: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def evaluate(pairs: Iterable[tuple[Detections, GroundTruth]], *, need_lidar_points: bool = True) -> DetectionScores:
    """Return the metrics of detections against their truth.

    Args:
        pairs: detections and truth of each frame. Average precision needs detections of every score.
        need_lidar_points: whether to ignore true objects without a LiDAR point, as the devkit does. Pass the truth of
            the frame with all sensors even if a sensor failed: otherwise objects that the failure hides would not count
            as missed. Pass False for data without LiDAR.

    Raises:
        EvaluationError: the truth has no object to detect, a frame has more detections than nuScenes allows, or the
            classes of detections and truth differ.
    """
    config = config_factory("detection_cvpr_2019")
    predicted, true = _Samples(config), _Samples(config)
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
        truth = truth.keep(truth.lidar_points > 0) if need_lidar_points else truth
        names, found = ([each.classes[label] for label in each.labels] for each in (truth, detections))
        true.add(frames, truth.boxes, names)
        predicted.add(frames, detections.boxes, found, detections.scores)
    classes = tuple(name for name in all_classes or () if true.objects[name])
    if not classes:
        raise EvaluationError(
            f"{frames} frames have no object within the range of its class"
            + (
                " that has a LiDAR point; for data without LiDAR, also count objects without points"
                if need_lidar_points
                else ""
            )
        )
    metrics = DetectionMetrics(config)
    for name in classes:
        _score_class(metrics, config, name, true.boxes[name], predicted.boxes[name])
    return _summary(metrics, config, classes, frames, sum(true.objects.values()))


def attribute(name: str, velocity: NDArray[np.floating]) -> str:
    """Return the nuScenes attribute of an object with a (2,) velocity in m/s; empty if the class has none.

    Follows mmdetection3d's ``NuScenesDataset``: an object faster than 0.2 m/s is moving or has a rider; a slower one
    has the most frequent attribute of its class at rest. An unknown velocity (NaN) gives none, and the devkit ignores
    the object's attribute.
    """
    speed = math.hypot(float(velocity[0]), float(velocity[1]))
    if name in _UNDEFINED or name not in DETECTION_NAMES or math.isnan(speed):
        return ""
    moving = speed > _MOVING_SPEED
    if name == "pedestrian":
        return "pedestrian.moving" if moving else "pedestrian.standing"
    if name in ("motorcycle", "bicycle"):
        return "cycle.with_rider" if moving else "cycle.without_rider"
    if moving:
        return "vehicle.moving"
    return "vehicle.stopped" if name == "bus" else "vehicle.parked"


class _Samples:
    """The devkit's boxes, and their number, by class; boxes outside the range of their class are dropped."""

    def __init__(self, config: DetectionConfig) -> None:
        self._ranges: Mapping[str, float] = config.class_range
        self.boxes: dict[str, EvalBoxes] = defaultdict(EvalBoxes)
        self.objects: dict[str, int] = defaultdict(int)

    def add(
        self,
        frame: int,
        boxes: NDArray[np.floating],
        names: Sequence[str],
        scores: NDArray[np.floating] | None = None,
    ) -> None:
        token = str(frame)
        for index, name in enumerate(names):
            box = boxes[index].astype(float)
            if math.hypot(box[0], box[1]) >= self._ranges.get(name, OWN_CLASS_RANGE):
                continue
            # One `EvalBoxes` for each class: the devkit searches all boxes of a frame for each class.
            self.boxes[name].add_boxes(
                token, [_box(token, name, box, -1.0 if scores is None else float(scores[index]))]
            )
            self.objects[name] += 1


def _box(token: str, name: str, box: NDArray[np.floating], score: float) -> DetectionBox:
    x, y, z, length, width, height, yaw, *velocity = box.tolist()
    return DetectionBox(
        sample_token=token,
        translation=(x, y, z),
        size=(width, length, height),
        rotation=(math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)),
        velocity=tuple(velocity),
        detection_name=_devkit_name(name),
        detection_score=score,
        attribute_name=attribute(name, box[7:9]),
    )


def _devkit_name(name: str) -> str:
    return name if name in DETECTION_NAMES else _STAND_IN


def _undefined(name: str) -> tuple[str, ...]:
    """Return the errors that a class does not define."""
    return _UNDEFINED.get(name, () if name in DETECTION_NAMES else ("AAE",))


def _score_class(
    metrics: DetectionMetrics, config: DetectionConfig, name: str, true: EvalBoxes, predicted: EvalBoxes
) -> None:
    for distance in config.dist_ths:
        curves = accumulate(true, predicted, _devkit_name(name), config.dist_fcn_callable, distance)
        metrics.add_label_ap(name, distance, calc_ap(curves, config.min_recall, config.min_precision))
        if distance == config.dist_th_tp:
            for error, devkit_name in ERRORS.items():
                if error not in _undefined(name):
                    metrics.add_label_tp(name, devkit_name, calc_tp(curves, config.min_recall, devkit_name))


def _summary(
    metrics: DetectionMetrics, config: DetectionConfig, classes: tuple[str, ...], frames: int, objects: int
) -> DetectionScores:
    class_errors = {
        name: {
            error: metrics.get_label_tp(name, devkit_name)
            for error, devkit_name in ERRORS.items()
            if error not in _undefined(name)
        }
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
        objects=objects,
    )
