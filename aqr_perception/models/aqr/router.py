# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Adaptive query router: predicts the weight of each sensor for each query from the tokens around it.

It follows MoME's adaptive query router (arXiv:2503.19776) with three differences: it uses every camera that sees a
query, it returns weights instead of one choice, and it gathers the tokens of the windows instead of masking all keys.
"""

import math
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from aqr_perception.models.aqr import native_windows
from aqr_perception.models.aqr.agreement import AgreementGate, SensorAgreement
from aqr_perception.models.aqr.gate import CameraPairs, Gate, SensorTrust, log_weights, start_open
from aqr_perception.models.aqr.gathered_windows import GatheredWindows, bev_windows, image_windows
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

HEADS = 4
"""Attention heads of the router."""

MAX_SCALE = 4.0
"""Largest learned scale."""

_UNIT_SCALE = math.log(1 / (MAX_SCALE - 1))
"""Parameter of a scale of 1."""

RouterKind = Literal["plain", "signed", "gate"]
"""What a router's weights mean: ``plain`` for modulation and the additive bias; see `AqrOptions` for the others."""

_BLOCK = {"cpu": 32, "cuda": 2048}
"""Windows per gather: their tokens fit into a processor's cache, or keep a GPU busy."""


class RouterWeights(NamedTuple):
    """Weights of the sensors for each query.

    Attributes:
        modality: (B, Q, 2) in 0..1: weights of the LiDAR (0 outside the BEV grid) and of the cameras (0 if no camera
            sees the query).
        cameras: (B, Q, V) in 0..1, weight of each camera, at most the cameras' weight in ``modality``; 0 if the camera
            does not see the query.
        gate: logits of the gate, of which the weights above are the product; None for routers of other kinds.
        log_weights: their log-weights.
    """

    modality: Tensor
    cameras: Tensor
    gate: Gate | None = None
    log_weights: Gate | None = None

    def detached(self) -> "RouterWeights":
        """Return the weights without gradient."""
        gate, logs = (None if part is None else part.detached() for part in (self.gate, self.log_weights))
        return RouterWeights(self.modality.detach(), self.cameras.detach(), gate, logs)


def router_kind(options: AqrOptions) -> RouterKind:
    """Return the kind of router that a model's own options need."""
    if options.mode == "gate":
        return "gate"
    return "signed" if options.mode in ("bias", "both") and options.bias == "signed" else "plain"


def other_kind_problem(name: str, kind: RouterKind, options: AqrOptions) -> str | None:
    """Return why the weights of a model's router cannot act as resolved options say; None if they can.

    Args:
        name: the model's name.
        kind: kind of its router.
        options: with some effect.
    """
    needed = router_kind(options)
    if needed == kind:
        return None
    asked = f"aqr.bias is {options.bias!r}" if "gate" not in (kind, needed) else f"aqr.mode is {options.mode!r}"
    return (
        f"{asked}, but the query router of {name} is of the kind {kind!r}, needed {needed!r}: its weights mean "
        "something else; use aqr.mode off or auto, or a model that was trained with this setting in its preset"
    )


