# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Modulation of feature maps by maps of query weights, as in the research code.

`element_wise`, `channel_wise` and `adaptive` take features (..., C, H, W) and weight maps (..., H, W) of the same
leading sizes, and return modulated features in the features' precision. The factors are float32, under autocast too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModulationOptions:
    """Transformation of a weight map before it scales features, and the residual.

    In this order: ``normalize`` stretches each map to 0..1; ``scale`` and ``bias`` (numbers, or tensors of one element
    that learn) transform it; ``tanh`` limits it. ``residual`` is the factor of the features added to the modulated
    ones, None for no residual.
    """

    residual: float | None = 0.7
    normalize: bool = False
    scale: float | Tensor = 1.0
    bias: float | Tensor = 0.0
    tanh: bool = False


def element_wise(features: Tensor, maps: Tensor, options: ModulationOptions) -> Tensor:
    """Return features scaled cell by cell."""
    return _scaled(features, _gains(maps, options), options)


def channel_wise(features: Tensor, maps: Tensor, options: ModulationOptions) -> Tensor:
    """Return features scaled by the mean of their map, the same for all cells and channels."""
    return _scaled(features, _mean(_gains(maps, options)), options)


def adaptive(features: Tensor, maps: Tensor, options: ModulationOptions) -> Tensor:
    """Return features scaled by 0.7 of the map in each cell plus 0.3 of the map's mean."""
    gains = _gains(maps, options)
    return _scaled(features, 0.7 * gains + 0.3 * _mean(gains), options)


def _gains(maps: Tensor, options: ModulationOptions) -> Tensor:
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    if options.normalize:
        maps = _normalized(maps)
    gains = options.scale * maps + options.bias
    return gains.tanh() if options.tanh else gains


def _normalized(maps: Tensor) -> Tensor:
    """Return maps stretched to 0..1, each for itself; a constant map becomes 0.5."""
    if maps.numel() == 0:
        return maps
    least, most = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    varies = most > least
    return torch.where(varies, (maps - least) / torch.where(varies, most - least, 1.0), 0.5)


def _mean(maps: Tensor) -> Tensor:
    return maps.mean((-2, -1), keepdim=True)


def _scaled(features: Tensor, gains: Tensor, options: ModulationOptions) -> Tensor:
    # A sum, not an interpolation: where the map is 0, features shrink to ``residual`` of themselves.
    factors = gains if options.residual is None else gains + options.residual
    return (features * factors[..., None, :, :]).to(features.dtype)
