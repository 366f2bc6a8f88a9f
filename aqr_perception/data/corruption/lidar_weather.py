# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fog and snow in LiDAR point clouds, from the physics of the received pulse.

A point's range is its distance from the model frame's origin, also for points of past sweeps. Intensities are echoes
of a hard target in clear air, 0..255.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from aqr_perception.data.corruption.lidar_corruption import REACH, CorruptedCloud, cell_centres

_LIGHT = 299_792_458.0  # m/s
_PULSE = 2e-8
"""Half-power width of the pulse in seconds."""
_OVERLAP = (0.9, 1.0)
"""Ranges in metres between which the receiver's view begins to cover the beam."""
_DIFFUSE = 1e-6 / np.pi
"""Differential reflectivity of the hard target to which intensities refer."""
_SPREAD = 10.0
"""Metres by which the range of an echo of fog varies."""
_BRIGHTEST = 255.0
_MAX_RANGE = 80.0
"""Metres at which a target of a tenth of the largest intensity is just seen in clear air."""

_DIVERGENCE = 3e-3
"""Opening angle of a beam in radians."""
_FLAKE = 0.9
"""Reflectivity of snow."""
_SNOW_DENSITY = 0.1
"""Density of snowflakes relative to water."""
_RING = 2.0
"""Width in metres of the rings in which health is measured."""


def foggy(
    points: NDArray[np.float32], extinction: float, backscatter: float, rng: Generator, *, loses: bool = True
) -> CorruptedCloud:
    """Return the points in fog, by the simulation of Hahner et al. (arXiv:2108.05249).

    An echo of intensity i at range R is weakened to i exp(-2 extinction R). The fog itself returns
    i R^2 backscatter / beta_0 times the largest value over r of the integral of
    sin^2(pi t / 2 tau) exp(-2 extinction x) xi(x) / x^2 with x = r - c t / 2 over the pulse, at that r (about 4.7 m).
    The stronger of both remains: where it is the fog, the point moves along its ray to the fog's echo, with a range
    that varies as if the target were up to 10 m nearer or farther.

    Health is the share of a ring's points that are still there, of the ring's points and the fog's echoes in it.

    Args:
        points: (N, 5).
        extinction: 1/m.
        backscatter: 1/(m sr).
        loses: whether echoes too weak for a sensor of 80 m range (for a tenth of the largest intensity) are lost; the
            published simulation keeps them all.
    """
    ranges = np.linalg.norm(points[:, :3].astype(np.float64), axis=1)
    reflected = points[:, 3].astype(np.float64)
    hard = np.rint(reflected * np.exp(-2 * extinction * ranges))
    at, response = _fog_response(extinction)
    soft = reflected * ranges**2 * (backscatter / _DIFFUSE) * response
    scattered = (soft > hard) & (ranges > at)
    nearer = np.maximum(ranges + rng.uniform(-_SPREAD, _SPREAD, len(points)), 1.0)
    fogged = points.copy()
    factor = np.where(scattered, np.minimum(at / nearer, 1.0), 1.0)
    fogged[:, :3] *= factor[:, None].astype(np.float32)
    fogged[:, 3] = np.where(scattered, soft, hard).clip(0, _BRIGHTEST)
    seen = np.ones(len(points), bool)
    if loses:
        # Every point is seen in clear air, however dark.
        margin = np.maximum((reflected + 1) / (0.1 * _BRIGHTEST) * (_MAX_RANGE / np.maximum(ranges, 1.0)) ** 2, 1.0)
        weakening = np.exp(-2 * extinction * ranges)
        echo = np.where(scattered, soft / np.maximum(reflected, 1e-6), weakening)
        seen = margin * echo >= 1.0
    health = _ring_health(ranges, seen & ~scattered, ranges[scattered & seen] * factor[scattered & seen])
    return CorruptedCloud(fogged[seen], health)


@functools.cache
def _fog_response(extinction: float) -> tuple[float, float]:
    """Return the range in metres at which fog returns most, and the integral there, in seconds per square metre."""
    ranges = np.arange(0.05, 50.0, 0.1)
    times = np.linspace(0.0, 2 * _PULSE, 401)
    depth = ranges[:, None] - _LIGHT * times / 2
    overlap = ((depth - _OVERLAP[0]) / (_OVERLAP[1] - _OVERLAP[0])).clip(0, 1)
    pulse = np.sin(np.pi * times / (2 * _PULSE)) ** 2
    values = pulse * np.exp(-2 * extinction * depth) * overlap / np.maximum(depth, 1e-3) ** 2
    integral = (values[:, 1:] + values[:, :-1]).sum(axis=1) / 2 * (times[1] - times[0])
    best = int(integral.argmax())
    return float(ranges[best]), float(integral[best])


