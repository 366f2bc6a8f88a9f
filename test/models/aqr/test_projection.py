# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Projection of points to cells, and flags for points that a grid or camera does not cover."""

import dataclasses

import pytest
import torch
from helpers.short_grid import BEV_RANGE, CELL, GRID, short_grid
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from aqr_perception.models.aqr.projection import project
from aqr_perception.models.config.presets import Preset, load_preset, preset_names
from aqr_perception.models.points.sparse_encoder import SparseEncoder
from aqr_perception.models.points.voxels import voxelize
from aqr_perception.models.tokens import TokenLayout

RANGE = (-54.0, -54.0, 54.0, 54.0)
LAYOUT = TokenLayout(bev=(36, 18), views=2, image=(4, 10))
IMAGE_SIZE = (64, 160)


def looking_along_y(flipped: bool = False) -> torch.Tensor:
    sign = -1.0 if flipped else 1.0
    rotation = torch.tensor([[sign, 0, 0], [0, 0, -1.0], [0, sign, 0]])
    matrix = torch.eye(4)
    matrix[:3, :3] = torch.tensor([[100.0, 0, 80], [0, 100, 32], [0, 0, 1]]) @ rotation
    return matrix


CAMERAS = torch.stack((looking_along_y(), looking_along_y(flipped=True)))[None]


@given(st.floats(-53.9, 53.9), st.floats(-53.9, 53.9), st.floats(-4, 2))
@settings(max_examples=50, deadline=None)
def test_a_point_is_in_its_bev_cell_and_in_the_image_cells_of_the_cameras_that_see_it(x, y, z) -> None:
    cells = project(torch.tensor([[[x, y, z]]]), RANGE, CAMERAS, IMAGE_SIZE, LAYOUT)
    row, column = cells.bev[0, 0].tolist()
    assert cells.bev_inside.all()
    assert row * 3 - 54 <= y + 1e-3 and y - 1e-3 <= (row + 1) * 3 - 54
    assert column * 6 - 54 <= x + 1e-3 and x - 1e-3 <= (column + 1) * 6 - 54
    for view, sign in enumerate((1, -1)):
        depth = sign * y
        if abs(depth) < 1e-3:
            continue
        u, v = 100 * sign * x / depth + 80, 100 * -z / depth + 32
        visible = depth > 0 and 0 <= u < 160 and 0 <= v < 64
        if min(abs(u), abs(u - 160), abs(v), abs(v - 64)) > 1e-2:
            assert cells.image_visible[0, 0, view].item() == visible
        if visible and cells.image_visible[0, 0, view]:
            image_row, image_column = cells.image[0, 0, view].tolist()
            assert abs(image_column - u / 16 + 0.5) <= 0.51 and abs(image_row - v / 16 + 0.5) <= 0.51


def test_points_outside_the_grid_or_behind_every_camera_are_flagged_not_clamped() -> None:
    points = torch.tensor([[[60.0, 0.0, 0.0], [0.0, 60.0, 0.0], [0.0, 0.0, 0.0], [float("nan"), 1.0, 0.0]]])
    cells = project(points, RANGE, CAMERAS, IMAGE_SIZE, LAYOUT)
    assert cells.bev_inside[0].tolist() == [False, False, True, False]
    assert cells.image_visible[0].tolist() == [[False, False], [True, False], [False, False], [False, False]]


def test_a_point_gets_a_cell_in_each_camera_that_sees_it() -> None:
    twice = CAMERAS[:, :1].expand(-1, 2, -1, -1)
    cells = project(torch.tensor([[[0.0, 10.0, 0.0]]]), RANGE, twice, IMAGE_SIZE, LAYOUT)
    assert cells.image_visible[0, 0].tolist() == [True, True]


def test_missing_sensors_have_no_cells() -> None:
    cells = project(torch.zeros(1, 5, 3), RANGE, torch.zeros(1, 0, 4, 4), (0, 0), TokenLayout())
    assert not cells.bev_inside.any() and cells.image_visible.shape == (1, 5, 0)


