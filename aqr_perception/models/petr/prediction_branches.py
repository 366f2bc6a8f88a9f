# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""PETR's prediction branches: class logits and a box code for every decoder layer and query."""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aqr_perception.models.model_io import BOX_CODE
from aqr_perception.options import BoxConvention

# Prior of 1 % for every class, for the focal loss.
_CLASS_BIAS = -math.log((1 - 0.01) / 0.01)
_REFERENCE_EPS = 1e-5
# Output widths of PETRv2's tasks. Their published names do not match their training targets (CMT's quirk).
_TASK_WIDTHS = (2, 1, 3, 2, 2)


def class_branches(channels: int, classes: int, layers: int, shared: bool) -> nn.ModuleList:
    """Return a classifier for every layer; with `shared`, as in PETR, the layers share one module."""
    last = nn.Linear(channels, classes)
    nn.init.constant_(last.bias, _CLASS_BIAS)
    branch = nn.Sequential(*_normed(channels), *_normed(channels), last)
    return nn.ModuleList(branch if shared else copy.deepcopy(branch) for _ in range(layers))


def class_count(weights: Mapping[str, Tensor], prefix: str) -> int | None:
    """Return the number of classes of weights of `class_branches` under a key prefix; None where they are missing."""
    bias = weights.get(f"{prefix}0.6.bias")
    return None if bias is None else len(bias)


def _normed(channels: int) -> tuple[nn.Module, ...]:
    return nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True)


def box_branches(channels: int, layers: int) -> nn.ModuleList:
    """Return PETR's box regressors: one module, shared by all layers."""
    hidden = (nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU())
    branch = nn.Sequential(*hidden, nn.Linear(channels, BOX_CODE))
    return nn.ModuleList(branch for _ in range(layers))


class BoxTasks(nn.Module):
    """PETRv2's box regressor: a shared trunk, then two layers for each group of outputs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reg_branch = nn.Sequential(
            # The published keys count dropout layers, which had a rate of 0.
            *(nn.Linear(channels, channels), nn.ReLU(), nn.Identity()),
            *(nn.Linear(channels, channels), nn.ReLU(), nn.Identity()),
        )
        self.task_heads = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, width))
            for width in _TASK_WIDTHS
        )

    def forward(self, queries: Tensor) -> Tensor:
        """Return (..., 10) raw codes of (..., C) queries."""
        trunk = self.reg_branch(queries)
        return torch.cat([head(trunk) for head in self.task_heads], dim=-1)


def to_box_codes(
    raw: Tensor,
    anchors: Tensor,
    point_range: tuple[float, ...],
    seconds: float | None,
    convention: BoxConvention = "mmdet3d_0",
) -> Tensor:
    """Return (..., 10) box codes cx, cy, log dx, log dy, cz, log dz, sin yaw, cos yaw, vx, vy in metres, model frame.

    Args:
        raw: (..., 10), output of a box branch.
        anchors: (..., 3), the queries' reference points in 0..1 of the point range.
        point_range: x, y, z minimum and maximum in metres.
        seconds: duration of the motion that the branch predicts; None if it predicts a velocity.
        convention: of `raw`.
    """
    lower, upper = raw.new_tensor(point_range[:3]), raw.new_tensor(point_range[3:])
    centre = (raw[..., (0, 1, 4)] + torch.logit(anchors, eps=_REFERENCE_EPS)).sigmoid() * (upper - lower) + lower
    x, y, z = centre.unbind(-1)
    log_first, log_second, log_height, sine, cosine = raw[..., (2, 3, 5, 6, 7)].unbind(-1)
    vx, vy = (raw[..., 8:] if seconds is None else raw[..., 8:] / seconds).unbind(-1)
    if convention == "mmdet3d_1":
        return torch.stack((x, y, log_first, log_second, z, log_height, sine, cosine, vx, vy), dim=-1)
    # The published weights follow the old mmdet3d convention (w, l, h; yaw' = -yaw - pi/2); ours is (l, w, h; yaw).
    return torch.stack((x, y, log_second, log_first, z, log_height, -cosine, -sine, vx, vy), dim=-1)
