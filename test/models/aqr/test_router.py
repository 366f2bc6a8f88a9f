# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The router attends only to windows around a query and gives no weight to sensors that do not see it."""

import pytest
import torch

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.router import Router
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

LAYOUT = TokenLayout(bev=(20, 20), views=3, image=(16, 18))
OPTIONS = AqrOptions(router_bev_window=5, router_image_window=7)
QUERIES, CHANNELS = 40, 16


@pytest.fixture
def router() -> Router:
    torch.manual_seed(0)
    router = Router(CHANNELS)
    torch.nn.init.normal_(router.evidence[-1].weight)
    torch.nn.init.normal_(router.modality.weight)
    return router.eval()


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, QueryCells]:
    generator = torch.Generator().manual_seed(1)

    def cells(grid: tuple[int, int], *shape: int) -> torch.Tensor:
        return torch.stack([torch.randint(size, shape, generator=generator) for size in grid], dim=-1)

    placed = QueryCells(
        cells(LAYOUT.bev, 2, QUERIES),
        torch.rand(2, QUERIES, generator=generator) < 0.8,
        cells(LAYOUT.image, 2, QUERIES, 3),
        torch.rand(2, QUERIES, 3, generator=generator) < 0.4,
    )
    query = torch.randn(2, QUERIES, CHANNELS, generator=generator)
    values = torch.randn(2, LAYOUT.total, CHANNELS, generator=generator)
    return query, values + 0.1, values, placed


def near(cells: QueryCells, sample: int, query: int) -> torch.Tensor:
    """Return a (K,) bool mask of the tokens inside the query's windows."""
    found = torch.zeros(LAYOUT.total, dtype=torch.bool)

    def mark(segment: slice, grid: tuple[int, int], cell: torch.Tensor, half: int) -> None:
        row, column = cell.tolist()
        plane = torch.zeros(grid, dtype=torch.bool)
        plane[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1] = True
        found[segment] = plane.flatten()

    if cells.bev_inside[sample, query]:
        mark(LAYOUT.segments[0], LAYOUT.bev, cells.bev[sample, query], 2)
    for view in range(3):
        if cells.image_visible[sample, query, view]:
            mark(LAYOUT.segments[1 + view], LAYOUT.image, cells.image[sample, query, view], 3)
    return found


@torch.inference_mode()
def test_only_tokens_inside_a_querys_windows_affect_its_weights(router, case) -> None:
    query, keys, values, cells = case
    before = router(query, keys, values, cells, LAYOUT, OPTIONS)
    for index in (0, 7, 23):
        inside = near(cells, 1, index)
        outside_changed, inside_changed = values.clone(), values.clone()
        outside_changed[1, ~inside] += 5.0
        inside_changed[1, inside] += 5.0
        same = router(query, outside_changed + 0.1, outside_changed, cells, LAYOUT, OPTIONS)
        torch.testing.assert_close(same.modality[1, index], before.modality[1, index])
        torch.testing.assert_close(same.cameras[1, index], before.cameras[1, index])
        if inside.any():
            other = router(query, inside_changed + 0.1, inside_changed, cells, LAYOUT, OPTIONS)
            assert not torch.allclose(other.modality[1, index], before.modality[1, index])


@torch.inference_mode()
def test_weights_are_zero_exactly_where_a_sensor_does_not_see_the_query(router, case) -> None:
    *_, cells = case
    weights = router(*case, LAYOUT, OPTIONS)
    assert torch.equal(weights.modality[..., 0] > 0, cells.bev_inside)
    assert torch.equal(weights.modality[..., 1] > 0, cells.image_visible.any(-1))
    assert torch.equal(weights.cameras > 0, cells.image_visible)
    assert weights.modality.max() <= 1 and (weights.cameras <= weights.modality[..., 1:]).all()


@torch.inference_mode()
def test_attention_over_windows_equals_masked_attention_over_all_tokens(router, case) -> None:
    query, keys, values, cells = case
    projected = router.query(query).unflatten(-1, (4, -1)).transpose(1, 2)
    key = router.key(keys).unflatten(-1, (4, -1)).transpose(1, 2)
    value = router.value(values).unflatten(-1, (4, -1)).transpose(1, 2)
    attended = []
    hook = router.output.register_forward_hook(lambda _module, inputs, _output: attended.append(inputs[0]))
    router(*case, LAYOUT, OPTIONS)
    hook.remove()
    mask = torch.stack([torch.stack([near(cells, sample, index) for index in range(QUERIES)]) for sample in range(2)])
    dense = torch.nn.functional.scaled_dot_product_attention(projected, key, value, mask[:, None])
    dense = torch.where(mask.any(-1)[..., None], dense.transpose(1, 2).flatten(2), 0.0)
    torch.testing.assert_close(attended[0].view(2, QUERIES, CHANNELS), dense, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_an_untrained_router_trusts_every_sensor(case) -> None:
    weights = Router(CHANNELS)(*case, LAYOUT, OPTIONS)
    assert weights.modality[weights.modality > 0].min() > 0.85
    assert weights.cameras[weights.cameras > 0].min() > 0.8


@torch.inference_mode()
@pytest.mark.parametrize("layout", [TokenLayout(bev=(20, 20)), TokenLayout(views=3, image=(16, 18)), TokenLayout()])
def test_missing_sensors_get_zero_weight(router: Router, layout: TokenLayout) -> None:
    cells = QueryCells(
        torch.zeros(1, 5, 2).long(),
        torch.full((1, 5), layout.bev_tokens > 0),
        torch.zeros(1, 5, layout.views, 2).long(),
        torch.ones(1, 5, layout.views).bool(),
    )
    tokens = torch.randn(1, layout.total, CHANNELS)
    weights = router(torch.randn(1, 5, CHANNELS), tokens, tokens, cells, layout, OPTIONS)
    assert weights.modality.isfinite().all()
    assert weights.modality[..., 0].any() == (layout.bev_tokens > 0)
    assert weights.modality[..., 1].any() == (layout.views > 0)


def test_gradients_reach_every_parameter(router, case) -> None:
    weights = router(*case, LAYOUT, OPTIONS)
    (weights.modality.sum() + weights.cameras.sum()).backward()
    assert all(
        parameter.grad is not None and parameter.grad.any()
        for name, parameter in router.named_parameters()
        if name != "key.bias"
    )
