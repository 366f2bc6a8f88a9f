# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A recorded drive: sweeps, images, calibration, the vehicle's motion and labels, each at its own time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class RecordingError(ValueError):
    """A recording is missing or broken; the message names the file, what it holds, what is needed and the remedy."""


@dataclass(frozen=True)
class RecordedSweep:
    """One LiDAR sweep.

    Attributes:
        read: returns (N, 5) float32: x, y, z in metres in the LiDAR's frame, intensity 0..255, ring (-1: unknown), all
            points as recorded; raises `RecordingError`.
        lidar_to_vehicle: (4, 4).
        read_times: returns (N,) float32, seconds of each point after the stamp; None if the points have no times.
    """

    stamp_ns: int
    read: Callable[[], NDArray[np.float32]]
    lidar_to_vehicle: Matrix
    read_times: Callable[[], NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class RecordedImage:
    """One image file and the calibration of its camera.

    Attributes:
        camera: name as in the node's parameters, e.g. ``front_left``.
        path: a JPEG or PNG file.
        size: width and height in pixels.
        intrinsics: (3, 3) in pixels of the image.
        camera_to_vehicle: (4, 4), optical frame -> vehicle.
        distortion: k1, k2, p1, p2, k3, ... of OpenCV's model (``plumb_bob`` of CameraInfo); empty for a pinhole image.
    """

    camera: str
    stamp_ns: int
    path: Path
    size: tuple[int, int]
    intrinsics: Matrix
    camera_to_vehicle: Matrix
    distortion: tuple[float, ...] = ()

    def pixels(self) -> NDArray[np.uint8]:
        """Return the image (H, W, 3), BGR, as recorded.

        Raises:
            RecordingError: the file is no image, or has another size than the calibration.
        """
        image = cv2.imread(str(self.path), cv2.IMREAD_COLOR)
        if image is None:
            raise RecordingError(f"{self.path}: found no readable image, needed a JPEG or PNG file; copy it again")
        if (image.shape[1], image.shape[0]) != self.size:
            raise RecordingError(
                f"{self.path}: found {image.shape[1]} x {image.shape[0]} pixels, needed {self.size[0]} x "
                f"{self.size[1]} as in the calibration; scale the calibration to the image, or take the original image"
            )
        return image.astype(np.uint8, copy=False)

    def rectified(self) -> NDArray[np.uint8]:
        """Return the image (H, W, 3), BGR, without lens distortion: that of a camera with `intrinsics`."""
        image = self.pixels()
        if not self.distortion:
            return image
        straight = cv2.undistort(image, self.intrinsics, np.array(self.distortion, np.float64))
        return straight.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class LabelledObject:
    """One annotated object at the time of a sweep.

    Attributes:
        box: (9,), as `Detections.boxes`, in the LiDAR's frame; unknown velocities are NaN.
        track: identity of the object within the recording; -1 if unknown.
        lidar_points: LiDAR points inside the box.
        orientation_xyzw: whole orientation, where it is more than the yaw.
        source_class: the data's own name, where `class_name` is nuScenes' counterpart; a rig file may map it otherwise.
    """

    class_name: str
    box: Matrix
    track: int = -1
    lidar_points: int = 0
    orientation_xyzw: tuple[float, float, float, float] | None = None
    source_class: str = ""

    def quaternion(self) -> tuple[float, float, float, float]:
        """Return the orientation (x, y, z, w) in the LiDAR's frame."""
        if self.orientation_xyzw is not None:
            return self.orientation_xyzw
        yaw = float(self.box[6])
        return 0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))


@dataclass(frozen=True)
class Labels:
    """The annotated objects of one sweep.

    Attributes:
        everywhere: whether all directions are labelled; otherwise only what the images show.
        ignored: camera -> (N, 4) rectangles u0, v0, u1, v1 in pixels without labels.
    """

    stamp_ns: int
    objects: tuple[LabelledObject, ...]
    everywhere: bool = True
    ignored: Mapping[str, Matrix] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """A recorded drive of one vehicle, in order of time.

    The vehicle's frame has x forward, y left, z up.

    Attributes:
        name: for messages and titles.
        poses: stamp in nanoseconds -> (4, 4), vehicle -> fixed frame; empty if the motion is unknown.
        notes: what a user must know about the data, one line each.
    """

    name: str
    sweeps: tuple[RecordedSweep, ...]
    images: tuple[RecordedImage, ...]
    poses: Mapping[int, Matrix]
    labels: tuple[Labels, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras' names, in order of their first image."""
        return tuple(dict.fromkeys(image.camera for image in self.images))
