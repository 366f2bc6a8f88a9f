# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Geometry of proposals in images: depth from size and from the ground, and shapes relative to the viewing direction.

All functions take ``lidar_to_image``, 4 x 4 projections from the model frame to pixels.
"""

import torch
from torch import Tensor

_PIXELS_PER_METRE = 10.0
_RAY_SLOPE_SCALE = 5.0  # slopes at the upper and lower image border are about +-0.2
_LEAST_DESCENT = 0.01
RAY_CHANNELS = 2


def ray_features(lidar_to_image: Tensor, image_size: tuple[int, int], cells: tuple[int, ...]) -> Tensor:
    """Return (B, V, 2, h, w): the slope of the ray through each cell, and the depth at which it is 1 m lower.

    The depth of an object on the ground follows from the image row of its foot and the camera's height and pitch, which
    convolutions cannot know. The depth is in the units of the image map; see `depth_scale`.

    Args:
        lidar_to_image: (B, V, 4, 4).
        image_size: height and width of the images in pixels.
        cells: rows and columns of the map.
    """
    rows, columns = cells
    v = (torch.arange(rows, device=lidar_to_image.device) + 0.5) * (image_size[0] / rows)
    u = (torch.arange(columns, device=lidar_to_image.device) + 0.5) * (image_size[1] / columns)
    # The z component of the ray's direction at depth 1.
    by_u, by_v, middle = torch.linalg.inv(lidar_to_image[..., :3, :3].double())[..., 2, :, None, None].unbind(-3)
    rise = (by_u * u + by_v * v[:, None] + middle).float()
    scale = depth_scale(lidar_to_image)[..., None, None]
    ground = -rise.neg().clamp(min=_LEAST_DESCENT).log() - scale.log()
    return torch.stack((_RAY_SLOPE_SCALE * rise, ground), dim=2)


def viewing_azimuth(lidar_to_image: Tensor, points: Tensor) -> Tensor:
    """Return (...), the azimuth in radians from a camera to points (..., 3), about z of the model frame."""
    projection = lidar_to_image.double()
    origin = projection.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(projection.shape[:-1])[..., None]
    centre = torch.linalg.solve(projection, origin)[..., :3, 0].to(points.dtype)
    x, y, _ = (points - centre).unbind(-1)
    return torch.atan2(y, x)


def rotate_shape(shape: Tensor, azimuth: Tensor) -> Tensor:
    """Return shapes (..., 7), see `ProposalMaps`, rotated by minus an angle (...) about z."""
    sine, cosine = azimuth.sin(), azimuth.cos()
    yaw_sine, yaw_cosine, vx, vy = shape[..., 3:].unbind(-1)
    rotated = (
        yaw_sine * cosine - yaw_cosine * sine,
        yaw_cosine * cosine + yaw_sine * sine,
        vx * cosine + vy * sine,
        vy * cosine - vx * sine,
    )
    return torch.cat((shape[..., :3], torch.stack(rotated, dim=-1)), dim=-1)


def depth_scale(lidar_to_image: Tensor) -> Tensor:
    """Return (...), the depth in metres that an image map stores as 0, for projections (..., 4, 4).

    At this depth, one metre spans `_PIXELS_PER_METRE`: depth follows from an object's size in pixels and the focal
    length. The map stores the logarithm of depth over this scale.
    """
    return focal_length(lidar_to_image) / _PIXELS_PER_METRE


def focal_length(lidar_to_image: Tensor) -> Tensor:
    """Return (...), the horizontal focal length in pixels of projections (..., 4, 4)."""
    first, third = lidar_to_image[..., 0, :3], lidar_to_image[..., 2, :3]
    # The rows are f r1 + c r3 and r3 with a rotation's rows r1 and r3, so their cross product has length f.
    length: Tensor = torch.linalg.cross(first, third).norm(dim=-1)
    return length
