# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Deformable attention as one Triton kernel, which computes, gathers and sums samples in registers (arXiv:2010.04159).

Triton comes with PyTorch's CUDA builds. The kernel has no backward pass; training uses grid sampling.
"""

import triton
import triton.language as tl
from torch import Tensor

_QUERIES = 32
"""Number of queries per program; a program handles one sample and head."""


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _kernel(  # type: ignore[no-untyped-def]  # Triton reads the parameters' annotations itself
    values,
    levels,
    places,
    weights,
    output,
    cells,
    queries,
    heads: tl.constexpr,
    channels: tl.constexpr,
    padded: tl.constexpr,
    level_count: tl.constexpr,
    point_count: tl.constexpr,
    block: tl.constexpr,
):
    sample, head = tl.program_id(1).to(tl.int64) // heads, tl.program_id(1) % heads
    query = tl.program_id(0) * block + tl.arange(0, block)
    channel = tl.arange(0, padded)
    valid, stored = query < queries, channel < channels
    entry = (sample * queries + query) * heads + head
    total = tl.zeros((block, padded), tl.float32)
    for level in range(level_count):
        rows, columns = tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1)
        first = sample * cells + tl.load(levels + 3 * level + 2)
        for point in range(point_count):
            place = (entry * level_count + level) * point_count + point
            x = tl.load(places + 2 * place, valid, 0.0) * columns - 0.5
            y = tl.load(places + 2 * place + 1, valid, 0.0) * rows - 0.5
            weight = tl.load(weights + place, valid, 0.0)
            left, top = tl.floor(x), tl.floor(y)
            for corner in tl.static_range(4):
                right, below = corner % 2, corner // 2
                share = (x - left if right else 1 - x + left) * (y - top if below else 1 - y + top)
                inside = (left >= -right) & (left < columns - right) & (top >= -below) & (top < rows - below) & valid
                # Converted to integers only inside the map, because a distant position would overflow.
                column = tl.where(inside, left + right, 0.0).to(tl.int64)
                row = tl.where(inside, top + below, 0.0).to(tl.int64)
                cell = (first + row * columns + column) * heads + head
                value = tl.load(
                    values + cell[:, None] * channels + channel[None], inside[:, None] & stored[None], other=0.0
                )
                total += tl.where(inside, weight * share, 0.0)[:, None] * value
    tl.store(output + entry[:, None] * channels + channel[None], total, valid[:, None] & stored[None])


def attend_fused(values: Tensor, levels: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Compute `deformable_attention.attend` without gradients.

    Args:
        values: (N, cells of all levels, heads, d) fp32.
        levels: (L, 3) int32 on the values' device: rows, columns and first cell of each.
        places: (N, Q, heads, levels, P, 2) fp32, positions x and y in 0..1 of each map.
        weights: (N, Q, heads, levels, P) fp32.
    """
    count, cells, heads, channels = values.shape
    queries, points = weights.shape[1], weights.shape[4]
    output = values.new_empty(count, queries, heads * channels)
    grid = (triton.cdiv(queries, _QUERIES), count * heads)
    _kernel[grid](
        values.contiguous(),
        levels,
        places.contiguous(),
        weights.contiguous(),
        output,
        cells,
        queries,
        heads=heads,
        channels=channels,
        padded=triton.next_power_of_2(channels),
        level_count=len(levels),
        point_count=points,
        block=_QUERIES,
    )
    return output
