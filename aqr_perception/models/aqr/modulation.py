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