class Router(nn.Module):
    """One post-norm attention layer over each query's windows, followed by sigmoid weights.

    Args:
        channels: channels of queries and tokens.
        kind: see `RouterKind`. Only the kinds ``signed`` and ``gate`` have parameters of their own.
        classes: number of classes, for a gate of a model with proposals of both sensors, which are compared; 0 for
            other routers.
        bev_channels: channels of the LiDAR branch's features, for such a gate.
    """

    def __init__(self, channels: int, kind: RouterKind = "plain", classes: int = 0, bev_channels: int = 0) -> None:
        super().__init__()
        self.kind = kind
        self.compares = kind == "gate" and classes > 0
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.feedforward = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels)
        )
        self.modality = nn.Linear(channels, 2)
        self.evidence = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, 2))
        lasts = (self.modality, cast(nn.Linear, self.evidence[-1]))
        if kind == "gate":
            start_open(*lasts)
            self.trust = SensorTrust(channels)
            if self.compares:
                self.agreement = AgreementGate(classes, bev_channels)
                self.proposal_scale = nn.Parameter(torch.full((2, 2), _UNIT_SCALE))
        elif kind == "signed":
            _start_neutral(*lasts)
            self.bias_scale = nn.Parameter(torch.tensor(_UNIT_SCALE))
        else:
            # An untrained router trusts all sensors: both factors of a camera's weight start near 0.95.
            for last in lasts:
                nn.init.normal_(last.weight, std=0.01)
                nn.init.constant_(last.bias, 3.0)

    @property
    def scale(self) -> Tensor | None:
        """Scale () of the signed bias in 0..4, initially 1; None for routers of other kinds."""
        return MAX_SCALE * self.bias_scale.sigmoid() if self.kind == "signed" else None

    @property
    def score_scales(self) -> Tensor | None:
        """Scales (2, 2) in 0..4, initially 1, of the log-weights in the scores of proposals.

        Rows: proposals of the LiDAR and of the cameras. Columns: the queries' own weights, and the trust in sensors.
        None for routers that do not compare the sensors.
        """
        return MAX_SCALE * self.proposal_scale.sigmoid() if self.compares else None

    def forward(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        cells: QueryCells,
        layout: TokenLayout,
        options: AqrOptions,
        denoising: int = 0,
        agreement: SensorAgreement | None = None,
    ) -> RouterWeights:
        """Return the weights of (B, Q, C) queries.

        Args:
            query: (B, Q, C) position embeddings of the queries, which have no content yet.
            keys, values: (B, K, C) tokens with and without position embedding.
            cells: cells of the queries.
            layout: layout of the tokens.
            options: window sizes.
            denoising: number of denoising queries, which come first. They stand at the true objects, and therefore do
                not count for the trust in whole sensors.
            agreement: comparison of the sensors' proposals, for a router with `compares`; None without it.
        """
        batch, count, _ = query.shape
        bev = bev_windows(cells, layout, options.router_bev_window)
        image = image_windows(cells, layout, options.router_image_window)
        tokens = (keys.flatten(0, 1), values.flatten(0, 1))
        projected = self._folded_queries(query)

        lidar_attended, lidar_lse = self._attend(projected, *tokens, bev)
        camera_attended, camera_lse = self._attend(projected, *tokens, image)
        attended = _merge_windows(
            torch.cat((lidar_attended, camera_attended)),
            torch.cat((lidar_lse, camera_lse)),
            torch.cat((bev.query, image.query)),
            batch * count,
        )

        state = self.norms[0](query.flatten(0, 1) + self.output(attended))
        state = self.norms[1](state + self.feedforward(state))
        lidar_evidence = self.evidence(torch.cat((state[bev.query], lidar_attended), dim=-1))[:, 0]
        camera_evidence = self.evidence(torch.cat((state[image.query], camera_attended), dim=-1))[:, 1]
        modality = self.modality(state).float()
        visible = cells.image_visible

        if self.kind == "gate":
            lidar_logit = modality.new_zeros(batch * count).index_put((bev.query,), lidar_evidence.float())
            camera_logit = modality.new_zeros(visible.shape).masked_scatter(visible, camera_evidence.float())
            lidar_found = state.new_zeros(state.shape).index_put((bev.query,), lidar_attended.to(state.dtype))
            by_query = (state, modality, lidar_logit, lidar_found)
            state, modality, lidar_logit, lidar_found = (part.view(batch, count, *part.shape[1:]) for part in by_query)
            pairs = CameraPairs(image.query, visible.nonzero()[:, 2], camera_attended.to(state.dtype))
            trust = self.trust(state, lidar_found, cells.bev_inside, pairs, values, layout, denoising)
            gate = Gate(modality[..., 0] + lidar_logit, modality[..., 1:] + camera_logit, trust)
            return gated_weights(self.with_agreement(gate, agreement, cells), cells)

        lidar = modality.new_zeros(batch * count)
        lidar = lidar.index_put((bev.query,), (modality[bev.query, 0] + lidar_evidence.float() - 3.0).sigmoid())
        camera = torch.where(visible.any(-1).flatten(), modality[:, 1].sigmoid(), 0.0)
        evidence_weight = modality.new_zeros(visible.shape).masked_scatter(visible, camera_evidence.float().sigmoid())
        modality = torch.stack((lidar, camera), dim=-1).view(batch, count, 2)
        return RouterWeights(modality, evidence_weight * modality[..., 1:])

    def with_agreement(self, gate: Gate, agreement: SensorAgreement | None, cells: QueryCells) -> Gate:
        """Return a gate's logits with what the agreement of the sensors' proposals adds to them."""
        if agreement is None or not self.compares:
            return gate
        added = self.agreement(agreement, cells.image_visible)
        return Gate(*(logits + more for logits, more in zip(gate, added, strict=True)))

    def _folded_queries(self, query: Tensor) -> Tensor:
        """Return (B * Q, heads, C) queries whose products with tokens, instead of with projected ones, are the scores.

        q . (K k) = (K^T q) . k, and a weighted sum of projections is the projection of the weighted sum: projecting a
        few hundred queries and sums replaces that of tens of thousands of tokens. The keys' bias adds the same to all
        scores of a query, and the softmax cancels it.
        """
        projected = self.query(query).flatten(0, 1).unflatten(-1, (HEADS, -1))
        to_key = self.key.weight.view(HEADS, -1, query.shape[-1])
        return torch.einsum("qhd,hdc->qhc", projected * projected.shape[-1] ** -0.5, to_key)

    def _attend(
        self, projected: Tensor, keys: Tensor, values: Tensor, windows: GatheredWindows
    ) -> tuple[Tensor, Tensor]:
        """Return each window's attended value (P, C) and log-sum-exp of its scores (P, heads)."""
        attend = native_windows.attend if native_windows.supports(projected, keys, values) else _attend_windows
        sums, log_sum_exp = attend(projected, keys, values, windows)
        to_value = self.value.weight.view(HEADS, -1, keys.shape[-1])
        return torch.einsum("phc,hdc->phd", sums, to_value).flatten(1) + self.value.bias, log_sum_exp


