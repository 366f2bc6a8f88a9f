"""Occupied cells of a 3D grid, and which of them a sparse convolution connects (its rulebook)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Block:
    """The part of a rulebook that reaches a range of outputs.

    Attributes:
        rows: the outputs.
        sources: for each kernel offset, the input sites of its pairs.
        order: (P,) the block's pairs, numbered offset by offset, output by output.
        starts: (rows,) where in ``order`` each output's pairs start.
    """

    rows: slice
    sources: tuple[Tensor, ...]
    order: Tensor
    starts: Tensor


@dataclass(eq=False)
class Rulebook:
    """The pairs (input site, output site) that each kernel offset connects (Graham et al. 2018, arXiv:1711.10275, 3.2).

    Attributes:
        inputs, outputs: (P,) int64 site indices, offset by offset; an offset's outputs ascend, no two alike.
        counts: pairs of each of the kernel's offsets, which are ordered z, y, x with x fastest.
        identity: the offset that connects every site with itself and has no pairs listed; None if there is none.
        output_count: number of output sites.
    """

    inputs: Tensor
    outputs: Tensor
    counts: tuple[int, ...]
    identity: int | None
    output_count: int
    _blocks: dict[int, tuple[Block, ...]] = field(default_factory=dict, repr=False)

    def pairs(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield each offset that connects sites, with its input and its output sites; without the identity."""
        parts = zip(self.inputs.split(self.counts), self.outputs.split(self.counts), strict=True)
        for offset, (inputs, outputs) in enumerate(parts):
            if len(inputs):
                yield offset, inputs, outputs

    def blocks(self, pairs: int) -> tuple[Block, ...]:
        """Return the rulebook cut into ranges of outputs with about ``pairs`` pairs each; at least one."""
        number = max(1, round(len(self.inputs) / pairs))
        if number not in self._blocks:
            self._blocks[number] = self._cut(number)
        return self._blocks[number]

    def _cut(self, number: int) -> tuple[Block, ...]:
        device, offsets = self.outputs.device, torch.arange(len(self.counts), device=self.outputs.device)
        pairs_until = torch.bincount(self.outputs, minlength=self.output_count).cumsum(0)
        goals = torch.arange(1, number, device=device) * (len(self.outputs) // number)
        inner = torch.searchsorted(pairs_until, goals)
        edges = torch.cat([inner.new_zeros(1), inner, inner.new_tensor([self.output_count])])

        # Within an offset the outputs ascend, so a block's pairs of an offset follow one another: cuts[k, b] is where
        # those of block b start. A block's buffer holds them offset by offset.
        offset_of_pair = offsets.repeat_interleave(torch.tensor(self.counts, device=device))
        ascending = offset_of_pair * (self.output_count + 1) + self.outputs
        cuts = torch.searchsorted(ascending, offsets[:, None] * (self.output_count + 1) + edges)
        sizes = cuts.diff(dim=1)
        shift = (sizes.cumsum(0) - sizes - cuts[:, :-1]).flatten().repeat_interleave(sizes.flatten())
        place_in_buffer = torch.arange(len(self.outputs), device=device) + shift
        order = place_in_buffer[self.outputs.int().argsort(stable=True)].split(sizes.sum(0).tolist())
        starts = torch.cat([pairs_until.new_zeros(1), pairs_until[:-1]])

        rows, slices = edges.tolist(), cuts.tolist()
        return tuple(
            Block(
                slice(rows[block], rows[block + 1]),
                tuple(self.inputs[cut[block] : cut[block + 1]] for cut in slices),
                order[block],
                starts[rows[block] : rows[block + 1]] - starts[rows[block]],
            )
            for block in range(number)
        )


@dataclass(eq=False)
class Sites:
    """Occupied cells, ascending by ``keys``; rulebooks are made on first use and shared by all layers on these sites.

    Attributes:
        keys: (N,) int64, strictly ascending: cells numbered batch by batch, z, y, x fastest, in a grid with one more
            cell along each axis. That cell is never occupied, so a step over the border ends at no site instead of on
            the other side.
        grid: depth, height, width.
        batch_size: number of samples.
    """

    keys: Tensor
    grid: Grid
    batch_size: int
    _submanifold: Rulebook | None = field(default=None, repr=False)
    _strided: "dict[tuple[Grid, Grid, Grid], tuple[Sites, Rulebook]]" = field(default_factory=dict, repr=False)

    @staticmethod
    def at(coordinates: Tensor, grid: Grid, batch_size: int) -> "tuple[Sites, Tensor]":
        """Return the sites at (N, 4) coordinates (batch, z, y, x), and for each site the row that it comes from.

        Coordinates outside the grid are left out.

        Raises:
            ValueError: two coordinates are the same.
        """
        limits = torch.tensor((batch_size, *grid), device=coordinates.device)
        source = ((coordinates >= 0) & (coordinates < limits)).all(dim=1).nonzero().flatten()
        samples, z, y, x = coordinates[source].long().unbind(1)
        keys, order = _keys(samples, z, y, x, grid).sort()
        if (keys[1:] == keys[:-1]).any():
            raise ValueError("two voxels have the same coordinates, but sites must be unique; average them first")
        return Sites(keys, grid, batch_size), source[order]

    def __len__(self) -> int:
        return len(self.keys)

    def coordinates(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return batch index, z, y and x of every site, (N,) int64 each."""
        depth, height, width = (size + 1 for size in self.grid)
        rows = torch.div(self.keys, width, rounding_mode="floor")
        planes = torch.div(rows, height, rounding_mode="floor")
        samples = torch.div(planes, depth, rounding_mode="floor")
        return samples, planes - samples * depth, rows - planes * height, self.keys - rows * width

    def submanifold(self) -> Rulebook:
        """Return the rulebook of a 3x3x3 convolution whose outputs are these same sites.

        If the offset d leads from output o to input i, then -d leads from i to o: only half the offsets are searched.
        And keys being sorted, the three cells of a row follow one another: one search a row finds all three.
        """
        if self._submanifold is None:
            self._submanifold = self._neighbours()
        return self._submanifold

    def _neighbours(self) -> Rulebook:
        _, height, width = (size + 1 for size in self.grid)
        rows = [(z * height + y) * width for z, y in ((-1, -1), (-1, 0), (-1, 1), (0, -1))]
        candidate = self.keys + torch.tensor(rows, device=self.keys.device)[:, None] - 1
        position = torch.searchsorted(self.keys, candidate)
        ended = torch.cat([self.keys, self.keys.new_tensor([torch.iinfo(torch.int64).max])])
        positions, hits = [], []
        for _ in range(3):
            hit = ended[position] == candidate
            positions.append(position)
            hits.append(hit)
            position, candidate = position + hit, candidate + 1
        before = torch.arange(-1, len(self) - 1, device=self.keys.device)  # of the own row, only the cell before
        adjacent = self.keys == self.keys[before] + 1
        position = torch.cat([torch.stack(positions, 1).flatten(0, 1), before[None]])
        hit = torch.cat([torch.stack(hits, 1).flatten(0, 1), adjacent[None]])
        centre = 13  # of 27 offsets; those before it are listed here, those after it are their mirror images
        offsets, outputs = hit.nonzero(as_tuple=True)
        inputs = position[offsets, outputs]
        counts = _count(offsets, centre)
        mirrored = tuple(zip(inputs.split(counts), outputs.split(counts), strict=True))[::-1]
        return Rulebook(
            torch.cat([inputs, *(outputs for _, outputs in mirrored)]),
            torch.cat([outputs, *(inputs for inputs, _ in mirrored)]),
            (*counts, 0, *reversed(counts)),
            centre,
            len(self),
        )

    def strided(self, kernel: Grid, stride: Grid, padding: Grid) -> "tuple[Sites, Rulebook]":
        """Return the sites that a convolution reaches from these ones, and its rulebook.

        Args:
            kernel, stride, padding: along z, y, x.
        """
        known = self._strided.get((kernel, stride, padding))
        if known is None:
            known = self._strided[kernel, stride, padding] = self._reach(kernel, stride, padding)
        return known

    def _reach(self, kernel: Grid, stride: Grid, padding: Grid) -> "tuple[Sites, Rulebook]":
        sizes = zip(self.grid, kernel, stride, padding, strict=True)
        depth, height, width = ((size + 2 * p - k) // s + 1 for size, k, s, p in sizes)
        grid = (depth, height, width)
        samples, *cells = self.coordinates()
        z, y, x = (_outputs(cells[axis], kernel[axis], stride[axis], padding[axis], grid[axis]) for axis in range(3))
        hit = (z.valid[:, None, None] & y.valid[None, :, None] & x.valid[None, None, :]).flatten(0, 2)
        offsets, inputs = hit.nonzero(as_tuple=True)
        plane, column = torch.div(offsets, kernel[2], rounding_mode="floor"), offsets % kernel[2]
        layer, row = torch.div(plane, kernel[1], rounding_mode="floor"), plane % kernel[1]
        keys = _keys(samples[inputs], z.cells[layer, inputs], y.cells[row, inputs], x.cells[column, inputs], grid)
        ascending, order = keys.sort()
        unique, index = torch.unique_consecutive(ascending, return_inverse=True)
        outputs = torch.empty_like(index)
        outputs[order] = index
        rulebook = Rulebook(inputs, outputs, tuple(_count(offsets, len(hit))), None, len(unique))
        return Sites(unique, grid, self.batch_size), rulebook


class _Outputs(NamedTuple):
    """For one axis, (kernel, N): the output cell that each kernel element takes a cell to, and whether it exists."""

    cells: Tensor
    valid: Tensor


def _count(ascending: Tensor, number: int) -> list[int]:
    """Return how often each of 0, ..., number - 1 occurs."""
    edges = torch.searchsorted(ascending, torch.arange(number + 1, device=ascending.device))
    return edges.diff().tolist()


def _keys(samples: Tensor, z: Tensor, y: Tensor, x: Tensor, grid: Sequence[int]) -> Tensor:
    depth, height, width = (size + 1 for size in grid)
    return ((samples * depth + z) * height + y) * width + x


def _outputs(cells: Tensor, kernel: int, stride: int, padding: int, size: int) -> _Outputs:
    shifted = cells + padding - torch.arange(kernel, device=cells.device)[:, None]
    reached = torch.div(shifted, stride, rounding_mode="floor")
    return _Outputs(reached, (reached * stride == shifted) & (reached >= 0) & (reached < size))
