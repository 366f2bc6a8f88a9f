# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion of PointCloud2 messages to arrays.

The header of a point cloud comes from outside. Every size and offset in it is compared with the data's length as a
Python integer, which cannot overflow, before NumPy sees it.
"""

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqr_perception.decoding.message_error import MessageError

if TYPE_CHECKING:
    from sensor_msgs.msg import PointCloud2, PointField

INTENSITY_FIELDS = ("intensity", "i", "reflectivity")

MAX_POINTS = 1 << 22
"""Largest number of points: eight times those of 128 beams with 2,048 columns and two returns. They take 64 MiB."""
MAX_COORDINATE = 10_000.0
"""Largest coordinate in metres; no LiDAR sees as far."""
MAX_INTENSITY = 1e6
"""Largest intensity; the widest range in use is that of 16-bit integers."""

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""NumPy type by number (sensor_msgs/PointField: INT8 to FLOAT64)."""
_SAMPLE_SIDE = 32
"""Rows and columns of points from which the byte order is judged."""
_FEW_VALUES = 8
_PLAUSIBLE_LENGTHS = (1e-4, MAX_COORDINATE)


class _Column(NamedTuple):
    """One number of each point: its name, NumPy type without byte order, and offset in bytes."""

    name: str
    type: str
    offset: int

    @property
    def end(self) -> int:
        return self.offset + int(self.type[1])


