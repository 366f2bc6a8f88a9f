# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""CMT's prediction heads: class logits and a box code for each decoder layer and query (arXiv:2301.01283)."""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_OUTPUTS = {"center": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
_HIDDEN = 64
# Prior of 10 % for each class at the start of training with a focal loss: -log((1 - 0.1) / 0.1).
_CLASS_BIAS = -2.19
_NORM_EPS = 1e-6
_REFERENCE_EPS = 1e-5


class _GroupLayerNorm(nn.Module):
    """Scale and shift of one layer norm per decoder layer, stored as one tensor each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class _PredictionHead(nn.Sequential):
    """Convolution over queries, layer norm, ReLU and convolution, with separate weights for each decoder layer.

    As in the published weights, one grouped convolution holds all layers: layer l owns the l-th slice of the channels.
    """

    def __init__(self, in_channels: int, out_channels: int, layers: int, kernel_size: int) -> None:
        hidden, padding = _HIDDEN * layers, kernel_size // 2
        super().__init__(
            nn.Conv1d(in_channels * layers, hidden, kernel_size, padding=padding, groups=layers, bias=False),
            _GroupLayerNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Conv1d(hidden, out_channels * layers, kernel_size, padding=padding, groups=layers),
        )

    def layer(self, queries: Tensor, index: int) -> Tensor:
        """Return the outputs (B, Q, out) for the queries (B, Q, C) of one decoder layer."""
        first, norm, _, last = cast(tuple[nn.Conv1d, _GroupLayerNorm, nn.ReLU, nn.Conv1d], tuple(self))
        layers = first.groups
        hidden = _over_queries(queries, first.weight.chunk(layers)[index])
        scale, shift = norm.weight.chunk(layers)[index], norm.bias.chunk(layers)[index]
        hidden = F.relu(F.layer_norm(hidden, (_HIDDEN,), scale, shift, _NORM_EPS))
        return _over_queries(hidden, last.weight.chunk(layers)[index], cast(Tensor, last.bias).chunk(layers)[index])


def _over_queries(queries: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve queries (B, Q, C) along Q with a kernel (out, C, k); return (B, Q, out)."""
    kernel_size = weight.shape[2]
    if kernel_size > 1:
        padded = F.pad(queries, (0, 0, kernel_size // 2, kernel_size // 2))
        queries = padded.unfold(1, kernel_size, 1).flatten(2)
    return F.linear(queries, weight.flatten(1), bias)


def class_count(weights: Mapping[str, Tensor], prefix: str) -> int | None:
    """Return the number of classes of weights of `TaskHeads` under a key prefix; None where they are missing."""
    logits, heights = (weights.get(f"{prefix}0.{name}.3.bias") for name in ("cls_logits", "height"))
    # Both outputs are stored for all layers together; a height is one number.
    return None if logits is None or heights is None or not len(heights) else len(logits) // len(heights)


class TaskHeads(nn.ModuleList):
    """Class logits and boxes of all classes.

    State dict keys start with ``0.``, the index of the only task of the published models.

    Args:
        channels: channels of the decoder's queries.
        classes: number of classes.
        layers: number of decoder layers.
        point_range: x, y, z minimum and maximum in metres, the range of reference points in 0..1.
        kernel_size: kernel size over neighbouring queries: 1, or 3 in the LiDAR-only model.
    """

    _lower: Tensor
    _extent: Tensor

    def __init__(
        self,
        channels: int = 256,
        classes: int = 10,
        layers: int = 6,
        point_range: tuple[float, float, float, float, float, float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0),
        kernel_size: int = 1,
    ) -> None:
        outputs = {**_OUTPUTS, "cls_logits": classes}
        heads = {name: _PredictionHead(channels, size, layers, kernel_size) for name, size in outputs.items()}
        nn.init.constant_(cast(Tensor, heads["cls_logits"][3].bias), _CLASS_BIAS)
        super().__init__([nn.ModuleDict(heads)])
        lower, upper = torch.tensor(point_range[:3]), torch.tensor(point_range[3:])
        self.register_buffer("_lower", lower, persistent=False)
        self.register_buffer("_extent", upper - lower, persistent=False)

    def box_heads(self) -> list[nn.Module]:
        """Return the heads of the box codes."""
        heads = cast(nn.ModuleDict, self[0])
        return [heads[name] for name in _OUTPUTS]

    def class_heads(self) -> list[nn.Module]:
        """Return the head of the class logits."""
        return [cast(nn.ModuleDict, self[0])["cls_logits"]]

    def forward(
        self, decoder_outputs: Tensor, reference_points: Tensor, layers: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Return class logits and boxes, always computed in fp32: at 54 m, bf16 coordinates are 25 cm apart.

        Args:
            decoder_outputs: (L, B, Q, C), outputs of all decoder layers.
            reference_points: (B, Q, 3) in 0..1 of the point range.
            layers: decoder layers to predict for; the results of the layers are independent.

        Returns:
            class_logits (l, B, Q, classes), and boxes (l, B, Q, 10) as cx, cy, log dx, log dy, cz, log dz, sin yaw,
            cos yaw, vx, vy in metres and m/s.
        """
        chosen = range(len(decoder_outputs))[layers]
        with torch.autocast(decoder_outputs.device.type, enabled=False):
            reference = torch.logit(reference_points.float(), eps=_REFERENCE_EPS)
            predictions = [self._predict(decoder_outputs[index].float(), index, reference) for index in chosen]
        logits, boxes = zip(*predictions, strict=True)
        return torch.stack(logits), torch.stack(boxes)

    def _predict(self, queries: Tensor, index: int, reference: Tensor) -> tuple[Tensor, Tensor]:
        heads = cast(nn.ModuleDict, self[0])
        output = {name: cast(_PredictionHead, head).layer(queries, index) for name, head in heads.items()}
        # Quirk of the published models: training matched the outputs center, height and dim, in this order, to cx, cy,
        # log dx, log dy, cz, log dz. So "height", although bounded like a z coordinate, is the log of a length.
        bounded = torch.cat((output["center"], output["height"]), dim=-1)
        bounded = (bounded + reference).sigmoid() * self._extent + self._lower
        return output["cls_logits"], torch.cat((bounded, output["dim"], output["rot"], output["vel"]), dim=-1)
