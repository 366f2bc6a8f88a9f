# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Suppression of detections of an object that a better detection has found.

A decoder of few layers that saw few frames gives an object to several queries, although its training matches one.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST_SIDE = 1.0
"""Least length and width in metres of the area in which a box suppresses others: cones are smaller than errors."""


def first_of_each_object(boxes: Tensor, labels: Tensor) -> Tensor:
    """Return which boxes (N,) have their centre, seen from above, in no better one of the same class.

    Greedy, as non-maximum suppression is: a box that is left out suppresses none. Boxes count as at least `LEAST_SIDE`
    long and wide. Centres count instead of overlaps, because boxes of one object may differ in size and heading.

    Args:
        boxes: (N, 9), see `DecodedBoxes`, the best one first.
        labels: (N,).
    """
    classes = labels.cpu().numpy()
    suppresses = _contains(boxes.detach().double().cpu().numpy()) & (classes[:, None] == classes)
    first = np.ones(len(classes), np.bool_)
    for index in range(len(classes)):
        if first[index]:
            first[index + 1 :] &= ~suppresses[index, index + 1 :]
    return torch.from_numpy(first).to(boxes.device)


def _contains(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (N, N), whether the row's box contains the column's centre, from above, for boxes (N, 9)."""
    offsets = boxes[None, :, :2] - boxes[:, None, :2]
    cosine, sine = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    along = offsets[..., 0] * cosine + offsets[..., 1] * sine
    across = offsets[..., 1] * cosine - offsets[..., 0] * sine
    half = np.maximum(boxes[:, 3:5], LEAST_SIDE)[:, None] / 2
    inside: NDArray[np.bool_] = (np.abs(along) < half[..., 0]) & (np.abs(across) < half[..., 1])
    return inside
