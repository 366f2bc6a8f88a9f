# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A bag with the outputs of a node and the sensors that they come from, written without ROS."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from aqr_perception.bags import messages
from aqr_perception.bags.messages import make
from aqr_perception.bags.writer import BagWriter

START_NS, PERIOD_NS = 1_700_000_000_000_000_000, 100_000_000
CAMERA_DELAY_NS = 13_000_000
"""The front camera's images are older than the sweep."""
SIZE = (48, 32)
NODE = "/robot/aqr_perception"
MOUNT = np.array([[0.0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.0], [0, 0, 0, 1]])
"""Optical frame of the front camera -> base_link: it looks forward."""


def write_output_bag(
    path: Path, frames: int = 4, node: str = NODE, without: Collection[str] = (), late_pictures: int = 0
) -> Path:
    """Write a bag and return its path.

    A car stands 20 m ahead of the start; the vehicle drives 1 m a frame, and turns its back camera off in frame 2.

    Args:
        without: topics, or their ends, that are left out.
        late_pictures: frames by which the pictures of the weight maps are recorded later than their detections.
    """
    entries = sorted(_entries(frames, node, late_pictures), key=lambda entry: entry[1])
    with BagWriter(path) as writer:
        for topic, stamp, message in entries:
            if not topic.endswith(tuple(without) or "\0"):
                writer.write(topic, message, stamp, latched=topic == "/tf_static")
    return path


def _entries(frames: int, node: str, late_pictures: int) -> Iterator[tuple[str, int, Any]]:
    mounts = [("lidar", np.eye(4)), ("front_optical", MOUNT), ("back_optical", MOUNT)]
    static = [messages.transform(START_NS, "base_link", child, place) for child, place in mounts]
    yield "/tf_static", START_NS - PERIOD_NS, messages.tf(static)
    intrinsics = np.array([[40.0, 0, 24], [0, 40.0, 16], [0, 0, 1]])
    records = np.zeros(5, np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")]))
    records["x"] = [1, 2, 3, 4, 5]
    for number in range(-1, frames + 1):  # poses before and after all sensors
        stamp, place = START_NS + number * PERIOD_NS, np.eye(4)
        place[0, 3] = number
        yield "/tf", stamp, messages.tf([messages.transform(stamp, "odom", "base_link", place)])
    for number in range(frames):
        stamp = START_NS + number * PERIOD_NS
        taken = stamp - CAMERA_DELAY_NS
        yield "/top/points", stamp, messages.cloud(stamp, "lidar", records)
        yield "/other/points", stamp + 7, messages.cloud(stamp + 30_000_000, "lidar", records[:1])
        jpeg = cv2.imencode(".jpg", np.full((SIZE[1], SIZE[0], 3), 60, np.uint8))[1].tobytes()
        for name, when in (("front", taken), ("back", stamp)):
            info = messages.camera_info(when, f"{name}_optical", SIZE, intrinsics)
            yield f"/cam/{name}/camera_info", when, info
            yield f"/cam/{name}/image_raw/compressed", when, messages.compressed_image(when, f"{name}_optical", jpeg)
        done = stamp + 40_000_000
        yield f"{node}/detections", done, _detections(number, stamp)
        drawn = done + 1000 + late_pictures * PERIOD_NS
        shade = np.full((SIZE[1], SIZE[0], 3), 40 + 30 * number, np.uint8)
        yield f"{node}/weights/front/image", drawn, messages.image(taken, "front_optical", shade)
        if number != 2:
            yield f"{node}/weights/back/image", drawn, messages.image(stamp, "back_optical", shade)
        yield f"{node}/weights/bev/image", drawn, messages.image(stamp, "lidar", shade[:20, :20])


def _detections(number: int, stamp: int) -> Any:
    box = np.array([20.0 - number, 0, 0.5, 4, 2, 1.5, 0.2, 0, 0])
    found = messages.fused_detection("car", box, score=0.7)
    back = number != 2
    weights = [0.5, 0.25] if back else [0.5]
    found = make(
        found.__msgtype__,
        **{
            **{name: getattr(found, name) for name in ("class_name", "score", "pose", "size", "velocity")},
            "lidar_weight": 0.9,
            "camera_weight": 0.4,
            "camera_weights": np.array(weights, np.float32),
        },
    )
    states = [("lidar", True, 0.0, ""), ("front", True, CAMERA_DELAY_NS / 1e9, "")]
    states.append(("back", True, 0.0, "") if back else ("back", False, 0.3, "too old"))
    return make(
        "aqr_perception/msg/FusedDetectionArray",
        header=messages.header(stamp, "base_link"),
        sensors=[
            make("aqr_perception/msg/SensorState", name=name, used=used, age=float(np.float32(age)), reason=reason)
            for name, used, age, reason in states
        ],
        camera_names=["front", "back"] if back else ["front"],
        weights_source="router",
        detections=[found],
    )
