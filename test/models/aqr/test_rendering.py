# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Weight maps are Gaussian, bounded, equal for both kinds of grid, and odd in signed weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.rendering import MAP_LIMIT, clip, render_bev, render_cameras
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

LAYOUT = TokenLayout(bev=(20, 24), views=2, image=(10, 12))


def cells_at(bev: list[tuple[int, int]], image: list[tuple[int, int]] | None = None) -> QueryCells:
    count = len(bev)
    image_cells = torch.tensor(image or [(0, 0)] * count)[None, :, None].expand(-1, -1, 2, -1)
    return QueryCells(torch.tensor(bev)[None], torch.ones(1, count).bool(), image_cells, torch.ones(1, count, 2).bool())


def test_many_queries_in_one_cell_do_not_exceed_the_limit() -> None:
    weights = torch.full((1, 80), 0.9)
    crowd = cells_at([(7, 9)] * 80, [(5, 6)] * 80)
    options = AqrOptions(reduce="sum")
    bev = render_bev(weights, crowd, LAYOUT, options)
    cameras = render_cameras(weights[..., None].expand(-1, -1, 2), crowd, LAYOUT, options)
    assert bev[0, 7, 9] == MAP_LIMIT == bev.max()
    assert (cameras[0, :, 5, 6] == MAP_LIMIT).all() and cameras.max() == MAP_LIMIT


@pytest.mark.parametrize("reduce", ["max", "sum"])
def test_a_single_query_peaks_at_its_cell_and_falls_off_as_a_gaussian(reduce: str) -> None:
    bev = render_bev(torch.tensor([[0.8]]), cells_at([(10, 12)]), LAYOUT, AqrOptions(reduce=reduce, sigma=2.0))[0]
    assert bev.argmax() == 10 * 24 + 12
    torch.testing.assert_close(bev[10, 12].item(), 0.8, atol=1e-6, rtol=0)
    torch.testing.assert_close(bev[10, 14] / bev[10, 12], torch.tensor(-0.5).exp())
    torch.testing.assert_close(bev[8, 12], bev[10, 14])
    assert bev[0, 0] == 0


@given(
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 23)), min_size=1, max_size=30),
    st.floats(0, 1),
    st.sampled_from(["max", "sum"]),
    st.floats(0, 0.5),
)
@settings(max_examples=40, deadline=None)
def test_values_are_zero_or_between_the_minimum_weight_and_the_limit(places, weight, reduce, least) -> None:
    options = AqrOptions(reduce=reduce, min_weight=least)
    bev = render_bev(torch.full((1, len(places)), weight), cells_at(places), LAYOUT, options)
    assert ((bev == 0) | ((bev >= least) & (bev <= MAP_LIMIT))).all()
    if reduce == "max" and weight >= least:
        assert all(bev[0, row, column] >= weight - 1e-6 for row, column in places)


WEIGHTS = st.lists(
    st.tuples(st.integers(0, 19), st.integers(0, 23), st.floats(-1, 1, width=32)), min_size=1, max_size=20
)


def maps_of(queries: list[tuple[int, int, float]], options: AqrOptions, factor: float = 1.0) -> list[torch.Tensor]:
    """Return the BEV map and the cameras' maps of queries at (row, column), modulo the grid, with their weights."""
    cells = cells_at([(row, column) for row, column, _ in queries], [(row % 10, col % 12) for row, col, _ in queries])
    weights = factor * torch.tensor([[weight for _, _, weight in queries]])
    cameras = render_cameras(weights[..., None].expand(-1, -1, 2), cells, LAYOUT, options)
    return [render_bev(weights, cells, LAYOUT, options), cameras]


def dense_map(queries: list[tuple[int, int, float]], options: AqrOptions) -> torch.Tensor:
    """Return the BEV map as the definition has it: every query's Gaussian on the whole grid, up to 3 sigma."""
    rows, columns = torch.meshgrid(torch.arange(20), torch.arange(24), indexing="ij")
    reach = max(1, round(3 * options.sigma))
    splats = []
    for row, column, weight in queries:
        near = ((rows - row).abs() <= reach) & ((columns - column).abs() <= reach)
        falloff = torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * options.sigma**2))
        splats.append(torch.where(near, torch.tensor(weight) * falloff, 0.0))
    stack = torch.stack([*splats, torch.zeros(20, 24)])
    if options.reduce == "sum":
        combined = stack.sum(0)
    else:
        highest, lowest = stack.amax(0), stack.amin(0)
        combined = torch.where(highest > -lowest, highest, lowest) * (highest != -lowest)
    return torch.where(combined.abs() < options.min_weight, 0.0, combined).clamp(-MAP_LIMIT, MAP_LIMIT)


