# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Attention with a window bias on CUDA: FlexAttention fuses the bias into the attention kernel."""

from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxOutput, AuxRequest, flex_attention

from aqr_perception.models.aqr.gate import REMOVED
from aqr_perception.models.aqr.window_bias import WindowBias
from aqr_perception.models.aqr.window_tiles import reach
from aqr_perception.models.tokens import TokenLayout

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@cache
def _compiled() -> Callable[..., tuple[Tensor, AuxOutput]]:
    return torch.compile(flex_attention, dynamic=False)


def flex_attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout | None,
    bias: WindowBias | None,
    attention: Callable[..., tuple[Tensor, AuxOutput]] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return (B, heads, Q, d) and, if a layout is given, the attention mass (B, Q, 1 + V).

    Args:
        query, key, value: (B, heads, Q or K, d).
        layout: layout of the keys, if the attention mass is requested.
        bias: added inside the queries' windows.
        attention: replacement for the compiled FlexAttention.
    """
    attention = attention or _compiled()
    segments = [slice(0, key.shape[2])] if layout is None else list(layout.segments)
    filled = [index for index, segment in enumerate(segments) if segment.stop > segment.start]
    parts = [
        attention(
            query,
            key[:, :, segments[index]],
            value[:, :, segments[index]],
            score_mod=None if bias is None else window_score_mod(bias, segments[index].start),
            return_aux=AuxRequest(lse=True),
        )
        for index in filled
    ]
    if layout is None:
        output, aux = parts[0]
        return output if bias is None or bias.sensors is None else output * _kept(cast(Tensor, aux.lse)), None
    share = query.new_zeros(*query.shape[:3], len(segments), dtype=torch.float32)
    lse = torch.stack([cast(Tensor, aux.lse) for _, aux in parts], dim=-1).float()
    share[..., filled] = lse.softmax(-1)
    if bias is not None and bias.sensors is not None:
        share = share * _kept(lse.amax(-1))
    output = torch.zeros_like(query, dtype=torch.float32)
    for index, (part, _) in zip(filled, parts, strict=True):
        output = output + part * share[..., index, None]
    return output.to(query.dtype), share.mean(dim=1)


def _kept(lse: Tensor) -> Tensor:
    """Return (..., 1) bool of log-sum-exps: false for queries whose keys are all removed."""
    return (lse > REMOVED / 2)[..., None]


def window_score_mod(bias: WindowBias, first: int = 0) -> ScoreMod:
    """Return FlexAttention's score function for a window bias and keys that start at token ``first``."""
    layout = bias.layout
    bev_columns, image_columns = max(layout.bev[1], 1), max(layout.image[1], 1)
    per_view, start = max(layout.tokens_per_view, 1), layout.bev_tokens
    (bev_before, bev_after), (image_before, image_after) = reach(bias.bev_window), reach(bias.image_window)
    bev_row, bev_column = (part.contiguous() for part in bias.cells.bev.unbind(-1))
    if layout.views:
        image_row, image_column = (part.contiguous() for part in bias.cells.image.unbind(-1))
        cameras = bias.cameras
    else:  # FlexAttention cannot capture empty tensors
        image_row = image_column = bev_row[..., None]
        cameras = torch.zeros_like(bias.lidar)[..., None]
    lidar = bias.lidar
    last_view = max(layout.views - 1, 0)

    def score_mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        token = kv + first
        row, column = token // bev_columns - bev_row[b, q], token % bev_columns - bev_column[b, q]
        in_row, in_column = (row >= -bev_before) & (row <= bev_after), (column >= -bev_before) & (column <= bev_after)
        in_bev = in_row & in_column & (token < start)

        image_token = (token - start).clamp(min=0)
        view = (image_token // per_view).clamp(max=last_view)
        cell = image_token % per_view
        row, column = cell // image_columns - image_row[b, q, view], cell % image_columns - image_column[b, q, view]
        near_row = (row >= -image_before) & (row <= image_after)
        near_column = (column >= -image_before) & (column <= image_after)
        in_image = near_row & near_column & (token >= start)
        return score + torch.where(in_bev, lidar[b, q], 0.0) + torch.where(in_image, cameras[b, q, view], 0.0)

    if bias.sensors is None:
        return score_mod
    sensors = bias.sensors

    def gated_score_mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        token = kv + first
        segment = torch.where(token < start, 0, 1 + (token - start).clamp(min=0) // per_view).clamp(max=layout.views)
        return score_mod(score, b, h, q, kv) + sensors[b, segment]

    return gated_score_mod
