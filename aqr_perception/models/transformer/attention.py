# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Exact attention with an additive bias inside windows, without a (heads, queries, keys) tensor.

softmax(s + b) differs from softmax(s) only where the bias b is not zero. With the plain output o and log-sum-exp L,

    numerator   = o + sum_window (e^b - 1) e^(s - L) v
    denominator = 1 + sum_window (e^b - 1) e^(s - L)

Therefore plain fused attention runs over all keys, and small dense products correct its output inside the windows.
Where a negative bias suppresses nearly all of a query's attention, the denominator is the small difference of nearly
equal numbers; such queries are computed directly. The attention mass by segment follows from the log-sum-exp of each
segment of the keys, with one run per segment.

A bias of whole segments, the trust of a gate, is added to the log-sum-exps before the segments' outputs are merged, and
multiplies (e^b - 1). Runs of segments with the same bias are attended to at once, and removed segments not at all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aqr_perception.models.aqr.gate import REMOVED
from aqr_perception.models.aqr.window_bias import WindowBias
from aqr_perception.models.aqr.window_tiles import Tiles
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer import native_correction
from aqr_perception.models.transformer.flex import flex_attend

_QUERY_BLOCK = 128
_DIRECT_BLOCK = 32
"""Queries per block that are computed directly: 32 x 8 heads x 56,400 keys take 58 MB."""
_LEAST_DENOMINATOR, _LEAST_REDUCED_DENOMINATOR = 0.01, 0.3
"""Denominators below which rounding errors, which grow with its inverse, would show; the latter in half precision."""
_TILE_BYTES = 2**21
"""Size of the keys of the tiles that are corrected at once."""
_MAX_STORED_SCORES = 40_000_000
"""Largest number of scores (samples x heads x queries x keys) stored for the backward pass instead of recomputed."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    layout: TokenLayout | None = None,
    bias: WindowBias | None = None,
    mask: Tensor | None = None,
    return_mass: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return softmax(q k^T / sqrt(d) + bias) v as (B, heads, Q, d), and the attention mass if requested.

    Args:
        query: (B, heads, Q, d).
        key, value: (B, heads, K, d).
        layout: segments of the keys; required for the mass.
        bias: added inside the queries' windows, and to whole segments. The output of a query whose keys are all
            removed is 0.
        mask: (Q, K) bool, true where a query must not attend to a key; not supported together with bias or mass.
        return_mass: whether to return the attention mass (B, Q, 1 + V): each query's attention to the LiDAR and to each
            camera, averaged over the heads. It sums to 1 and carries no gradient.
    """
    if key.shape[2] == 0:  # no sensor data to attend to
        segments = 1 + (layout.views if layout is not None else 0)
        mass = query.new_zeros(query.shape[0], query.shape[2], segments) if return_mass else None
        return torch.zeros_like(query), mass
    if bias is None and not return_mass:
        return F.scaled_dot_product_attention(query, key, value, None if mask is None else ~mask), None
    if mask is not None:
        raise ValueError("found a mask together with bias or return_mass; leave out the mask or the others")
    if return_mass and layout is None:
        raise ValueError("return_mass is true without a layout; give the layout of the tokens")
    weights = () if bias is None else bias.weights
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value, *weights)):
        return _attend_differentiably(query, key, value, layout, bias, return_mass)
    if query.device.type == "cuda":
        return flex_attend(query, key, value, layout if return_mass else None, bias)
    return _attend_by_segment(query, key, value, layout if return_mass else None, bias)


def _attend_by_segment(
    query: Tensor, key: Tensor, value: Tensor, layout: TokenLayout | None, bias: WindowBias | None
) -> tuple[Tensor, Tensor | None]:
    """Attend with the CPU's fused attention, segment by segment if a layout is given, then correct for the bias."""
    segments = [slice(0, key.shape[2])] if layout is None else list(layout.segments)
    runs = _runs(segments, bias, merge=layout is None)
    if not runs:  # all sensors are removed
        return torch.zeros_like(query), None if layout is None else query.new_zeros(
            len(query), query.shape[2], len(segments), dtype=torch.float32
        )
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    by_run: list[Tensor] = []
    for run in runs:  # merged one by one, so that only two outputs exist at a time
        part, lse = flash(query, key[:, :, run.keys], value[:, :, run.keys])
        if run.bias is not None:
            lse = lse + run.bias[:, None, None]
        if not by_run:
            output, total = part, lse
        else:
            output = output.float().lerp_(part.float(), (lse - total).sigmoid()[..., None])
            total = torch.logaddexp(total, lse)
        by_run.append(lse)
    if layout is None:
        share = torch.ones_like(total)[..., None]
    else:
        share = query.new_zeros(*total.shape, len(segments), dtype=torch.float32)
        share[..., [run.segment for run in runs]] = (torch.stack(by_run, dim=-1) - total[..., None]).exp()
    if bias is not None and bias.sensors is not None:
        # Samples whose sensors are all removed.
        kept = (total > REMOVED / 2)[..., None]
        output, share = output.float() * kept, share * kept
    if bias is not None and bias.acts_inside:
        correct = native_correction.correct if native_correction.supports(query, key, value) else _correct
        output, share = correct(output.float(), share, total, query, key, value, bias)
        denominator = share.sum(-1, keepdim=True)
        if bias.sensors is None:
            output, share = output / denominator, share / denominator
        else:
            nonzero = torch.where(denominator == 0, 1.0, denominator)
            output, share = output / nonzero, share / nonzero
        limit = _LEAST_DENOMINATOR if query.dtype == torch.float32 else _LEAST_REDUCED_DENOMINATOR
        for sample, cancelled in enumerate((denominator[..., 0] < limit).any(1)):
            for index in cancelled.nonzero()[:, 0].split(_DIRECT_BLOCK):
                output[sample, :, index], share[sample, :, index] = _attend_directly(
                    query[sample, :, index], key[sample], value[sample], bias.rows(sample, index), segments
                )
    return output.to(query.dtype), None if layout is None else share.mean(dim=1)


