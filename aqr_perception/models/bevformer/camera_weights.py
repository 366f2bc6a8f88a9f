# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Query weights by camera, from the decoder's attention to BEV cells and the cameras that see these cells."""

import torch
from torch import Tensor

from aqr_perception.models.aqr import rendering
from aqr_perception.models.aqr.projection import project
from aqr_perception.models.bevformer.decoder import SamplingPoints
from aqr_perception.models.bevformer.deformable_attention import attend
from aqr_perception.models.bevformer.spatial import Visibility
from aqr_perception.models.model_io import QueryWeights
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions


def camera_shares(samples: SamplingPoints, visibility: Visibility, grid: tuple[int, int]) -> Tensor:
    """Return (B, Q, V) in 0..1, each query's attention to the cells times the cameras' shares in those cells.

    The spatial cross-attention averages over the cameras that see a cell, so they have equal shares in it. Attention
    outside the grid, or to cells that no camera sees, has no camera; the sum over the cameras is then below 1.
    """
    batch, queries, heads = samples.weights.shape[:3]
    shares = visibility.shares.transpose(1, 2)[:, :, None].expand(-1, -1, heads, -1)
    views = shares.shape[-1]
    if views == 0:
        return samples.weights.new_zeros(batch, queries, 0)
    places, weights = samples.places[:, :, :, None], samples.weights[:, :, :, None]
    attended = attend(shares, [grid], places, weights).view(batch, queries, heads, views)
    return attended.mean(dim=2).clamp(0, 1)


def query_weights(
    cameras: Tensor,
    centres: Tensor,
    bev_range: tuple[float, float, float, float],
    lidar_to_image: Tensor,
    image_size: tuple[int, int],
    cells: tuple[int, int],
    aqr: AqrOptions,
) -> QueryWeights:
    """Return query weights and maps for (B, Q, V) weights by camera; the LiDAR's weights are 0 and its map is empty.

    Args:
        cameras: (B, Q, V) in 0..1.
        centres: (B, Q, 3) centres of the queries' boxes in metres, model frame, where the weights are drawn.
        bev_range: x_min, y_min, x_max, y_max of the BEV features in metres.
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
        cells: rows and columns of the maps.
        aqr: options of the maps.
    """
    layout = TokenLayout((0, 0), cameras.shape[2], cells if cameras.shape[2] else (0, 0))
    places = project(centres, bev_range, lidar_to_image, image_size, layout)
    camera = cameras.sum(-1).clamp(max=1.0)
    lidar = torch.zeros_like(camera)
    return QueryWeights(
        torch.stack((lidar, camera), dim=-1),
        cameras,
        rendering.render_bev(lidar, places, layout, aqr),
        rendering.render_cameras(cameras, places, layout, aqr),
    )
