"""What each camera was worth to each object, read from where the decoder looked and which cameras see that place."""

import torch
from torch import Tensor

from aqr_perception.models.aqr import rendering
from aqr_perception.models.aqr.projection import project
from aqr_perception.models.bevformer.decoder import Glance
from aqr_perception.models.bevformer.deformable_attention import attend
from aqr_perception.models.bevformer.spatial import Sight
from aqr_perception.models.head_output import QueryWeights
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions


def camera_shares(glance: Glance, sight: Sight, grid: tuple[int, int]) -> Tensor:
    """Return (B, Q, V) in 0..1: each query's attention to the cells times the cameras' share in those cells.

    The spatial cross-attention averages the cameras that see a cell, so each of them has the same share in it. What is
    missing from a sum of 1 fell outside the grid or on cells that no camera sees, which only the history can know.
    """
    batch, queries, heads = glance.weights.shape[:3]
    shares = sight.shares.transpose(1, 2)[:, :, None].expand(-1, -1, heads, -1)
    if shares.shape[-1] == 0:
        return glance.weights.new_zeros(batch, queries, 0)
    places, weights = glance.places[:, :, :, None], glance.weights[:, :, :, None]
    return attend(shares, [grid], places, weights).unflatten(-1, (heads, -1)).mean(dim=2).clamp(0, 1)


def query_weights(
    cameras: Tensor,
    centres: Tensor,
    point_range: tuple[float, ...],
    lidar_to_image: Tensor,
    image_size: tuple[int, int],
    cells: tuple[int, int],
    aqr: AqrOptions,
) -> QueryWeights:
    """Return (B, Q, V) weights by camera with the maps rendered from them; the LiDAR's are 0, its map is empty.

    Args:
        centres: (B, Q, 3) of the queries' boxes in metres, model frame: where a weight is drawn.
        point_range: x, y, z minimum and maximum in metres.
        lidar_to_image: (B, V, 4, 4), model frame -> pixels.
        image_size: height and width of the images in pixels.
        cells: rows and columns of the maps.
        aqr: how the maps are drawn.
    """
    layout = TokenLayout((0, 0), cameras.shape[2], cells if cameras.shape[2] else (0, 0))
    places = project(centres, point_range, lidar_to_image, image_size, layout)
    camera = cameras.sum(-1).clamp(max=1.0)
    lidar = torch.zeros_like(camera)
    return QueryWeights(
        torch.stack((lidar, camera), dim=-1),
        cameras,
        rendering.render_bev(lidar, places, layout, aqr),
        rendering.render_cameras(cameras, places, layout, aqr),
    )
