# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Position embeddings of PETR: points along camera rays, a cell's position in the camera ring, and query anchors."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.ops.derived_tensors import DerivedTensors
from aqr_perception.models.transformer.position_embedding import image_cell_pixels

_TEMPERATURE = 10_000
_EPS = 1e-5
_tables = DerivedTensors()


def sine_features(position: Tensor, features: int, interleaved: bool = True) -> Tensor:
    """Return (..., K * features) sine and cosine features of (..., K) positions in 0..1, in the positions' order.

    As in DETR (https://arxiv.org/abs/2005.12872), wavelengths are powers of the temperature 10,000.

    Args:
        features: number of features of each position.
        interleaved: whether sines and cosines alternate; otherwise all sines of a position precede its cosines.
    """
    index = torch.arange(features, dtype=torch.float32, device=position.device)
    wavelength = _TEMPERATURE ** (2 * torch.div(index, 2, rounding_mode="floor") / features)
    angles = (2 * math.pi) * position.float()[..., None] / wavelength
    waves = (angles[..., 0::2].sin(), angles[..., 1::2].cos())
    return torch.stack(waves, dim=-1 if interleaved else -2).flatten(-3)


def increasing_depths(count: int, furthest: float) -> Tensor:
    """Return (count,) depths in metres from 1 m with linearly growing spacing; the next one would be `furthest`."""
    index = torch.arange(count, dtype=torch.float32)
    return 1 + (furthest - 1) / (count * (count + 1)) * index * (index + 1)


def lift(lidar_to_image: Tensor, rows: int, columns: int, image_size: tuple[int, int], depths: Tensor) -> Tensor:
    """Return (B, V, rows * columns, D, 3): points of the image cells at D depths, in metres, model frame.

    A cell is represented by its first pixel (u, v); its point at depth d projects to (u d, v d, d).

    Args:
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
        depths: (D,) in metres.
    """
    pixels = F.pad(image_cell_pixels(rows, columns, image_size, lidar_to_image.device), (0, 1), value=1.0)
    with torch.autocast(lidar_to_image.device.type, enabled=False):
        # float64, because the entries of the inverted projection span four orders of magnitude.
        inverse = torch.linalg.inv(lidar_to_image.double())
        rays: Tensor = (pixels.double() @ inverse[..., :3, :3].transpose(-1, -2)).float()
    origins: Tensor = inverse[..., None, None, :3, 3].float()
    return rays[..., None, :] * depths[:, None] + origins


def ring_places(lidar_to_image: Tensor, image_size: tuple[int, int], azimuths: Tensor) -> Tensor:
    """Return (B, V) int64: for each camera, the camera of the ring with the nearest heading.

    The published weights number the cameras. A number by heading does not depend on missing cameras.

    Args:
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
        azimuths: (R,) azimuths of the ring's optical axes in radians, model frame.
    """
    height, width = image_size
    middle = torch.tensor((width / 2, height / 2, 1.0), dtype=torch.float64, device=lidar_to_image.device)
    heading = (torch.linalg.inv(lidar_to_image.double())[..., :2, :3] @ middle).float()
    similarity: Tensor = heading @ torch.stack((azimuths.cos(), azimuths.sin()))
    return similarity.argmax(-1)


def _inverse_sigmoid(share: Tensor) -> Tensor:
    """Return log(x / (1 - x)) with both clamped from below; torch.logit rounds 1 - 1e-5, an error of 0.006."""
    share = share.clamp(0, 1)
    return share.clamp(min=_EPS).log_().sub_((1 - share).clamp_(min=_EPS).log_())


def _pointwise(convolution: nn.Module, tokens: Tensor) -> Tensor:
    """Apply a 1x1 convolution to (..., C) tokens."""
    convolution = cast(nn.Conv2d, convolution)
    return F.linear(tokens, convolution.weight.flatten(1), convolution.bias)


