# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Simulated camera failures: corrupted images and their health.

The kinds of failure follow the robustness benchmarks of camera-LiDAR fusion (arXiv:2205.14951, arXiv:2303.11040) and
MoME (arXiv:2503.19776). Severity is in 0..1: 0 leaves the image intact, 1 leaves little information.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from aqr_perception.data.corruption.misalignment import delay_health
from aqr_perception.data.health import HEALTH_GRID
from aqr_perception.frame import CameraView, LabelledFrame

_LOSS = 0.9
"""Health lost at severity 1; less than 1, because the image still shows more than a black one."""


class CorruptedPicture(NamedTuple):
    """A failing camera's image (H, W, 3) uint8 BGR, and its health, `HEALTH_GRID` float32 in 0..1."""

    image: NDArray[np.uint8]
    health: NDArray[np.float32]


def black(image: NDArray[np.uint8]) -> CorruptedPicture:
    """Return a black image: no light or no data arrives."""
    return CorruptedPicture(np.zeros_like(image), _uniform_health(0.0))


def noisy(image: NDArray[np.uint8], severity: float, rng: Generator) -> CorruptedPicture:
    """Return the image of an underexposed sensor: darker, with shot and read noise."""
    height, width = image.shape[:2]
    # Noise of single pixels would vanish when large images are scaled down to a model's size.
    grain = max(1, round(width / 800))
    size = (-(-width // grain), -(-height // grain))
    level = rng.standard_normal((size[1], size[0], 3), dtype=np.float32)
    noise: NDArray[Any] = cv2.resize(level, (size[0] * grain, size[1] * grain), interpolation=cv2.INTER_NEAREST)
    gain = 1.0 - 0.5 * severity
    deviation = severity * (20.0 + 5.0 * np.sqrt(np.arange(256, dtype=np.float32)))
    noised = image * np.float32(gain) + noise[:height, :width] * deviation[image]
    return CorruptedPicture(_to_uint8(noised), _health_at(severity))


def blurred(image: NDArray[np.uint8], severity: float, rng: Generator) -> CorruptedPicture:
    """Return an image with motion blur or out of focus, each with probability 1/2."""
    size = max(1, round(severity * image.shape[1] * (0.06 if (moves := rng.random() < 0.5) else 0.03)))
    kernel = np.zeros((size | 1, size | 1), np.float32)
    centre = size // 2
    if moves:
        angle = rng.uniform(0, np.pi)
        reach = centre * np.array([np.cos(angle), np.sin(angle)])
        ends = [tuple(int(value) for value in np.round(centre + sign * reach)) for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
    else:
        cv2.circle(kernel, (centre, centre), centre, 1.0, cv2.FILLED)
    smeared = cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    return CorruptedPicture(_to_uint8(smeared), _health_at(severity))


def over_exposed(image: NDArray[np.uint8], severity: float) -> CorruptedPicture:
    """Return an overexposed image: up to five stops too much light, with bloom around the brightest areas.

    Health is the share of a cell's pixels that are not white; pixels that are white in the input count by severity.
    """
    height, width = image.shape[:2]
    exposed = (np.arange(256, dtype=np.float32) / 255.0) ** 2.2 * 2.0 ** (5.0 * severity)  # in linear light
    light = exposed.astype(np.float32)[image]
    small = cv2.resize(light, (max(1, width // 8), max(1, height // 8)), interpolation=cv2.INTER_AREA)
    bloom = cv2.GaussianBlur(np.clip(small - 1.0, 0.0, 3.0), (0, 0), max(width / 160, 0.5))
    light += np.float32(0.3 * severity) * cv2.resize(bloom, (width, height))
    white = np.where((image >= 250).all(-1), 255 * severity, 255 * (light >= 1.0).all(-1))
    taken = 255.0 * np.minimum(light, 1.0) ** np.float32(1 / 2.2)
    return CorruptedPicture(_to_uint8(taken), _free_share(_to_uint8(white)))


def occluded(image: NDArray[np.uint8], severity: float, rng: Generator) -> CorruptedPicture:
    """Return an image with dirt or a sticker on the lens: a blob or a rectangle over up to two thirds of the image."""
    height, width = image.shape[:2]
    covered = np.zeros((height, width), np.uint8)
    share = np.sqrt(0.67 * max(severity, 1e-3))  # of each edge, at equal aspect ratio
    widest = np.log(0.95 / share)
    stretch = np.exp(np.clip(rng.normal(0, 0.3), -widest, widest))
    size = share * np.array([width * stretch, height / stretch])
    low = rng.uniform(0, 1, 2) * (np.array([width, height]) - size)
    if rng.random() < 0.5:
        first, last = np.round(low).astype(int), np.round(low + size).astype(int)
        covered[first[1] : last[1], first[0] : last[0]] = 255
    else:
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        orders = np.arange(2, 7)[:, None]
        waves = np.cos(orders * angles + rng.uniform(0, 2 * np.pi, (5, 1)))
        radius = 1.0 + (rng.normal(0, 0.35, (5, 1)) / orders * waves).sum(0)
        radius /= np.sqrt(np.pi / 4 * np.mean(radius**2))  # same area as the rectangle
        outline = low + size / 2 + np.stack([np.cos(angles), np.sin(angles)], -1) * radius[:, None] * size / 2
        cv2.fillPoly(covered, [np.round(outline).astype(np.int32)], 255)
    return cover(image, covered, rng)


def dirty(image: NDArray[np.uint8], severity: float, rng: Generator) -> CorruptedPicture:
    """Return an image through a dirty lens: many blotches of mud, half transparent at their rims, and a blurring film.

    At severity 1, mud covers about half of the image. Health is the free share of each cell, reduced everywhere by up
    to 0.3 for the film.
    """
    height, width = image.shape[:2]
    opacity = np.zeros((height, width), np.float32)
    for _ in range(max(1, round(14 * severity))):
        radius = rng.uniform(0.03, 0.14) * width
        centre = rng.uniform(0, width), rng.uniform(0.05, 1.0) * height
        blotch = np.zeros((height, width), np.uint8)
        axes = max(1, round(radius)), max(1, round(rng.uniform(0.5, 0.9) * radius))
        place = round(centre[0]), round(centre[1])
        cv2.ellipse(blotch, place, axes, float(rng.uniform(0, 180)), 0, 360, 255, cv2.FILLED)
        rim = 2 * max(1, width // 60) + 1
        soft = cv2.GaussianBlur(blotch, (rim, rim), 0).astype(np.float32) / 255
        opacity = 1 - (1 - opacity) * (1 - np.float32(rng.uniform(0.7, 1.0)) * soft)
    film = 2 * max(1, round(severity * width / 160)) + 1
    hazy = cv2.GaussianBlur(image, (film, film), 0).astype(np.float32)
    mud = np.array([38.0, 46.0, 52.0], np.float32) * np.float32(rng.uniform(0.4, 1.4))
    soiled = hazy * (1 - opacity[..., None]) + mud * opacity[..., None]
    free = _free_share(np.rint(255 * opacity).astype(np.uint8))
    return CorruptedPicture(_to_uint8(soiled), free * np.float32(1 - 0.3 * severity))


def half_occluded(image: NDArray[np.uint8], rng: Generator) -> CorruptedPicture:
    """Return an image with a covered left or right half."""
    covered = np.zeros(image.shape[:2], np.uint8)
    half = image.shape[1] // 2
    covered[:, slice(0, half) if rng.random() < 0.5 else slice(half, None)] = 255
    return cover(image, covered, rng)


def cover(image: NDArray[np.uint8], covered: NDArray[np.uint8], rng: Generator) -> CorruptedPicture:
    """Cover an image with mud where (H, W) `covered` is 255: dark, uneven, and out of focus at its edge.

    Health is 0 in fully covered cells and 1 in free ones.
    """
    height, width = covered.shape
    edge = 2 * (width // 200) + 1
    opacity: NDArray[Any] = cv2.GaussianBlur(covered, (edge, edge), 0)
    patches = cv2.resize(
        rng.uniform(-12, 12, (9, 16)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    mud = np.array([38.0, 46.0, 52.0], np.float32) * np.float32(rng.uniform(0.3, 1.3)) + patches[..., None]
    left, top, columns, rows = cv2.boundingRect(opacity)
    reached = slice(top, top + rows), slice(left, left + columns)
    alpha = opacity[reached][..., None].astype(np.float32) / 255.0
    muddy = image.copy()
    muddy[reached] = _to_uint8(image[reached] * (1 - alpha) + mud[reached] * alpha)
    return CorruptedPicture(muddy, _free_share(opacity))


def frozen(view: CameraView, labelled: LabelledFrame, earlier: LabelledFrame) -> CorruptedPicture | None:
    """Return the camera's image in an earlier frame; None if that frame has no such image of the same size.

    Health decreases with the elapsed time and with the vehicle's translation and rotation since then.

    Raises:
        ValueError: the frame is not earlier.
    """
    health = delay_health(labelled, earlier, view.name)
    old = next((other.image for other in earlier.frame.cameras if other.name == view.name), None)
    if old is None or old.shape != view.image.shape:
        return None
    return CorruptedPicture(old, health)


def late(image: NDArray[np.uint8], severity: float, rng: Generator) -> CorruptedPicture:
    """Return an imitation of a delayed image: smaller, and shifted to a side by up to a tenth of the width."""
    height, width = image.shape[:2]
    scale = 1.0 / (1.0 + 0.15 * severity)
    shift = severity * 0.1 * width * rng.choice([-1.0, 1.0])
    affine = np.array([[scale, 0, (1 - scale) * width / 2 + shift], [0, scale, (1 - scale) * height / 2]])
    shifted = cv2.warpAffine(image, affine, (width, height), borderMode=cv2.BORDER_REFLECT)
    return CorruptedPicture(_to_uint8(shifted), _health_at(severity))


def _uniform_health(health: float) -> NDArray[np.float32]:
    return np.full(HEALTH_GRID, health, np.float32)


def _health_at(severity: float) -> NDArray[np.float32]:
    return _uniform_health(1.0 - _LOSS * severity)


def _free_share(opacity: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the visible share of each health cell under (H, W) `opacity` in 0..255."""
    rows, columns = HEALTH_GRID
    lost = cv2.resize(opacity.astype(np.float32) / 255.0, (columns, rows), interpolation=cv2.INTER_AREA)
    shares: NDArray[np.float32] = np.clip(1.0 - lost, 0.0, 1.0).round(4).astype(np.float32)
    return shares


def _to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
