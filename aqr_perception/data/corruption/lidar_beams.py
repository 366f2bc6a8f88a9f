"""Which beam of a spinning LiDAR each point comes from, recovered from elevations: a `Frame`'s points have no ring.

A sweep's beams stand out as peaks in the histogram of its points' elevations. Past sweeps were taken from elsewhere, so
their elevations must be counted from there: from that place behind the vehicle from which they lie on the same beams.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

_BIN = 0.05  # degrees
_EDGES = np.arange(-60.0, 60.0 + _BIN, _BIN)
_NEAREST = 3.0  # metres: nearer points are the vehicle itself, or too near to tell beams apart
_SWEEP_GAP = 0.01  # seconds: lags this far apart belong to different sweeps
_FASTEST = 40.0  # m/s
_SAMPLE = 800


class Beams(NamedTuple):
    """A cloud's beams.

    Attributes:
        of_point: (N,) int64, each point's beam; -1 for points far above the highest or below the lowest.
        elevations: (B,) float64, degrees, ascending.
    """

    of_point: NDArray[np.int64]
    elevations: NDArray[np.float64]


def find_beams(points: NDArray[np.float32]) -> Beams:
    """Return the beams of (N, 5) points: x, y, z in metres in the LiDAR's frame, intensity, lag in seconds."""
    of_point = np.full(len(points), -1, np.int64)
    if len(points) == 0:
        return Beams(of_point, np.zeros(0))
    sweeps = _sweeps(points[:, 4])
    elevations = _peaks(points[sweeps == 0])
    origin, before = np.zeros(2), 0.0
    for sweep in range(sweeps.max() + 1):
        taken = sweeps == sweep
        cloud, lag = points[taken], float(points[taken, 4].mean())
        if sweep:
            # The vehicle nearly keeps its speed from sweep to sweep; of the first step nothing is known.
            known = sweep > 1
            expected = origin * lag / before if known else origin
            origin = _origin(cloud, elevations, expected, 0.6 if known else min(_FASTEST * lag, 4.0))
            before = lag
        of_point[taken] = _nearest(elevations, _elevation(cloud, origin))
    return Beams(of_point, elevations)


def _sweeps(lags: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return each point's sweep (N,), 0 the newest."""
    values, of_point = np.unique(lags, return_inverse=True)
    starts: NDArray[np.int64] = np.cumsum(np.diff(values, prepend=values[0]) > _SWEEP_GAP)
    return starts[of_point]


def _elevation(points: NDArray[np.float32], origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N,) degrees seen from (x, y) `origin`."""
    degrees: NDArray[np.float64] = np.degrees(
        np.arctan2(points[:, 2], np.hypot(points[:, 0] - origin[0], points[:, 1] - origin[1]))
    )
    return degrees


def _peaks(sweep: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the elevations (B,) at which a sweep's points crowd; at least one."""
    far = sweep[np.hypot(sweep[:, 0], sweep[:, 1]) > _NEAREST]
    elevations = _elevation(far if len(far) else sweep, np.zeros(2))
    counts, _ = np.histogram(elevations, _EDGES)
    smooth = gaussian_filter1d(counts.astype(np.float64), 2.0)
    # A beam is a high peak or, where most of it meets nothing but sky, a low one that stands alone.
    peaks, shape = find_peaks(smooth, prominence=0.01 * smooth.max())
    prominences = shape["prominences"]
    peaks = peaks[(prominences > 0.1 * smooth.max()) | (prominences > 0.6 * smooth[peaks])]
    if len(peaks) == 0:
        return np.array([float(np.median(elevations))])
    centres: NDArray[np.float64] = (_EDGES[peaks] + _EDGES[peaks + 1]) / 2
    return centres


def _nearest(elevations: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the index of the nearest beam, -1 where that is farther than half way to the next beam would be."""
    gaps = np.diff(elevations)
    index: NDArray[np.int64] = np.searchsorted(elevations[:-1] + gaps / 2, values)
    if len(gaps):
        lowest, highest = elevations[0] - gaps[0] / 2, elevations[-1] + gaps[-1] / 2
        index[(values < lowest) | (values > highest)] = -1
    return index


def _origin(
    cloud: NDArray[np.float32], elevations: NDArray[np.float64], expected: NDArray[np.float64], reach: float
) -> NDArray[np.float64]:
    """Return the (x, y) within `reach` metres of the expected one from which the points lie on the beams best."""
    # Far points tell little about the origin, whatever their beam.
    distance = np.hypot(cloud[:, 0], cloud[:, 1])
    telling = np.flatnonzero((distance > _NEAREST) & (distance < 30.0))
    if len(telling) == 0:
        return expected
    sample = cloud[telling[:: max(1, len(telling) // _SAMPLE)]]
    for step in (0.3, 0.1, 0.03):
        steps = np.arange(-np.ceil(reach / step), np.ceil(reach / step) + 1) * step
        candidates = expected + np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        misses = np.array([_miss(sample, elevations, candidate) for candidate in candidates])
        expected, reach = candidates[misses.argmin()], step
    return expected


def _miss(sample: NDArray[np.float32], elevations: NDArray[np.float64], origin: NDArray[np.float64]) -> float:
    """Return the points' mean distance from their nearest beam in degrees, at most 1 each."""
    seen = _elevation(sample, origin)
    above = np.searchsorted(elevations, seen).clip(1, max(len(elevations) - 1, 1))
    neighbours = np.stack([elevations[above - 1], elevations[above.clip(max=len(elevations) - 1)]])
    return float(np.abs(seen - neighbours).min(0).clip(max=1.0).mean())
