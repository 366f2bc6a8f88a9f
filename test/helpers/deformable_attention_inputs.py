# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Random inputs of a deformable attention, and its definition as plain loops."""

import itertools
import math

import torch
from torch import Tensor

SHAPES = [(5, 7), (3, 4), (1, 2)]
"""Rows and columns of each level."""


def random_inputs(seed: int = 0, count: int = 2, queries: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return values, places (some outside the maps) and weights of 2 heads with 4 points and 6 channels."""
    generator = torch.Generator().manual_seed(seed)
    cells = sum(rows * columns for rows, columns in SHAPES)
    values = torch.randn(count, cells, 2, 6, generator=generator)
    places = torch.rand(count, queries, 2, len(SHAPES), 4, 2, generator=generator) * 1.6 - 0.3
    weights = torch.randn(count, queries, 2, len(SHAPES), 4, generator=generator)
    return values, places, weights


def attend_by_loops(values: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums of bilinear samples, (count, queries, heads * channels)."""
    count, queries, heads, levels, points = weights.shape
    output = torch.zeros(count, queries, heads, values.shape[-1])
    starts = list(itertools.accumulate([rows * columns for rows, columns in SHAPES], initial=0))
    for n, q, head, level, point in itertools.product(*map(range, (count, queries, heads, levels, points))):
        rows, columns = SHAPES[level]
        x, y = (float(share) for share in places[n, q, head, level, point])
        x, y = x * columns - 0.5, y * rows - 0.5
        for row, column in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
            if 0 <= row < rows and 0 <= column < columns:
                near = (1 - abs(y - row)) * (1 - abs(x - column))
                value = values[n, starts[level] + row * columns + column, head]
                output[n, q, head] += weights[n, q, head, level, point] * near * value
    return output.flatten(2)
