# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Gate: log-weights that are exactly 1 at first and still learn, and the trust in whole sensors."""

import math

import pytest
import torch
from torch import Tensor

from aqr_perception.models.aqr.gate import (
    FLOOR,
    OPEN,
    REMOVED,
    CameraPairs,
    SensorTrust,
    log_weight,
)
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.router import Router
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

LAYOUT = TokenLayout(bev=(8, 8), views=3, image=(4, 6))
OPTIONS = AqrOptions(mode="gate", router_bev_window=3, router_image_window=3)
BATCH, QUERIES, CHANNELS = 2, 20, 16


def case(seed: int = 1) -> tuple[Tensor, Tensor, Tensor, QueryCells]:
    generator = torch.Generator().manual_seed(seed)

    def cells(grid: tuple[int, int], *shape: int) -> Tensor:
        return torch.stack([torch.randint(size, shape, generator=generator) for size in grid], dim=-1)

    placed = QueryCells(
        cells(LAYOUT.bev, BATCH, QUERIES),
        torch.rand(BATCH, QUERIES, generator=generator) < 0.8,
        cells(LAYOUT.image, BATCH, QUERIES, 3),
        torch.rand(BATCH, QUERIES, 3, generator=generator) < 0.5,
    )
    query = torch.randn(BATCH, QUERIES, CHANNELS, generator=generator)
    values = torch.randn(BATCH, LAYOUT.total, CHANNELS, generator=generator)
    return query, values + 0.1, values, placed


def trained_router() -> Router:
    """Return a router whose weights depend on everything that it sees."""
    torch.manual_seed(0)
    router = Router(CHANNELS, "gate")
    with torch.no_grad():
        for last in (router.modality, router.evidence[-1], router.trust.lidar_trust[-1], router.trust.camera_trust[-1]):
            last.weight.normal_()
            last.bias.zero_()
    return router


def test_the_log_weight_is_that_of_the_sigmoid_and_exactly_0_from_the_open_logit_on() -> None:
    logits = torch.tensor([-math.inf, -50.0, -3.0, 0.0, 4.0, OPEN, 9.0, math.inf])
    found = log_weight(logits)
    assert found[0] == REMOVED and found[1] == pytest.approx(math.log(FLOOR))
    expected = (logits[2:5].sigmoid() / torch.tensor(OPEN).sigmoid()).log()
    torch.testing.assert_close(found[2:5], expected)
    assert not found[5:].any()


@pytest.mark.parametrize(
    ("logit", "gradient", "slope"),
    [
        (0.0, 1.0, 0.5),
        (0.0, -1.0, 0.5),
        (OPEN, 1.0, 0.1),
        (OPEN, -1.0, 0.1),
        (8.0, 1.0, 0.1),
        (8.0, -1.0, 0.0),
        (-30.0, -1.0, 1.0),
        (-30.0, 1.0, 0.0),
    ],
)
def test_gradients_pass_where_they_lead_back_and_never_vanish_inside(logit: float, gradient: float, slope) -> None:
    logits = torch.tensor([logit], requires_grad=True)
    log_weight(logits).backward(torch.tensor([gradient]))
    assert logits.grad is not None and float(logits.grad) == pytest.approx(slope * gradient, abs=1e-6)


@torch.inference_mode()
def test_an_untrained_gate_gives_exactly_1_to_every_sensor_that_sees_the_query() -> None:
    *_, cells = inputs = case()
    torch.manual_seed(0)
    weights = Router(CHANNELS, "gate")(*inputs, LAYOUT, OPTIONS)
    assert torch.equal(weights.modality[..., 0], cells.bev_inside.float())
    assert torch.equal(weights.modality[..., 1], cells.image_visible.any(-1).float())
    assert torch.equal(weights.cameras, cells.image_visible.float())


@torch.inference_mode()
def test_an_untrained_signed_router_is_neutral() -> None:
    *_, cells = inputs = case()
    router = Router(CHANNELS, "signed")
    weights = router(*inputs, LAYOUT, OPTIONS)
    torch.testing.assert_close(weights.modality[..., 0], 0.5 * cells.bev_inside)
    torch.testing.assert_close(weights.cameras, 0.5 * cells.image_visible)
    assert float(router.scale) == pytest.approx(1.0)


@torch.inference_mode()
def test_published_weights_are_those_that_act() -> None:
    *_, cells = inputs = case()
    weights = trained_router()(*inputs, LAYOUT, OPTIONS)
    assert weights.gate is not None
    lidar, cameras, sensors = (log_weight(logits) for logits in weights.gate)
    expected = torch.where(cells.bev_inside, (lidar + sensors[:, :1]).exp(), 0.0)
    torch.testing.assert_close(weights.modality[..., 0], expected)
    expected = torch.where(cells.image_visible, (cameras + sensors[:, None, 1:]).exp(), 0.0)
    torch.testing.assert_close(weights.cameras, expected)
    torch.testing.assert_close(weights.modality[..., 1], expected.amax(-1))