def test_autocast_moves_no_point_to_another_cell() -> None:
    points = (torch.rand(1, 1000, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * torch.tensor([100.0, 100, 6])
    fine = TokenLayout(bev=(180, 180), views=2, image=(40, 100))
    exact = project(points, RANGE, CAMERAS, IMAGE_SIZE, fine)
    with torch.autocast("cpu", torch.bfloat16):
        found = project(points, RANGE, CAMERAS, IMAGE_SIZE, fine)
    assert exact.image_visible.any()
    assert all(torch.equal(a, b) for a, b in zip(exact, found, strict=True))


def bev_cell(
    x: float, y: float, bev_range: tuple[float, float, float, float], grid: tuple[int, int]
) -> list[int] | None:
    """Return the row and column that `project` names; None outside the grid."""
    points, no_cameras = torch.tensor([[[x, y, 0.0]]]), torch.zeros(1, 0, 4, 4)
    cells = project(points, bev_range, no_cameras, (0, 0), TokenLayout(bev=grid))
    return cells.bev[0, 0].tolist() if cells.bev_inside.item() else None


WITH_LIDAR = {name: preset for name in preset_names() if (preset := load_preset(name)).points is not None}


@pytest.mark.parametrize("name", WITH_LIDAR)
@given(across=st.floats(0, 1), along=st.floats(0, 1))
@example(across=0.917, along=0.874)
@example(across=0.961, along=0.3)
@settings(max_examples=60, deadline=None)
def test_a_point_is_in_the_cell_that_its_voxel_activates(name: str, across: float, along: float) -> None:
    preset = WITH_LIDAR[name]
    branch, low, high = preset.points, preset.point_range[:2], preset.point_range[3:5]
    assert branch is not None
    position = [low[axis] + share * (high[axis] - low[axis]) for axis, share in enumerate((across, along))]
    # float32 has steps of 4 um at 54 m, so a point on a border may be in either voxel.
    assume(all(0.001 < (position[axis] - low[axis]) / branch.voxel_size[axis] % 1 < 0.999 for axis in range(2)))
    voxels = voxelize([torch.tensor([[*position, 0.0]])], branch.voxel_size, preset.point_range, branch.grid)
    row, column = (voxels.coordinates[0, 2:] // 8).tolist()
    grid = (branch.grid[1] // 8, branch.grid[0] // 8)
    expected = [row, column] if row < grid[0] and column < grid[1] else None
    assert bev_cell(*position, preset.bev_range, grid) == expected


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return short_grid(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def encoder() -> SparseEncoder:
    """An encoder with positive weights, so that every cell that a voxel reaches is active."""
    encoder = SparseEncoder(3, (4, 4, 4, 4), grid=(41, 192, 256), output_channels=4).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.abs_()
    return encoder


@given(x=st.floats(-53.9, 53.9), y=st.floats(-39.9, 39.9), z=st.floats(-4.9, 2.9))
@example(x=45.0, y=33.0, z=-1.0)
@example(x=50.0, y=0.0, z=-1.0)
@example(x=0.0, y=38.0, z=-1.0)
@settings(max_examples=60, deadline=None)
@torch.inference_mode()
def test_the_features_of_a_point_are_in_its_cell(
    preset: Preset, encoder: SparseEncoder, x: float, y: float, z: float
) -> None:
    assert preset.points is not None
    assert preset.bev_range == BEV_RANGE
    points = [torch.tensor([[x, y, z]])]
    voxels = voxelize(points, preset.points.voxel_size, preset.point_range, preset.points.grid)
    features = encoder(dataclasses.replace(voxels, features=torch.ones(1, 3)))
    assert features.shape[2:] == GRID
    # Neighbours are active because the convolutions overlap; the own cell always is.
    inside = BEV_RANGE[0] <= x < BEV_RANGE[2] and BEV_RANGE[1] <= y < BEV_RANGE[3]
    assume(min(abs(x - BEV_RANGE[2]), abs(y - BEV_RANGE[3])) > 1e-4)
    found, active = bev_cell(x, y, preset.bev_range, GRID), (features[0] != 0).any(0)
    assert (found is not None) == inside == bool(active.any())
    if found is not None:
        rows, columns = active.nonzero().T
        assert active[found[0], found[1]]
        assert ((rows - found[0]).abs() <= 1).all()
        assert ((columns - found[1]).abs() <= 1).all()
        centre = [BEV_RANGE[axis] + (found[1 - axis] + 0.5) * CELL for axis in range(2)]
        assert abs(x - centre[0]) <= CELL / 2 + 1e-4
        assert abs(y - centre[1]) <= CELL / 2 + 1e-4


def test_a_range_with_heights_is_refused() -> None:
    with pytest.raises(ValueError, match="bev_range"):
        bev_cell(0.0, 0.0, (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), GRID)
