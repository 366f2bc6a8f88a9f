# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Small sensor messages of a LiDAR and of cameras, and transforms between their frames."""

from array import array
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2, PointField

from aqr_perception.geometry import quaternion_xyzw
from aqr_perception.nodes.stamps import ns_to_stamp

START = 1_500_000_000_000_000_000
MS = 1_000_000
INTRINSICS = np.array([[30.0, 0.0, 20.0], [0.0, 30.0, 12.0], [0.0, 0.0, 1.0]])


def with_header(message: Any, frame_id: str, stamp_ns: int) -> Any:
    message.header.frame_id, message.header.stamp = frame_id, ns_to_stamp(stamp_ns)
    return message


def image(name: str, stamp_ns: int = START) -> CompressedImage:
    data = cv2.imencode(".jpg", np.full((24, 40, 3), 90, np.uint8))[1].tobytes()
    return with_header(CompressedImage(format="jpeg", data=array("B", data)), name, stamp_ns)


def info(name: str) -> CameraInfo:
    return with_header(CameraInfo(width=40, height=24, k=INTRINSICS.reshape(-1)), name, START)


def sweep(points: list[list[float]], stamp_ns: int = START, names: str = "xyzi") -> PointCloud2:
    fields = [PointField(name=name, offset=4 * i, datatype=7, count=1) for i, name in enumerate(names)]
    data = np.array(points, "<f4").tobytes()
    step = 4 * len(names)
    message = PointCloud2(
        height=1, width=len(points), fields=fields, point_step=step, row_step=len(data), data=array("B", data)
    )
    return with_header(message, "lidar", stamp_ns)


def transform(parent: str, child: str, pose: np.ndarray, stamp_ns: int = START) -> TransformStamped:
    message = with_header(TransformStamped(child_frame_id=child), parent, stamp_ns)
    move, turn = message.transform.translation, message.transform.rotation
    move.x, move.y, move.z = pose[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion_xyzw(pose).tolist()
    return message
