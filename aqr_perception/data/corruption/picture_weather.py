# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Light and weather in pictures: fog, snow, too much and too little light, and blur by motion.

Sizes in pixels refer to pictures of `REFERENCE_WIDTH` and scale with the width, so that a small picture of a scene
fails as a large one does.
"""

from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from aqr_perception.data.corruption.camera_corruption import CorruptedPicture
from aqr_perception.data.health import HEALTH_GRID

REFERENCE_WIDTH = 1600
"""Width in pixels of nuScenes' pictures."""

_UNKNOWN_DEPTH = 30.0
"""Metres of fog before every pixel of a picture without known depth."""
_PATCHES = 0.25
"""Largest relative deviation of the fog's density from its mean."""
_LOSS = 0.9


def hazy(
    image: NDArray[np.uint8], depth: NDArray[np.float32] | None, extinction: float, rng: Generator
) -> CorruptedPicture:
    """Return a picture in fog: I t + A (1 - t) with t = exp(-extinction * depth) (Koschmieder 1924).

    The airlight A is grey and as bright as the brightest tenth of the picture, so that fog at night is dark. The fog's
    density varies slowly over the picture. Health is the mean of t in each cell, reduced by at most 0.9.

    Args:
        depth: (H, W) metres; None gives a uniform veil of 30 m of fog.
        extinction: 1/m; visibility (5 % contrast) is 3 / extinction.
    """
    height, width = image.shape[:2]
    patches = rng.uniform(1 - _PATCHES, 1 + _PATCHES, (4, 7)).astype(np.float32)
    density = np.float32(extinction) * cv2.resize(patches, (width, height), interpolation=cv2.INTER_LINEAR)
    transmitted = np.exp(-density * (np.float32(_UNKNOWN_DEPTH) if depth is None else depth))
    grey = np.float32(np.percentile(image.mean(axis=-1), 90))
    veiled = image * transmitted[..., None] + grey * (1 - transmitted[..., None])
    return CorruptedPicture(_to_uint8(veiled), _cell_means(1 - _LOSS * (1 - transmitted)))


def snowy(
    image: NDArray[np.uint8],
    density: float,
    grain: float,
    threshold: float,
    streak: float,
    kept: float,
    rng: Generator,
) -> CorruptedPicture:
    """Return a picture with bright flakes, blurred along their fall, and paler colours.

    Flakes are the peaks of Gaussian noise, seen twice: once upside down.

    Args:
        density: mean of the noise, of deviation 0.3.
        grain: size of a flake in pixels.
        threshold: noise above this is a flake.
        streak: length (half) and deviation of the blur in pixels.
        kept: share of the picture's own colours; the rest is its grey, 1.5 times as bright plus 0.5.
    """
    height, width = image.shape[:2]
    columns = round(REFERENCE_WIDTH / grain)
    grid = (columns, max(1, round(columns * height / width)))
    noise = rng.normal(density, 0.3, (grid[1], grid[0])).astype(np.float32)
    if width > columns:
        noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    flakes = np.where(noise < threshold, 0, noise).clip(0, 1).astype(np.float32)
    scale = flakes.shape[1] / REFERENCE_WIDTH
    flakes = cv2.filter2D(
        flakes, -1, motion_kernel(streak * scale, streak * scale, rng.uniform(-135, -45)), borderType=cv2.BORDER_REFLECT
    ).astype(np.float32)
    if flakes.shape != (height, width):
        flakes = cv2.resize(flakes, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    values = image.astype(np.float32) / 255
    grey = cv2.cvtColor(values, cv2.COLOR_BGR2GRAY)[..., None] * 1.5 + 0.5
    pale = kept * values + (1 - kept) * np.maximum(values, grey)
    snow = flakes + flakes[::-1, ::-1]
    lost = np.clip(snow + (1 - kept), 0, 1)
    return CorruptedPicture(_to_uint8(255 * (0.9 * pale + snow[..., None])), _cell_means(1 - _LOSS * lost))


def brighter(image: NDArray[np.uint8], added: float) -> CorruptedPicture:
    """Return a picture with more light: `added` to the value max(B, G, R) in 0..1, clipped; hue and saturation stay.

    Health is the share of a cell's pixels whose value does not clip.
    """
    value = image.max(axis=-1).astype(np.float32)
    raised = np.minimum(value + np.float32(255 * added), 255)
    # Black has no hue: it becomes grey.
    lit = np.where(value[..., None] > 0, image * (raised / np.maximum(value, 1))[..., None], raised[..., None])
    return CorruptedPicture(_to_uint8(lit), _cell_means(1 - _LOSS * (value + 255 * added > 255)))


def darker(
    image: NDArray[np.uint8], brightest: float, photons: float, noise: float, rng: Generator
) -> CorruptedPicture:
    """Return an underexposed picture: its range mapped to 0..`brightest` with gamma 2, then shot and read noise.

    Args:
        brightest: new value of the brightest pixel, 0..1.
        photons: photons of a white pixel, which give the shot (Poisson) noise.
        noise: deviation of the read (Gaussian) noise, of 1.
    """
    low, high = float(image.min()), float(image.max())
    table = ((np.arange(256, dtype=np.float32) - low) / max(high - low, 1.0)).clip(0, 1) ** 2 * np.float32(brightest)
    light = np.clip(rng.poisson(table[image] * np.float32(photons)) / photons, 0, 1)
    taken = np.clip(light + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(noise), 0, 1)
    health = np.full(HEALTH_GRID, 1 - _LOSS * (1 - brightest), np.float32)
    return CorruptedPicture(np.floor(255 * taken).astype(np.uint8), health)


def smeared(image: NDArray[np.uint8], deviation: float, rng: Generator, length: float = 15.0) -> CorruptedPicture:
    """Return a picture blurred along a line, at most 45 degrees from horizontal.

    Args:
        deviation: of the one-sided Gaussian that weights the line's 2 * length + 1 pixels, in pixels.
    """
    scale = image.shape[1] / REFERENCE_WIDTH
    kernel = motion_kernel(length * scale, deviation * scale, rng.uniform(-45, 45))
    blurred = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    # Blur of a tenth of a camera's smallest objects, some 10 pixels, costs a tenth of their information.
    return CorruptedPicture(_to_uint8(blurred), np.full(HEALTH_GRID, 1 / (1 + deviation / 10), np.float32))


def motion_kernel(length: float, deviation: float, degrees: float) -> NDArray[np.float32]:
    """Return an odd square kernel: a one-sided Gaussian over 2 * length + 1 pixels along a direction."""
    steps = max(1, round(2 * length) + 1)
    reach = np.arange(0, steps, 0.25)
    weights = np.exp(-0.5 * (reach / max(deviation, 1e-3)) ** 2)
    kernel = np.zeros((2 * steps + 1, 2 * steps + 1), np.float32)
    columns = np.rint(steps + reach * np.cos(np.radians(degrees))).astype(int)
    rows = np.rint(steps + reach * np.sin(np.radians(degrees))).astype(int)
    np.add.at(kernel, (rows, columns), weights.astype(np.float32))
    normed: NDArray[np.float32] = kernel / kernel.sum()
    return normed


def _cell_means(values: NDArray[Any]) -> NDArray[np.float32]:
    rows, columns = HEALTH_GRID
    means = cv2.resize(values.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    clipped: NDArray[np.float32] = np.clip(means, 0, 1).astype(np.float32)
    return clipped


def _to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
