# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Voxelisation: occupied cells of a grid with the mean of the points in each cell."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Voxels:
    """Occupied cells of a batch.

    Attributes:
        coordinates: (N, 4) int64 as batch index, z, y, x; unique and in lexicographic order. They may be outside
            ``grid``; see `voxelize`.
        features: (N, C) float32, mean of each cell's points.
        grid: depth, height, width: number of cells along z, y, x.
        batch_size: number of samples, including those without points.
    """

    coordinates: Tensor
    features: Tensor
    grid: tuple[int, int, int]
    batch_size: int


def voxelize(
    points: Sequence[Tensor],
    voxel_size: tuple[float, float, float],
    point_range: tuple[float, float, float, float, float, float],
    grid: tuple[int, int, int],
    max_points: int = 10,
    max_voxels: int = 160_000,
) -> Voxels:
    """Group each point cloud's points into voxels and average them.

    This is VoxelNet's hard voxelisation (arXiv:1711.06396, section 2.1.1).

    A voxel averages its first ``max_points`` points in input order. A point cloud's voxels are ordered by their first
    points; those after ``max_voxels`` are dropped. Points outside ``point_range`` and points with values that are not
    finite are dropped.

    ``max_voxels`` applies to the cells of the whole range, even if ``grid`` is smaller: the published 0.1 m model uses
    1024 of 1080 cells, but the other cells count as well. The result includes them; the encoder drops them.

    Args:
        points: one point cloud (N, C) per sample, C >= 3: x, y, z in metres and any other values.
        voxel_size: edge lengths along x, y, z in metres.
        point_range: x, y, z minimum and maximum in metres.
        grid: number of cells along x, y, z, for `Voxels.grid`.
        max_points: largest number of points averaged in a voxel.
        max_voxels: largest number of voxels per point cloud.

    Raises:
        ValueError: there is no point cloud (an empty batch is ``[torch.empty(0, C)]``), or one has a shape other
            than (N, C >= 3).
    """
    if not points or any(cloud.dim() != 2 or cloud.shape[1] < 3 for cloud in points):
        shapes = [tuple(cloud.shape) for cloud in points]
        raise ValueError(f"points have shapes {shapes}, but must be one point cloud (N, C >= 3) per sample")
    cloud = torch.cat(list(points)).float()
    sizes = torch.tensor([len(sample) for sample in points], device=cloud.device)
    batch = torch.arange(len(points), device=cloud.device).repeat_interleave(sizes, output_size=len(cloud))

    lower, size = cloud.new_tensor(point_range[:3]), cloud.new_tensor(voxel_size)
    extent = [round((point_range[axis + 3] - point_range[axis]) / voxel_size[axis]) for axis in range(3)]
    cells = torch.floor((cloud[:, :3] - lower) / size)  # compared as floats, because distant points would overflow
    inside = ((cells >= 0) & (cells < cloud.new_tensor(extent))).all(dim=1) & cloud.isfinite().all(dim=1)
    cloud, batch, cells = cloud[inside], batch[inside], cells[inside].long()

    width, height, depth = extent
    keys = ((batch * depth + cells[:, 2]) * height + cells[:, 1]) * width + cells[:, 0]
    keys, order = keys.sort(stable=True)
    occupied, counts = torch.unique_consecutive(keys, return_counts=True)
    starts = counts.cumsum(0) - counts
    batch_of_voxel = torch.div(occupied, depth * height * width, rounding_mode="floor")

    kept = _earliest(order[starts], batch_of_voxel, len(points), max_voxels)
    rank = torch.arange(len(keys), device=keys.device) - starts.repeat_interleave(counts, output_size=len(keys))
    averaged = (rank < max_points) & kept.repeat_interleave(counts, output_size=len(keys))
    counts, occupied, batch_of_voxel = counts[kept].clamp(max=max_points), occupied[kept], batch_of_voxel[kept]
    # unsafe=True skips a check of the lengths that fails for an empty tensor.
    sums = torch.segment_reduce(cloud[order[averaged]], "sum", lengths=counts, unsafe=True)

    row = torch.div(occupied, width, rounding_mode="floor")
    plane = torch.div(row, height, rounding_mode="floor")
    coordinates = torch.stack([batch_of_voxel, plane % depth, row % height, occupied % width], dim=1)
    return Voxels(coordinates, sums / counts[:, None], (grid[2], grid[1], grid[0]), len(points))


def _earliest(first_points: Tensor, batch_of_voxel: Tensor, batch_size: int, max_voxels: int) -> Tensor:
    """Return the mask of each sample's ``max_voxels`` voxels with the earliest first points."""
    if len(first_points) <= max_voxels:
        return torch.ones_like(first_points, dtype=torch.bool)
    arrival = first_points.argsort()  # sample by sample, because the point clouds are concatenated
    voxels_before = torch.searchsorted(batch_of_voxel, torch.arange(batch_size, device=arrival.device))
    rank = torch.empty_like(arrival)
    rank[arrival] = torch.arange(len(arrival), device=arrival.device)
    return rank - voxels_before[batch_of_voxel] < max_voxels
