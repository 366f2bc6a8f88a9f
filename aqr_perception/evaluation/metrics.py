"""nuScenes detection metrics (arXiv:1903.11027, section 3) of detections and truths, by nuscenes-devkit's functions.

What is the devkit's: matching, average precision, true-positive errors, thresholds, ranges and weights
(configuration ``detection_cvpr_2019``). What is ours:

- Boxes are compared in their frame's model frame, each frame a sample of its own, and ranges are counted from its
  origin. The devkit moves both to the world and counts from the ego vehicle's origin, 0.94 m from nuScenes' LiDAR.
- Neither `Detections` nor `GroundTruth` has an attribute. Both get theirs from class and speed, by the rule with which
  mmdetection3d, and so CMT's authors, fill in their submissions. AAE then says whether motion was recognised; it is
  lower than the official one, whose truth also knows the parked from the stopped and the sitting from the standing.
- Only classes that occur in the truth count, and only errors that such a class defines (cones have no heading, velocity
  or attribute, barriers no velocity or attribute). The devkit gives an absent class AP 0 and errors 1, which would mark
  a small set of frames down for what it does not contain. With all ten classes the figures are the devkit's.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig, DetectionMetrics

from aqr_perception.frame import CLASSES, Detections, GroundTruth

ERRORS: Mapping[str, str] = {
    "ATE": "trans_err",
    "ASE": "scale_err",
    "AOE": "orient_err",
    "AVE": "vel_err",
    "AAE": "attr_err",
}
"""The true-positive errors and their names in the devkit: translation (m), scale (1 - IoU), orientation (rad), velocity
(m/s), attribute (1 - accuracy)."""

_UNDEFINED = {"traffic_cone": ("AOE", "AVE", "AAE"), "barrier": ("AVE", "AAE")}
_MOVING_SPEED = 0.2  # m/s, mmdetection3d's


class EvaluationError(ValueError):
    """There is nothing that could be scored; the message says what is missing."""


@dataclass(frozen=True)
class DetectionScores:
    """nuScenes detection metrics of a set of frames.

    Attributes:
        mean_ap: AP, averaged over `classes` and the distances 0.5, 1, 2 and 4 m.
        nds: nuScenes detection score, of `mean_ap` and `errors`.
        errors: ATE, ASE, AOE, AVE and AAE averaged over `classes`, without those that none of them defines.
        ap: by class and distance in metres.
        class_errors: by class, those that it defines.
        classes: the classes that occur in the truth; all means are over these.
        frames, objects: how many frames and, within their class's range, objects were looked for.
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
    """Return the metrics of frames' detections against their truths.

    Args:
        pairs: of each frame. Scores need not be thresholded: average precision wants the uncertain ones too.
        need_lidar_points: as in the devkit, leave out true objects without a single LiDAR point. Where a sensor was
            made to fail, the truth must nevertheless be that of the frame with all sensors, or the lost objects would
            not be missed; without any LiDAR in the data at all, say False.

    Raises:
        EvaluationError: no object is left to look for, or a frame has more detections than nuScenes allows.
    """
    config = config_factory("detection_cvpr_2019")
    predicted, true = _Samples(config), _Samples(config)
    frames = 0
    for frames, (found, truth) in enumerate(pairs, start=1):
        if len(found) > config.max_boxes_per_sample:
            raise EvaluationError(
                f"frame {frames} has {len(found)} detections, but nuScenes allows {config.max_boxes_per_sample}; "
                "lower max_detections"
            )
        kept = truth.keep(truth.lidar_points > 0) if need_lidar_points else truth
        true.add(frames, kept.boxes, kept.labels)
        predicted.add(frames, found.boxes, found.labels, found.scores)
    classes = tuple(name for name in CLASSES if true.objects[name])
    if not classes:
        raise EvaluationError(
            f"{frames} frames have no object within its class's range"
            + (" that has a LiDAR point; without LiDAR, count objects without points too" if need_lidar_points else "")
        )
    metrics = DetectionMetrics(config)
    for name in classes:
        _score_class(metrics, config, name, true.boxes[name], predicted.boxes[name])
    return _summary(metrics, config, classes, frames, sum(true.objects.values()))


def attribute(name: str, velocity: NDArray) -> str:
    """Return the nuScenes attribute of an object of a class that moves at (2,) m/s; empty where there is none.

    The rule of mmdetection3d's ``NuScenesDataset``: faster than 0.2 m/s is moving, or has a rider; slower is each
    class's most frequent attribute at rest. A velocity that is not known gives none, which the devkit leaves out.
    """
    speed = math.hypot(float(velocity[0]), float(velocity[1]))
    if name in _UNDEFINED or math.isnan(speed):
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
    """Boxes within their class's range, by class, as the devkit takes them, and how many there are."""

    def __init__(self, config: DetectionConfig) -> None:
        self._ranges: Mapping[str, float] = config.class_range
        self.boxes: dict[str, EvalBoxes] = defaultdict(EvalBoxes)
        self.objects: dict[str, int] = defaultdict(int)

    def add(self, frame: int, boxes: NDArray, labels: NDArray, scores: NDArray | None = None) -> None:
        token = str(frame)
        for index, label in enumerate(labels):
            name, box = CLASSES[label], boxes[index].astype(float)
            if math.hypot(box[0], box[1]) >= self._ranges[name]:
                continue
            # One class at a time: the devkit searches all boxes of a frame for those of a class, again and again.
            self.boxes[name].add_boxes(
                token, [_box(token, name, box, -1.0 if scores is None else float(scores[index]))]
            )
            self.objects[name] += 1


def _box(token: str, name: str, box: NDArray, score: float) -> DetectionBox:
    x, y, z, length, width, height, yaw, *velocity = box.tolist()
    return DetectionBox(
        sample_token=token,
        translation=(x, y, z),
        size=(width, length, height),
        rotation=(math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)),
        velocity=tuple(velocity),
        detection_name=name,
        detection_score=score,
        attribute_name=attribute(name, box[7:9]),
    )


def _score_class(
    metrics: DetectionMetrics, config: DetectionConfig, name: str, true: EvalBoxes, predicted: EvalBoxes
) -> None:
    for distance in config.dist_ths:
        curves = accumulate(true, predicted, name, config.dist_fcn_callable, distance)
        metrics.add_label_ap(name, distance, calc_ap(curves, config.min_recall, config.min_precision))
        if distance == config.dist_th_tp:
            for error, devkit_name in ERRORS.items():
                if error not in _UNDEFINED.get(name, ()):
                    metrics.add_label_tp(name, devkit_name, calc_tp(curves, config.min_recall, devkit_name))


def _summary(
    metrics: DetectionMetrics, config: DetectionConfig, classes: tuple[str, ...], frames: int, objects: int
) -> DetectionScores:
    class_errors = {
        name: {
            error: metrics.get_label_tp(name, devkit_name)
            for error, devkit_name in ERRORS.items()
            if error not in _UNDEFINED.get(name, ())
        }
        for name in classes
    }
    defined = [error for error in ERRORS if any(error in errors for errors in class_errors.values())]
    errors = {
        error: float(np.nanmean([of_class[error] for of_class in class_errors.values() if error in of_class]))
        for error in defined
    }
    # NDS, equation 3 of the paper, over the errors that are defined here.
    kept = sum(max(0.0, 1.0 - error) for error in errors.values())
    nds = (config.mean_ap_weight * metrics.mean_ap + kept) / (config.mean_ap_weight + len(errors))
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
