# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Position embeddings that take inverted projections as inputs, because few runtimes can invert matrices."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.models.petr.position import FrustumEncoder
from aqr_perception.models.transformer.position_embedding import FrustumEmbedding, image_cell_pixels


class Inverses:
    """Inverted projections of the frame in hand, set before the embeddings are computed.

    Not attributes of modules, because an export forbids their assignment.

    Attributes:
        image_to_lidar: (B, V, 4, 4) float32, inverted in float64.
    """

    def __init__(self) -> None:
        self.image_to_lidar = torch.zeros(0)
        self._of_frames: list[Tensor] = []

    def set(self, of_frames: Sequence[Tensor]) -> None:
        """Set the inverses of several frames, which are embedded one after the other."""
        self._of_frames = list(of_frames)

    def next(self) -> Tensor:
        """Return the inverses of the next frame."""
        return self._of_frames.pop(0)


class StaticFrustumEmbedding(FrustumEmbedding):
    """`FrustumEmbedding` that embeds each query in each camera and masks those that a camera does not see."""

    inverses: Inverses

    def queries(self, points: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return (B, Q, C) embeddings of points; see `FrustumEmbedding.queries`."""
        height, width = image_size
        projected = torch.einsum("bvij,bqj->bvqi", lidar_to_image, F.pad(points, (0, 1), value=1.0))[..., :3]
        depth = projected[..., 2]
        pixels = projected[..., :2] / depth.clamp(min=1e-6)[..., None]
        u, v = pixels.unbind(-1)
        visible = ((depth > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height))[..., None]
        embedded = self._embed(torch.where(visible, pixels, 0.0), lidar_to_image)
        return torch.where(visible, embedded, 0.0).sum(1)

    def _rays(self, lidar_to_image: Tensor) -> tuple[Tensor, Tensor]:
        inverse = self.inverses.image_to_lidar
        return inverse[..., :3, :3] / self._extent[:, None], (inverse[..., :3, 3] - self._lower) / self._extent


class StaticFrustumEncoder(FrustumEncoder):
    """PETR's `FrustumEncoder` with given inverses, in the order of the frames."""

    inverses: Inverses

    def image_grid(self, lidar_to_image: Tensor, rows: int, columns: int, image_size: tuple[int, int]) -> Tensor:
        """Return (B, V, rows * columns, C); see `FrustumEncoder.image_grid`."""
        inverse = self.inverses.next()
        pixels = F.pad(image_cell_pixels(rows, columns, image_size, inverse.device), (0, 1), value=1.0)
        rays = pixels @ inverse[..., :3, :3].transpose(-1, -2)
        return self.embed(rays[..., None, :] * self._depths[:, None] + inverse[..., None, None, :3, 3])
