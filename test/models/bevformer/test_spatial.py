# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""BEV cells attend to the cameras that see them, and to no others."""

import torch
from helpers.small_bevformer import PRESET, SIZE, projections

from aqr_perception.models.bevformer.spatial import SpatialCrossAttention, pillars, project_pillars

GRID = (8, 12)


def test_pillars_stand_on_the_cells_centres_half_a_metre_within_the_range() -> None:
    points = pillars(PRESET.point_range, GRID, 4).view(*GRID, 4, 3)
    torch.testing.assert_close(points[0, 0, 0], torch.tensor([-22.0, -14.0, -4.5]))
    torch.testing.assert_close(points[0, 1, 0], torch.tensor([-18.0, -14.0, -4.5]))
    torch.testing.assert_close(points[7, 11, 3], torch.tensor([22.0, 14.0, 2.5]))


def test_a_camera_sees_the_cells_in_front_of_it() -> None:
    visibility = project_pillars(pillars(PRESET.point_range, GRID, 4), projections(), SIZE)
    visible = visibility.visible[0].view(6, *GRID)
    front, back = visible[0], visible[3]
    assert front[3:5, 10:].all() and not front[:, :6].any()
    assert back[3:5, :2].all() and not back[:, 7:].any()
    for view, cells in enumerate(visibility.cells[0]):
        assert torch.equal(cells, visibility.visible[0, view].nonzero()[:, 0])


def test_shares_sum_to_one_where_any_camera_sees() -> None:
    visibility = project_pillars(pillars(PRESET.point_range, GRID, 4), projections()[:, :2], SIZE)
    total, seen = visibility.shares.sum(1), visibility.visible.any(1)
    assert seen.any() and not seen.all()
    torch.testing.assert_close(total, seen.float())


def test_a_cameras_image_changes_only_the_cells_that_it_sees() -> None:
    torch.manual_seed(0)
    attention = SpatialCrossAttention(16, 4, levels=1, points=8)
    visibility = project_pillars(pillars(PRESET.point_range, GRID, 4), projections(), SIZE)
    queries, features = torch.randn(1, 96, 16), torch.randn(1, 6, 6, 16)
    changed = features.clone()
    changed[:, 2] += 1.0
    with torch.no_grad():
        first, second = (attention(queries, shown, [(2, 3)], visibility) for shown in (features, changed))
    different = (first != second).any(-1)[0]
    assert different.any() and not (different & ~visibility.visible[0, 2]).any()


def test_a_cell_gets_the_mean_of_its_cameras() -> None:
    torch.manual_seed(0)
    attention = SpatialCrossAttention(16, 4, levels=1, points=8)
    torch.nn.init.eye_(attention.output_proj.weight)
    points = pillars(PRESET.point_range, GRID, 4)
    matrices, queries, features = projections(), torch.zeros(1, 96, 16), torch.randn(1, 6, 6, 16)
    with torch.no_grad():
        together = attention(queries, features, [(2, 3)], project_pillars(points, matrices, SIZE))
        each = torch.stack(
            [
                attention(queries, features[:, [view]], [(2, 3)], project_pillars(points, matrices[:, [view]], SIZE))
                for view in range(6)
            ]
        )
    count = project_pillars(points, matrices, SIZE).visible.sum(1).clamp(min=1)
    assert count.max() > 1
    torch.testing.assert_close(together, each.sum(0) / count[..., None], atol=1e-5, rtol=1e-5)