class _Run(NamedTuple):
    """Keys that are attended to at once.

    Attributes:
        keys: slice of the keys.
        segment: index of the segment; of the first one for several.
        bias: (B,), added to all of these keys; None for 0.
    """

    keys: slice
    segment: int
    bias: Tensor | None


def _runs(segments: Sequence[slice], bias: WindowBias | None, merge: bool) -> list[_Run]:
    """Return the runs of keys that have one bias in each sample, without empty and removed ones.

    Args:
        segments: of the keys; one for all if `merge` is true.
        bias: may have a bias of whole segments.
        merge: whether neighbouring segments with the same bias become one run.
    """
    if bias is None or bias.sensors is None:
        return [_Run(keys, index, None) for index, keys in enumerate(segments) if keys.stop > keys.start]
    runs: list[_Run] = []
    for index, keys in enumerate(bias.layout.segments):
        whole = bias.sensors[:, index]
        if keys.stop == keys.start or bool((whole <= REMOVED / 2).all()):
            continue
        last = runs[-1] if runs else None
        if merge and last is not None and last.keys.stop == keys.start and _equal(last.bias, whole):
            runs[-1] = last._replace(keys=slice(last.keys.start, keys.stop))
        else:
            runs.append(_Run(keys, index, whole if bool(whole.any()) else None))
    return runs


def _equal(first: Tensor | None, second: Tensor) -> bool:
    return not bool(second.any()) if first is None else torch.equal(first, second)


def _softmax(scores: Tensor, bias: Tensor | None) -> Tensor:
    """Return the softmax of biased scores (..., Q, K), 0 for queries whose keys are all removed by bias (..., Q, K)."""
    attention = scores.softmax(-1)
    return attention if bias is None else attention * (bias.amax(-1, keepdim=True) > REMOVED / 2)


def _attend_directly(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, segments: Sequence[slice]
) -> tuple[Tensor, Tensor]:
    """Return output (heads, Q, d) and shares (heads, Q, S) of queries (heads, Q, d) with a dense bias (Q, K)."""
    # Autocast would compute the products in half precision.
    with torch.autocast(query.device.type, enabled=False):
        scores = (query.float() * query.shape[-1] ** -0.5) @ key.float().transpose(-1, -2)
        attention = _softmax(scores + bias, bias)
        share = torch.stack([attention[..., segment].sum(-1) for segment in segments], dim=-1)
        return attention @ value.float(), share


