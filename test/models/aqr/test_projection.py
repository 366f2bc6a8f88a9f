"""Projection of points to cells, and flags for points that a grid or camera does not cover."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models.aqr.projection import project
from aqr_perception.models.tokens import TokenLayout

POINT_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
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
    cells = project(torch.tensor([[[x, y, z]]]), POINT_RANGE, CAMERAS, IMAGE_SIZE, LAYOUT)
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
    cells = project(points, POINT_RANGE, CAMERAS, IMAGE_SIZE, LAYOUT)
    assert cells.bev_inside[0].tolist() == [False, False, True, False]
    assert cells.image_visible[0].tolist() == [[False, False], [True, False], [False, False], [False, False]]


def test_a_point_gets_a_cell_in_each_camera_that_sees_it() -> None:
    twice = CAMERAS[:, :1].expand(-1, 2, -1, -1)
    cells = project(torch.tensor([[[0.0, 10.0, 0.0]]]), POINT_RANGE, twice, IMAGE_SIZE, LAYOUT)
    assert cells.image_visible[0, 0].tolist() == [True, True]


def test_missing_sensors_have_no_cells() -> None:
    cells = project(torch.zeros(1, 5, 3), POINT_RANGE, torch.zeros(1, 0, 4, 4), (0, 0), TokenLayout())
    assert not cells.bev_inside.any() and cells.image_visible.shape == (1, 5, 0)


def test_autocast_moves_no_point_to_another_cell() -> None:
    points = (torch.rand(1, 1000, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * torch.tensor([100.0, 100, 6])
    fine = TokenLayout(bev=(180, 180), views=2, image=(40, 100))
    exact = project(points, POINT_RANGE, CAMERAS, IMAGE_SIZE, fine)
    with torch.autocast("cpu", torch.bfloat16):
        found = project(points, POINT_RANGE, CAMERAS, IMAGE_SIZE, fine)
    assert exact.image_visible.any()
    assert all(torch.equal(a, b) for a, b in zip(exact, found, strict=True))
