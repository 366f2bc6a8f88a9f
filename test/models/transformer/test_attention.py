# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Attention with window bias and mass against the dense softmax, forward and backward."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.window_bias import WindowBias, build
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer.attention import MultiHeadAttention, attend
from aqr_perception.models.transformer.flex import flex_attend
from aqr_perception.options import AqrOptions

HEADS, DEPTH = 2, 8

grids = st.tuples(st.integers(1, 9), st.integers(1, 9))
layouts = st.one_of(
    st.builds(TokenLayout, bev=grids, views=st.integers(1, 3), image=grids),
    st.builds(TokenLayout, bev=grids),
    st.builds(TokenLayout, bev=st.just((0, 0)), views=st.integers(1, 3), image=grids),
)


def random_case(
    layout: TokenLayout, queries: int, seed: int, strength: float = 1.0, window: int = 5, batch: int = 2
) -> tuple[Tensor, Tensor, Tensor, WindowBias]:
    generator = torch.Generator().manual_seed(seed)

    def cells(grid: tuple[int, int], *shape: int) -> Tensor:
        return torch.stack([torch.randint(max(size, 1), shape, generator=generator) for size in grid], dim=-1)

    def flags(possible: bool, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=generator) < 0.7) & possible

    placed = QueryCells(
        cells(layout.bev, batch, queries),
        flags(layout.bev_tokens > 0, batch, queries),
        cells(layout.image, batch, queries, layout.views),
        flags(layout.views > 0, batch, queries, layout.views),
    )
    lidar = 2 * torch.rand(batch, queries, generator=generator) - 1
    cameras = 2 * torch.rand(batch, queries, layout.views, generator=generator) - 1
    options = AqrOptions(mode="bias", strength=strength, bev_window=window, image_window=window)
    q = torch.randn(batch, HEADS, queries, DEPTH, generator=generator)
    k, v = (torch.randn(batch, HEADS, layout.total, DEPTH, generator=generator) for _ in range(2))
    return q, k, v, build(placed, lidar, cameras, layout, options)


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: WindowBias | None, layout: TokenLayout
) -> tuple[Tensor, Tensor]:
    scores = q @ k.transpose(-1, -2) * DEPTH**-0.5
    if bias is not None:
        scores = scores + bias.dense()[:, None]
    attention = scores.softmax(-1)
    mass = torch.stack([attention[..., segment].sum(-1).mean(1) for segment in layout.segments], dim=-1)
    return attention @ v, mass


@given(
    layouts, st.integers(1, 12), st.integers(0, 99), st.sampled_from([0.5, 1.0, 4.0]), st.sampled_from([1, 3, 4, 8, 31])
)
@settings(max_examples=60, deadline=None)
@torch.inference_mode()
def test_biased_attention_and_its_mass_equal_the_dense_softmax(layout, queries, seed, strength, window) -> None:
    q, k, v, bias = random_case(layout, queries, seed, strength, window)
    expected, expected_mass = dense_attention(q, k, v, bias, layout)
    output, mass = attend(q, k, v, layout=layout, bias=bias, return_mass=True)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mass, expected_mass, atol=1e-5, rtol=0)
    without_mass, nothing = attend(q, k, v, layout=layout, bias=bias)
    torch.testing.assert_close(without_mass, expected, atol=1e-4, rtol=1e-4)
    assert nothing is None


@given(layouts, st.integers(1, 60), st.integers(0, 99), st.sampled_from([-5.0, -20.0, -80.0]))
@settings(max_examples=30, deadline=None)
@torch.inference_mode()
def test_a_suppressed_window_with_all_of_the_attention_stays_exact(layout, queries, seed, weight) -> None:
    q, k, v, bias = random_case(layout, queries, seed, window=5)
    near = bias.dense() != 0
    # Keys in the first query's windows are its best ones: only a difference of nearly equal numbers remains.
    k = torch.where(near[:, :1, :, None], 4 * q[:, :, :1], k)
    suppressed = bias.with_weights(*(weight * (weights != 0) for weights in (bias.lidar, bias.cameras)))
    expected, expected_mass = dense_attention(q, k, v, suppressed, layout)
    output, mass = attend(q, k, v, layout=layout, bias=suppressed, return_mass=True)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mass, expected_mass, atol=1e-4, rtol=0)
    without_mass, _ = attend(q, k, v, layout=layout, bias=suppressed)
    torch.testing.assert_close(without_mass, expected, atol=1e-4, rtol=1e-4)


@given(layouts, st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
@torch.inference_mode()
def test_the_attention_mass_sums_to_one_and_does_not_change_the_output(layout, queries, seed) -> None:
    q, k, v, _ = random_case(layout, queries, seed)
    expected, expected_mass = dense_attention(q, k, v, None, layout)
    output, mass = attend(q, k, v, layout=layout, return_mass=True)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mass, expected_mass, atol=1e-5, rtol=0)
    torch.testing.assert_close(mass.sum(-1), torch.ones(2, queries), atol=1e-5, rtol=0)


