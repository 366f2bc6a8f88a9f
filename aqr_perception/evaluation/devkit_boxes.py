# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detections and true objects as nuscenes-devkit's boxes, with its filters by range, points and bicycle racks."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES, DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import points_in_box
from pyquaternion import Quaternion
from scipy.spatial.transform import Rotation

from aqr_perception.frame import GroundTruth, WorldTruth
from aqr_perception.geometry import transform_points

OWN_CLASS_RANGE = 50.0
"""Range in metres of a class outside nuScenes' ten: that of its vehicles."""

WITHOUT_ATTRIBUTE = ("traffic_cone", "barrier")
"""nuScenes' classes without attributes."""

_STAND_IN = "car"
"""Class of the devkit's boxes for a class outside nuScenes' ten, which the devkit refuses: it has no special rules."""

_MOVING_SPEED = 0.2  # m/s, as in mmdetection3d
_IN_RACKS = ("bicycle", "motorcycle")

Matrix = NDArray[np.float64]


class EvaluationError(ValueError):
    """There is nothing to score, or detections and ground truth do not fit; the message names the problem."""


class DevkitBoxes:
    """The devkit's boxes and their number, by class; boxes that it would not count are left out."""

    def __init__(self, config: DetectionConfig) -> None:
        self._ranges: Mapping[str, float] = config.class_range
        # One `EvalBoxes` for each class: the devkit searches all boxes of a frame for each class.
        self.boxes: dict[str, EvalBoxes] = defaultdict(EvalBoxes)
        self.objects: dict[str, int] = defaultdict(int)

    def add(
        self,
        frame: int,
        boxes: Matrix,
        names: Sequence[str],
        attributes: Sequence[str],
        scores: NDArray[np.floating] | None = None,
        world: WorldTruth | None = None,
    ) -> None:
        """Add the boxes of a frame.

        Args:
            boxes: (N, 12) as `WorldTruth.boxes`, in the world frame, or in the model frame without `world`.
            scores: of detections; None for true objects.
            world: gives the vehicle's position, from which ranges are measured, and the bicycle racks.
        """
        token = str(frame)
        ego = np.zeros(3) if world is None else world.ego_position
        racks = bicycle_racks(world)
        for index, name in enumerate(names):
            score = -1.0 if scores is None else float(scores[index])
            box = _box(token, name, boxes[index], attributes[index], score, ego)
            if not box.ego_dist < self._ranges.get(name, OWN_CLASS_RANGE):
                continue
            if in_rack(name, box.translation, racks):
                continue
            self.boxes[name].add_boxes(token, [box])
            self.objects[name] += 1


def bicycle_racks(world: WorldTruth | None) -> list[Box]:
    """Return the bicycle racks of a frame as the devkit's boxes."""
    if world is None:
        return []
    return [Box(row[:3].tolist(), row[3:6].tolist(), Quaternion(row[6:10])) for row in world.bicycle_racks]


def in_rack(name: str, centre: Sequence[float], racks: Sequence[Box]) -> bool:
    """Return whether an object does not count because it is a cycle in a bicycle rack."""
    place = np.array(centre)[:, None]
    return name in _IN_RACKS and any(points_in_box(rack, place).any() for rack in racks)


def sensor_points(truth: GroundTruth) -> NDArray[np.int64]:
    """Return (N,) numbers of LiDAR and radar points in each object; the devkit ignores objects without."""
    return truth.lidar_points if truth.radar_points is None else truth.lidar_points + truth.radar_points


def devkit_name(name: str) -> str:
    """Return the class of the devkit's boxes for a class."""
    return name if name in DETECTION_NAMES else _STAND_IN


def world_boxes(boxes: NDArray[np.floating], model_to_world: Matrix | None) -> Matrix:
    """Return boxes (N, 9) in the model frame as (N, 12) in the world frame, as `WorldTruth.boxes`.

    Args:
        model_to_world: (4, 4) transform; None keeps the model frame.
    """
    boxes = np.asarray(boxes, np.float64)
    half = boxes[:, 6] / 2
    nothing = np.zeros(len(boxes))
    centres, quaternions, velocities = boxes[:, :3], np.c_[np.cos(half), nothing, nothing, np.sin(half)], boxes[:, 7:9]
    if model_to_world is not None and len(boxes):
        turn = model_to_world[:3, :3]
        centres = transform_points(model_to_world, boxes)
        turned = Rotation.from_matrix(turn) * Rotation.from_quat(np.roll(quaternions, -1, axis=1))
        quaternions = np.roll(turned.as_quat(), 1, axis=1)
        velocities = velocities @ turn[:2, :2].T
    return np.concatenate([centres, boxes[:, [4, 3, 5]], quaternions, velocities], axis=1)


def derived_attribute(name: str, velocity: NDArray[np.floating]) -> str:
    """Return the nuScenes attribute of an object with a (2,) velocity in m/s; empty if the class has none.

    Follows mmdetection3d's ``NuScenesDataset``: an object faster than 0.2 m/s is moving or has a rider; a slower one
    has the most frequent attribute of its class at rest. For an unknown velocity (NaN) the result is empty, and the
    devkit ignores the object's attribute.
    """
    speed = math.hypot(float(velocity[0]), float(velocity[1]))
    if name in WITHOUT_ATTRIBUTE or name not in DETECTION_NAMES or math.isnan(speed):
        return ""
    moving = speed > _MOVING_SPEED
    if name == "pedestrian":
        return "pedestrian.moving" if moving else "pedestrian.standing"
    if name in ("motorcycle", "bicycle"):
        return "cycle.with_rider" if moving else "cycle.without_rider"
    if moving:
        return "vehicle.moving"
    return "vehicle.stopped" if name == "bus" else "vehicle.parked"


def derived_attributes(names: Sequence[str], boxes: Matrix) -> list[str]:
    """Return `derived_attribute` of each of N objects from boxes (N, 12) as `WorldTruth.boxes`."""
    return [derived_attribute(name, box[10:12]) for name, box in zip(names, boxes, strict=True)]


def annotated_attributes(world: WorldTruth) -> Sequence[str]:
    """Return the attributes in a data set's tables.

    Raises:
        EvaluationError: one is not of nuScenes.
    """
    unknown = sorted(set(world.attributes) - {"", *ATTRIBUTE_NAMES})
    if unknown:
        raise EvaluationError(
            f"sample {world.token}: found the attribute {', '.join(map(repr, unknown))}, needed one of "
            f"{', '.join(ATTRIBUTE_NAMES)}; rename it in the tables, or derive attributes from speeds with rules 'own' "
            "(--rules own)"
        )
    return world.attributes


def _box(token: str, name: str, box: Matrix, attribute: str, score: float, ego: Matrix) -> DetectionBox:
    x, y, z, width, length, height, *rotation, x_velocity, y_velocity = box.tolist()
    return DetectionBox(
        sample_token=token,
        translation=(x, y, z),
        size=(width, length, height),
        rotation=tuple(rotation),
        velocity=(x_velocity, y_velocity),
        ego_translation=tuple((box[:3] - ego).tolist()),
        detection_name=devkit_name(name),
        detection_score=score,
        attribute_name=attribute,
    )
