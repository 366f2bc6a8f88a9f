# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Spinning LiDARs of 16 to 128 beams with the elevations of their data sheets."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_PANDAR64 = (
    15.0, 11.0, 8.0, 5.0, 3.0, 2.0, *(1.86 - 0.169 * k for k in range(48)), -7.0, -8.0, -9.0, -10.0, -11.0, -12.0,
    -13.0, -14.0, -19.0, -25.0,
)  # fmt: skip
_HDL64 = (*np.linspace(2.0, -8.33, 32), *np.linspace(-8.83, -24.33, 32))
_ALPHA128 = (
    *np.linspace(15.0, 3.0, 16), *np.linspace(2.8, -4.9, 70), *np.linspace(-5.1, -12.0, 26),
    *np.linspace(-12.6, -25.0, 16),
)  # fmt: skip


class LidarModel(NamedTuple):
    """A spinning LiDAR.

    Attributes:
        elevations: angle of each beam in degrees, highest first.
        columns: azimuths of a sweep.
        reach: largest range that is delivered, metres; at most 150 in this world.
        sensitivity: range in metres at which half of the pulses on a target of 10 % reflectivity return.
        noise: standard deviation of a range, metres.
        periods: seconds of a sweep: the choices.
    """

    elevations: tuple[float, ...]
    columns: int
    reach: float
    sensitivity: float
    noise: float
    periods: tuple[float, ...]

    @property
    def beams(self) -> int:
        """Number of beams."""
        return len(self.elevations)


def _even(high: float, low: float, beams: int) -> tuple[float, ...]:
    return tuple(float(angle) for angle in np.linspace(high, low, beams))


LIDAR_MODELS: dict[str, LidarModel] = {
    # Velodyne VLP-16: 2 degrees apart.
    "vlp16": LidarModel(_even(15.0, -15.0, 16), 1800, 100.0, 45.0, 0.02, (0.1,)),
    # Velodyne HDL-32E: 1.33 degrees apart; nuScenes' LiDAR.
    "hdl32e": LidarModel(_even(10.67, -30.67, 32), 1080, 80.0, 50.0, 0.02, (0.05, 0.1)),
    # Velodyne HDL-64E: an upper block 1/3 and a lower block 1/2 degree apart; KITTI's LiDAR.
    "hdl64e": LidarModel(tuple(float(angle) for angle in _HDL64), 1024, 120.0, 60.0, 0.02, (0.1,)),
    # Ouster OS1: 45 degrees, evenly.
    "os1_32": LidarModel(_even(22.5, -22.5, 32), 1024, 100.0, 42.0, 0.025, (0.1,)),
    "os1_64": LidarModel(_even(22.5, -22.5, 64), 1024, 100.0, 42.0, 0.025, (0.1,)),
    "os1_128": LidarModel(_even(22.5, -22.5, 128), 512, 100.0, 42.0, 0.025, (0.05, 0.1)),
    # Hesai Pandar64: 1/6 degree apart around the horizon, up to 6 degrees below it.
    "pandar64": LidarModel(tuple(float(angle) for angle in _PANDAR64), 900, 150.0, 80.0, 0.02, (0.05, 0.1)),
    # Velodyne Alpha Prime: 128 beams, 0.11 degrees apart around the horizon, approximated in four blocks.
    "alpha128": LidarModel(tuple(float(angle) for angle in _ALPHA128), 600, 150.0, 90.0, 0.02, (0.05, 0.1)),
}  # fmt: skip
"""Models by name. Elevations as in the makers' manuals; those of Pandar64 and Alpha Prime to about 0.2 degrees."""

SHARES = {
    "vlp16": 0.18, "hdl32e": 0.28, "hdl64e": 0.12, "os1_32": 0.1,
    "os1_64": 0.1, "os1_128": 0.06, "pandar64": 0.1, "alpha128": 0.06,
}  # fmt: skip
"""How often a scene's vehicle has each model."""


def ray_directions(elevations: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    """Return (beams * columns, 3) unit vectors, x forward; the columns turn counter-clockwise from the back."""
    elevation = np.radians(elevations)[:, None]
    azimuth = np.linspace(-np.pi, np.pi, columns, endpoint=False)[None]
    flat = np.cos(elevation)
    x, y, z = flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation) + 0 * azimuth
    return np.stack([x, y, z], axis=-1).reshape(-1, 3)
