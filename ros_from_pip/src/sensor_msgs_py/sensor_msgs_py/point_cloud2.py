# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Layout and creation of sensor_msgs/PointCloud2 messages."""

import array
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.recfunctions import unstructured_to_structured
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

_DATATYPES = {
    PointField.INT8: np.dtype(np.int8),
    PointField.UINT8: np.dtype(np.uint8),
    PointField.INT16: np.dtype(np.int16),
    PointField.UINT16: np.dtype(np.uint16),
    PointField.INT32: np.dtype(np.int32),
    PointField.UINT32: np.dtype(np.uint32),
    PointField.FLOAT32: np.dtype(np.float32),
    PointField.FLOAT64: np.dtype(np.float64),
}

DUMMY_FIELD_PREFIX = "unnamed_field"


def dtype_from_fields(fields: Iterable[PointField], point_step: int | None = None) -> np.dtype:
    """Return the structured type of a point, of `point_step` bytes (the smallest that holds the fields if None).

    The elements of a field `x` with a count above 1 are called `x_0`, `x_1`...; fields without a name are called
    `unnamed_field_` and their index.

    Raises:
        AssertionError: a field has count 0, or two have the same name.
        KeyError: a field's datatype is not one of PointField's.
        ValueError: `point_step` is too small.
    """
    names: list[str] = []
    offsets: list[int] = []
    formats: list[str] = []
    for index, field in enumerate(fields):
        datatype = _DATATYPES[field.datatype]
        name = field.name or f"{DUMMY_FIELD_PREFIX}_{index}"
        assert field.count > 0, f"field {name} has count 0"
        for element in range(field.count):
            names.append(f"{name}_{element}" if field.count > 1 else name)
            offsets.append(field.offset + element * datatype.itemsize)
            formats.append(datatype.str)
    assert len(set(names)) == len(names), f"two fields have the same name: {names}"
    layout: dict[str, Any] = {"names": names, "formats": formats, "offsets": offsets}
    if point_step is not None:
        layout["itemsize"] = point_step
    return np.dtype(layout)


def create_cloud(
    header: Header, fields: Sequence[PointField], points: Iterable[Any], point_step: int | None = None
) -> PointCloud2:
    """Return a point cloud of `points`.

    Args:
        header: frame and time.
        fields: layout of a point.
        points: a plain array (N, F) or (width, height, F) if all fields have one type; or a structured array (N,) or
            (width, height) of the type that `fields` describe; or (slowly) any iterable of points, each an iterable.
        point_step: bytes of a point; the smallest that holds the fields if None.

    Raises:
        AssertionError: a plain array for fields of several types; a structured array of another type; or more than two
            dimensions of points.
        ValueError: the points have more or fewer values than there are fields.
    """
    dtype = dtype_from_fields(fields, point_step)
    if not isinstance(points, np.ndarray):
        points = np.array([tuple(point) for point in points], dtype=dtype)
    elif points.dtype.names is None:
        assert len({field.datatype for field in fields}) <= 1, (
            "the fields have several datatypes: pass a structured array"
        )
        points = unstructured_to_structured(points, dtype=dtype)
    else:
        assert points.dtype == dtype, f"the points are {points.dtype}, but the fields describe {dtype}"
    assert points.ndim <= 2, f"points have {points.ndim} dimensions, a cloud has at most 2"
    width = points.shape[0]
    cloud = PointCloud2(
        header=header,
        height=points.shape[1] if points.ndim == 2 else 1,
        width=width,
        is_dense=False,
        is_bigendian=sys.byteorder != "little",
        fields=fields,
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * width,
    )
    # The setter takes an array.array as it is; the constructor would check every byte of it.
    cloud.data = array.array("B", points.tobytes())
    return cloud


def create_cloud_xyz32(header: Header, points: Iterable[Any]) -> PointCloud2:
    """Return a point cloud of float32 fields x, y, z. Arguments and errors: see `create_cloud`."""
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    return create_cloud(header, fields, points)
