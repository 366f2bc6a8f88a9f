# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Gate of adaptive query routing: query weights that multiply the attention, and the trust in each sensor as a whole.

A weight w multiplies a key's share of the attention before normalisation: log w is added to the logit. 1 changes
nothing, 0 removes the key. The weight of a query inside its window in a sensor is the product of its own weight and of
the trust in the sensor; the trust holds for all keys of the sensor and for all queries. A query's own weights act
relative to each other (`relative_to_best`): where nothing is to choose, doubt takes no evidence away.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.tokens import TokenLayout

OPEN = 5.0
"""Logit from which on a weight is exactly 1; an untrained gate starts here."""

FLOOR = 1e-4
"""Least weight that acts, so that gradients stay finite. Only an exact 0, from a logit of -inf, removes keys."""

REMOVED = -1e4
"""Bias of removed keys: finite, because a softmax over infinities only would be NaN."""

_LEAST_SLOPE = 0.1
"""Least slope in the backward pass: the true one is 0.007 where an untrained gate starts, too flat to learn from."""

_OPEN_LOG = -math.log1p(math.exp(-OPEN))
_FLOOR_LOG = math.log(FLOOR)


class Gate(NamedTuple):
    """Gate of one batch, as logits or as log-weights.

    Attributes:
        lidar: (B, Q), of the LiDAR for each query; `OPEN`, or 0 as a log-weight, outside the BEV grid.
        cameras: (B, Q, V), of each camera for each query; likewise for cameras that do not see the query.
        sensors: (B, 1 + V), of the LiDAR and of each camera as a whole.
    """

    lidar: Tensor
    cameras: Tensor
    sensors: Tensor

    def detached(self) -> "Gate":
        """Return the gate without gradient."""
        return Gate(*(tensor.detach() for tensor in self))


def log_weight(logits: Tensor) -> Tensor:
    """Return log(sigmoid(x) / sigmoid(OPEN)) of logits x, limited to log(FLOOR)..0; `REMOVED` for -inf.

    The backward pass uses a slope of at least 0.1. Beyond either limit, only gradients that lead back pass.
    """
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return _log_weight(logits)
    learned: Tensor = _LearnedLogWeight.apply(logits)  # type: ignore[no-untyped-call]
    return learned


def log_weights(gate: Gate) -> Gate:
    """Return the log-weights of a gate's logits; see `log_weight`."""
    return Gate(*map(log_weight, gate))


def relative_to_best(log_weights: Tensor, seen: Tensor) -> Tensor:
    """Return log-weights (..., S) of sensors relative to the largest one of those that see the query, `seen` (..., S).

    `REMOVED` stays; where nothing or only removed sensors see the query, nothing changes.
    """
    best = torch.where(seen, log_weights, -math.inf).amax(-1, keepdim=True)
    best = torch.where(best > REMOVED, best, 0.0)
    return torch.where(log_weights > REMOVED, log_weights - best, REMOVED)


def _log_weight(logits: Tensor) -> Tensor:
    limited = (F.logsigmoid(logits) - _OPEN_LOG).clamp(min=_FLOOR_LOG)
    limited = torch.where(logits >= OPEN, 0.0, limited)
    return torch.where(logits == -math.inf, REMOVED, limited)


class _LearnedLogWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return _log_weight(logits)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (logits,), (gradient,) = ctx.saved_tensors, gradients
        below = F.logsigmoid(logits) - _OPEN_LOG < _FLOOR_LOG
        outwards = ((logits > OPEN) & (gradient < 0)) | (below & (gradient > 0))
        return torch.where(outwards, 0.0, gradient * (-logits).sigmoid().clamp(min=_LEAST_SLOPE))


class CameraPairs(NamedTuple):
    """Queries with the cameras that see them.

    Attributes:
        query: (P,) int64, numbered over the batch.
        view: (P,) int64, the camera.
        found: (P, C), what the query found in the camera.
    """

    query: Tensor
    view: Tensor
    found: Tensor


