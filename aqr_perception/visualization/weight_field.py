# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fields of weights: at each place of a picture a weight, and how visible it is.

Colour stands for the weight and opacity for the evidence. A place without evidence stays as it is; it does not look
like weight 0.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import QueryEvidence

_SHARPNESS = 4
"""Exponent of the soft maximum of overlapping Gaussians; with a higher one, the strongest query decides alone."""

_FAINTEST = np.float32(0.04)
"""Visibility below which a place stays as it is."""

_FULL_SCORE = np.float32(0.5)
"""Score from which a query is fully visible; few objects have a much higher one."""

_VISIBLE_WEIGHT = np.float32(0.3)
"""Magnitude from which weights of a map without queries are fully visible; down to 0 they fade."""


_BAND = 16
"""Rows of a field that are blended at once."""


class WeightField(NamedTuple):
    """Weights (h, w) float32, and how visible they are, (h, w) float32 in 0..1."""

    values: NDArray[np.float32]
    visibility: NDArray[np.float32]


def from_queries(
    queries: QueryEvidence,
    values: NDArray[np.float32],
    pixels: NDArray[np.float64],
    sigma: tuple[float, float],
    size: tuple[int, int],
    step: int,
) -> WeightField:
    """Return the field of queries with Gaussians around them, at every `step`-th pixel.

    A place has the mean weight of the queries around it, of which those with high scores and small distances count
    most, and the visibility of the strongest one: its Gaussian times its score, in units of `_FULL_SCORE`, at most 1.

    Args:
        values: (Q,) the queries' values; those that are NaN leave their queries out.
        pixels: (Q, 2) columns and rows of the queries.
        sigma: of the Gaussians along columns and rows, in pixels.
        size: width and height of the picture.
        step: pixels between two places.
    """
    columns, rows = (np.arange(-(-edge // step)) * float(step) + (step - 1) / 2 for edge in size)
    near = np.isfinite(values) & (pixels > np.multiply(sigma, -3)).all(axis=1)
    near &= (pixels < np.add(size, np.multiply(sigma, 3))).all(axis=1)
    strength = (queries.scores[near] / _FULL_SCORE).clip(0, 1) ** _SHARPNESS
    across, down = (
        _powers(places, pixels[near, axis], sigma[axis]) for axis, places in enumerate((columns, rows))
    )  # (Q, w), (Q, h)
    factors = np.stack((strength, strength * values[near])).astype(np.float32)
    # Not a matrix product: for sizes like these, waiting threads of BLAS cost more than the product.
    evidence, weighted = (np.einsum("qh,qw->hw", down, factor[:, None] * across) for factor in factors)
    visibility = np.sqrt(np.sqrt(evidence))  # the root of order `_SHARPNESS`
    visibility[visibility < _FAINTEST] = 0
    mean = np.divide(weighted, evidence, out=np.zeros_like(evidence), where=visibility > 0)
    return WeightField(mean, visibility.clip(max=1.0))


def known_weights(queries: QueryEvidence) -> NDArray[np.float32]:
    """Return the queries' weights (Q,); NaN instead of 0, the weight of a sensor that has no data for a query."""
    return np.where(queries.weights != 0, queries.weights, np.float32(np.nan))


def from_map(values: NDArray[np.float32], signed: bool) -> WeightField:
    """Return the field of a published map, in which 0 means no evidence, and so does less if it is not signed."""
    known = np.nan_to_num(values)
    magnitudes = np.abs(known) if signed else np.maximum(known, np.float32(0))
    visibility = np.minimum(magnitudes / _VISIBLE_WEIGHT, np.float32(1))
    return WeightField(values, visibility)


def _powers(places: NDArray[np.floating], centres: NDArray[np.float64], sigma: float) -> NDArray[np.float32]:
    """Return (Q, places) Gaussians around centres (Q,) to the power of `_SHARPNESS`."""
    factor = np.sqrt(_SHARPNESS / 2) / sigma
    distances = (places * factor).astype(np.float32) - (centres * factor).astype(np.float32)[:, None]
    gaussians: NDArray[np.float32] = np.exp(-np.square(distances))
    return gaussians


def blend(picture: NDArray[np.uint8], colours: NDArray[np.uint8], opacity: NDArray[np.float32], step: int) -> None:
    """Blend colours into a picture, where they are not transparent.

    Args:
        picture: (H, W, 3).
        colours: (h, w, 3) at every `step`-th pixel of the picture; linear in between.
        opacity: (h, w) in 0..1.
    """
    visible = opacity > 0
    rows, columns = _extent(visible, axis=1), _extent(visible, axis=0)
    if rows is None or columns is None:
        return
    share = opacity[rows, columns, None]
    ours = np.rint(colours[rows, columns] * share).astype(np.uint8)
    rest = np.rint(255 * (1 - share)).astype(np.uint8).repeat(3, axis=2)
    region = picture[rows.start * step : rows.stop * step, columns.start * step : columns.stop * step]
    for top in range(0, len(ours), _BAND):  # what is computed of a band stays in the processor's cache
        band = region[top * step : (top + _BAND) * step]
        over, under = (_upsampled(image, top, step, band.shape[:2]) for image in (ours, rest))
        cv2.multiply(band, under, dst=band, scale=1 / 255)
        cv2.add(band, over, dst=band)


def _upsampled(image: NDArray[np.uint8], top: int, step: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the part of an image below one of its rows, `step` times as large and cut to a shape (H, W)."""
    above = min(top, 1)
    part = image[top - above : top + -(-shape[0] // step) + 1]
    size = (part.shape[1] * step, part.shape[0] * step)
    large: NDArray[Any] = cv2.resize(part, size, interpolation=cv2.INTER_LINEAR)
    return large[above * step :][: shape[0], : shape[1]]


def _extent(used: NDArray[np.bool_], axis: int) -> slice | None:
    """Return the smallest slice of the other axis with all that is used, and a neighbour on either side; None: none."""
    places = np.flatnonzero(used.any(axis=axis))
    return slice(max(places[0] - 1, 0), min(places[-1] + 2, used.shape[1 - axis])) if len(places) else None
