"""What a picture tells of a place: depths by size and by the ground, and shapes as the camera faces them.

All take ``lidar_to_image``, 4 x 4 projections from the model frame to pixels.
"""

import torch
from torch import Tensor

_PIXELS_PER_METRE = 10.0
_RAY_SLOPE_SCALE = 5.0  # the pictures' lower and upper edges lie near +-0.2
_LEAST_DESCENT = 0.01
RAY_CHANNELS = 2


def sight_rays(lidar_to_image: Tensor, image_size: tuple[int, int], cells: tuple[int, ...]) -> Tensor:
    """Return (B, V, 2, h, w): how the ray through each cell of an image map descends.

    What stands on the ground is as far away as its foot is low in the picture, which convolutions cannot know of a
    camera: first comes the ray's slope, then the depth at which it is a metre lower, as the map would say it.

    Args:
        lidar_to_image: (B, V, 4, 4).
        image_size: height and width of the images in pixels.
        cells: rows and columns of the map.
    """
    rows, columns = cells
    v = (torch.arange(rows, device=lidar_to_image.device) + 0.5) * (image_size[0] / rows)
    u = (torch.arange(columns, device=lidar_to_image.device) + 0.5) * (image_size[1] / columns)
    # Of the direction at depth 1, z alone.
    by_u, by_v, middle = torch.linalg.inv(lidar_to_image[..., :3, :3].double())[..., 2, :, None, None].unbind(-3)
    rise = (by_u * u + by_v * v[:, None] + middle).float()
    scale = depth_scale(lidar_to_image)[..., None, None]
    ground = -rise.neg().clamp(min=_LEAST_DESCENT).log() - scale.log()
    return torch.stack((_RAY_SLOPE_SCALE * rise, ground), dim=2)


def sight_azimuth(lidar_to_image: Tensor, points: Tensor) -> Tensor:
    """Return (...): the direction in radians in which a camera sees points (..., 3), about z of the model frame."""
    projection = lidar_to_image.double()
    origin = projection.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(projection.shape[:-1])[..., None]
    centre = torch.linalg.solve(projection, origin)[..., :3, 0].to(points.dtype)
    x, y, _ = (points - centre).unbind(-1)
    return torch.atan2(y, x)


def seen_from(shape: Tensor, azimuth: Tensor) -> Tensor:
    """Return shapes (..., 7), see `ProposalMaps`, turned by minus an angle (...) about z."""
    sine, cosine = azimuth.sin(), azimuth.cos()
    yaw_sine, yaw_cosine, vx, vy = shape[..., 3:].unbind(-1)
    turned = (
        yaw_sine * cosine - yaw_cosine * sine,
        yaw_cosine * cosine + yaw_sine * sine,
        vx * cosine + vy * sine,
        vy * cosine - vx * sine,
    )
    return torch.cat((shape[..., :3], torch.stack(turned, dim=-1)), dim=-1)


def depth_scale(lidar_to_image: Tensor) -> Tensor:
    """Return (...): the depth in metres of an image map's depth 0, for projections (..., 4, 4).

    It is the depth at which a metre takes `_PIXELS_PER_METRE`: what a picture tells is the size in pixels, from which
    depth follows with the focal length. The map holds the logarithm of depth over this scale.
    """
    return focal_length(lidar_to_image) / _PIXELS_PER_METRE


def focal_length(lidar_to_image: Tensor) -> Tensor:
    """Return (...): the focal length in pixels, horizontally, of projections (..., 4, 4)."""
    first, third = lidar_to_image[..., 0, :3], lidar_to_image[..., 2, :3]
    # The rows are f r1 + c r3 and r3 of a rotation's rows: their cross product is f long.
    return torch.linalg.cross(first, third).norm(dim=-1)
