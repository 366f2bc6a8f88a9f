# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Position embeddings of BEV cells, image cells and reference points (CMT, arXiv:2301.01283, section 3.2)."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from aqr_perception.models.ops.derived_tensors import DerivedTensors

_grids = DerivedTensors()


def sine_features(position: Tensor, features: int) -> Tensor:
    """Return (..., 2 * features) sine and cosine features of (..., >=2) positions (x, y) in 0..1, y first.

    The divisor grows linearly, ``2 * (i // 2) / features + 1``, as in the published models; DETR's is exponential.
    """
    index = torch.arange(features, dtype=torch.float32, device=position.device)
    divisor = 2 * torch.div(index, 2, rounding_mode="floor") / features + 1
    angles = (2 * math.pi) * position[..., :2, None].float() / divisor
    waves = torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)
    return torch.cat((waves[..., 1, :], waves[..., 0, :]), dim=-1)


def bev_cell_centres(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """Return (rows * columns, 2) cell centres (x, y) in 0..1, with x fastest."""
    y, x = torch.meshgrid(
        (torch.arange(rows, device=device) + 0.5) / rows,
        (torch.arange(columns, device=device) + 0.5) / columns,
        indexing="ij",
    )
    return torch.stack((x, y), dim=-1).flatten(0, 1)


def image_cell_pixels(rows: int, columns: int, image_size: tuple[int, int], device: torch.device) -> Tensor:
    """Return (rows * columns, 2) first pixel (u, v) of each image cell, with u fastest.

    Args:
        image_size: height and width of the image in pixels.
    """
    height, width = image_size
    v, u = torch.meshgrid(
        torch.arange(rows, device=device) * (height / rows),
        torch.arange(columns, device=device) * (width / columns),
        indexing="ij",
    )
    return torch.stack((u, v), dim=-1).flatten(0, 1)


def _linear(layers: nn.Sequential, index: int) -> nn.Linear:
    return cast(nn.Linear, layers[index])


class BevEmbedding(nn.Sequential):
    """Embedding of positions on the ground plane: sine features and two linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Linear(2 * channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels))
        self._channels = channels

    def forward(self, position: Tensor) -> Tensor:
        """Return (..., C) embeddings of (..., >=2) positions (x, y) in 0..1."""
        embedding = sine_features(position, self._channels).to(_linear(self, 0).weight.dtype)
        for layer in self:
            embedding = layer(embedding)
        return embedding

    def grid(self, rows: int, columns: int) -> Tensor:
        """Return (rows * columns, C) embeddings of all cells of a BEV grid, cached during inference."""
        # Quirk of the published weights: the grid counts as the whole point range, even if its voxels cover less of it.
        device = _linear(self, 0).weight.device

        def compute() -> tuple[Tensor]:
            return (self(bev_cell_centres(rows, columns, device)),)

        if torch.is_grad_enabled():
            _grids.drop(self)
            return compute()[0]
        precision = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        (embeddings,) = _grids.get(self, tuple(self.parameters()), compute, key=(rows, columns, precision))
        return embeddings


class FrustumEmbedding(nn.Sequential):
    """Embedding of camera rays: 3D points at fixed depths (PETR, arXiv:2203.05625, equation 1) and an MLP.

    A pixel (u, v) at depths d_k gives the points ``d_k * r + o`` with the ray ``r = M (u, v, 1)`` and the camera's
    centre ``o``. The 3 K inputs of the first layer are therefore affine in the three numbers of ``r``, and the layer
    reduces to one 3-column matrix and an offset per camera: the same function at a fraction of the cost.
    """

    _lower: Tensor
    _extent: Tensor
    _depths: Tensor

    def __init__(self, channels: int, depths: int, point_range: tuple[float, ...]) -> None:
        super().__init__(nn.Linear(3 * depths, 4 * channels), nn.ReLU(inplace=True), nn.Linear(4 * channels, channels))
        lower, upper = torch.tensor(point_range[:3]), torch.tensor(point_range[3:])
        self.register_buffer("_lower", lower, persistent=False)
        self.register_buffer("_extent", upper - lower, persistent=False)
        depth = 1 + torch.arange(depths, dtype=torch.float32) * (point_range[3] - 1) / depths
        self.register_buffer("_depths", depth, persistent=False)

    def image_grid(self, lidar_to_image: Tensor, rows: int, columns: int, image_size: tuple[int, int]) -> Tensor:
        """Return (B, V, rows * columns, C) embeddings of all image cells. A cell is represented by its first pixel.

        Args:
            lidar_to_image: (B, V, 4, 4), model frame -> pixels.
            image_size: height and width of the images in pixels.
        """
        pixels = image_cell_pixels(rows, columns, image_size, lidar_to_image.device)
        return self._embed(pixels.expand(*lidar_to_image.shape[:2], -1, 2), lidar_to_image)

    def queries(self, points: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Return (B, Q, C) embeddings of points: the sum of their pixels' embeddings over the cameras that see them.

        Args:
            points: (B, Q, 3) in metres, model frame.
            lidar_to_image: (B, V, 4, 4).
            image_size: height and width of the images in pixels.
        """
        height, width = image_size
        homogeneous = nn.functional.pad(points.float(), (0, 1), value=1.0)
        with torch.autocast(points.device.type, enabled=False):
            projected = torch.einsum("bvij,bqj->bvqi", lidar_to_image.float(), homogeneous)[..., :3]
        depth = projected[..., 2]
        pixels = projected[..., :2] / depth.clamp(min=1e-6)[..., None]
        u, v = pixels.unbind(-1)
        visible = (depth > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        # Only one or two of six cameras see a point, so embed only these pairs.
        batch, view, query = visible.nonzero(as_tuple=True)
        embedded = self._embed_rays(*self._rays(lidar_to_image), pixels[batch, view, query], batch, view)
        total = embedded.new_zeros(points.shape[0] * points.shape[1], embedded.shape[-1])
        total = total.index_add(0, batch * points.shape[1] + query, embedded)
        return total.view(*points.shape[:2], -1)

    def _rays(self, lidar_to_image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, V, 3, 3) pixel -> ray and (B, V, 3) camera centre, both in normalised coordinates."""
        # float64, because the entries of the inverted projection span four orders of magnitude.
        inverse = torch.linalg.inv(lidar_to_image.double())
        matrix = (inverse[..., :3, :3] / self._extent[:, None].double()).float()
        centre = ((inverse[..., :3, 3] - self._lower.double()) / self._extent.double()).float()
        return matrix, centre

    def _first_layer(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first layer as (4C, 3) factors of the ray and of the camera's centre, and (4C,) bias."""
        first = _linear(self, 0)
        by_depth = first.weight.float().unflatten(1, (-1, 3))
        return torch.einsum("okc,k->oc", by_depth, self._depths), by_depth.sum(1), first.bias.float()

    def _last_layer(self, hidden: Tensor) -> Tensor:
        last = _linear(self, 2)
        embedding: Tensor = last(hidden.relu_().to(last.weight.dtype))
        return embedding

    def _embed(self, pixels: Tensor, lidar_to_image: Tensor) -> Tensor:
        """Return (B, V, N, C) embeddings of (B, V, N, 2) pixels."""
        with torch.autocast(pixels.device.type, enabled=False):  # bf16 cannot represent pixel coordinates up to 1600
            matrix, centre = self._rays(lidar_to_image)
            along_ray, at_centre, bias = self._first_layer()
            to_hidden = along_ray @ matrix  # (B, V, 4C, 3)
            offset = centre @ at_centre.T + bias
            hidden = pixels.float() @ to_hidden[..., :2].transpose(-1, -2)
            hidden += (to_hidden[..., 2] + offset)[..., None, :]
        return self._last_layer(hidden)

    def _embed_rays(self, matrix: Tensor, centre: Tensor, pixels: Tensor, batch: Tensor, view: Tensor) -> Tensor:
        """Return (N, C) embeddings of (N, 2) pixels of the cameras (batch, view)."""
        with torch.autocast(pixels.device.type, enabled=False):
            along_ray, at_centre, bias = self._first_layer()
            rays = (matrix[batch, view] @ nn.functional.pad(pixels, (0, 1), value=1.0)[..., None]).squeeze(-1)
            hidden = rays @ along_ray.T + centre[batch, view] @ at_centre.T + bias
        return self._last_layer(hidden)
