# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Blocks of a Vision Transformer against plain loops, and stochastic depth."""

from math import ceil, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models.image.vit_blocks import Attention, Block, LayerScale, StochasticDepth, TokenGrid


def windows(grid: TokenGrid, window: int) -> list[tuple[int, int] | None]:
    """Return the window of each token; None for class and register tokens."""
    height, width = (ceil(side / ceil(side / window)) for side in (grid.rows, grid.columns))
    patches = [(row // height, column // width) for row in range(grid.rows) for column in range(grid.columns)]
    return [None] * grid.prefix + patches


def plain_attention(attention: Attention, tokens: Tensor, places: list[tuple[int, int] | None]) -> Tensor:
    """Return the expected attention, query by query, over the keys of the query's window and those without a window."""
    size = tokens.shape[-1] // attention.heads
    images = []
    for image in tokens:
        queries, keys, values = attention.qkv(image).split(tokens.shape[-1], dim=-1)
        heads = []
        for head in range(attention.heads):
            part = slice(head * size, (head + 1) * size)
            rows = []
            for query, place in zip(queries[:, part], places, strict=True):
                seen = [place is None or other is None or other == place for other in places]
                scores = keys[seen, part] @ query / sqrt(size)
                rows.append(scores.exp() / scores.exp().sum() @ values[seen, part])
            heads.append(torch.stack(rows))
        images.append(attention.proj(torch.cat(heads, dim=-1)))
    return torch.stack(images)


@given(
    grid=st.builds(TokenGrid, st.integers(0, 3), st.integers(1, 6), st.integers(1, 6)),
    window=st.integers(0, 7),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_attention_agrees_with_a_loop_over_queries(grid: TokenGrid, window: int, seed: int) -> None:
    torch.manual_seed(seed)
    attention = Attention(8, 2, window)
    tokens = torch.randn(2, grid.prefix + grid.rows * grid.columns, 8)
    with torch.no_grad():
        expected = plain_attention(attention, tokens, windows(grid, window or 6))
        torch.testing.assert_close(attention(tokens, grid), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [5, 14])
def test_one_window_over_the_whole_image_is_global_attention(window: int) -> None:
    grid = TokenGrid(2, 3, 5)
    windowed, everywhere = Attention(8, 2, window), Attention(8, 2)
    everywhere.load_state_dict(windowed.state_dict())
    tokens = torch.randn(1, 17, 8)
    torch.testing.assert_close(windowed(tokens, grid), everywhere(tokens, grid))


def test_a_block_adds_its_normalised_layers() -> None:
    grid, tokens = TokenGrid(1, 2, 3), 5 * torch.randn(2, 7, 8)
    before, after = Block(8, 2, "pre", layer_scale=0.5), Block(8, 2, "post", layer_scale=0.5)
    middle = tokens + 0.5 * before.attn(before.norm1(tokens), grid)
    torch.testing.assert_close(before(tokens, grid), middle + 0.5 * before.mlp(before.norm2(middle)))
    residual = after(tokens, grid) - tokens
    middle = tokens + after.norm1(after.attn(tokens, grid))
    torch.testing.assert_close(residual, middle + after.norm2(after.mlp(middle)) - tokens)
    assert (after.norm1.weight == 0.5).all() and not any(isinstance(part, LayerScale) for part in after.modules())


def test_stochastic_depth_drops_whole_images_and_preserves_the_mean() -> None:
    torch.manual_seed(0)
    factor = StochasticDepth(0.25)(torch.ones(4000, 2, 3))
    assert (factor == factor[:, :1, :1]).all()
    torch.testing.assert_close(factor.unique(), torch.tensor([0, 4 / 3]))
    assert factor.mean().item() == pytest.approx(1, abs=0.03)


def test_stochastic_depth_is_off_in_evaluation() -> None:
    residual = torch.randn(8, 2, 3)
    assert StochasticDepth(0.9).eval()(residual) is residual