def _correct(
    output: Tensor, share: Tensor, total: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: WindowBias
) -> tuple[Tensor, Tensor]:
    """Return the unnormalised output (B, heads, Q, d) and shares of the segments (B, heads, Q, S) with the bias.

    The sum of a query's shares is the denominator of both.

    Args:
        output, share, total: output, shares of the segments and log-sum-exp (B, heads, Q) of attention without bias.
    """
    batch, heads, count, width = query.shape
    segments = share.shape[-1]
    scaled = (query * width**-0.5).reshape(-1, width)  # rows by sample, head and query
    # Rows by sample, token and head. The keys come from a projection, so this order is theirs in memory.
    keys, values = (tokens.transpose(1, 2).reshape(-1, width) for tokens in (key, value))
    lse = total.flatten()
    numerator = output.transpose(1, 2).reshape(batch * count, heads * width)
    share = share.contiguous()
    head = torch.arange(heads, device=query.device)[:, None]
    for tiles in bias.tiles:
        tile_tokens = tiles.row_tokens.shape[1] * tiles.column_tokens.shape[1]
        if not len(tiles.queries) or not tile_tokens:
            continue
        slots = tiles.queries.shape[1]
        corrections = numerator.new_empty(len(tiles.queries), slots, heads * width)
        step = max(1, _TILE_BYTES // (4 * heads * width * tile_tokens))
        # A few tiles at once: their tokens stay in the processor's cache from the gather to the last product.
        for start in range(0, len(tiles.queries), step):
            some = Tiles(*(field[start : start + step] for field in tiles))
            queries = some.queries[:, None]
            rows = (torch.div(queries, count, rounding_mode="floor") * heads + head) * count + queries % count
            tokens = (some.tokens[:, None] * heads + head).flatten()
            shape = (len(queries) * heads, -1, width)
            near = keys.index_select(0, tokens).view(shape)
            scores = torch.bmm(scaled.index_select(0, rows.flatten()).view(shape), near.transpose(1, 2))
            extra = scores.float().view(len(queries), heads, slots, -1).sub_(lse[rows][..., None]).exp_()
            extra.mul_(some.growth[:, None])
            correction = torch.bmm(extra.flatten(0, 1).to(values.dtype), values.index_select(0, tokens).view(shape))
            by_slot = corrections[start : start + step].unflatten(-1, (heads, width))
            by_slot.copy_(correction.view(len(queries), heads, slots, width).transpose(1, 2))
            segment = some.segment[:, None, None] if segments > 1 else 0
            share.view(-1).scatter_add_(0, (rows * segments + segment).flatten(), extra.sum(-1).flatten())
        numerator += _sum_by_query(corrections.flatten(0, 1), tiles, batch * count)
    return numerator.view(batch, count, heads, width).transpose(1, 2), share


def _sum_by_query(corrections: Tensor, tiles: Tiles, count: int) -> Tensor:
    """Return the sums (count, C) of the slots' corrections (T * N, C) by query; empty slots are left out."""
    used = (tiles.row_growth != 0).any(-1).flatten().nonzero()[:, 0]
    query, order = tiles.queries.flatten()[used].sort()
    starts = torch.searchsorted(query, torch.arange(count, device=query.device))
    return F.embedding_bag(used[order], corrections, starts, mode="sum")


def _attend_differentiably(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout | None,
    bias: WindowBias | None,
    return_mass: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attend with gradients; split large score matrices by queries and recompute them in the backward pass."""
    store = query.shape[:3].numel() * key.shape[2] <= _MAX_STORED_SCORES
    step = query.shape[2] if store else _QUERY_BLOCK
    outputs, masses = [], []
    for start in range(0, query.shape[2], step):
        block = slice(start, min(start + step, query.shape[2]))

        def attend_block(
            q: Tensor, k: Tensor, v: Tensor, *weights: Tensor, block: slice = block
        ) -> tuple[Tensor, Tensor]:
            # In place, with scaled queries, because a pass over the scores costs as much as the product.
            scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float()
            added = None
            if bias is not None:
                added = bias.with_weights(*weights).dense(block)[:, None]
                scores += added
            gated = bias is not None and bias.sensors is not None
            attention = _softmax(scores, added if gated else None)
            mass = attention.new_zeros(0)
            if return_mass and layout is not None:
                average = attention.detach().mean(1)
                mass = torch.stack([average[..., segment].sum(-1) for segment in layout.segments], dim=-1)
            return attention.to(v.dtype) @ v, mass

        weights = () if bias is None else bias.weights
        inputs = (query[:, :, block], key, value, *weights)
        output, mass = attend_block(*inputs) if store else checkpoint(attend_block, *inputs, use_reentrant=False)
        outputs.append(output)
        masses.append(mass)
    return torch.cat(outputs, dim=2), torch.cat(masses, dim=1) if return_mass else None


class MultiHeadAttention(nn.Module):
    """Projections around `attend`, with the parameter names and shapes of torch.nn.MultiheadAttention."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        layout: TokenLayout | None = None,
        bias: WindowBias | None = None,
        mask: Tensor | None = None,
        return_mass: bool = False,
        projected: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, Q, C) and, if requested, the attention mass (B, Q, 1 + V).

        Args:
            query: (B, Q, C), with position embedding.
            key: (B, K, C), with position embedding.
            value: (B, K, C), without position embedding.
            layout, bias, mask, return_mass: see `attend`.
            projected: the result of `project` for key and value; None to compute it.
        """
        keys, values = self.project(key, value) if projected is None else projected
        output, mass = attend(
            self.ask(query), keys, values, layout=layout, bias=bias, mask=mask, return_mass=return_mass
        )
        attended = output.transpose(1, 2).flatten(2)
        if key.shape[1]:
            attended = attended + self.in_proj_bias.chunk(3)[2]
        return self.out_proj(attended), mass

    def ask(self, query: Tensor) -> Tensor:
        """Return the heads' queries (B, heads, Q, d) of queries (B, Q, C)."""
        return self._by_head(F.linear(query, self.in_proj_weight.chunk(3)[0], self.in_proj_bias.chunk(3)[0]))

    def project(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the heads' keys and values (B, heads, K, d) of tokens (B, K, C), without biases.

        Biases on tens of thousands of tokens would cost memory traffic. The keys' bias shifts all scores of a query
        equally, which the softmax ignores. The values' bias is added to the output, because attention sums to 1.
        """
        _, to_key, to_value = self.in_proj_weight.chunk(3)
        return self._by_head(F.linear(key, to_key)), self._by_head(F.linear(value, to_value))

    def _by_head(self, tokens: Tensor) -> Tensor:
        """Return (B, heads, K, d) of (B, K, C)."""
        heads: Tensor = tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads
