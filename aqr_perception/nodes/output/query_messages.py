# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion of the detections' queries to a point cloud."""

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from aqr_perception.frame import Frame, Result
from aqr_perception.geometry import project, transform_points
from aqr_perception.stage_clock import measured


@measured("messages")
def query_cloud(frame: Frame, result: Result, header: Header) -> PointCloud2:
    """Return the query of each detection as a point in the model frame, in the order of the detections.

    Fields, all float32: ``x``, ``y``, ``z`` of the centre of the query's window; ``attention_lidar`` and, for each
    camera used, ``attention_<camera>``, the shares of its attention (NaN if the result has none); ``u_<camera>`` and
    ``v_<camera>``, the centre in pixels of the camera's image (NaN if the image does not show it).
    """
    columns = query_columns(frame, result)
    table = np.ascontiguousarray(np.stack(list(columns.values()), axis=1), dtype="<f4")
    message = PointCloud2(header=header, height=1, width=len(table), is_dense=False)
    message.fields = [
        PointField(name=name, offset=4 * place, datatype=PointField.FLOAT32, count=1)
        for place, name in enumerate(columns)
    ]
    message.point_step = 4 * len(columns)
    message.row_step = message.point_step * len(table)
    message.data = table.tobytes()
    return message


def query_columns(frame: Frame, result: Result) -> dict[str, NDArray[np.float32]]:
    """Return the fields of `query_cloud`, each (N,); without queries, N is 0."""
    queries = result.queries
    points = np.zeros((0, 3), np.float32) if queries is None else queries.points
    columns = {name: points[:, axis] for axis, name in enumerate("xyz")}
    shares = None if queries is None else queries.attention
    if shares is None:
        shares = np.full((len(points), 1 + len(frame.cameras)), np.nan, np.float32)
    columns["attention_lidar"] = shares[:, 0]
    # A model without cameras has no shares of the frame's cameras.
    for place, view in enumerate(frame.cameras[: shares.shape[1] - 1]):
        pixels, depths = project(view.intrinsics, transform_points(view.extrinsics, points.astype(np.float64)))
        height, width = view.image.shape[:2]
        with np.errstate(invalid="ignore"):
            seen = ((pixels >= 0) & (pixels < (width, height))).all(axis=1) & (depths > 0)
        shown = np.where(seen[:, None], pixels, np.nan).astype(np.float32)
        columns[f"attention_{view.name}"] = shares[:, 1 + place]
        columns[f"u_{view.name}"], columns[f"v_{view.name}"] = shown[:, 0], shown[:, 1]
    return columns
