# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion of weight maps and pictures to images and an occupancy grid."""

import array
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion
from nav_msgs.msg import OccupancyGrid
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf_transformations import quaternion_from_matrix

from aqr_perception.geometry import transform_points
from aqr_perception.stage_clock import measured
from aqr_perception.visualization.colours import MAP_LIMIT

_GRID_MAXIMUM, _GRID_NEUTRAL, _UNKNOWN = 100, 50, -1
_SIGNED_ENDS = (1, 98)
"""RViz's colour scheme `costmap` draws 0 as nothing, and 99 and 100 in colours outside its scale from blue to red."""


@measured("messages")
def raw_image(values: NDArray[np.float32], header: Header) -> Image:
    """Return a (H, W) weight map as a 32FC1 image with the same values."""
    return _image(np.ascontiguousarray(values, dtype="<f4"), "32FC1", header)


@measured("messages")
def colour_image(picture: NDArray[np.uint8], header: Header) -> Image:
    """Return an (H, W, 3) BGR picture as a bgr8 image."""
    return _image(np.ascontiguousarray(picture), "bgr8", header)


@measured("messages")
def occupancy_grid(
    values: NDArray[np.float32],
    bev_range: tuple[float, float, float, float],
    to_output: NDArray[np.float64],
    header: Header,
    signed: bool = False,
) -> OccupancyGrid:
    """Return the BEV weight map as a ground grid for RViz.

    Weights of 0..1.5 become 0..100. Signed weights of -1.5..1.5 become 0..100 with 50 for neutral, limited to 1..98,
    the values that RViz draws from blue (suppressed) to red (trusted). Cells of weight 0 have no evidence and become -1
    (unknown).

    Args:
        values: (H, W) in [0, 1.5], or in [-1.5, 1.5] if `signed`; row = y, column = x of the model frame.
        bev_range: x_min, y_min, x_max, y_max of the map in metres, model frame.
        to_output: (4, 4), model frame -> the header's frame.
        signed: whether values may be negative.
    """
    x_min, y_min, x_max, y_max = bev_range
    message = OccupancyGrid(header=header)
    message.info.map_load_time = header.stamp
    # OccupancyGrid has one resolution for both axes: the shorter edge, if a preset's cells are not square.
    extents = list(zip((y_max - y_min, x_max - x_min), values.shape, strict=True))
    resolution = min(extent / cells for extent, cells in extents)
    values = values[np.ix_(*(_cells_by_step(extent, cells, resolution) for extent, cells in extents))]
    message.info.resolution = resolution
    message.info.height, message.info.width = values.shape
    corner = transform_points(to_output, np.array([[x_min, y_min, 0.0]]))[0]
    x, y, z, w = quaternion_from_matrix(to_output)
    message.info.origin = Pose(
        position=Point(x=corner[0], y=corner[1], z=corner[2]), orientation=Quaternion(x=x, y=y, z=z, w=w)
    )
    if signed:
        levels = np.rint(_GRID_NEUTRAL + values * (_GRID_NEUTRAL / MAP_LIMIT)).clip(*_SIGNED_ENDS)
    else:
        levels = np.rint(values * (_GRID_MAXIMUM / MAP_LIMIT)).clip(0, _GRID_MAXIMUM)
    evidence = np.abs(values) > 0 if signed else values > 0  # false for NaN, too
    message.data = _data("b", np.where(evidence, levels, _UNKNOWN).astype(np.int8))
    return message


def _cells_by_step(extent: float, cells: int, resolution: float) -> NDArray[np.int64]:
    """Return, for each step of a resolution along an extent in metres, which of its cells is at the step's middle."""
    middles = np.arange(round(extent / resolution)) + 0.5
    index: NDArray[np.int64] = (middles * (resolution * cells / extent)).astype(np.int64).clip(max=cells - 1)
    return index


def _image(pixels: NDArray[Any], encoding: str, header: Header) -> Image:
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding=encoding, step=pixels.strides[0])
    message.data = _data("B", pixels)
    return message


def _data(kind: str, values: NDArray[Any]) -> "array.array[int]":
    """Return the bytes of contiguous values; rclpy takes such an array as it is, but checks a list by element."""
    data = array.array(kind)
    data.frombytes(values.reshape(-1).view(np.uint8).data)
    return data
