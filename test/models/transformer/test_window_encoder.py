# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The router's window attention equals plain attention."""

import torch

from aqr_perception.models.aqr.published_windows import Windows
from aqr_perception.models.transformer.attention import MultiHeadAttention
from aqr_perception.models.transformer.window_encoder import WindowEncoder, _attend

CHANNELS, TOKENS = 16, 50


def case(queries: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Windows]:
    random = torch.Generator().manual_seed(0)
    position = torch.randn(2, queries, CHANNELS, generator=random)
    values = torch.randn(2, TOKENS, CHANNELS, generator=random)
    keys = values + torch.randn(2, TOKENS, CHANNELS, generator=random)
    # A window's tokens are all different.
    order = torch.rand(2, queries, TOKENS, generator=random).argsort(-1)[..., :width]
    return position, keys, values, Windows(order, torch.rand(2, queries, width, generator=random) < 0.7)


def test_attention_to_windows_is_attention_to_all_tokens_under_a_mask() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(CHANNELS, 4)
    torch.nn.init.normal_(attention.in_proj_bias)
    torch.nn.init.normal_(attention.out_proj.bias)
    position, keys, values, windows = case(queries=40, width=9)
    found = _attend(attention, position, keys, values, windows)
    for sample in range(2):
        mask = torch.ones(40, TOKENS, dtype=torch.bool)
        row, place = windows.inside[sample].nonzero(as_tuple=True)
        mask[row, windows.tokens[sample, row, place]] = False
        one = slice(sample, sample + 1)
        expected, _ = attention(position[one], keys[one], values[one], mask=mask)
        torch.testing.assert_close(found[one], expected, atol=1e-5, rtol=1e-5)


def test_gradients_equal_those_without_recomputation() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(CHANNELS, 4)
    position, keys, values, windows = case(queries=70, width=9)
    values.requires_grad_()
    _attend(attention, position, keys, values, windows)[1].square().sum().backward()
    found, values.grad = values.grad, None
    for query in range(70):
        tokens = windows.tokens[1, query][windows.inside[1, query]]
        seen, _ = attention(position[1:, query : query + 1], keys[1:, tokens], values[1:, tokens])
        seen.square().sum().backward()
    torch.testing.assert_close(found, values.grad, atol=1e-5, rtol=1e-4)


def test_an_empty_window_gives_finite_numbers() -> None:
    encoder = WindowEncoder(CHANNELS, 16)
    position, keys, values, windows = case(queries=5, width=9)
    nothing = Windows(windows.tokens, torch.zeros_like(windows.inside))
    assert encoder(position, keys, values, nothing).isfinite().all()
    no_tokens = Windows(windows.tokens[..., :0], windows.inside[..., :0])
    assert encoder(position, keys[:, :0], values[:, :0], no_tokens).isfinite().all()
