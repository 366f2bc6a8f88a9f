# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensor rig of the simulated vehicle: nuScenes' six-camera ring and a 32-beam spinning LiDAR.

The vehicle frame is REP-105's base_link: on the ground below the rear axle, x forward, y left, z up.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aqr_perception.models.preprocessing import image_to_model

_NUSCENES_PICTURE = (1600, 900)
_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Optical axes (x right, y down, z forward) in a frame with x forward, y left, z up."""


@dataclass(frozen=True)
class CameraMount:
    """A pinhole camera on the vehicle.

    Attributes:
        size: width and height of the images in pixels.
        intrinsics: (3, 3).
        to_vehicle: (4, 4), optical frame -> vehicle.
        delay: seconds from the start of a LiDAR sweep to the exposure, when the beam passes the camera's axis.
    """

    name: str
    size: tuple[int, int]
    intrinsics: NDArray[np.float64]
    to_vehicle: NDArray[np.float64]
    delay: float


@dataclass(frozen=True)
class LidarMount:
    """A spinning LiDAR; the defaults describe nuScenes' 32-beam sensor.

    Attributes:
        to_vehicle: (4, 4), LiDAR frame (x forward, y left, z up) -> vehicle.
        elevations: lowest and highest beam, degrees.
        columns: azimuths per sweep.
        reach: largest range, metres.
        noise: standard deviation of a range, metres.
        dropout: share of randomly lost echoes, in addition to faint ones.
        period: seconds per sweep.
    """

    to_vehicle: NDArray[np.float64]
    beams: int = 32
    elevations: tuple[float, float] = (-30.67, 10.67)
    columns: int = 1080
    reach: float = 80.0
    noise: float = 0.02
    dropout: float = 0.02
    period: float = 0.05

    def directions(self) -> NDArray[np.float64]:
        """Return (beams * columns, 3) unit vectors in the LiDAR's frame."""
        elevation = np.radians(np.linspace(*self.elevations, self.beams))[:, None]
        azimuth = np.linspace(-np.pi, np.pi, self.columns, endpoint=False)[None]
        flat = np.cos(elevation)
        x, y, z = flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation) + 0 * azimuth
        return np.stack([x, y, z], axis=-1).reshape(-1, 3)


@dataclass(frozen=True)
class Rig:
    """A vehicle's sensors."""

    cameras: tuple[CameraMount, ...]
    lidar: LidarMount = field(default_factory=lambda: LidarMount(_pose((0.94, 0.0, 1.84))))


_RING = (  # name, heading in degrees, position in metres, focal length in pixels of 1600 x 900
    ("front", 0.0, (1.70, 0.0, 1.51), 1266.0),
    ("front_right", -55.0, (1.55, -0.49, 1.50), 1260.0),
    ("front_left", 55.0, (1.52, 0.49, 1.51), 1272.0),
    ("back", 180.0, (0.03, 0.0, 1.57), 809.0),
    ("back_left", 108.0, (1.04, 0.48, 1.59), 1257.0),
    ("back_right", -110.0, (1.01, -0.48, 1.56), 1259.0),
)


def nuscenes_rig(picture: tuple[int, int] = (352, 128)) -> Rig:
    """Return nuScenes' ring and LiDAR.

    Args:
        picture: width and height of the images in pixels. They show the part of nuScenes' 1600 x 900 that a model of
            this image size uses: scaled to the width, cropped at the top.
    """
    affine = image_to_model(_NUSCENES_PICTURE, picture)
    period = LidarMount(np.eye(4)).period
    cameras = []
    for name, heading, position, focal in _RING:
        intrinsics = np.array([[focal, 0.0, 800.0], [0.0, focal, 475.0], [0.0, 0.0, 1.0]])
        pose = _pose(position, np.radians(heading))
        pose[:3, :3] = pose[:3, :3] @ _OPTICAL
        delay = (heading + 180.0) % 360.0 / 360.0 * period
        cameras.append(CameraMount(name, picture, affine @ intrinsics, pose, delay))
    return Rig(tuple(cameras))


def _pose(position: tuple[float, float, float], heading: float = 0.0) -> NDArray[np.float64]:
    pose = np.eye(4)
    cos, sin = np.cos(heading), np.sin(heading)
    pose[:2, :2] = [[cos, -sin], [sin, cos]]
    pose[:3, 3] = position
    return pose