def _attend_windows(projected: Tensor, keys: Tensor, values: Tensor, windows: GatheredWindows) -> tuple[Tensor, Tensor]:
    """Return each window's attention-weighted sum of values (P, heads, C) and log-sum-exp of its scores (P, heads)."""
    sums, log_sum_exp = [], []
    block = _BLOCK.get(keys.device.type, _BLOCK["cpu"])
    for query, tokens, inside in zip(*(part.split(block) for part in windows), strict=True):
        # Whole rows: general indexing takes several times as long.
        index, shape = tokens.flatten(), (*tokens.shape, keys.shape[-1])
        near, content = (part.index_select(0, index).view(shape) for part in (keys, values))
        scores = (projected[query] @ near.transpose(1, 2)).float()  # (P, heads, W)
        scores = scores.masked_fill(~inside[:, None], float("-inf"))
        log_sum_exp.append(scores.logsumexp(-1))
        sums.append(scores.softmax(-1).to(values.dtype) @ content)
    return torch.cat(sums), torch.cat(log_sum_exp)


def gated_weights(gate: Gate, cells: QueryCells) -> RouterWeights:
    """Return the weights of a gate: the products of the queries' own weights and the trust in the sensors.

    Args:
        gate: logits.
        cells: cells of the queries.
    """
    logs = log_weights(gate)
    lidar, cameras, sensors = logs
    lidar = torch.where(cells.bev_inside, (lidar + sensors[:, None, 0]).exp(), 0.0)
    cameras = torch.where(cells.image_visible, (cameras + sensors[:, None, 1:]).exp(), 0.0)
    best = cameras.amax(-1) if cameras.shape[-1] else torch.zeros_like(lidar)
    return RouterWeights(torch.stack((lidar, best), dim=-1), cameras, gate, logs)


def _start_neutral(modality: nn.Linear, evidence: nn.Linear) -> None:
    """Set the last layers so that all weights are 0.5, at which the signed bias is 0."""
    for last in (modality, evidence):
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            # The LiDAR's logits are summed, less 3; the cameras' weights are multiplied.
            last.bias.copy_(torch.tensor([1.5, -math.log(math.sqrt(2) - 1)]))


def _merge_windows(attended: Tensor, log_sum_exp: Tensor, query: Tensor, count: int) -> Tensor:
    """Merge attention over single windows into attention over all windows of a query.

    Args:
        attended: (P, C) attended value of each window.
        log_sum_exp: (P, heads) of each window's scores.
        query: (P,) the window's query.
        count: number of queries.

    Returns:
        (count, C), zero for queries without a window.
    """
    heads = log_sum_exp.shape[1]
    index = query[:, None].expand(-1, heads)
    largest = log_sum_exp.new_full((count, heads), float("-inf"))
    largest = largest.scatter_reduce(0, index, log_sum_exp.detach(), "amax")
    share = (log_sum_exp - largest[query]).exp()
    total = share.new_zeros(count, heads).index_add(0, query, share)
    share = (share / total[query])[..., None].to(attended.dtype)
    weighted = (attended.unflatten(1, (heads, -1)) * share).flatten(1)
    return attended.new_zeros(count, attended.shape[1]).index_add(0, query, weighted)