@pytest.mark.parametrize("return_mass", [True, False])
@pytest.mark.parametrize("kept", [True, False])
def test_gradients_reach_queries_keys_values_and_the_weights(
    return_mass: bool, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:  # as for large inputs: in blocks that are recomputed
        monkeypatch.setattr("aqr_perception.models.transformer.attention._MAX_STORED_SCORES", 0)
        monkeypatch.setattr("aqr_perception.models.transformer.attention._QUERY_BLOCK", 3)
    layout = TokenLayout(bev=(4, 5), views=2, image=(3, 4))
    q, k, v, bias = random_case(layout, 150, seed=3)
    leaves = [tensor.clone().requires_grad_() for tensor in (q, k, v, bias.lidar, bias.cameras)]
    weighted = bias.with_weights(*leaves[3:])
    output, mass = attend(*leaves[:3], layout=layout, bias=weighted, return_mass=return_mass)
    found = torch.autograd.grad(output.square().sum(), leaves)
    expected_output, expected_mass = dense_attention(*leaves[:3], weighted, layout)
    expected = torch.autograd.grad(expected_output.square().sum(), leaves)
    torch.testing.assert_close(output, expected_output, atol=1e-4, rtol=1e-4)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    if mass is not None:
        torch.testing.assert_close(mass, expected_mass.detach(), atol=1e-5, rtol=0)


def test_a_router_trains_through_the_bias_of_a_frozen_decoder() -> None:
    layout = TokenLayout(bev=(4, 5), views=2, image=(3, 4))
    q, k, v, bias = random_case(layout, 150, seed=4)
    weights = [bias.lidar.clone().requires_grad_(), bias.cameras.clone().requires_grad_()]
    weighted = bias.with_weights(*weights)
    found = torch.autograd.grad(attend(q, k, v, bias=weighted)[0].square().sum(), weights)
    expected = torch.autograd.grad(dense_attention(q, k, v, weighted, layout)[0].square().sum(), weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_zero_bias_does_not_change_a_bit() -> None:
    layout = TokenLayout(bev=(16, 16), views=2, image=(8, 10))
    q, k, v, bias = random_case(layout, 40, seed=6)
    nothing = bias.with_weights(torch.zeros_like(bias.lidar), torch.zeros_like(bias.cameras))
    assert torch.equal(attend(q, k, v, bias=nothing)[0], attend(q, k, v)[0])


@torch.inference_mode()
def test_very_large_scores_give_finite_outputs() -> None:
    layout = TokenLayout(bev=(6, 6), views=1, image=(4, 4))
    q, k, v, bias = random_case(layout, 8, seed=1, strength=4.0)
    output, mass = attend(30 * q, 30 * k, v, layout=layout, bias=bias, return_mass=True)
    expected, expected_mass = dense_attention(30 * q, 30 * k, v, bias, layout)
    torch.testing.assert_close(output, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(mass, expected_mass, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_without_tokens_the_output_and_the_mass_are_zero() -> None:
    output, mass = attend(torch.randn(1, 2, 3, 8), *torch.zeros(2, 1, 2, 0, 8), layout=TokenLayout(), return_mass=True)
    assert not output.any() and mass is not None and not mass.any()


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("window", [5, 4])
def test_the_cuda_path_computes_the_same_function(bias: bool, window: int) -> None:
    layout = TokenLayout(bev=(5, 7), views=2, image=(3, 6))
    q, k, v, windows = random_case(layout, 9, seed=5, window=window)
    used = windows if bias else None
    expected, expected_mass = dense_attention(q, k, v, used, layout)
    output, mass = flex_attend(q, k, v, layout, used, attention=flex_attention)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mass, expected_mass, atol=1e-5, rtol=0)
    whole, _ = flex_attend(q, k, v, None, used, attention=flex_attention)
    torch.testing.assert_close(whole, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_multi_head_attention_equals_pytorchs_with_the_same_parameters() -> None:
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    q, k, v = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    torch.testing.assert_close(ours(q, k, v)[0], theirs(q, k, v)[0], atol=1e-5, rtol=1e-5)
    mask = torch.rand(5, 5) < 0.3
    mask.fill_diagonal_(False)
    torch.testing.assert_close(ours(q, q, q, mask=mask)[0], theirs(q, q, q, attn_mask=mask)[0], atol=1e-5, rtol=1e-5)


def test_a_mask_excludes_bias_and_mass() -> None:
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="mask"):
        attend(q, q, q, mask=torch.zeros(2, 2, dtype=torch.bool), layout=TokenLayout(bev=(1, 2)), return_mass=True)
    with pytest.raises(ValueError, match="layout"):
        attend(q, q, q, return_mass=True)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight", [None, -5.0])
def test_half_precision_stays_close(dtype: torch.dtype, weight: float | None) -> None:
    layout = TokenLayout(bev=(6, 6), views=2, image=(4, 4))
    q, k, v, bias = random_case(layout, 8, seed=2)
    if weight is not None:
        bias = bias.with_weights(weight * (bias.lidar != 0), weight * (bias.cameras != 0))
    expected, _ = dense_attention(q, k, v, bias, layout)
    output, mass = attend(q.to(dtype), k.to(dtype), v.to(dtype), layout=layout, bias=bias, return_mass=True)
    assert output.dtype == dtype and mass is not None
    torch.testing.assert_close(output.float(), expected, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_a_suppressed_window_is_as_exact_under_autocast(dtype: torch.dtype) -> None:
    layout = TokenLayout(bev=(6, 6), views=2, image=(3, 4))
    q, k, v, bias = random_case(layout, 8, seed=0, window=5)
    k = torch.where((bias.dense() != 0)[:, :1, :, None], 4 * q[:, :, :1], k)
    suppressed = bias.with_weights(*(-5.0 * (weights != 0) for weights in (bias.lidar, bias.cameras)))
    halves = [tensor.to(dtype) for tensor in (q, k, v)]
    expected, expected_mass = attend(*halves, layout=layout, bias=suppressed, return_mass=True)
    with torch.autocast("cpu", dtype):
        output, mass = attend(*halves, layout=layout, bias=suppressed, return_mass=True)
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(mass, expected_mass, atol=1e-3, rtol=0)
