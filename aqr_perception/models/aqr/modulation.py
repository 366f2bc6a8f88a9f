# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Modulation of features by query weights."""

import torch
from torch import Tensor


def modulate(features: Tensor, maps: Tensor, strength: float) -> Tensor:
    """Return features times ``1 + strength * (map - 1)`` where the map is positive, and unchanged features elsewhere.

    Args:
        features: (B, K, C) tokens.
        maps: (B, K) in [0, 1.5], weight maps of all segments, flattened in token order.
        strength: 0 returns the features unchanged.
    """
    if strength == 0:
        return features
    factor = torch.where(maps > 0, 1 + strength * (maps - 1), 1.0)
    return features * factor[..., None].to(features.dtype)


def modulate_residually(features: Tensor, maps: Tensor, residual: float, strength: float) -> Tensor:
    """Return features times ``map + residual`` everywhere, as in the research code, blended with unchanged features.

    Args:
        features: (B, K, C) tokens.
        maps: (B, K) of `rendering.render_densities`, at least 0.
        residual: share of the features that is kept where the map is 0.
        strength: share of the scaled features; 0 returns the features unchanged.
    """
    if strength == 0:
        return features
    factor = 1 + strength * (maps + residual - 1)
    return features * factor[..., None].to(features.dtype)
