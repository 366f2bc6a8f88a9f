# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Attention with a gate against the dense softmax: whole sensors and windows, forward and backward."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from aqr_perception.models.aqr.gate import FLOOR, OPEN, REMOVED, Gate, log_weights
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.window_bias import WindowBias, gate_bias
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer import native_correction
from aqr_perception.models.transformer.attention import attend
from aqr_perception.models.transformer.flex import flex_attend
from aqr_perception.options import AqrOptions

HEADS, DEPTH, QUERIES, BATCH = 2, 8, 12, 2
LAYOUT = TokenLayout(bev=(6, 7), views=3, image=(4, 5))


def case(sensors: list[float], windows: float | None = None, layout: TokenLayout = LAYOUT) -> tuple[Tensor, ...]:
    """Return queries, keys, values and a gate with these weights of sensors; in windows random ones or `windows`."""
    random = torch.Generator().manual_seed(0)
    views = layout.views

    def cells(grid: tuple[int, int], *shape: int) -> Tensor:
        return torch.stack([torch.randint(max(size, 1), shape, generator=random) for size in grid], dim=-1)

    placed = QueryCells(
        cells(layout.bev, BATCH, QUERIES),
        (torch.rand(BATCH, QUERIES, generator=random) < 0.7) & (layout.bev_tokens > 0),
        cells(layout.image, BATCH, QUERIES, views),
        torch.rand(BATCH, QUERIES, views, generator=random) < 0.7,
    )
    own = torch.rand(BATCH, QUERIES, 1 + views, generator=random) if windows is None else torch.full((1,), windows)
    own = own.expand(BATCH, QUERIES, 1 + views)
    whole = torch.tensor(sensors).expand(BATCH, -1)
    gate = Gate(*(_logits(weights) for weights in (own[..., 0], own[..., 1:], whole)))
    options = AqrOptions(mode="gate", bev_window=3, image_window=3)
    q = torch.randn(BATCH, HEADS, QUERIES, DEPTH, generator=random)
    k, v = (2 * torch.randn(BATCH, HEADS, layout.total, DEPTH, generator=random) for _ in range(2))
    return q, k, v, gate_bias(placed, log_weights(gate), layout, options)


def _logits(weights: Tensor) -> Tensor:
    """Return logits whose gate weights are these, at least `FLOOR` or 0."""
    share = weights * torch.tensor(OPEN).sigmoid()
    return torch.where(weights < 1, share.logit(), OPEN)


def dense(q: Tensor, k: Tensor, v: Tensor, bias: WindowBias) -> tuple[Tensor, Tensor]:
    scores = (q @ k.transpose(-1, -2)) * DEPTH**-0.5 + bias.dense()[:, None]
    attention = scores.double().softmax(-1).float()
    mass = torch.stack([attention[..., segment].sum(-1).mean(1) for segment in bias.layout.segments], dim=-1)
    return attention @ v, mass


SENSORS = [[1.0, 1, 1, 1], [0.3, 1, 1, 0.5], [1.0, 0, 1, 1], [0.0, 1, FLOOR, 0.9]]


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("sensors", SENSORS)
@pytest.mark.parametrize("native", [True, False])
def test_gated_attention_and_its_mass_equal_the_dense_softmax(
    sensors: list[float], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(native_correction, "supports", lambda *_: False)
    q, k, v, bias = case(sensors)
    expected, expected_mass = dense(q, k, v, bias)
    output, mass = attend(q, k, v, layout=LAYOUT, bias=bias, return_mass=True)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mass, expected_mass, atol=1e-5, rtol=0)
    torch.testing.assert_close(attend(q, k, v, bias=bias)[0], expected, atol=1e-4, rtol=1e-4)
    flexible, flexible_mass = flex_attend(q, k, v, LAYOUT, bias, attention=flex_attention)
    torch.testing.assert_close(flexible, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(flexible_mass, expected_mass, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_weights_of_1_do_not_change_a_bit() -> None:
    q, k, v, bias = case([1.0] * 4, windows=1.0)
    assert torch.equal(attend(q, k, v, bias=bias)[0], attend(q, k, v)[0])


@pytest.mark.parametrize("removed", range(4))
@pytest.mark.parametrize("learning", [True, False])
def test_a_sensor_of_weight_0_equals_tokens_taken_out(removed: int, learning: bool) -> None:
    q, k, v, bias = case([0.0 if index == removed else 1.0 for index in range(4)], windows=1.0)
    kept = torch.ones(LAYOUT.total, dtype=torch.bool)
    kept[LAYOUT.segments[removed]] = False
    # The removed keys are the best ones.
    k[:, :, ~kept] = 6 * q[:, :, :1]
    expected, _ = attend(q, k[:, :, kept], v[:, :, kept])
    with torch.set_grad_enabled(learning):
        output, mass = attend(q.requires_grad_(learning), k, v, layout=LAYOUT, bias=bias, return_mass=True)
    torch.testing.assert_close(output.detach(), expected, atol=1e-4, rtol=1e-4)
    assert mass is not None and not mass[..., removed].any()


@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize("layout", [TokenLayout(bev=(2, 2), views=1, image=(1, 2)), TokenLayout(bev=(2, 2))])
@pytest.mark.parametrize("by_window", [True, False])
def test_queries_without_any_key_get_0_and_no_nan(learning: bool, layout: TokenLayout, by_window: bool) -> None:
    segments = 1 + layout.views
    q, k, v, bias = case([1.0 if by_window else 0.0] * segments, 0.0 if by_window else 1.0, layout)
    if by_window:  # windows that cover all tokens of all queries
        everywhere = torch.full((BATCH, QUERIES, segments), REMOVED)
        bias = WindowBias(
            QueryCells(*(torch.zeros_like(part) for part in bias.cells)),
            *(everywhere[..., 0], everywhere[..., 1:], layout, 5, 5, torch.zeros(BATCH, segments)),
        )
    with torch.set_grad_enabled(learning):
        output, mass = attend(q.requires_grad_(learning), k, v, layout=layout, bias=bias, return_mass=True)
        assert not output.any() and mass is not None and not mass.any()
        if learning:
            output.sum().backward()
            assert q.grad is not None and q.grad.isfinite().all()
    if not learning:
        flexible, mass = flex_attend(q, k, v, layout, bias, attention=flex_attention)
        assert not flexible.any() and mass is not None and not mass.any()


@pytest.mark.parametrize("kept", [True, False])
def test_gradients_reach_the_weights_of_windows_and_of_whole_sensors(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:  # as for large inputs: in blocks that are recomputed
        monkeypatch.setattr("aqr_perception.models.transformer.attention._MAX_STORED_SCORES", 0)
        monkeypatch.setattr("aqr_perception.models.transformer.attention._QUERY_BLOCK", 5)
    q, k, v, bias = case([0.3, 1, 1, 0.5])
    leaves = [tensor.clone().requires_grad_() for tensor in (q, k, v, *bias.weights)]
    gated = bias.with_weights(*leaves[3:])
    output, _ = attend(*leaves[:3], bias=gated)
    found = torch.autograd.grad(output.square().sum(), leaves)
    expected = torch.autograd.grad(dense(*leaves[:3], gated)[0].square().sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    q, k, v, bias = case([0.3, 0, 1, 0.5])
    halves = [tensor.to(dtype) for tensor in (q, k, v)]
    expected, _ = dense(*(tensor.float() for tensor in halves), bias)
    output, _ = attend(*halves, bias=bias)
    torch.testing.assert_close(output.float(), expected, atol=5e-2, rtol=5e-2)
