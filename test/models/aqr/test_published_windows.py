# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Windows of the published routers as their weights were trained."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models.aqr.published_windows import Windows, published_cells, router_windows
from aqr_perception.models.tokens import TokenLayout

RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
LAYOUT = TokenLayout(bev=(36, 36), views=2, image=(20, 30))
IMAGE_SIZE = (320, 480)


def camera(forward: tuple[float, float], focal: float = 240.0) -> Tensor:
    """(4, 4) model frame -> pixels of a camera at the origin that looks along a horizontal direction."""
    x, y = forward
    rows = torch.tensor([[y, -x, 0.0], [0, 0, -1], [x, y, 0]])
    matrix = torch.eye(4)
    matrix[:3, :3] = torch.tensor([[focal, 0, 240], [0, focal, 160], [0, 0, 1]]) @ rows
    return matrix


FRONT, LEFT = camera((1.0, 0.0)), camera((0.0, 1.0))


def windows_at(points: Tensor, cameras: Tensor, layout: TokenLayout) -> Windows:
    return router_windows(published_cells(points, RANGE, cameras, IMAGE_SIZE, layout), layout, 5, 15)


def looked_at(point: tuple[float, float, float], layout: TokenLayout = LAYOUT, cameras: tuple = (FRONT, LEFT)) -> set:
    windows = windows_at(torch.tensor([[point]]), torch.stack(cameras)[None], layout)
    return set(windows.tokens[windows.inside].tolist())


def cells(rows: range, columns: range, start: int, across: int) -> set[int]:
    return {start + row * across + column for row in rows for column in columns}


def image_window(view: int, row: int, column: int) -> set[int]:
    rows = range(max(row - 7, 0), min(row + 8, 20))
    return cells(rows, range(max(column - 7, 0), min(column + 8, 30)), 36 * 36 + view * 600, 30)


@given(x=st.floats(-53.9, 53.9), y=st.floats(-53.9, 53.9))
def test_the_bev_window_is_five_cells_wide_and_cut_at_the_border(x: float, y: float) -> None:
    layout = TokenLayout(bev=LAYOUT.bev)
    windows = windows_at(torch.tensor([[[x, y, 0.0]]]), torch.zeros(1, 0, 4, 4), layout)
    column, row = (int((torch.tensor(value) + 54) * (36 / 108)) for value in (x, y))
    expected = cells(range(max(row - 2, 0), min(row + 3, 36)), range(max(column - 2, 0), min(column + 3, 36)), 0, 36)
    assert set(windows.tokens[windows.inside].tolist()) == expected


@given(u=st.integers(0, 479), v=st.integers(0, 319), depth=st.floats(0.5, 50))
def test_the_image_window_is_fifteen_cells_wide_and_cut_at_the_border(u: int, v: int, depth: float) -> None:
    u, v = u + 0.5, v + 0.5
    point = (depth, (240 - u) / 240 * depth, (160 - v) / 240 * depth)
    assert looked_at(point, TokenLayout((36, 36), 1, (20, 30)), (FRONT,)) >= image_window(0, int(v // 16), int(u // 16))
    assert {t for t in looked_at(point) if t >= 36 * 36} == image_window(0, int(v // 16), int(u // 16))


def test_the_first_camera_in_the_list_counts_where_two_see_a_point() -> None:
    twin = camera((1.0, 0.0), focal=120.0)
    assert looked_at((10.0, 0.0, 0.0), cameras=(FRONT, twin)) > image_window(0, 10, 15)
    assert looked_at((10.0, 0.0, 0.0), cameras=(LEFT, FRONT)) > image_window(1, 10, 15)


def test_a_point_that_no_camera_sees_gets_the_corner_of_the_first_camera() -> None:
    assert {token for token in looked_at((-10.0, -10.0, 0.0)) if token >= 36 * 36} == image_window(0, 0, 0)


def test_a_point_behind_a_camera_counts_only_near_its_axis() -> None:
    eye = torch.eye(4)  # looks along z, and its pixels are metres times 1e-5 once the depth is held
    assert looked_at((1e-3, 1e-3, -2.0), cameras=(LEFT, eye)) > image_window(1, 6, 6)
    assert {token for token in looked_at((1.0, 1.0, -2.0), cameras=(LEFT, eye)) if token >= 36 * 36 + 600} == set()


@pytest.mark.parametrize("layout", [TokenLayout(), TokenLayout(bev=(36, 36)), TokenLayout(views=2, image=(20, 30))])
def test_a_missing_sensor_has_no_window(layout: TokenLayout) -> None:
    windows = windows_at(torch.zeros(1, 4, 3), torch.stack((FRONT, LEFT))[None], layout)
    assert windows.tokens.shape == (1, 4, (25 if layout.bev_tokens else 0) + (225 if layout.views else 0))
    assert (windows.tokens < max(layout.total, 1)).all()