class SensorTrust(nn.Module):
    """Trust in each sensor as a whole, from the evidence of all queries that it sees and from its tokens.

    Whether two sensors agree shows in no single token. Each query that a sensor sees therefore contributes what it
    found in the LiDAR and in the camera, and the product of both under learned projections: their correlation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        cue = max(channels // 2, 1)
        self.lidar_cue = nn.Linear(channels, cue)
        self.camera_cue = nn.Linear(channels, cue)
        self.of_lidar = nn.Linear(3 * channels + cue, channels)
        self.of_camera = nn.Linear(3 * channels + cue, channels)
        self.lidar_trust = _trust(4 * channels)
        self.camera_trust = _trust(6 * channels)

    def forward(
        self,
        state: Tensor,
        lidar: Tensor,
        inside: Tensor,
        pairs: "CameraPairs",
        values: Tensor,
        layout: TokenLayout,
        denoising: int = 0,
    ) -> Tensor:
        """Return logits (B, 1 + V) of the LiDAR and each camera.

        Args:
            state: (B, Q, C) features of the queries.
            lidar: (B, Q, C), what each query found in the LiDAR; 0 outside the BEV grid.
            inside: (B, Q) bool, whether the query is inside the BEV grid.
            pairs: what the queries found in the cameras.
            values: (B, K, C) tokens.
            layout: layout of the tokens.
            denoising: number of the first queries that do not count.
        """
        batch, count, channels = state.shape
        query, view, found = pairs
        later = query % count >= denoising
        query, view, found = query[later], view[later], found[later]
        sample, state, lidar = query // count, state.flatten(0, 1), lidar.flatten(0, 1)
        seen = torch.bincount(query, minlength=len(state)).clamp(min=1)[:, None].to(found.dtype)
        camera = found.new_zeros(state.shape).index_add(0, query, found) / seen

        inside = inside.clone()
        inside[:, :denoising] = False
        index = inside.flatten().nonzero()[:, 0]
        rows = self.lidar_evidence(state[index], lidar[index], camera[index])
        by_lidar = _pooled(rows, index // count, batch)
        rows = self.camera_evidence(state[query], lidar[query], found)
        by_camera = _pooled(rows, sample * layout.views + view, batch * layout.views)
        return self.logits(by_lidar, by_camera.view(batch, layout.views, 2 * channels), values, layout)

    def lidar_evidence(self, state: Tensor, lidar: Tensor, camera: Tensor) -> Tensor:
        """Return evidence (..., C), at least 0, on the LiDAR from finds in it and the mean of those in the cameras."""
        return self._evidence(self.of_lidar, state, lidar, camera)

    def camera_evidence(self, state: Tensor, lidar: Tensor, camera: Tensor) -> Tensor:
        """Return evidence (..., C), at least 0, on a camera from finds in it and in the LiDAR."""
        return self._evidence(self.of_camera, state, lidar, camera)

    def logits(self, by_lidar: Tensor, by_camera: Tensor, values: Tensor, layout: TokenLayout) -> Tensor:
        """Return logits (B, 1 + V) from mean and maximum of the evidence, (B, 2 C) and (B, V, 2 C), and the tokens."""
        lidar, *cameras = (values[:, segment] for segment in layout.segments)
        logits = [self.lidar_trust(torch.cat((by_lidar, *_moments(lidar)), dim=-1))]
        if cameras:
            mean, spread = (torch.stack(part, dim=1) for part in zip(*map(_moments, cameras), strict=True))
            # A LiDAR that disagrees with every camera is itself at fault, so each camera knows what the LiDAR shows.
            shared = by_lidar[:, None].expand(-1, layout.views, -1)
            logits.append(self.camera_trust(torch.cat((by_camera, mean, spread, shared), dim=-1))[..., 0])
        return torch.cat(logits, dim=-1).float()

    def _evidence(self, layer: nn.Linear, state: Tensor, lidar: Tensor, camera: Tensor) -> Tensor:
        product = self.lidar_cue(lidar) * self.camera_cue(camera)
        evidence: Tensor = layer(torch.cat((state, lidar, camera, product), dim=-1))
        return evidence.relu()


def start_open(*lasts: nn.Linear) -> None:
    """Set the last layers of summed logits so that the sum is `OPEN` for any input."""
    for last in lasts:
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, OPEN / len(lasts))


def _trust(channels: int) -> nn.Sequential:
    hidden, last = nn.Linear(channels, channels // 4), nn.Linear(channels // 4, 1)
    start_open(last)
    return nn.Sequential(hidden, nn.ReLU(), last)


def _pooled(rows: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return mean and maximum (G, 2 C) of the rows (P, C), at least 0, of each group; 0 without rows."""
    zeros = rows.new_zeros(groups, rows.shape[-1])
    number = torch.bincount(group, minlength=groups).clamp(min=1)[:, None].to(rows.dtype)
    most = zeros.scatter_reduce(0, group[:, None].expand_as(rows), rows, "amax")
    return torch.cat((zeros.index_add(0, group, rows) / number, most), dim=-1)


def _moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (B, C) of tokens (B, K, C); 0 without tokens."""
    if not tokens.shape[1]:
        return tokens.sum(1), tokens.sum(1)
    mean = tokens.float().mean(1)
    variance = tokens.float().square().mean(1) - mean.square()
    return mean.to(tokens.dtype), (variance.clamp(min=0) + 1e-6).sqrt().to(tokens.dtype)
