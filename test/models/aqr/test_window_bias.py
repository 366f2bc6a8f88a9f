# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The bias acts only inside a query's windows, and tiles equal its dense form."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.window_bias import WindowBias, build
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

LAYOUT = TokenLayout(bev=(20, 30), views=2, image=(12, 16))


def one_query(bev: tuple[int, int], image: tuple[int, int], visible: tuple[bool, bool, bool], **options) -> WindowBias:
    cells = QueryCells(
        torch.tensor([[bev]]),
        torch.tensor([[visible[0]]]),
        torch.tensor([[[image, image]]]),
        torch.tensor([[visible[1:]]]),
    )
    return build(
        cells, torch.tensor([[0.5]]), torch.tensor([[[0.25, 0.75]]]), LAYOUT, AqrOptions(mode="bias", **options)
    )


def test_each_window_has_the_weight_of_its_sensor() -> None:
    dense = one_query((10, 15), (6, 8), (True, True, True), bev_window=5, image_window=3, strength=2.0).dense()[0, 0]
    lidar, first, second = (dense[segment] for segment in LAYOUT.segments)
    grid = lidar.view(20, 30)
    assert (grid[8:13, 13:18] == 1.0).all() and grid.count_nonzero() == 25
    assert (first.view(12, 16)[5:8, 7:10] == 0.5).all() and first.count_nonzero() == 9
    assert (second.view(12, 16)[5:8, 7:10] == 1.5).all() and second.count_nonzero() == 9


def test_windows_end_at_the_borders_of_their_grid() -> None:
    dense = one_query((0, 29), (11, 0), (True, True, False), bev_window=15, image_window=15).dense()[0, 0]
    lidar, first, second = (dense[segment] for segment in LAYOUT.segments)
    assert lidar.view(20, 30)[:8, 22:].all() and lidar.count_nonzero() == 64
    assert first.view(12, 16)[4:, :8].all() and first.count_nonzero() == 64
    assert not second.any()


def test_an_even_window_has_one_more_cell_after_its_centre_than_before() -> None:
    dense = one_query((10, 15), (6, 8), (True, True, False), bev_window=8, image_window=2).dense()[0, 0]
    lidar, first, _ = (dense[segment] for segment in LAYOUT.segments)
    assert lidar.view(20, 30)[7:15, 12:20].all() and lidar.count_nonzero() == 64
    assert first.view(12, 16)[6:8, 8:10].all() and first.count_nonzero() == 4


def test_a_window_with_its_centre_outside_the_grid_has_its_cells_inside() -> None:
    dense = one_query((-2, 31), (13, -1), (True, True, False), bev_window=8, image_window=7).dense()[0, 0]
    lidar, first, _ = (dense[segment] for segment in LAYOUT.segments)
    assert lidar.view(20, 30)[:3, 28:].all() and lidar.count_nonzero() == 6
    assert first.view(12, 16)[10:, :3].all() and first.count_nonzero() == 6


def test_queries_outside_all_sensors_have_no_bias_and_no_tiles() -> None:
    bias = one_query((3, 3), (3, 3), (False, False, False))
    assert not bias.dense().any() and all(len(tiles.queries) == 0 for tiles in bias.tiles)


@given(st.integers(1, 40), st.integers(0, 50), st.sampled_from([1, 2, 5, 8, 15]))
@settings(max_examples=30, deadline=None)
def test_tiles_equal_the_dense_bias(queries: int, seed: int, window: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random_cells(grid: tuple[int, int], *shape: int) -> torch.Tensor:
        # Some centres are outside the grid.
        return torch.stack([torch.randint(-4, size + 4, shape, generator=generator) for size in grid], dim=-1)

    cells = QueryCells(
        random_cells(LAYOUT.bev, 2, queries),
        torch.rand(2, queries, generator=generator) < 0.8,
        random_cells(LAYOUT.image, 2, queries, 2),
        torch.rand(2, queries, 2, generator=generator) < 0.5,
    )
    weights = 2 * torch.rand(2, queries, 3, generator=generator) - 1
    options = AqrOptions(mode="bias", bev_window=window, image_window=window)
    bias = build(cells, weights[..., 0], weights[..., 1:], LAYOUT, options)
    rebuilt = torch.zeros(2 * queries, 2 * LAYOUT.total)
    for tiles in bias.tiles:
        rows, columns = tiles.queries[:, :, None].expand_as(tiles.growth), tiles.tokens[:, None].expand_as(tiles.growth)
        rebuilt.index_put_((rows, columns), torch.log1p(tiles.growth), accumulate=True)
        assert all(
            LAYOUT.segments[segment].start <= token % LAYOUT.total < LAYOUT.segments[segment].stop
            for segment, token in zip(tiles.segment.tolist(), tiles.tokens[:, 0].tolist(), strict=True)
        )
    torch.testing.assert_close(rebuilt, torch.block_diag(*bias.dense()), atol=1e-5, rtol=0)