class Snowfall(NamedTuple):
    """Snowfall: rate in mm of water an hour, and the flakes' speed in m/s."""

    rate: float
    speed: float

    @property
    def occupied(self) -> float:
        """Share of a plane that flakes cover."""
        return self.rate / (3.6e6 * _SNOW_DENSITY * self.speed)

    @property
    def diameter(self) -> float:
        """Mean diameter in metres of flakes (Gunn and Marshall 1958), from the equivalent rain rate."""
        rain = float((self.rate / (487 * _SNOW_DENSITY * 0.003 * self.speed)) ** 1.5)
        return float(1e-3 / (2.55 * rain**-0.48))

    @property
    def flakes(self) -> float:
        """Flakes a square metre; exponential diameters of mean D have the mean area pi D^2 / 2."""
        return float(self.occupied / (np.pi * self.diameter**2 / 2))


def in_snow(points: NDArray[np.float32], snow: Snowfall, rng: Generator) -> CorruptedCloud:
    """Return the points in snowfall, after Hahner et al. (arXiv:2203.15118).

    Flakes are discs of exponential diameter D in the plane of a beam, of 3 mrad. A disc at range r hides the share
    min(1, D / 3 mrad r) of the beam and returns 0.9 * 255 times this share / r^2. The target keeps the free share. The
    strongest echo remains: a flake moves the point to its own range. Weakened targets below the noise are lost: 0.7
    times the intensity that nine tenths of the points at their range exceed.

    Instead of drawing one fixed pattern of discs a beam, discs are drawn for each point by their expected number.

    Health is as that of `foggy`.
    """
    ranges = np.linalg.norm(points[:, :3].astype(np.float64), axis=1)
    reflected = points[:, 3].astype(np.float64)
    # Discs whose centre is in the beam, or within half a disc of it.
    expected = snow.flakes * (_DIVERGENCE * ranges**2 / 2 + snow.diameter * ranges)
    counts = rng.poisson(np.minimum(expected, 50.0))
    beam = np.repeat(np.arange(len(points)), counts)
    at = np.maximum(_flake_range(rng.random(len(beam)), ranges[beam], snow.diameter), 0.5)
    share = np.minimum(rng.exponential(snow.diameter, len(beam)) / (_DIVERGENCE * at), 1.0)
    hidden = np.bincount(beam, share, len(points)).clip(0, 1)
    echo = _FLAKE * _BRIGHTEST * share / at**2
    strongest, place = np.zeros(len(points)), np.zeros(len(points))
    order = np.argsort(echo, kind="stable")
    strongest[beam[order]], place[beam[order]] = echo[order], at[order]  # the last, strongest one remains
    target = reflected * (1 - hidden)
    scattered = (strongest > target) & (place < ranges - 0.2)
    floor = 0.7 * _faintest(ranges, reflected)
    lost = ~scattered & (reflected >= floor) & (target < floor)
    snowed = points.copy()
    factor = np.where(scattered, place / np.maximum(ranges, 1e-6), 1.0)
    snowed[:, :3] *= factor[:, None].astype(np.float32)
    snowed[:, 3] = np.where(scattered, strongest, target).clip(0, _BRIGHTEST)
    return CorruptedCloud(snowed[~lost], _ring_health(ranges, ~lost & ~scattered, place[scattered]))


def _flake_range(uniform: NDArray[np.float64], ranges: NDArray[np.float64], diameter: float) -> NDArray[np.float64]:
    """Return ranges with a density proportional to the beam's width plus a flake's diameter, up to `ranges`."""
    total = _DIVERGENCE * ranges**2 / 2 + diameter * ranges
    solved: NDArray[np.float64] = (np.sqrt(diameter**2 + 2 * _DIVERGENCE * uniform * total) - diameter) / _DIVERGENCE
    return solved


def _faintest(ranges: NDArray[np.float64], intensities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intensity (N,) that nine tenths of the points at each range exceed."""
    edges = np.arange(0.0, 130.0, 10.0)
    ring = np.digitize(ranges, edges)
    levels = np.array([np.quantile(intensities[ring == n], 0.1) if (ring == n).any() else 0.0 for n in range(14)])
    faintest: NDArray[np.float64] = levels[ring]
    return faintest


def _ring_health(
    ranges: NDArray[np.float64], kept: NDArray[np.bool_], clutter: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the health by distance: the share of kept points among a ring's points and echoes of the weather.

    Args:
        ranges: (N,) of the points in clear air.
        kept: (N,) points that are still where they were.
        clutter: (M,) ranges of the weather's own echoes.
    """
    rings = int(np.ceil(np.sqrt(2) * REACH / _RING))
    edges = np.arange(rings + 1) * _RING
    before, _ = np.histogram(ranges, edges)
    left, _ = np.histogram(ranges[kept], edges)
    added, _ = np.histogram(clutter, edges)
    # A ring with few points is judged by its neighbours.
    window = np.ones(3)
    total = np.convolve(before + added, window, "same")
    share = np.convolve(left, window, "same") / np.maximum(total, 1)
    known = np.flatnonzero(total > 5)
    x, y = cell_centres()
    if not len(known):
        return np.ones(x.shape, np.float32)
    centres = (edges[:-1] + edges[1:]) / 2
    health: NDArray[np.float32] = np.interp(np.hypot(x, y), centres[known], share[known]).astype(np.float32)
    return health
