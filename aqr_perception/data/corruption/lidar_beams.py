# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Beams of a spinning LiDAR, estimated from the points' elevations, because a `Frame`'s points have no ring index.

The beams of a sweep are peaks in the histogram of its points' elevations. Past sweeps have other origins, so their
elevations refer to an estimated origin, from which their points are on the same beams.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

_BIN = 0.05  # degrees
_EDGES = np.arange(-60.0, 60.0 + _BIN, _BIN)
_MIN_RANGE = 3.0  # metres: closer points are on the vehicle, or too close to separate the beams
_MAX_RANGE = 30.0  # metres: the elevation of farther points hardly depends on the origin
_SWEEP_GAP = 0.01  # seconds: smallest difference between the ages of two sweeps
_MAX_SPEED = 40.0  # m/s
_SAMPLE = 800  # points


class Beams(NamedTuple):
    """The beams of a point cloud.

    Attributes:
        of_point: (N,) int64, each point's beam; -1 for points far above the highest or below the lowest.
        elevations: (B,) float64, degrees, ascending.
    """

    of_point: NDArray[np.int64]
    elevations: NDArray[np.float64]


def find_beams(points: NDArray[np.float32]) -> Beams:
    """Return the beams of (N, 5) points: x, y, z in metres in the LiDAR's frame, intensity, age in seconds."""
    of_point = np.full(len(points), -1, np.int64)
    if len(points) == 0:
        return Beams(of_point, np.zeros(0))
    sweeps = sweep_indices(points[:, 4])
    elevations = _peaks(points[sweeps == 0])
    origin, last_lag = np.zeros(2), 0.0
    for sweep in range(sweeps.max() + 1):
        in_sweep = sweeps == sweep
        cloud, lag = points[in_sweep], float(points[in_sweep, 4].mean())
        if sweep:
            # The vehicle's speed hardly changes from sweep to sweep; at the first step it is unknown.
            known = sweep > 1
            expected = origin * lag / last_lag if known else origin
            origin = _estimate_origin(cloud, elevations, expected, 0.6 if known else min(_MAX_SPEED * lag, 4.0))
            last_lag = lag
        of_point[in_sweep] = _nearest_beams(elevations, _elevation(cloud, origin))
    return Beams(of_point, elevations)


def sweep_indices(lags: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return each point's sweep (N,), 0 the newest, from the points' ages (N,) in seconds."""
    if len(lags) == 0:
        return np.zeros(0, np.int64)
    values, of_point = np.unique(lags, return_inverse=True)
    starts: NDArray[np.int64] = np.cumsum(np.diff(values, prepend=values[0]) > _SWEEP_GAP)
    return starts[of_point]


def _elevation(points: NDArray[np.float32], origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return elevations (N,) in degrees from (x, y) `origin`."""
    degrees: NDArray[np.float64] = np.degrees(
        np.arctan2(points[:, 2], np.hypot(points[:, 0] - origin[0], points[:, 1] - origin[1]))
    )
    return degrees


def _peaks(sweep: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the elevations (B,) at which a sweep's points cluster; at least one."""
    far = sweep[np.hypot(sweep[:, 0], sweep[:, 1]) > _MIN_RANGE]
    elevations = _elevation(far if len(far) else sweep, np.zeros(2))
    counts, _ = np.histogram(elevations, _EDGES)
    smooth = gaussian_filter1d(counts.astype(np.float64), 2.0)
    # A beam is a high peak or, if most of it points into the sky, a low isolated one.
    peaks, shape = find_peaks(smooth, prominence=0.01 * smooth.max())
    prominences = shape["prominences"]
    peaks = peaks[(prominences > 0.1 * smooth.max()) | (prominences > 0.6 * smooth[peaks])]
    if len(peaks) == 0:
        return np.array([float(np.median(elevations))])
    centres: NDArray[np.float64] = (_EDGES[peaks] + _EDGES[peaks + 1]) / 2
    return centres


def _nearest_beams(elevations: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the index of the nearest beam; -1 beyond half a gap outside the lowest and the highest beam."""
    gaps = np.diff(elevations)
    index: NDArray[np.int64] = np.searchsorted(elevations[:-1] + gaps / 2, values)
    if len(gaps):
        lowest, highest = elevations[0] - gaps[0] / 2, elevations[-1] + gaps[-1] / 2
        index[(values < lowest) | (values > highest)] = -1
    return index


def _estimate_origin(
    cloud: NDArray[np.float32], elevations: NDArray[np.float64], expected: NDArray[np.float64], reach: float
) -> NDArray[np.float64]:
    """Return the (x, y) within `reach` metres of the expected one from which the points are closest to the beams."""
    distance = np.hypot(cloud[:, 0], cloud[:, 1])
    usable = np.flatnonzero((distance > _MIN_RANGE) & (distance < _MAX_RANGE))
    if len(usable) == 0:
        return expected
    sample = cloud[usable[:: max(1, len(usable) // _SAMPLE)]]
    for step in (0.3, 0.1, 0.03):
        steps = np.arange(-np.ceil(reach / step), np.ceil(reach / step) + 1) * step
        candidates = expected + np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        errors = np.array([_mean_error(sample, elevations, candidate) for candidate in candidates])
        expected, reach = candidates[errors.argmin()], step
    return expected


def _mean_error(sample: NDArray[np.float32], elevations: NDArray[np.float64], origin: NDArray[np.float64]) -> float:
    """Return the points' mean distance from their nearest beam in degrees, clipped to 1."""
    values = _elevation(sample, origin)
    above = np.searchsorted(elevations, values).clip(1, max(len(elevations) - 1, 1))
    neighbours = np.stack([elevations[above - 1], elevations[above.clip(max=len(elevations) - 1)]])
    return float(np.abs(values - neighbours).min(0).clip(max=1.0).mean())