def points_from_message(
    message: "PointCloud2", topic: str, doubts: list[MessageError] | None = None
) -> NDArray[np.float32]:
    """Decode a point cloud of any field order, padding, byte order and numeric type.

    The intensity is the first of `INTENSITY_FIELDS` in the point cloud, and 0 if there is none. Points with a
    coordinate that is not finite or beyond `MAX_COORDINATE` are dropped; an intensity that is not finite or beyond
    `MAX_INTENSITY` becomes 0.

    Args:
        doubts: receives what is odd about a point cloud that is usable nevertheless.

    Returns:
        (N, 4) float32: x, y, z in the sensor's frame (metres), intensity; all finite.

    Raises:
        MessageError: x, y or z is missing, a field is outside the point, or the sizes contradict each other.
    """
    doubts = [] if doubts is None else doubts
    columns = _columns(message, topic, doubts)
    strides = _strides(message, topic, doubts)
    shape = (message.height, message.width)
    if 0 in shape:
        return np.empty((0, 4), np.float32)
    order = _byte_order(message, columns[:3], shape, strides, topic, doubts)
    points = np.zeros((shape[0] * shape[1], 4), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # float64 beyond float32's range becomes inf
        for index, column in enumerate(columns):
            points[:, index] = _values(message, column, order, shape, strides).reshape(-1)
        near = np.asarray((np.abs(points[:, :3]) <= MAX_COORDINATE).all(axis=1), np.bool_)  # False for NaN
        odd = np.asarray(~(np.abs(points[:, 3]) <= MAX_INTENSITY), np.bool_)
    _doubt_lost_values(points, near, odd, topic, doubts)
    points[odd, 3] = 0.0
    return points if near.all() else points[near]


def _columns(message: "PointCloud2", topic: str, doubts: list[MessageError]) -> list[_Column]:
    """Return x, y, z, and the intensity if there is a usable one. Other fields may be of any kind."""
    wanted = ("x", "y", "z", *INTENSITY_FIELDS)
    offered: dict[str, PointField] = {}
    for field in message.fields:
        if field.name not in wanted:
            continue
        if field.name in offered:
            raise _broken_layout(message, topic, [field, offered[field.name]], "one field of each name")
        offered[field.name] = field
    missing = [name for name in "xyz" if name not in offered]
    if missing:
        names = ", ".join(field.name for field in message.fields[:20])
        problem = f"point cloud without {', '.join(missing)}"
        raise MessageError(topic, problem, f"fields {names or '(none)'}", "x, y, z", "publish Cartesian points")
    columns = [_column(message, offered[name], topic) for name in "xyz"]
    ordered = sorted(columns, key=lambda column: column.offset)
    if any(one.end > other.offset for one, other in itertools.pairwise(ordered)):
        raise _broken_layout(message, topic, [offered[name] for name in "xyz"], "fields that do not overlap")
    for name in INTENSITY_FIELDS:
        if name in offered:
            return [*columns, *_intensity(message, offered[name], topic, doubts)]
    return columns


def _column(message: "PointCloud2", field: "PointField", topic: str) -> _Column:
    """Return the place of a field with one number inside the point; raise MessageError for any other field."""
    kind = _TYPES.get(field.datatype)
    if kind is None or field.count != 1 or not 0 <= field.offset <= message.point_step - int(kind[1]):
        needed = f"a field of one number inside the point_step of {message.point_step} bytes"
        raise _broken_layout(message, topic, [field], needed)
    return _Column(field.name, kind, field.offset)


def _intensity(message: "PointCloud2", field: "PointField", topic: str, doubts: list[MessageError]) -> list[_Column]:
    """Return the intensity's place; nothing, with a doubt, if each point has several intensities."""
    if field.count <= 1:
        return [_column(message, field, topic)]
    found, remedy = f"field {field.name} with count {field.count}", "publish one intensity for each point"
    doubts.append(MessageError(topic, "unknown intensity", f"{found}, so intensities are 0", "count 1", remedy))
    return []


def _broken_layout(message: "PointCloud2", topic: str, fields: "list[PointField]", needed: str) -> MessageError:
    found = ", ".join(
        f"{field.name} (datatype {field.datatype}, offset {field.offset}, count {field.count})" for field in fields
    )
    return MessageError(topic, "broken point layout", found, needed, "check the driver")


def _strides(message: "PointCloud2", topic: str, doubts: list[MessageError]) -> tuple[int, int]:
    """Return the bytes from row to row and from point to point; every point is then inside the data."""
    rows, columns, step, available = message.height, message.width, message.point_step, len(message.data)
    if rows * columns > MAX_POINTS:
        found = f"{columns} x {rows} points"
        raise MessageError(topic, "too many points", found, f"at most {MAX_POINTS}", "downsample the point cloud")
    packed = columns * step
    row_step = message.row_step if rows > 1 else max(message.row_step, packed)
    if row_step >= packed and available >= (rows - 1) * row_step + packed:
        if rows * columns == 0 and available > 0:
            found = f"{columns} x {rows} points in {available} bytes"
            raise MessageError(topic, "broken point layout", found, "a width and a height", "check the driver")
        return row_step, step
    if available == rows * packed and packed > 0:
        remedy = "set row_step to width * point_step in the driver"
        doubts.append(MessageError(topic, "wrong row_step", message.row_step, f"{packed}, which is used", remedy))
        return packed, step
    found = f"{available} bytes, row_step {message.row_step}"
    needed = f"{rows} rows of {columns} points of {step} bytes"
    raise MessageError(topic, "incomplete point cloud", found, needed, "check the driver")


def _values(
    message: "PointCloud2", column: _Column, order: str, shape: tuple[int, int], strides: tuple[int, int]
) -> NDArray[np.generic]:
    """Return a view (height, width) of one number of each point; `_columns` and `_strides` have checked its place."""
    view: NDArray[np.generic] = np.ndarray(
        shape, np.dtype(order + column.type), buffer=message.data, offset=column.offset, strides=strides
    )
    return view


def _byte_order(
    message: "PointCloud2",
    coordinates: list[_Column],
    shape: tuple[int, int],
    strides: tuple[int, int],
    topic: str,
    doubts: list[MessageError],
) -> str:
    """Return ``<`` or ``>``: the order that `is_bigendian` says, unless only the other one gives coordinates.

    Read in the wrong order, floating-point numbers have random exponents. RViz and PCL ignore the flag, so its error
    stays unnoticed there.
    """
    said, other = (">", "<") if message.is_bigendian else ("<", ">")
    floats = [column for column in coordinates if column.type[0] == "f"]
    if not floats or _plausible_share(message, floats, said, shape, strides) >= 0.5:
        return said
    if _plausible_share(message, floats, other, shape, strides) < 0.95:
        return said
    flag = bool(message.is_bigendian)
    found = f"is_bigendian {str(flag).lower()}, but coordinates in the other byte order, in which they are read"
    doubts.append(MessageError(topic, "wrong is_bigendian", found, str(not flag).lower(), "correct it in the driver"))
    return other


def _plausible_share(
    message: "PointCloud2", floats: list[_Column], order: str, shape: tuple[int, int], strides: tuple[int, int]
) -> float:
    """Return the share of lengths a LiDAR can measure among the numbers that are not 0 or NaN; 1 if there are few."""
    leaps = (
        [max(1, size // _SAMPLE_SIDE) for size in shape] if shape[0] > 1 else [1, max(1, shape[1] // _SAMPLE_SIDE**2)]
    )
    samples = [_values(message, column, order, shape, strides)[:: leaps[0], :: leaps[1]] for column in floats]
    with np.errstate(invalid="ignore"):  # numbers in the wrong order may be signalling NaNs
        magnitudes = np.abs(np.concatenate([sample.astype(np.float64).reshape(-1) for sample in samples]))
    magnitudes = magnitudes[magnitudes > 0]  # without NaN
    if len(magnitudes) < _FEW_VALUES:
        return 1.0
    low, high = _PLAUSIBLE_LENGTHS
    return float(((magnitudes >= low) & (magnitudes <= high)).mean())


def _doubt_lost_values(
    points: NDArray[np.float32],
    near: NDArray[np.bool_],
    odd: NDArray[np.bool_],
    topic: str,
    doubts: list[MessageError],
) -> None:
    """Report numbers that no LiDAR measures. Coordinates of NaN or infinity mean no return and are normal."""
    far = 0 if near.all() else int((~near & np.isfinite(points[:, :3]).all(axis=1)).sum())
    if far:
        found = f"{far} of {len(points)} points beyond {MAX_COORDINATE:g} m, which are dropped"
        doubts.append(MessageError(topic, "absurd coordinates", found, "metres", "check the driver's units"))
    bright = int((odd & near).sum()) if odd.any() else 0
    if bright:
        found = f"{bright} of {len(points)} intensities not finite or beyond {MAX_INTENSITY:g}, taken as 0"
        doubts.append(
            MessageError(topic, "absurd intensities", found, "0..255 after intensity_scale", "check the driver")
        )