@given(WEIGHTS, st.sampled_from(["max", "sum"]), st.floats(0.3, 3.0), st.booleans())
@settings(max_examples=60, deadline=None)
def test_maps_of_unsigned_and_signed_weights_follow_their_definition(queries, reduce, sigma, signed) -> None:
    options = AqrOptions(reduce=reduce, sigma=sigma, min_weight=0.0)
    if not signed:
        queries = [(row, column, abs(weight)) for row, column, weight in queries]
    rendered, defined = maps_of(queries, options)[0][0], dense_map(queries, options)
    torch.testing.assert_close(rendered, defined, atol=0.0 if reduce == "max" else 1e-5, rtol=0.0)


@given(WEIGHTS, st.sampled_from(["max", "sum"]), st.floats(0, 0.5))
@settings(max_examples=40, deadline=None)
def test_opposite_weights_give_opposite_maps(queries, reduce, least) -> None:
    options = AqrOptions(reduce=reduce, min_weight=least)
    for positive, negative in zip(maps_of(queries, options), maps_of(queries, options, -1.0), strict=True):
        assert torch.equal(positive, -negative)
        assert ((positive == 0) | ((positive.abs() >= least) & (positive.abs() <= MAP_LIMIT))).all()


def test_max_keeps_the_weight_of_the_largest_magnitude_with_its_sign() -> None:
    options = AqrOptions(reduce="max")
    assert maps_of([(5, 5, 0.4), (5, 5, -0.9), (5, 5, 0.8)], options)[0][0, 5, 5] == torch.tensor(-0.9)
    assert maps_of([(5, 5, 0.9), (5, 5, -0.4)], options)[0][0, 5, 5] == torch.tensor(0.9)
    assert maps_of([(5, 5, 0.7), (5, 5, -0.7)], options)[0][0, 5, 5] == 0, "a tie of opposite weights is neutral"


def test_sum_adds_signed_weights_up_to_the_limit_on_both_sides() -> None:
    options = AqrOptions(reduce="sum")
    torch.testing.assert_close(maps_of([(5, 5, 0.7), (5, 5, -0.4)], options)[0][0, 5, 5], torch.tensor(0.3))
    assert maps_of([(5, 5, -0.9)] * 5, options)[0][0, 5, 5] == -MAP_LIMIT


def test_queries_that_a_camera_does_not_see_leave_its_map_empty() -> None:
    cells = cells_at([(1, 1)])._replace(image_visible=torch.tensor([[[True, False]]]))
    maps = render_cameras(torch.ones(1, 1, 2), cells, LAYOUT, AqrOptions())
    assert maps[0, 0].any() and not maps[0, 1].any()


def test_samples_of_a_batch_are_independent() -> None:
    cells = cells_at([(3, 3)])
    both = QueryCells(*(torch.cat((tensor, tensor)) for tensor in cells))
    maps = render_bev(torch.tensor([[1.0], [0.0]]), both, LAYOUT, AqrOptions())
    assert maps[0].any() and not maps[1].any()


def test_missing_sensors_have_empty_maps() -> None:
    nothing = QueryCells(
        torch.zeros(1, 4, 2).long(),
        torch.zeros(1, 4).bool(),
        torch.zeros(1, 4, 0, 2).long(),
        torch.zeros(1, 4, 0).bool(),
    )
    assert render_bev(torch.ones(1, 4), nothing, TokenLayout(), AqrOptions()).shape == (1, 0, 0)
    assert render_cameras(torch.ones(1, 4, 0), nothing, TokenLayout(), AqrOptions()).shape == (1, 0, 0, 0)


@pytest.mark.parametrize("reduce", ["max", "sum"])
def test_gradients_flow_through_the_maps(reduce: str) -> None:
    weights = torch.tensor([[0.4, 0.6]], requires_grad=True)
    render_bev(weights, cells_at([(3, 3), (15, 15)]), LAYOUT, AqrOptions(reduce=reduce)).sum().backward()
    assert (weights.grad > 0).all()


@pytest.mark.parametrize("reduce", ["max", "sum"])
def test_gradients_of_signed_weights_flow_through_the_maps(reduce: str) -> None:
    weights = torch.tensor([[-0.4, 0.6]], requires_grad=True)
    render_bev(weights, cells_at([(3, 3), (15, 15)]), LAYOUT, AqrOptions(reduce=reduce)).sum().backward()
    assert weights.grad is not None and (weights.grad > 0).all()


def test_clipping_removes_small_values_and_limits_large_ones() -> None:
    cut = clip(torch.tensor([0.01, 0.2, 70.0]), 0.05)
    torch.testing.assert_close(cut, torch.tensor([0.0, 0.2, 1.5]))
    signed = clip(torch.tensor([-0.01, -0.2, -70.0]), 0.05)
    torch.testing.assert_close(signed, torch.tensor([0.0, -0.2, -1.5]))
