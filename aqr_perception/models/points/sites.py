# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Occupied cells of a 3D grid (sites) and the pairs of them that a sparse convolution connects (rulebook)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.points import native_sparse

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Block:
    """Part of a rulebook for a range of output sites.

    Attributes:
        rows: range of the output sites.
        sources: input sites of each kernel offset's pairs.
        order: (P,) the block's pairs, numbered offset by offset and sorted by output site.
        starts: (rows,) start of each output site's pairs in ``order``.
    """

    rows: slice
    sources: tuple[Tensor, ...]
    order: Tensor
    starts: Tensor


@dataclass(eq=False)
class Rulebook:
    """Pairs (input site, output site) of each kernel offset (Graham et al. 2018, arXiv:1711.10275, section 3.2).

    Attributes:
        inputs, outputs: (P,) int64 site indices, offset by offset; the outputs of an offset are strictly ascending.
        counts: number of pairs of each kernel offset; offsets are ordered z, y, x with x fastest.
        identity: offset that connects every site with itself, and has no listed pairs; None without such an offset.
        output_count: number of output sites.
    """

    inputs: Tensor
    outputs: Tensor
    counts: tuple[int, ...]
    identity: int | None
    output_count: int
    _blocks: dict[int, tuple[Block, ...]] = field(default_factory=dict, repr=False)

    def pairs(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield each offset with listed pairs, its input sites and its output sites."""
        parts = zip(self.inputs.split(self.counts), self.outputs.split(self.counts), strict=True)
        for offset, (inputs, outputs) in enumerate(parts):
            if len(inputs):
                yield offset, inputs, outputs

    def blocks(self, pairs: int) -> tuple[Block, ...]:
        """Return the rulebook in one or more blocks of about ``pairs`` pairs each."""
        number = max(1, round(len(self.inputs) / pairs))
        if number not in self._blocks:
            self._blocks[number] = self._split(number)
        return self._blocks[number]

    def _split(self, number: int) -> tuple[Block, ...]:
        device, offsets = self.outputs.device, torch.arange(len(self.counts), device=self.outputs.device)
        pairs_until = torch.bincount(self.outputs, minlength=self.output_count).cumsum(0)
        targets = torch.arange(1, number, device=device) * (len(self.outputs) // number)
        inner = torch.searchsorted(pairs_until, targets)
        edges = torch.cat([inner.new_zeros(1), inner, inner.new_tensor([self.output_count])])

        # The outputs of an offset ascend, so a block's pairs of an offset are consecutive: those of block b start at
        # cuts[k, b] for offset k. A block's buffer holds them offset by offset.
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
    """Occupied cells. Rulebooks are computed on first use and shared by all layers on the same sites.

    Attributes:
        keys: (N,) int64, strictly ascending: cells numbered by sample, z, y and x (fastest) in a grid with one more
            cell along each axis. The extra cells are never occupied, so a step over the border does not reach a site on
            the opposite side.
        grid: depth, height, width.
        batch_size: number of samples.
    """

    keys: Tensor
    grid: Grid
    batch_size: int
    _submanifold: Rulebook | None = field(default=None, repr=False)
    _strided: "dict[tuple[Grid, Grid, Grid], tuple[Sites, Rulebook]]" = field(default_factory=dict, repr=False)
    _table: Tensor | None = field(default=None, repr=False)
    _strided_tables: "dict[tuple[Grid, Grid, Grid], tuple[Sites, Tensor] | None]" = field(
        default_factory=dict, repr=False
    )

    @staticmethod
    def from_coordinates(coordinates: Tensor, grid: Grid, batch_size: int) -> "tuple[Sites, Tensor]":
        """Return the sites at (N, 4) coordinates (batch, z, y, x) inside the grid, and each site's row in them.

        Raises:
            ValueError: two coordinates are equal.
        """
        limits = torch.tensor((batch_size, *grid), device=coordinates.device)
        source = ((coordinates >= 0) & (coordinates < limits)).all(dim=1).nonzero().flatten()
        samples, z, y, x = coordinates[source].long().unbind(1)
        keys, order = _keys(samples, z, y, x, grid).sort()
        if (keys[1:] == keys[:-1]).any():
            raise ValueError("two voxels have the same coordinates, but must be unique; average their points first")
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
        """Return the rulebook of a 3x3x3 convolution with these sites as inputs and outputs.

        If offset d leads from output o to input i, then -d leads from i to o, so only half of the offsets are searched.
        The keys are sorted, so the three cells of a row are consecutive, and one search per row finds all three.
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
        before = torch.arange(-1, len(self) - 1, device=self.keys.device)  # in a site's own row: the cell before it
        adjacent = self.keys == self.keys[before] + 1
        position = torch.cat([torch.stack(positions, 1).flatten(0, 1), before[None]])
        hit = torch.cat([torch.stack(hits, 1).flatten(0, 1), adjacent[None]])
        centre = 13  # of 27 offsets; the search covers those before it, and those after it are their mirror images
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

    def submanifold_table(self) -> Tensor:
        """Return the neighbour table of a 3x3x3 convolution on these sites; see `native_sparse`."""
        if self._table is None:
            self._table = native_sparse.neighbours(self.keys, self.grid)
        return self._table

    def strided_table(self, kernel: Grid, stride: Grid, padding: Grid) -> "tuple[Sites, Tensor] | None":
        """Return the output sites of a convolution on these sites, and its neighbour table; None for a huge grid."""
        geometry = (kernel, stride, padding)
        if geometry not in self._strided_tables:
            grid = self._output_grid(*geometry)
            found = native_sparse.strided(self.keys, self.batch_size, self.grid, grid, *geometry)
            connected = None if found is None else (Sites(found[0], grid, self.batch_size), found[1])
            self._strided_tables[geometry] = connected
        return self._strided_tables[geometry]

    def strided(self, kernel: Grid, stride: Grid, padding: Grid) -> "tuple[Sites, Rulebook]":
        """Return the output sites of a convolution on these sites, and its rulebook.

        Args:
            kernel, stride, padding: sizes along z, y, x.
        """
        connections = self._strided.get((kernel, stride, padding))
        if connections is None:
            connections = self._strided[kernel, stride, padding] = self._connect(kernel, stride, padding)
        return connections

    def _output_grid(self, kernel: Grid, stride: Grid, padding: Grid) -> Grid:
        sizes = zip(self.grid, kernel, stride, padding, strict=True)
        depth, height, width = ((size + 2 * p - k) // s + 1 for size, k, s, p in sizes)
        return depth, height, width

    def _connect(self, kernel: Grid, stride: Grid, padding: Grid) -> "tuple[Sites, Rulebook]":
        grid = self._output_grid(kernel, stride, padding)
        samples, *cells = self.coordinates()
        z, y, x = map(_output_cells, cells, kernel, stride, padding, grid)
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


class _OutputCells(NamedTuple):
    """Output cell (kernel, N) of each kernel element and input cell along one axis, and whether it exists."""

    cells: Tensor
    valid: Tensor


def _count(ascending: Tensor, number: int) -> list[int]:
    """Return the number of occurrences of each of 0, ..., number - 1 in ascending values."""
    edges = torch.searchsorted(ascending, torch.arange(number + 1, device=ascending.device))
    counts: list[int] = edges.diff().tolist()
    return counts


def _keys(samples: Tensor, z: Tensor, y: Tensor, x: Tensor, grid: Sequence[int]) -> Tensor:
    depth, height, width = (size + 1 for size in grid)
    return ((samples * depth + z) * height + y) * width + x


def _output_cells(cells: Tensor, kernel: int, stride: int, padding: int, size: int) -> _OutputCells:
    shifted = cells + padding - torch.arange(kernel, device=cells.device)[:, None]
    reached = torch.div(shifted, stride, rounding_mode="floor")
    return _OutputCells(reached, (reached * stride == shifted) & (reached >= 0) & (reached < size))
