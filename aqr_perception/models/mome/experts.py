# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""MoME's transformer: a router, and three experts that share one decoder (arXiv:2503.19776).

Attribute names follow the published checkpoints' keys.
"""

from enum import IntEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.aqr.published_windows import Windows
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.transformer.decoder import Decoded, Memory, Transformer, TransformerDecoder
from aqr_perception.models.transformer.window_encoder import WindowEncoder


class Expert(IntEnum):
    """The sensors that a query attends to, in the order of the router's logits."""

    FUSED = 0
    LIDAR = 1
    CAMERA = 2


class MixtureOfExperts(Transformer):
    """Router, shared decoder and the embeddings that distinguish the experts."""

    def __init__(self, decoder: TransformerDecoder, channels: int, feedforward: int) -> None:
        super().__init__(decoder)
        self.bev_type_embed = nn.Parameter(torch.randn(channels))
        self.rv_type_embed = nn.Parameter(torch.randn(channels))
        self.encoder = WindowEncoder(channels, feedforward)
        self.selected_cls = nn.Linear(channels, len(Expert))
        self.cam_embed = nn.Sequential(
            *(nn.Conv1d(16, channels, 1), nn.BatchNorm1d(channels)),
            *(nn.Conv1d(channels, channels, 1), nn.BatchNorm1d(channels)),
            *(nn.Conv1d(channels, channels, 1), nn.BatchNorm1d(channels)),
        )

    def probabilities(self, position: Tensor, memory: Memory, windows: Windows) -> Tensor:
        """Return (B, Q, 3) float32, each query's probability of each `Expert`.

        A missing sensor removes its experts; the others share their probability. Without sensors, all are zero.

        Args:
            position: (B, Q, C), the position embedding of the fused expert's queries.
            memory: all tokens.
            windows: windows of the queries.
        """
        lidar, cameras = memory.layout.bev_tokens > 0, memory.layout.views > 0
        logits: Tensor = self.selected_cls(self.encoder(position, memory.keys, memory.values, windows)).float()
        if not (lidar or cameras):
            return torch.zeros_like(logits)
        missing = torch.tensor([not (lidar and cameras), not lidar, not cameras], device=logits.device)
        return logits.masked_fill(missing, float("-inf")).softmax(-1)

    def decode(
        self,
        choice: Tensor,
        positions: tuple[Tensor, Tensor, Tensor],
        memory: Memory,
        lidar_to_image: Tensor,
        mask: Tensor | None = None,
        return_mass: bool = False,
    ) -> Decoded:
        """Return the queries after their experts; queries of different experts do not attend to each other.

        Args:
            choice: (B, Q) int64, each query's `Expert`.
            positions: (B, Q, C) position embeddings of each expert's queries.
            memory: all tokens.
            lidar_to_image: (B, V, 4, 4), model frame -> pixels.
            mask: (Q, Q) bool, true where the row's query must not attend to the column's.
            return_mass: whether to return the attention mass.
        """
        memories = self._memories(memory, lidar_to_image)
        samples = []
        for sample, chosen in enumerate(choice):
            order = chosen.argsort(stable=True)
            parts = []
            for expert, index in enumerate(order.split(chosen.bincount(minlength=len(Expert)).tolist())):
                if len(index) == 0:
                    continue
                keys, values, layout = memories[expert]
                one = slice(sample, sample + 1)
                part = self.decoder(
                    positions[expert][one, index],
                    Memory(keys[one], values[one], layout),
                    mask=None if mask is None else mask[index][:, index],
                    return_mass=return_mass,
                )
                parts.append(_with_all_cameras(part, memory.layout.views))
            original = order.argsort()
            mass = torch.cat([part.mass for part in parts if part.mass is not None], dim=1) if return_mass else None
            queries = torch.cat([part.queries for part in parts], dim=2)[:, :, original]
            samples.append(Decoded(queries, None if mass is None else mass[:, original]))
        masses = [sample.mass for sample in samples if sample.mass is not None]
        return Decoded(torch.cat([sample.queries for sample in samples], dim=1), torch.cat(masses) if masses else None)

    def _memories(self, memory: Memory, lidar_to_image: Tensor) -> tuple[Memory, Memory, Memory]:
        """Return the tokens that each expert's queries attend to."""
        keys, values, layout = memory
        bev = layout.bev_tokens
        views = None
        if layout.views:
            views = values[:, bev:].view(len(values), layout.views, layout.tokens_per_view, -1)
        if views is None:
            camera_values = values[:, bev:]
        else:
            camera_values = (views * self._camera_factors(lidar_to_image)[:, :, None].to(views.dtype)).flatten(1, 2)
        return (
            memory,
            Memory(keys[:, :bev], values[:, :bev], TokenLayout(bev=layout.bev)),
            Memory(keys[:, bev:], camera_values, TokenLayout(views=layout.views, image=layout.image)),
        )

    def _camera_factors(self, lidar_to_image: Tensor) -> Tensor:
        """Return (B, V, C), the camera expert's factor for each camera's values."""
        with torch.autocast(lidar_to_image.device.type, enabled=False):
            # float64, because the entries of the inverted projection span four orders of magnitude.
            inverse = torch.linalg.inv(lidar_to_image.double()).float()
            factors: Tensor = self.cam_embed(inverse.flatten(2).transpose(1, 2))
            return factors.transpose(1, 2)


def expert_weights(probabilities: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Return query weights by modality (B, Q, 2) and by camera (B, Q, V).

    The LiDAR's weight is P(fused) + P(LiDAR). The weight of the cameras, and of each camera that sees the query, is
    P(fused) + P(camera).

    Args:
        probabilities: (B, Q, 3), from `MixtureOfExperts.probabilities`.
        visible: (B, Q, V) bool, which cameras see the query.
    """
    lidar = probabilities[..., Expert.FUSED] + probabilities[..., Expert.LIDAR]
    camera = probabilities[..., Expert.FUSED] + probabilities[..., Expert.CAMERA]
    # Rounding may make the sum of two probabilities slightly more than 1.
    modality = torch.stack((lidar, camera), dim=-1).clamp(max=1.0)
    return modality, torch.where(visible, modality[..., 1:], 0.0)


def _with_all_cameras(decoded: Decoded, views: int) -> Decoded:
    """Return an expert's output with attention mass for all cameras: zeros if the expert sees no camera."""
    if decoded.mass is None:
        return decoded
    return decoded._replace(mass=F.pad(decoded.mass, (0, 1 + views - decoded.mass.shape[-1])))
