# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fog and snow in LiDAR point clouds."""

import numpy as np
import pytest
from numpy.typing import NDArray

from aqr_perception.data.corruption.lidar_corruption import CELLS, REACH
from aqr_perception.data.corruption.lidar_weather import Snowfall, _fog_response, foggy, in_snow


def cloud(count: int = 4000, seed: int = 0) -> NDArray[np.float32]:
    """Return points at 2 to 60 m with intensities of 5 to 100."""
    rng = np.random.default_rng(seed)
    angle, distance = rng.uniform(-np.pi, np.pi, count), rng.uniform(2, 60, count)
    points = np.zeros((count, 5), np.float32)
    points[:, 0], points[:, 1] = distance * np.cos(angle), distance * np.sin(angle)
    points[:, 3] = rng.uniform(5, 100, count)
    points.setflags(write=False)
    return points


def ranges(points: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.linalg.norm(points[:, :3], axis=1)
    return found


def moved(points: NDArray[np.float32], weather: NDArray[np.float32]) -> NDArray[np.bool_]:
    different: NDArray[np.bool_] = np.abs(ranges(points) - ranges(weather)) > 1e-3
    return different


@pytest.mark.parametrize(("extinction", "at", "integral"), [(0.02, 4.70, 4.3466e-9), (0.06, 4.60, 3.8156e-9)])
def test_fog_returns_most_where_the_published_simulation_says(extinction: float, at: float, integral: float) -> None:
    found = _fog_response(extinction)
    assert found == pytest.approx((at, integral), rel=0.02)


def test_denser_fog_weakens_more_points_and_returns_more_itself() -> None:
    points, clutter, intensities = cloud(), [], []
    for extinction, backscatter in ((0.02, 0.008), (0.03, 0.008), (0.06, 0.05)):
        fogged = foggy(points, extinction, backscatter, np.random.default_rng(1), loses=False).points
        assert fogged is not None and len(fogged) == len(points)
        echo = moved(points, fogged)
        clutter.append(int(echo.sum()))
        intensities.append(float(fogged[~echo, 3].mean()))
        # Fog lies between the sensor and the target, and on the same ray.
        assert (ranges(fogged)[echo] < ranges(points)[echo]).all()
        assert np.allclose(np.arctan2(points[:, 1], points[:, 0]), np.arctan2(fogged[:, 1], fogged[:, 0]), atol=1e-3)
        assert np.allclose(
            fogged[~echo, 3], np.rint(points[~echo, 3] * np.exp(-2 * extinction * ranges(points)[~echo]))
        )
    assert clutter == sorted(clutter) and clutter[2] > 1.5 * clutter[0]


def test_fog_loses_far_points_first_and_clear_air_none() -> None:
    points = cloud()
    clear = foggy(points, 0.0, 0.0, np.random.default_rng(0))
    assert clear.points is not None and np.allclose(clear.points[:, :3], points[:, :3]) and clear.health.min() == 1
    fog = foggy(points, 0.06, 0.0, np.random.default_rng(0))
    assert fog.points is not None
    left, before = np.histogram(ranges(fog.points), 6, (0, 60))[0], np.histogram(ranges(points), 6, (0, 60))[0]
    share = left / before
    assert share[0] > 0.98 and share[-1] == 0 and (np.diff(share) <= 1e-9).all()
    middle = CELLS // 2
    along = fog.health[middle, middle + (np.array([5, 20, 40, 55]) * CELLS / (2 * REACH)).astype(int)]
    assert along[0] > 0.9 and along[-1] < 0.05 and (np.diff(along) <= 0).all()


def test_fog_of_equal_random_numbers_is_equal() -> None:
    first, second = (foggy(cloud(), 0.05, 0.03, np.random.default_rng(3)).points for _ in range(2))
    assert first is not None and second is not None and np.array_equal(first, second)


def test_heavier_snow_hides_more_and_its_flakes_are_near() -> None:
    points, changed = cloud(8000), []
    for fall in (Snowfall(0.5, 1.2), Snowfall(2.5, 1.6), Snowfall(1.5, 0.4)):
        snowed = in_snow(points, fall, np.random.default_rng(0)).points
        assert snowed is not None
        same = np.isin(ranges(points).round(3), ranges(snowed).round(3))
        changed.append(int((~same).sum()))
        near = ranges(snowed) < 1.95  # nearer than every point
        assert (snowed[:, 3] <= 255).all() and near.any()
    assert changed == sorted(changed) and changed[0] > 0


def test_snowfall_covers_what_the_published_rates_say() -> None:
    assert [Snowfall(*rates).occupied for rates in ((0.5, 1.2), (2.5, 1.6), (1.5, 0.4))] == pytest.approx(
        [1.157e-6, 4.340e-6, 1.042e-5], rel=1e-3
    )
    fall = Snowfall(1.5, 0.4)
    diameters = np.random.default_rng(0).exponential(fall.diameter, 20000)
    assert fall.flakes * np.mean(np.pi * diameters**2 / 4) == pytest.approx(fall.occupied, rel=0.05)


def test_weather_accepts_no_points() -> None:
    nothing = np.zeros((0, 5), np.float32)
    for weather in (
        foggy(nothing, 0.1, 0.01, np.random.default_rng(0)),
        in_snow(nothing, Snowfall(1, 1), np.random.default_rng(0)),
    ):
        assert weather.points is not None and len(weather.points) == 0 and weather.health.min() == 1
