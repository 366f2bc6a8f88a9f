# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Time of deformable attention: grid sampling, one gathering sum, and the fused kernel."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from aqr_perception.benchmarks.alternating_timing import median_milliseconds
from aqr_perception.models.bevformer.deformable_attention import (
    Shapes,
    attend_by_gathering,
    attend_by_grid,
    attend_by_kernel,
)

_STRIDES = (8, 16, 32, 64)


@dataclass(frozen=True)
class DeformableCase:
    """Sizes of an attention layer; the defaults are those of one BEVFormer-base camera and the BEV cells in its view.

    Attributes:
        queries: number of queries.
        image: height and width in pixels; the levels have strides 8, 16, 32 and 64.
        heads, channels, points: number of heads, channels per head, and points per head and level.
    """

    queries: int = 10_000
    image: tuple[int, int] = (928, 1600)
    heads: int = 8
    channels: int = 32
    points: int = 8

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Rows and columns of each level."""
        return [(-(-self.image[0] // stride), -(-self.image[1] // stride)) for stride in _STRIDES]


@dataclass(frozen=True)
class DeformableTime:
    """Median wall time of one variant, and its ratio to grid sampling."""

    variant: str
    median_ms: float
    time_ratio: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def run(case: DeformableCase, repeats: int, device: str = "cpu") -> list[DeformableTime]:
    """Measure every variant that the device supports; the fused kernel needs CUDA."""
    inputs = _inputs(case, device)
    variants: dict[str, Callable[[Tensor, Shapes, Tensor, Tensor], Tensor]] = {
        "grid sampling": attend_by_grid,
        "gathering": attend_by_gathering,
    }
    if device != "cpu":
        variants["fused kernel"] = attend_by_kernel
    medians = median_milliseconds(
        {name: partial(attend, *inputs) for name, attend in variants.items()}, repeats, device
    )
    return [DeformableTime(name, median, median / medians["grid sampling"]) for name, median in medians.items()]


def table(case: DeformableCase, rows: list[DeformableTime]) -> str:
    """Return the rows as a text table."""
    cells = sum(rows * columns for rows, columns in case.levels)
    sizes = f"{case.queries} queries, {case.heads} heads of {case.channels}, {case.points} points in each of 4 levels"
    lines = [
        f"{sizes} ({cells} cells), {torch.get_num_threads()} threads",
        f"{'variant':<16}{'median ms':>12}{'ratio':>8}",
    ]
    return "\n".join(lines + [f"{row.variant:<16}{row.median_ms:>12.1f}{row.time_ratio:>8.2f}" for row in rows])


def _inputs(case: DeformableCase, device: str) -> tuple[Tensor, Shapes, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    cells = sum(rows * columns for rows, columns in case.levels)
    chosen = (1, case.queries, case.heads, len(case.levels), case.points)
    values = torch.randn(1, cells, case.heads, case.channels, generator=generator).to(device)
    # Each query samples near one position, as with trained offsets.
    centre = torch.rand(1, case.queries, 1, 1, 1, 2, generator=generator)
    places = (centre + 0.02 * torch.randn(*chosen, 2, generator=generator)).to(device)
    return values, case.levels, places, torch.rand(chosen, generator=generator).to(device)
