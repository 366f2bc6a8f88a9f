"""Read and write sensor_msgs/PointCloud2 messages with NumPy."""

import array
import sys
from collections import namedtuple
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from numpy.typing import NDArray
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


def read_points(
    cloud: PointCloud2,
    field_names: Iterable[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> NDArray[np.void]:
    """Return the points as a structured array (N,) in native byte order, one field of the array per field read.

    Without a copy where nothing needs converting: the array then shares the message's data.

    Args:
        cloud: the message.
        field_names: the fields to read, in this order; None for all.
        skip_nans: leave out points with a NaN in a field read, unless the message says `is_dense`.
        uvs: read only the points with these indices (into what `skip_nans` left).
        reshape_organized_cloud: return (width, height) instead of (N,) where the height is above 1.

    Raises:
        AssertionError: `cloud` is no PointCloud2, or lacks a field.
    """
    assert isinstance(cloud, PointCloud2), f"cloud is a {type(cloud).__name__}, not a sensor_msgs.msg.PointCloud2"
    points = _raw_points(cloud)
    if field_names is not None:
        names = list(field_names)
        missing = [name for name in names if name not in points.dtype.names]
        assert not missing, f"the cloud has no field {missing}, only {list(points.dtype.names)}"
        points = points[names]
    if bool(cloud.is_bigendian) != (sys.byteorder == "big"):
        points = points.byteswap()
    if skip_nans and not cloud.is_dense:
        has_nan = np.zeros(points.shape, dtype=bool)
        for name in points.dtype.names:
            has_nan |= np.isnan(points[name])
        points = points[~has_nan]
    if uvs is not None:
        points = points[uvs if isinstance(uvs, np.ndarray) else np.fromiter(uvs, dtype=int)]
    if reshape_organized_cloud and cloud.height > 1:
        points = points.reshape(cloud.width, cloud.height)
    return points


def _raw_points(cloud: PointCloud2) -> NDArray[np.void]:
    """Return all fields of all points (N,) in the message's byte order, padding after each row left out."""
    dtype = dtype_from_fields(cloud.fields, point_step=cloud.point_step)
    packed_row = cloud.width * cloud.point_step
    # Drivers that never have padding often leave row_step unset, so it counts only where there is room for it.
    if cloud.row_step > packed_row and len(cloud.data) >= cloud.row_step * (cloud.height - 1) + packed_row:
        rows = np.ndarray(
            shape=(cloud.height, cloud.width),
            dtype=dtype,
            buffer=cloud.data,
            strides=(cloud.row_step, cloud.point_step),
        )
        return rows.reshape(-1)
    return np.ndarray(shape=(cloud.width * cloud.height,), dtype=dtype, buffer=cloud.data)


def read_points_numpy(
    cloud: PointCloud2,
    field_names: Iterable[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> NDArray[Any]:
    """Return the points as a plain array (N, F) for F fields of one type. Arguments: see `read_points`.

    Raises:
        AssertionError: the fields to read are of several types; or as `read_points`.
    """
    names = None if field_names is None else list(field_names)
    types = {field.datatype for field in cloud.fields[1:] if names is None or field.name in names}
    # The first field counts even where it is not read, as in the original.
    assert types <= {cloud.fields[0].datatype} if cloud.fields else True, (
        "the fields have several datatypes: use read_points"
    )
    return structured_to_unstructured(read_points(cloud, names, skip_nans, uvs, reshape_organized_cloud))


def read_points_list(
    cloud: PointCloud2,
    field_names: Iterable[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
) -> list[Any]:
    """Return the points as named tuples `Point`, slowly. Arguments and errors: see `read_points`."""
    assert isinstance(cloud, PointCloud2), f"cloud is a {type(cloud).__name__}, not a sensor_msgs.msg.PointCloud2"
    names = [field.name for field in cloud.fields] if field_names is None else list(field_names)
    point_type = namedtuple("Point", names)
    return [point_type._make(point) for point in read_points(cloud, names, skip_nans, uvs)]


def dtype_from_fields(fields: Iterable[PointField], point_step: int | None = None) -> np.dtype:
    """Return the structured type of a point, of `point_step` bytes (as few as hold the fields where None).

    The elements of a field `x` with a count above 1 are called `x_0`, `x_1`...; fields without a name are called
    `unnamed_field_` and their index.

    Raises:
        AssertionError: a field has count 0, or two have the same name.
        KeyError: a field's datatype is none of PointField's.
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
    """Return a cloud of `points`.

    Args:
        header: frame and time.
        fields: layout of a point.
        points: a plain array (N, F) or (width, height, F) where all fields have one type; or a structured array (N,) or
            (width, height) of the type that `fields` describe; or (slowly) any iterable of points, each an iterable.
        point_step: bytes of a point; as few as hold the fields where None.

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
    """Return a cloud of float32 fields x, y, z. Arguments and errors: see `create_cloud`."""
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    return create_cloud(header, fields, points)