@torch.inference_mode()
def test_the_gate_follows_its_cameras_and_samples_and_ignores_denoising_queries() -> None:
    query, keys, values, cells = case()
    router = trained_router()
    gate = router(query, keys, values, cells, LAYOUT, OPTIONS).gate
    order = torch.tensor([2, 0, 1])

    def reordered(tokens: Tensor) -> Tensor:
        views = tokens[:, LAYOUT.bev_tokens :].unflatten(1, (3, -1))[:, order]
        return torch.cat((tokens[:, : LAYOUT.bev_tokens], views.flatten(1, 2)), dim=1)

    placed = cells._replace(image=cells.image[:, :, order], image_visible=cells.image_visible[:, :, order])
    other = router(query, reordered(keys), reordered(values), placed, LAYOUT, OPTIONS).gate
    assert gate is not None and other is not None
    torch.testing.assert_close(other.sensors, gate.sensors[:, [0, 3, 1, 2]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(other.cameras, gate.cameras[..., order], atol=1e-5, rtol=1e-4)

    alone = router(
        *(part[1:] for part in (query, keys, values)), QueryCells(*(part[1:] for part in cells)), LAYOUT, OPTIONS
    )
    torch.testing.assert_close(alone.gate.sensors, gate.sensors[1:], atol=1e-5, rtol=1e-4)

    noisy = torch.cat((torch.randn(BATCH, 5, CHANNELS), query), dim=1)
    extended = QueryCells(*(torch.cat((part[:, :5], part), dim=1) for part in cells))
    with_noise = router(noisy, keys, values, extended, LAYOUT, OPTIONS, denoising=5)
    torch.testing.assert_close(with_noise.gate.sensors, gate.sensors, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("layout", [TokenLayout(bev=(8, 8)), TokenLayout(views=3, image=(4, 6)), TokenLayout()])
def test_missing_sensors_have_weight_0_and_no_nan(layout: TokenLayout) -> None:
    query, _, _, cells = case()
    cells = QueryCells(
        cells.bev,
        cells.bev_inside & (layout.bev_tokens > 0),
        cells.image[:, :, : layout.views],
        cells.image_visible[:, :, : layout.views],
    )
    tokens = torch.randn(BATCH, layout.total, CHANNELS)
    weights = trained_router()(query, tokens, tokens, cells, layout, OPTIONS)
    assert weights.gate is not None and weights.gate.sensors.shape == (BATCH, 1 + layout.views)
    assert all(part.isfinite().all() for part in (*weights[:2], *weights.gate))
    assert weights.modality[..., 0].any() == (layout.bev_tokens > 0)
    assert weights.modality[..., 1].any() == (layout.views > 0)


def test_gradients_reach_every_parameter() -> None:
    router = trained_router()
    gate = router(*case(), LAYOUT, OPTIONS).gate
    assert gate is not None
    sum(log_weight(logits).square().sum() for logits in gate).backward()
    assert all(
        parameter.grad is not None and parameter.grad.any()
        for name, parameter in router.named_parameters()
        if name not in ("key.bias", "query.bias")
    )


def test_an_untrained_trust_learns_from_the_attention_alone_which_camera_disagrees_with_the_lidar() -> None:
    """Both sensors look alike at any time; only together they show that one camera's finds belong elsewhere."""
    torch.manual_seed(0)
    trust = SensorTrust(8)
    layout, views, queries = TokenLayout(bev=(1, 1), views=2, image=(1, 1)), 2, 12
    query = torch.arange(12 * queries).repeat_interleave(views)
    view = torch.arange(views).repeat(12 * queries)

    def logits_and_faults() -> tuple[Tensor, Tensor]:
        objects = torch.randn(12, queries, 8)
        faulty = torch.rand(12, views) < 0.3
        moved = objects.roll(1, dims=1)
        cameras = torch.where(faulty[:, None, :, None], moved[:, :, None], objects[:, :, None])
        pairs = CameraPairs(query, view, cameras.flatten(0, 2))
        inside = torch.ones(12, queries, dtype=torch.bool)
        return trust(torch.zeros_like(objects), objects, inside, pairs, torch.zeros(12, 3, 8), layout), faulty

    optimizer = torch.optim.AdamW(trust.parameters(), lr=1e-2)
    for _ in range(200):
        logits, faulty = logits_and_faults()
        # As the set loss: the attention to a faulty camera costs, and that to an intact one pays.
        share = log_weight(logits)[:, 1:].exp()
        loss = torch.where(faulty, share, -share).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits, faulty = logits_and_faults()
        weights = log_weight(logits)[:, 1:].exp()
    assert weights[faulty].mean() < 0.3 and weights[~faulty].mean() > 0.9
