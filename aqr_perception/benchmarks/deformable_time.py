"""Deformable attention by grid sampling, by one gathering sum, and by the fused kernel."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from aqr_perception.benchmarks.turns import median_milliseconds
from aqr_perception.models.bevformer.deformable_attention import (
    Shapes,
    attend_by_gathering,
    attend_by_grid,
    attend_by_kernel,
)

_STRIDES = (8, 16, 32, 64)


@dataclass(frozen=True)
class DeformableCase:
    """Sizes of one attention: what one camera of BEVFormer-base shows to the cells that it sees.

    Attributes:
        queries: how many.
        image: height and width in pixels; the levels have strides 8, 16, 32 and 64.
        heads, channels, points: heads, channels of each, points of each in every level.
    """

    queries: int = 10_000
    image: tuple[int, int] = (928, 1600)
    heads: int = 8
    channels: int = 32
    points: int = 8

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Rows and columns of every level."""
        return [(-(-self.image[0] // stride), -(-self.image[1] // stride)) for stride in _STRIDES]


@dataclass(frozen=True)
class DeformableTime:
    """One way of computing it: its median wall time, and that as a ratio to grid sampling's."""

    way: str
    median_ms: float
    time_ratio: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def run(case: DeformableCase, repeats: int, device: str = "cpu") -> list[DeformableTime]:
    """Measure every way that this device has; the kernel is for CUDA."""
    inputs = _inputs(case, device)
    ways: dict[str, Callable[[Tensor, Shapes, Tensor, Tensor], Tensor]] = {
        "grid sampling": attend_by_grid,
        "gathering": attend_by_gathering,
    }
    if device != "cpu":
        ways["fused kernel"] = attend_by_kernel
    medians = median_milliseconds({name: partial(way, *inputs) for name, way in ways.items()}, repeats, device)
    return [DeformableTime(name, spent, spent / medians["grid sampling"]) for name, spent in medians.items()]


def table(case: DeformableCase, rows: list[DeformableTime]) -> str:
    """Return a table for people."""
    cells = sum(rows * columns for rows, columns in case.levels)
    sizes = f"{case.queries} queries, {case.heads} heads of {case.channels}, {case.points} points in each of 4 levels"
    lines = [f"{sizes} ({cells} cells), {torch.get_num_threads()} threads", f"{'way':<16}{'median ms':>12}{'ratio':>8}"]
    return "\n".join(lines + [f"{row.way:<16}{row.median_ms:>12.1f}{row.time_ratio:>8.2f}" for row in rows])


def _inputs(case: DeformableCase, device: str) -> tuple[Tensor, Shapes, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    cells = sum(rows * columns for rows, columns in case.levels)
    chosen = (1, case.queries, case.heads, len(case.levels), case.points)
    values = torch.randn(1, cells, case.heads, case.channels, generator=generator).to(device)
    # Near a place of each query's own, as trained offsets are.
    around = torch.rand(1, case.queries, 1, 1, 1, 2, generator=generator)
    places = (around + 0.02 * torch.randn(*chosen, 2, generator=generator)).to(device)
    return values, case.levels, places, torch.rand(chosen, generator=generator).to(device)
