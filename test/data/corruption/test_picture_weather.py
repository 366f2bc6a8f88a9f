# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pictures in fog, snow, too much and too little light, with motion blur, and through dirt."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from aqr_perception.data.corruption.camera_corruption import CorruptedPicture, dirty
from aqr_perception.data.corruption.picture_depth import FARTHEST, picture_depth
from aqr_perception.data.corruption.picture_weather import brighter, darker, hazy, smeared, snowy
from aqr_perception.data.health import HEALTH_GRID
from aqr_perception.frame import CameraView

Failure = Callable[[NDArray[np.uint8], Generator], CorruptedPicture]


def picture(seed: int = 0) -> NDArray[np.uint8]:
    """Return a picture of coloured patches."""
    patches = np.random.default_rng(seed).integers(0, 170, (6, 12, 3), dtype=np.uint8)
    image = np.repeat(np.repeat(patches, 16, axis=0), 16, axis=1)
    image.setflags(write=False)
    return image


def _fog(extinction: float) -> Failure:
    depth = np.linspace(60, 2, 96, dtype=np.float32)[:, None].repeat(192, axis=1)
    return lambda image, rng: hazy(image, depth, extinction, rng)


def _snow(severity: int) -> Failure:
    numbers = ((0.3, 5.0, 0.9, 7.0, 0.9), (0.4, 4.0, 0.85, 8.0, 0.85), (0.5, 3.0, 0.8, 10.0, 0.8))[severity]
    return lambda image, rng: snowy(image, *numbers, rng)


SEVERITIES: dict[str, list[Failure]] = {
    "fog": [_fog(0.02), _fog(0.03), _fog(0.06)],
    "snow": [_snow(0), _snow(1), _snow(2)],
    "brightness": [lambda image, rng, a=added: brighter(image, a) for added in (0.5, 0.6, 0.7)],
    "darkness": [
        lambda image, rng, n=numbers: darker(image, *n, rng)
        for numbers in ((0.6, 250.0, 0.008), (0.4, 120.0, 0.018), (0.3, 50.0, 0.026))
    ],
    "motion blur": [lambda image, rng, d=100 * s: smeared(image, d, rng) for s in (0.06, 0.1, 0.13)],
    "dirt": [lambda image, rng, s=severity: dirty(image, s, rng) for severity in (0.2, 0.6, 1.0)],
}


@pytest.mark.parametrize("name", SEVERITIES)
def test_severer_failures_change_pictures_more_and_leave_less_health(name: str) -> None:
    changes, healths = [], []
    for failing in SEVERITIES[name]:
        first, second = (failing(picture(), np.random.default_rng(5)) for _ in range(2))
        assert np.array_equal(first.image, second.image) and first.image.shape == picture().shape
        assert first.health.shape == HEALTH_GRID and first.health.dtype == np.float32
        assert first.health.min() >= 0 and first.health.max() <= 1
        changes.append(float(np.abs(first.image.astype(float) - picture()).mean()))
        healths.append(float(first.health.mean()))
    assert changes == sorted(changes) and changes[0] > 0.5
    assert healths == sorted(healths, reverse=True) and healths[0] < 1


def test_fog_hides_the_far_part_of_a_picture_and_is_dark_at_night() -> None:
    fog = _fog(0.06)(picture(), np.random.default_rng(0))
    contrast = fog.image.astype(float).std(axis=(1, 2)) / picture().astype(float).std(axis=(1, 2))
    assert contrast[:16].max() < 0.2 and contrast[-4:].min() > 0.7
    assert fog.health[0].max() < 0.3 < 0.75 < fog.health[-1].min()
    night = (picture() // 8).astype(np.uint8)
    assert _fog(0.1)(night, np.random.default_rng(0)).image.max() <= night.max() + 1
    # Without known depth the veil is the same everywhere but for the patches.
    veil = hazy(picture(), None, 0.03, np.random.default_rng(0))
    assert np.ptp(veil.health) < 0.3


def test_brightness_adds_to_the_value_and_keeps_the_hue() -> None:
    image = np.array([[[10, 20, 40], [0, 0, 0], [100, 150, 200]]], np.uint8)
    lit = brighter(image, 0.5).image[0].tolist()
    assert lit == [[42, 84, 168], [128, 128, 128], [128, 191, 255]]


def test_darkness_maps_the_range_with_gamma_2() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(400, axis=0).repeat(3, axis=2)
    dark = darker(ramp, 0.4, 120.0, 0.018, np.random.default_rng(0)).image.astype(float)
    assert dark[:, 255].mean() == pytest.approx(0.4 * 255, rel=0.02)
    assert dark[:, 128].mean() == pytest.approx(0.1 * 255, rel=0.05)


def test_small_pictures_are_blurred_by_the_same_share_of_their_width() -> None:
    def spread(width: int) -> float:
        image = np.zeros((width // 2, width, 3), np.uint8)
        image[:, width // 2 :] = 255
        row = smeared(image, 10.0, np.random.default_rng(1)).image[width // 4, :, 0].astype(float)
        return float((row[1:] - row[:-1] > 0).sum()) / width

    assert spread(400) == pytest.approx(spread(1600), rel=0.3)


def view_and_wall(distance: float = 20.0) -> tuple[CameraView, NDArray[np.float32]]:
    """Return a camera 1.5 m above flat ground, and points on the ground and on a wall across the view's left half."""
    forward = np.eye(4)
    forward[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    intrinsics = np.array([[100.0, 0, 96], [0, 100, 48], [0, 0, 1]])
    view = CameraView("front", np.zeros((96, 192, 3), np.uint8), intrinsics, forward)
    x, y = np.meshgrid(np.arange(3, distance, 0.2), np.arange(-25, 25, 0.1))
    ground = np.c_[x.ravel(), y.ravel(), np.full(x.size, -1.5)]
    y, z = np.meshgrid(np.arange(0.0, 25, 0.1), np.arange(-1.5, 12, 0.2))
    wall = np.c_[np.full(y.size, distance), y.ravel(), z.ravel()]
    return view, np.concatenate([ground, wall]).astype(np.float32)


def test_depth_follows_the_ground_the_wall_and_the_sky() -> None:
    view, points = view_and_wall()
    depth = picture_depth(view, points)
    assert depth is not None and depth.shape == (96, 192)
    assert depth[78, 96] == pytest.approx(1.5 * 100 / 30, rel=0.1)  # 30 pixels below the horizon
    assert depth[20, 40] == pytest.approx(20, rel=0.1)
    assert depth[2, 150] > 100 and depth.max() <= FARTHEST * 1.001
    # One echo of rain before the lens is no surface.
    with_drop = np.concatenate([points, np.array([[1.0, 0.4, 0.2]], np.float32)])
    depth_of_drop = picture_depth(view, with_drop)
    assert depth_of_drop is not None and np.abs(depth_of_drop / depth - 1).max() < 0.5


def test_depth_is_unknown_without_points_in_the_picture() -> None:
    view, points = view_and_wall()
    behind = points * np.array([-1, 1, 1], np.float32)
    assert picture_depth(view, None) is None and picture_depth(view, behind) is None
