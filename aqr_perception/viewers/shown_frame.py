# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""One frame as viewers show it, from the detector or from the node's messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView, Detections, Frame, Result
from aqr_perception.geometry import invert
from aqr_perception.visualization.bev_picture import bev_picture
from aqr_perception.visualization.camera_picture import camera_picture

_JPEG_QUALITY = 85


class ObjectWeights(NamedTuple):
    """Class of a tracked object, and the weights of the LiDAR and of the cameras for it."""

    class_name: str
    lidar: float
    camera: float


@dataclass(frozen=True)
class ShownCamera:
    """A camera's picture: its image, and what is drawn on it.

    Attributes:
        jpeg: the picture as a JPEG file.
        size: width and height in pixels.
        intrinsics: (3, 3), pinhole matrix in pixels of the picture; None if it is unknown.
        to_boxes: (4, 4), optical frame at the image's time -> frame of the boxes; None if it is unknown.
    """

    jpeg: bytes
    size: tuple[int, int]
    intrinsics: NDArray[np.float64] | None = None
    to_boxes: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class ShownFrame:
    """One frame: detections, sensor data and pictures of the weight maps.

    Attributes:
        stamp_ns: the frame's time in nanoseconds.
        frame_id: TF name of the frame of boxes and points.
        detections: in that frame.
        camera_names: the cameras in use, in the order of `Detections.camera_weights`.
        quaternions: (N, 4), orientation of the boxes as x, y, z, w; None: their yaw is all.
        points: (N, 3) float32 in metres, frame of the boxes; None if there is no sweep.
        cameras: pictures by camera.
        bev: bird's-eye view of the weight map as a JPEG; None if there is none.
        unused: the reason why a configured sensor is not used, by sensor.
        to_fixed: (4, 4), frame of the boxes -> a frame fixed to the world; None if it is unknown.
        axes: (4, 4) by name of a TF frame, this frame -> frame of the boxes.
        objects: weights of the tracked objects by identity.
        weights_source: ``router`` or ``attention``.
    """

    stamp_ns: int
    frame_id: str
    detections: Detections
    camera_names: tuple[str, ...]
    quaternions: NDArray[np.float64] | None = None
    points: NDArray[np.float32] | None = None
    cameras: Mapping[str, ShownCamera] = field(default_factory=dict)
    bev: bytes | None = None
    unused: Mapping[str, str] = field(default_factory=dict)
    to_fixed: NDArray[np.float64] | None = None
    axes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    objects: Mapping[int, ObjectWeights] = field(default_factory=dict)
    weights_source: str = ""


def shown_result(frame: Frame, result: Result, objects: Mapping[int, ObjectWeights]) -> ShownFrame:
    """Return what is shown of a frame and its detections, in the model frame."""
    maps, detections = result.weight_maps, result.detections
    cameras = {}
    for view in frame.cameras:
        picture = camera_picture(view, maps.cameras.get(view.name), detections, maps.signed, source=maps.source)
        cameras[view.name] = shown_view(view, picture)
    used = tuple(view.name for view in frame.cameras)
    return ShownFrame(
        stamp_ns=frame.stamp_ns,
        frame_id=frame.frame_id,
        detections=detections,
        camera_names=used if detections.camera_weights.shape[1] == len(used) else (),
        points=None if frame.points is None else frame.points[:, :3],
        cameras=cameras,
        bev=None if maps.bev is None else jpeg(bev_picture(maps, frame.points, detections)),
        unused={} if frame.points is not None else {"lidar": "no data"},
        to_fixed=frame.to_fixed,
        axes={},
        objects=objects,
        weights_source=maps.source,
    )


def shown_view(view: CameraView, picture: NDArray[np.uint8]) -> ShownCamera:
    """Return a camera with its geometry and an (H, W, 3) BGR picture of the size of its image."""
    height, width = picture.shape[:2]
    return ShownCamera(jpeg(picture), (width, height), view.intrinsics, invert(view.extrinsics))


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Return an (H, W, 3) BGR picture as a JPEG file."""
    data: bytes = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))[1].tobytes()
    return data
