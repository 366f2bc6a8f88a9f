# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Query router with static shapes: masks over all tokens of a sensor instead of gathered windows."""

import torch
from torch import Tensor

from aqr_perception.models.aqr.agreement import SensorAgreement
from aqr_perception.models.aqr.gate import Gate
from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.router import HEADS, Router, RouterWeights, gated_weights
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

_NO_WINDOW = -1e9
"""Log-sum-exp of a window that does not exist."""


class StaticRouter(Router):
    """`Router` without tensors whose sizes depend on where the queries are."""

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
        """Return the weights of the queries; see `Router.forward`."""
        projected, key, value = (
            linear(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for linear, tokens in ((self.query, query), (self.key, keys), (self.value, values))
        )
        lidar, *cameras = layout.segments
        places = [(cells.bev, cells.bev_inside, layout.bev, lidar, options.router_bev_window)]
        places += [
            (
                cells.image[:, :, view],
                cells.image_visible[:, :, view],
                layout.image,
                segment,
                options.router_image_window,
            )
            for view, segment in enumerate(cameras)
        ]
        attended, log_sum_exp, exists = [], [], []
        for cell, valid, grid, segment, window in places:
            part, lse = _attend(projected, key[:, :, segment], value[:, :, segment], _near(cell, valid, grid, window))
            attended.append(part)
            log_sum_exp.append(torch.where(valid[:, None], lse, _NO_WINDOW))
            exists.append(valid)
        # The shares of the windows in attention over all windows of a query; zero for queries without a window.
        shares = torch.stack(log_sum_exp, dim=-1).softmax(-1) * torch.stack(exists, dim=-1)[:, None]
        merged = sum(
            (part * shares[..., index, None] for index, part in enumerate(attended)), torch.zeros_like(projected)
        )

        state = self.norms[0](query + self.output(_joined(merged)))
        state = self.norms[1](state + self.feedforward(state))
        found = [_joined(part) for part in attended]
        evidence = [self.evidence(torch.cat((state, part), dim=-1)) for part in found]
        modality = self.modality(state)
        if self.kind == "gate":
            gate = self._static_gate(state, modality, found, evidence, cells, values, layout)
            return gated_weights(self.with_agreement(gate, agreement, cells), cells)
        lidar_weight = torch.where(cells.bev_inside, (modality[..., 0] + evidence[0][..., 0] - 3.0).sigmoid(), 0.0)
        visible = cells.image_visible
        camera_weight = torch.where(visible.any(-1), modality[..., 1].sigmoid(), 0.0)
        modality = torch.stack((lidar_weight, camera_weight), dim=-1)
        if not cameras:
            return RouterWeights(modality, query.new_zeros(*query.shape[:2], 0))
        by_camera = torch.stack([part[..., 1] for part in evidence[1:]], dim=-1).sigmoid()
        return RouterWeights(modality, torch.where(visible, by_camera, 0.0) * modality[..., 1:])

    def _static_gate(
        self,
        state: Tensor,
        modality: Tensor,
        found: list[Tensor],
        evidence: list[Tensor],
        cells: QueryCells,
        values: Tensor,
        layout: TokenLayout,
    ) -> Gate:
        """Return the logits of a gate from what the queries found (B, Q, C) in each sensor."""
        inside, visible, trust = cells.bev_inside, cells.image_visible, self.trust
        lidar = torch.where(inside[..., None], found[0], 0.0)
        by_camera = state.new_zeros(visible.shape)
        mean, pooled = torch.zeros_like(lidar), state.new_zeros(len(state), 0, 2 * state.shape[-1])
        if layout.views:
            by_camera = torch.stack([part[..., 1] for part in evidence[1:]], dim=-1)
            cameras = torch.where(visible[..., None], torch.stack(found[1:], dim=2), 0.0)
            mean = cameras.sum(2) / visible.sum(-1, keepdim=True).clamp(min=1)
            by_view, lidar_by_view = (part[:, :, None].expand_as(cameras) for part in (state, lidar))
            pooled = _pooled(trust.camera_evidence(by_view, lidar_by_view, cameras), visible)
        by_lidar = _pooled(trust.lidar_evidence(state, lidar, mean)[:, :, None], inside[..., None])[:, 0]
        sensors = trust.logits(by_lidar, pooled, values, layout)
        return Gate(modality[..., 0] + evidence[0][..., 0], modality[..., 1:] + by_camera, sensors)


def _pooled(rows: Tensor, counts: Tensor) -> Tensor:
    """Return mean and maximum (B, V, 2 C) of rows (B, Q, V, C), at least 0, over the queries that count (B, Q, V)."""
    counted = rows * counts[..., None]
    number = counts.sum(1)[..., None].clamp(min=1)
    return torch.cat((counted.sum(1) / number, counted.amax(1)), dim=-1)


def _near(cell: Tensor, valid: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Return (B, Q, rows * columns) bool: the cells of the windows around (B, Q, 2) cells."""
    reach = window // 2
    row = (torch.arange(grid[0]) - cell[..., :1]).abs() <= reach
    column = (torch.arange(grid[1]) - cell[..., 1:]).abs() <= reach
    return ((row & valid[..., None])[..., :, None] & column[..., None, :]).flatten(2)


def _attend(query: Tensor, key: Tensor, value: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, heads, Q, d) attended values inside the windows and (B, heads, Q) log-sum-exp of the scores."""
    scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(~near[:, None], torch.finfo(scores.dtype).min)
    if key.shape[2] == 0:  # a sensor that the rig does not have
        return torch.zeros_like(query), query.new_full(query.shape[:3], _NO_WINDOW)
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


def _joined(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)
