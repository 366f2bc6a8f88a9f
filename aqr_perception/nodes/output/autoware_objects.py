# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion of detections to Autoware's message of detected objects."""

import importlib
import os
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist, Vector3
from numpy.typing import NDArray
from std_msgs.msg import Header

from aqr_perception.frame import Detections
from aqr_perception.nodes.output.box_geometry import poses, vectors
from aqr_perception.options import OptionError
from aqr_perception.stage_clock import measured

_PACKAGE = "autoware_perception_msgs"
_LABELS = {"construction_vehicle": "TRUCK"}
"""Labels of classes that have another name in Autoware."""
_UNKNOWN = "UNKNOWN"


class AutowareObjects:
    """Maker of autoware_perception_msgs/DetectedObjects, whose package is imported when the first maker is.

    Source: message definitions of autoware_perception_msgs 1.12 (github.com/autowarefoundation/autoware_msgs). A class
    gets the label of its own name, a construction vehicle TRUCK, any other class UNKNOWN.

    Args:
        say: logs which classes get another label than their name, once for each set of classes.

    Attributes:
        message_type: the class DetectedObjects.

    Raises:
        OptionError: the package is not installed.
    """

    def __init__(self, say: Callable[[str], Any]) -> None:
        try:
            messages = importlib.import_module(f"{_PACKAGE}.msg")
        except ImportError as error:
            distribution = os.environ.get("ROS_DISTRO", "<distribution>")
            raise OptionError(
                f"autoware_objects is true, but found no package {_PACKAGE} ({error}); install it (apt-get install "
                f"ros-{distribution}-autoware-perception-msgs, or build github.com/autowarefoundation/autoware_msgs in "
                "your workspace) and source it, or set autoware_objects to false"
            ) from error
        self.message_type = messages.DetectedObjects
        self._messages, self._say = messages, say
        self._classes: tuple[str, ...] = ()
        self._labels: tuple[int, ...] = ()

    @measured("messages")
    def message(self, detections: Detections, to_output: NDArray[np.float64], header: Header) -> Any:
        """Return the detections as DetectedObjects.

        Probabilities of existence are the scores; that of the only class is 1. The twist is in the object's own frame,
        +x along its heading, as Autoware's trackers expect; an unknown velocity gives none. Covariances are unknown.

        Args:
            to_output: (4, 4), model frame -> the header's frame.
        """
        kinds = self._messages
        labels = self._labels_of(detections.classes)
        empty, kinematics, shape = kinds.DetectedObject(), kinds.DetectedObjectKinematics(), kinds.Shape()
        shape.type = kinds.Shape.BOUNDING_BOX
        kinematics.orientation_availability = kinds.DetectedObjectKinematics.AVAILABLE
        columns = zip(
            detections.labels.tolist(),
            detections.scores.tolist(),
            poses(detections.boxes, to_output),
            vectors(detections.boxes[:, 3:6]),
            _along_heading(detections.boxes).tolist(),
            strict=True,
        )
        message = self.message_type(header=header)
        for label, score, pose, size, (forward, left) in columns:
            found = copy(empty)
            found.existence_probability = score
            found.classification = [kinds.ObjectClassification(label=labels[label], probability=1.0)]
            found.kinematics, found.shape = copy(kinematics), copy(shape)
            found.kinematics.pose_with_covariance = copy(kinematics.pose_with_covariance)
            found.kinematics.pose_with_covariance.pose = pose
            if np.isfinite((forward, left)).all():
                found.kinematics.has_twist = True
                found.kinematics.twist_with_covariance = copy(kinematics.twist_with_covariance)
                found.kinematics.twist_with_covariance.twist = Twist(linear=Vector3(x=forward, y=left))
            found.shape.dimensions = size
            message.objects.append(found)
        return message

    def _labels_of(self, classes: tuple[str, ...]) -> Sequence[int]:
        """Return the label of each class."""
        if classes != self._classes:
            kind = self._messages.ObjectClassification
            known = {name: value for name in dir(kind) if name.isupper() and type(value := getattr(kind, name)) is int}
            names = [_LABELS.get(name, name.upper()) for name in classes]
            names = [name if name in known else _UNKNOWN for name in names]
            other = [f"{name} as {label}" for name, label in zip(classes, names, strict=True) if name.upper() != label]
            if other:
                self._say(f"~/objects: classes that Autoware does not have are published as others: {', '.join(other)}")
            self._classes, self._labels = classes, tuple(known[name] for name in names)
        return self._labels


def _along_heading(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the velocities (N, 2) of boxes (N, 9) in m/s, forward and to the left of each box."""
    sin, cos = np.sin(boxes[:, 6], dtype=np.float64), np.cos(boxes[:, 6], dtype=np.float64)
    vx, vy = boxes[:, 7].astype(np.float64), boxes[:, 8].astype(np.float64)
    return np.stack((vx * cos + vy * sin, vy * cos - vx * sin), axis=1)