class FrustumEncoder(nn.Sequential):
    """Embedding of image cells as points along their rays: 1x1 convolutions over depth-major (depth, xyz) channels."""

    _lower: Tensor
    _extent: Tensor
    _depths: Tensor

    def __init__(self, channels: int, depths: int, position_range: tuple[float, ...]) -> None:
        super().__init__(nn.Conv2d(3 * depths, 4 * channels, 1), nn.ReLU(), nn.Conv2d(4 * channels, channels, 1))
        lower, upper = torch.tensor(position_range[:3]), torch.tensor(position_range[3:])
        self.register_buffer("_lower", lower, persistent=False)
        self.register_buffer("_extent", upper - lower, persistent=False)
        self.register_buffer("_depths", increasing_depths(depths, position_range[3]), persistent=False)

    def image_grid(self, lidar_to_image: Tensor, rows: int, columns: int, image_size: tuple[int, int]) -> Tensor:
        """Return (B, V, rows * columns, C); see `lift`."""
        return self.embed(lift(lidar_to_image, rows, columns, image_size, self._depths))

    def embed(self, points: Tensor) -> Tensor:
        """Return (B, V, N, C) embeddings of the points (B, V, N, D, 3) of N rays, in metres, model frame."""
        with torch.autocast(points.device.type, enabled=False):  # a bf16 coordinate has a resolution of 0.1 m
            coordinates = _inverse_sigmoid((points - self._lower) / self._extent).flatten(-2)
            hidden = _pointwise(self[0], coordinates).relu_()
        return _pointwise(self[2], hidden)


class RingEncoder(nn.Sequential):
    """Embedding of a cell's camera, row and column: sine features of each index, counted from 1, divided by the count.

    Args:
        channels: channels of the embedding.
        places: number of cameras in the ring, times frames.
    """

    def __init__(self, channels: int, places: int) -> None:
        hidden = 4 * channels
        super().__init__(nn.Conv2d(3 * channels // 2, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
        self._features = channels // 2
        self._places = places

    def image_grid(self, places: Tensor, rows: int, columns: int) -> Tensor:
        """Return (B, V, rows * columns, C) for cameras at (B, V) positions in the ring; cached for inference."""

        def compute() -> tuple[Tensor]:
            return (self._embed(rows, columns),)

        if torch.is_grad_enabled():
            _tables.drop(self)
            return compute()[0][places]
        (table,) = _tables.get(self, tuple(self.parameters()), compute, key=(rows, columns))
        return table[places]

    def _embed(self, rows: int, columns: int) -> Tensor:
        """Return (places, rows * columns, C).

        The first layer is linear in the features of camera, row and column, so it is applied to each separately.
        """
        first = cast(nn.Conv2d, self[0])
        device = first.weight.device
        with torch.autocast(device.type, enabled=False):
            camera, row, column = (
                F.linear(self._axis(count, device), weight)
                for count, weight in zip(
                    (self._places, rows, columns), first.weight.flatten(1).chunk(3, dim=1), strict=True
                )
            )
            hidden = camera[:, None, None] + row[:, None] + column + cast(Tensor, first.bias)
            return _pointwise(self[2], hidden.relu_()).flatten(1, 2)

    def _axis(self, count: int, device: torch.device) -> Tensor:
        share = torch.arange(1, count + 1, device=device)[:, None] / (count + 1e-6)
        # Not interleaved, unlike the queries' features, as in the published weights.
        return sine_features(share, self._features, interleaved=False)


class QueryEncoder(nn.Sequential):
    """Embedding of anchors: sine features of y, x and z, in this order, and an MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Linear(3 * channels // 2, channels), nn.ReLU(), nn.Linear(channels, channels))
        self._features = channels // 2

    def embed(self, anchors: Tensor) -> Tensor:
        """Return (..., C) embeddings of (..., 3) anchors (x, y, z) in 0..1 of the point range."""
        embedding: Tensor = self(sine_features(anchors[..., (1, 0, 2)], self._features))
        return embedding


class FeatureGuide(nn.Module):
    """PETRv2's feature-guided position embedding: each cell's image features gate its ray's embedding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, position: Tensor, features: Tensor) -> Tensor:
        """Return the (..., C) position embeddings of cells with (..., C) features."""
        hidden = _pointwise(self.conv_reduce, features).relu()
        return position * _pointwise(self.conv_expand, hidden).sigmoid()
