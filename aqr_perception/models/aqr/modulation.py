"""Query weights scale the features they lie on."""

import torch
from torch import Tensor


def modulate(features: Tensor, maps: Tensor, strength: float) -> Tensor:
    """Return features times ``1 + strength * (map - 1)`` where a map exists (is above 0), untouched elsewhere.

    Args:
        features: (B, K, C) tokens.
        maps: (B, K) in [0, 1.5], the weight maps of all segments, flattened in the tokens' order.
        strength: 0 returns the features themselves.
    """
    if strength == 0:
        return features
    factor = torch.where(maps > 0, 1 + strength * (maps - 1), 1.0)
    return features * factor[..., None].to(features.dtype)
