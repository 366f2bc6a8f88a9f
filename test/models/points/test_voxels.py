# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Voxelisation: each voxel is the mean of its first points."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models.points.voxels import Voxels, voxelize

SIZE = (1.0, 0.5, 2.0)
RANGE = (-2.0, -1.0, 0.0, 2.0, 1.0, 4.0)
GRID = (4, 4, 2)


def one_by_one(cloud: Tensor, max_points: int, max_voxels: int) -> dict[tuple[int, int, int], Tensor]:
    """Return the voxels by (z, y, x) in order of arrival, computed point by point."""
    voxels: dict[tuple[int, int, int], list[Tensor]] = {}
    for point in cloud:
        if not point.isfinite().all():
            continue
        cell = [math.floor((point[axis].item() - RANGE[axis]) / SIZE[axis]) for axis in range(3)]
        if any(not 0 <= cell[axis] < GRID[axis] for axis in range(3)):
            continue
        key = (cell[2], cell[1], cell[0])
        if key not in voxels and len(voxels) == max_voxels:
            continue
        voxels.setdefault(key, []).append(point)
    return {key: torch.stack(points[:max_points]).mean(0) for key, points in voxels.items()}


def clouds(seed: int, sizes: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    result = []
    for size in sizes:
        # Quarters are exact in binary, so that both computations round to the same cell.
        cloud = torch.randint(-10, 20, (size, 5), generator=generator) / 4
        cloud[torch.rand(size, generator=generator) < 0.1, 1] = torch.nan
        result.append(cloud)
    return result


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=3),
    max_points=st.integers(1, 4),
    max_voxels=st.integers(1, 12),
)
def test_voxels_equal_those_computed_point_by_point(
    seed: int, sizes: list[int], max_points: int, max_voxels: int
) -> None:
    points = clouds(seed, sizes)
    voxels = voxelize(points, SIZE, RANGE, GRID, max_points, max_voxels)
    assert voxels.grid == (2, 4, 4)
    assert voxels.batch_size == len(points)
    expected = {
        (sample, *cell): mean
        for sample, cloud in enumerate(points)
        for cell, mean in one_by_one(cloud, max_points, max_voxels).items()
    }
    assert [tuple(row) for row in voxels.coordinates.tolist()] == sorted(expected)
    if expected:
        torch.testing.assert_close(voxels.features, torch.stack([expected[cell] for cell in sorted(expected)]))


def test_points_on_the_upper_border_and_infinite_ones_are_dropped() -> None:
    cloud = torch.tensor(
        [
            [2.0, 0.0, 1.0, 1.0, 0.0],
            [torch.inf, 0.0, 1.0, 1.0, 0.0],
            [0.0, 0.0, 1.0, torch.nan, 0.0],
            [1e30, 0.0, 1.0, 1.0, 0.0],
            [-2.0, -1.0, 0.0, 7.0, 0.5],
        ]
    )
    voxels = voxelize([cloud], SIZE, RANGE, GRID)
    assert voxels.coordinates.tolist() == [[0, 0, 0, 0]]
    torch.testing.assert_close(voxels.features, cloud[-1:])


def test_half_precision_point_clouds_are_averaged_in_single_precision() -> None:
    cloud = torch.tensor([[0.5, 0.5, 1.0, 255.0, 0.0], [0.5, 0.5, 1.0, 254.0, 0.0]]).half()
    voxels = voxelize([cloud], SIZE, RANGE, GRID)
    assert voxels.features.dtype == torch.float32
    assert voxels.features[0, 3] == 254.5


def test_an_empty_batch_has_no_voxels_but_keeps_its_size() -> None:
    voxels = voxelize([torch.empty(0, 5), torch.empty(0, 5)], SIZE, RANGE, GRID)
    assert isinstance(voxels, Voxels)
    assert voxels.coordinates.shape == (0, 4)
    assert voxels.features.shape == (0, 5)
    assert voxels.batch_size == 2


@pytest.mark.parametrize("points", [[], [torch.zeros(4, 2)], [torch.zeros(4)]])
def test_point_clouds_of_another_shape_are_refused(points: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="one point cloud"):
        voxelize(points, SIZE, RANGE, GRID)
