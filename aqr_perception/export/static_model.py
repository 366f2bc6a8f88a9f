# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Copy of a model whose parts have static shapes and need neither inverses nor fused operations of PyTorch."""

import copy
from typing import TypeVar

from torch import nn

from aqr_perception.export.static_attention import StaticAttention, StaticWindowEncoder
from aqr_perception.export.static_positions import Inverses, StaticFrustumEmbedding, StaticFrustumEncoder
from aqr_perception.export.static_router import StaticRouter
from aqr_perception.models.aqr.router import Router
from aqr_perception.models.petr.position import FrustumEncoder
from aqr_perception.models.transformer.attention import MultiHeadAttention
from aqr_perception.models.transformer.position_embedding import FrustumEmbedding
from aqr_perception.models.transformer.window_encoder import WindowEncoder

ModelT = TypeVar("ModelT", bound=nn.Module)

_STATIC: dict[type[nn.Module], type[nn.Module]] = {
    MultiHeadAttention: StaticAttention,
    WindowEncoder: StaticWindowEncoder,
    Router: StaticRouter,
    FrustumEmbedding: StaticFrustumEmbedding,
    FrustumEncoder: StaticFrustumEncoder,
}
"""Module -> its subclass with the same parameters and the same results, and with static shapes."""


def static_copy(model: ModelT) -> tuple[ModelT, Inverses]:
    """Return a copy of a model with static parts on the CPU in float32, and the place of the frame's inverses."""
    inverses = Inverses()
    copied = copy.deepcopy(model).cpu().float().eval()
    for module in copied.modules():
        static = _STATIC.get(type(module))
        if static is None:
            continue
        module.__class__ = static  # the subclasses add no parameters
        if isinstance(module, StaticFrustumEmbedding | StaticFrustumEncoder):
            module.inverses = inverses
    return copied, inverses
