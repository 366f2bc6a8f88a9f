# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Router of the research code: a LiDAR weight and a camera weight for each query.

Attribute names follow the checkpoints' keys.
"""

import torch
from torch import Tensor, nn

from aqr_perception.models.aqr.published_windows import Windows
from aqr_perception.models.transformer.decoder import Memory
from aqr_perception.models.transformer.window_encoder import WindowEncoder
from aqr_perception.options import Activation

_FEEDFORWARD = 1024
_INITIAL_LOGIT = 1.5


class WeightGenerator(nn.Module):
    """One attention layer over the tokens, then a linear layer with two outputs.

    Its ancestor is MoME's router (arXiv:2503.19776).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The code stores type embeddings, but nothing reads them.
        self.register_buffer("bev_type_embed", torch.zeros(channels))
        self.register_buffer("rv_type_embed", torch.zeros(channels))
        self.encoder = WindowEncoder(channels, _FEEDFORWARD)
        self.weight_predictor = nn.Linear(channels, 2)
        nn.init.normal_(self.weight_predictor.weight, std=0.01)
        nn.init.constant_(self.weight_predictor.bias, _INITIAL_LOGIT)

    def forward(self, position: Tensor, memory: Memory, windows: Windows | None, activation: Activation) -> Tensor:
        """Return (B, Q, 2) float32 weights of LiDAR and cameras, 0 for a missing sensor.

        Args:
            position: (B, Q, C) position embeddings of the queries, which have no content yet.
            memory: all tokens.
            windows: the tokens that each query attends to; None for all.
            activation: ``sigmoid`` for weights in 0..1, ``tanh`` for -1..1.
        """
        logits: Tensor = self.weight_predictor(self.encoder(position, memory.keys, memory.values, windows)).float()
        weights = logits.tanh() if activation == "tanh" else logits.sigmoid()
        return weights * weights.new_tensor((memory.layout.bev_tokens > 0, memory.layout.views > 0))
