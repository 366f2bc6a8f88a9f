# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detections from their messages, of ROS 2 or of a bag."""

from typing import Any

import numpy as np

from aqr_perception.frame import CLASSES, Detections


def detections_from_message(message: Any) -> Detections:
    """Return a FusedDetectionArray, from rclpy or a bag, as `Detections` in the frame of its header.

    A message names only the classes that it shows: the list of classes is nuScenes' ten, then the message's others.
    """
    boxes = [
        [
            *(item.pose.position.x, item.pose.position.y, item.pose.position.z),
            *(item.size.x, item.size.y, item.size.z),
            2.0 * float(np.arctan2(item.pose.orientation.z, item.pose.orientation.w)),
            *(item.velocity.x, item.velocity.y),
        ]
        for item in message.detections
    ]
    names = [item.class_name for item in message.detections]
    classes = (*CLASSES, *sorted(set(names) - set(CLASSES)))
    weights = [np.asarray(item.camera_weights, np.float32) for item in message.detections]
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 9),
        scores=np.array([item.score for item in message.detections], np.float32),
        labels=np.array([classes.index(name) for name in names], np.int64),
        lidar_weight=np.array([item.lidar_weight for item in message.detections], np.float32),
        camera_weight=np.array([item.camera_weight for item in message.detections], np.float32),
        camera_weights=np.stack(weights) if weights else np.zeros((0, len(message.camera_names)), np.float32),
        classes=classes,
    )
