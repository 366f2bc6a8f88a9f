# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The compiled correction for a window bias equals that by tiles."""

import pytest
import torch

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.window_bias import WindowBias
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer import native_correction
from aqr_perception.models.transformer.attention import _correct, attend

HEADS, DEPTH, QUERIES = 2, 8, 40


def random_case(layout: TokenLayout, window: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, WindowBias]:
    torch.manual_seed(0)
    # Cells outside the grids, too: their windows may reach inside.
    bev = torch.stack([torch.randint(-2, size + 2, (2, QUERIES)) for size in layout.bev], dim=-1)
    image = torch.stack([torch.randint(-2, size + 2, (2, QUERIES, layout.views)) for size in layout.image], dim=-1)
    visible = torch.rand(2, QUERIES, layout.views) < 0.5
    cells = QueryCells(bev, torch.ones(2, QUERIES, dtype=torch.bool), image, visible)
    cameras = torch.where(visible, 2 * torch.rand(2, QUERIES, layout.views) - 1, 0.0)
    bias = WindowBias(cells, torch.rand(2, QUERIES), cameras, layout, window, window)
    query, key, value = (torch.randn(2, HEADS, count, DEPTH) for count in (QUERIES, layout.total, layout.total))
    return query, key, value, bias


@pytest.mark.parametrize("window", [1, 4, 7])
@pytest.mark.parametrize("segments", [1, 4])
@pytest.mark.parametrize(
    "layout", [TokenLayout((9, 7), 3, (4, 6)), TokenLayout((0, 0), 3, (4, 6)), TokenLayout((9, 7), 3, (0, 0))]
)
def test_the_kernel_and_the_tiles_agree(layout: TokenLayout, segments: int, window: int) -> None:
    query, key, value, bias = random_case(layout, window)
    if not native_correction.supports(query, key, value):
        pytest.skip("needs a C++ compiler")
    output = torch.randn(2, HEADS, QUERIES, DEPTH)
    share, total = torch.rand(2, HEADS, QUERIES, segments), torch.rand(2, HEADS, QUERIES)
    expected = _correct(output, share.clone(), total, query, key, value, bias)
    found = native_correction.correct(output, share.clone(), total, query, key, value, bias)
    assert not torch.allclose(found[0], output)
    for corrected, by_tiles in zip(found, expected, strict=True):
        torch.testing.assert_close(corrected, by_tiles, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("native", [True, False])
def test_attention_equals_the_dense_softmax_with_and_without_the_kernel(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = TokenLayout((9, 7), 3, (4, 6))
    query, key, value, bias = random_case(layout, 5)
    if not native:
        monkeypatch.setattr(native_correction, "supports", lambda *_: False)
    with torch.inference_mode():
        found, mass = attend(query, key, value, layout=layout, bias=bias, return_mass=True)
        attention = (query @ key.transpose(-1, -2) * DEPTH**-0.5 + bias.dense()[:, None]).softmax(-1)
    by_segment = torch.stack([attention[..., part].sum(-1).mean(1) for part in layout.segments], dim=-1)
    torch.testing.assert_close(found, attention @ value, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mass, by_segment, atol=1e-5, rtol=1e-4)
