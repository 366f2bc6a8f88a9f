# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Point clouds of any layout become arrays; errors name what cannot be used."""

import math
from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import PointCloud2, PointField

from aqr_perception.decoding.clouds import MAX_COORDINATE, MAX_INTENSITY, MAX_POINTS, points_from_message
from aqr_perception.decoding.message_error import MessageError

NUMPY_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
SIGNED = (1, 3, 5, 7, 8)


def cloud(
    values: dict[str, np.ndarray],
    datatypes: dict[str, int] | None = None,
    gaps: tuple[int, ...] = (),
    rows: int = 1,
    row_padding: int = 0,
    big_endian: bool = False,
) -> PointCloud2:
    """Return a point cloud as a driver may send it: fields in this order with gaps between them, in padded rows."""
    count = len(next(iter(values.values())))
    order = ">" if big_endian else "<"
    fields, formats, offset = [], [], 0
    for index, name in enumerate(values):
        datatype = (datatypes or {}).get(name, PointField.FLOAT32)
        offset += gaps[index] if index < len(gaps) else 0
        fields.append(PointField(name=name, offset=offset, datatype=datatype, count=1))
        formats.append(order + NUMPY_TYPES[datatype])
        offset += np.dtype(NUMPY_TYPES[datatype]).itemsize
    point_step = offset + (gaps[-1] if gaps else 0)
    layout = {"names": list(values), "formats": formats, "offsets": [f.offset for f in fields], "itemsize": point_step}
    records = np.zeros(count, np.dtype(layout))
    for name, column in values.items():
        records[name] = column
    lines = records.view(np.uint8).reshape(rows, -1)
    lines = np.pad(lines, ((0, 0), (0, row_padding)), constant_values=0xAB)
    return PointCloud2(
        height=rows,
        width=count // rows,
        fields=fields,
        is_bigendian=big_endian,
        point_step=point_step,
        row_step=lines.shape[1],
        data=array("B", lines.tobytes()),
    )


@st.composite
def laid_out_clouds(draw: st.DrawFn) -> tuple[PointCloud2, np.ndarray]:
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    count = rows * columns
    names = draw(st.permutations(["x", "y", "z", draw(st.sampled_from(["intensity", "i", "reflectivity"])), "ring"]))
    column = st.lists(st.integers(-100, 100), min_size=count, max_size=count)
    values = {name: np.array(draw(column)) for name in names}
    datatypes = {name: draw(st.sampled_from(SIGNED)) for name in names}
    gaps = tuple(draw(st.lists(st.integers(0, 5), min_size=6, max_size=6)))
    message = cloud(values, datatypes, gaps, rows, draw(st.integers(0, 7)), draw(st.booleans()))
    intensity = next(name for name in names if name not in ("x", "y", "z", "ring"))
    return message, np.stack([values["x"], values["y"], values["z"], values[intensity]], axis=1)


@given(laid_out_clouds())
@settings(max_examples=80, deadline=None)
def test_points_survive_any_field_order_padding_type_and_byte_order(case: tuple[PointCloud2, np.ndarray]) -> None:
    message, expected = case
    before = bytes(message.data)
    points = points_from_message(message, "/points")
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, expected)
    assert bytes(message.data) == before, "the message is not changed"


def test_points_that_are_not_finite_are_dropped() -> None:
    values = {name: np.array([1.0, math.nan, 3.0, 4.0]) for name in ("x", "y", "z")}
    values["y"] = np.array([1.0, 2.0, math.inf, 4.0])
    values["intensity"] = np.array([10.0, 20.0, 30.0, math.nan])
    points = points_from_message(cloud(values), "/points")
    np.testing.assert_array_equal(points, [[1, 1, 1, 10], [4, 4, 4, 0]])


def test_float64_coordinates_beyond_float32_are_dropped() -> None:
    values = {name: np.array([1e300, 2.0]) for name in ("x", "y", "z")}
    points = points_from_message(cloud(values, dict.fromkeys("xyz", PointField.FLOAT64)), "/points")
    np.testing.assert_array_equal(points, [[2, 2, 2, 0]])


def test_without_an_intensity_field_it_is_zero() -> None:
    points = points_from_message(cloud({name: np.ones(3) for name in ("z", "x", "y")}), "/points")
    np.testing.assert_array_equal(points, [[1, 1, 1, 0]] * 3)


@pytest.mark.parametrize(
    "message", [cloud({n: np.ones(0) for n in "xyz"}), cloud({n: np.full(2, math.nan) for n in "xyz"})]
)
def test_an_empty_point_cloud_is_valid(message: PointCloud2) -> None:
    assert points_from_message(message, "/points").shape == (0, 4)


def test_a_point_cloud_without_x_is_named() -> None:
    message = cloud({"y": np.ones(2), "z": np.ones(2), "range": np.ones(2)})
    with pytest.raises(
        MessageError, match=r"^/points: point cloud without x: found fields y, z, range, needed x, y, z; "
    ):
        points_from_message(message, "/points")


def test_a_point_cloud_with_too_few_bytes_is_named() -> None:
    message = cloud({name: np.ones(8) for name in "xyz"}, rows=2)
    message.data = message.data[:-1]
    with pytest.raises(MessageError, match=r"incomplete point cloud: found 95 bytes.*2 rows of 4 points of 12 bytes"):
        points_from_message(message, "/points")


@pytest.mark.parametrize("change", [{"offset": 10}, {"datatype": 77}, {"count": 0}])
def test_a_field_that_does_not_fit_the_point_is_named(change: dict[str, int]) -> None:
    message = cloud({name: np.ones(2) for name in "xyz"})
    for name, value in change.items():
        setattr(message.fields[2], name, value)
    with pytest.raises(MessageError, match=r"broken point layout: found .*z \(datatype"):
        points_from_message(message, "/points")


def test_an_unknown_type_of_an_unused_field_is_ignored() -> None:
    message = cloud({name: np.ones(2) for name in ("x", "y", "z", "label")})
    message.fields[3].datatype = 77
    assert len(points_from_message(message, "/points")) == 2


def plain(count: int = 10) -> PointCloud2:
    return cloud({name: np.arange(1.0, count + 1) for name in ("x", "y", "z", "intensity")})


@pytest.mark.parametrize("field", range(4))
@pytest.mark.parametrize("offset", [13, 2**31 - 8, 2**31 - 4, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1])
def test_a_field_outside_the_point_is_refused_before_it_is_read(field: int, offset: int) -> None:
    message = plain()
    message.fields[field].offset = offset
    with pytest.raises(MessageError, match=rf"broken point layout: found .*offset {offset}, .*point_step of 16 bytes"):
        points_from_message(message, "/points")


@pytest.mark.parametrize("name", ["x", "intensity", "time"])
@pytest.mark.parametrize("count", [0, 2, 3_000_000, 2**32 - 1])
def test_a_field_of_many_numbers_costs_nothing(name: str, count: int) -> None:
    message = plain()
    message.fields.append(PointField(name="time", offset=16, datatype=PointField.UINT32, count=1))
    next(field for field in message.fields if field.name == name).count = count
    doubts: list[MessageError] = []
    if name == "x" or (name == "intensity" and count == 0):
        with pytest.raises(MessageError, match=rf"broken point layout: found {name} .*count {count}\)"):
            points_from_message(message, "/points", doubts)
        return
    points = points_from_message(message, "/points", doubts)
    np.testing.assert_array_equal(points[:, :3], np.repeat(np.arange(1.0, 11.0)[:, None], 3, axis=1))
    if name == "intensity":
        assert not points[:, 3].any() and doubts[0].problem == "unknown intensity"
    else:
        assert not doubts


def test_two_fields_of_one_name_or_one_place_are_refused() -> None:
    message = plain()
    message.fields[3].name = "x"
    with pytest.raises(MessageError, match=r"broken point layout: .*needed one field of each name"):
        points_from_message(message, "/points")
    message = plain()
    message.fields[1].offset = 2
    with pytest.raises(MessageError, match=r"broken point layout: .*needed fields that do not overlap"):
        points_from_message(message, "/points")


@pytest.mark.parametrize(
    "sizes",
    [
        {"width": 2**32 - 1},
        {"width": 2**32 - 1, "height": 2**32 - 1},
        {"width": 2**32 - 1, "height": 2**32 - 1, "row_step": 2**32 - 1},
        {"point_step": 2**32 - 1},
        {"point_step": 2**32 - 1, "width": 2**32 - 1, "height": 2**32 - 1, "row_step": 2**32 - 1},
        {"width": 2**16, "height": 2**16, "point_step": 2**16},
        {"point_step": 0},
        {"height": 0},
        {"width": 11},
        {"height": 2},
        {"height": 4, "width": 2, "row_step": 47},
    ],
    ids=str,
)
def test_sizes_that_contradict_the_data_are_refused(sizes: dict[str, int]) -> None:
    message = plain()
    for name, value in sizes.items():
        setattr(message, name, value)
    with pytest.raises(MessageError, match=r"incomplete point cloud|too many points|broken point layout"):
        points_from_message(message, "/points")


def test_a_point_cloud_of_too_many_points_is_refused() -> None:
    message = cloud({name: np.ones(8) for name in "xyz"}, dict.fromkeys("xyz", PointField.INT8))
    message.width = MAX_POINTS + 1
    with pytest.raises(MessageError, match=rf"too many points: found {MAX_POINTS + 1} x 1 points"):
        points_from_message(message, "/points")


@pytest.mark.parametrize("row_step", [0, 1, 30, 32 * 30 * 16, 2**32 - 1])
def test_a_wrong_row_step_of_complete_data_without_padding_does_not_matter(row_step: int) -> None:
    values = {name: np.arange(32.0 * 30) for name in ("x", "y", "z", "intensity")}
    message = cloud(values, rows=32)
    message.row_step = row_step
    doubts: list[MessageError] = []
    np.testing.assert_array_equal(points_from_message(message, "/points", doubts)[:, 0], values["x"])
    assert [doubt.problem for doubt in doubts] == ["wrong row_step"] and "480, which is used" in str(doubts[0])


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("datatype", [PointField.FLOAT32, PointField.FLOAT64])
@pytest.mark.parametrize("rows", [1, 25])
def test_a_wrong_byte_order_flag_is_found_by_the_coordinates(flagged: bool, datatype: int, rows: int) -> None:
    values = {name: np.random.default_rng(0).uniform(-40, 40, 1000) for name in "xyz"}
    message = cloud(values, dict.fromkeys("xyz", datatype), rows=rows, big_endian=not flagged)
    message.is_bigendian = flagged
    doubts: list[MessageError] = []
    points = points_from_message(message, "/points", doubts)
    np.testing.assert_allclose(points[:, 0], values["x"], rtol=1e-6)
    assert [doubt.problem for doubt in doubts] == ["wrong is_bigendian"]
    assert f"found is_bigendian {str(flagged).lower()}" in str(doubts[0])


def test_absurd_numbers_are_dropped_and_counted() -> None:
    values = {name: np.arange(1.0, 11.0) for name in ("x", "y", "z", "intensity")}
    values["y"][1:4] = (2 * MAX_COORDINATE, -1e30, math.inf)
    values["intensity"][[5, 6, 7]] = (1e38, -2 * MAX_INTENSITY, math.inf)
    doubts: list[MessageError] = []
    points = points_from_message(cloud(values), "/points", doubts)
    np.testing.assert_array_equal(points[:, 0], [1, 5, 6, 7, 8, 9, 10])
    np.testing.assert_array_equal(points[:, 3], [1, 5, 0, 0, 0, 9, 10])
    assert [str(doubt)[:48] for doubt in doubts] == [
        "/points: absurd coordinates: found 2 of 10 point",
        "/points: absurd intensities: found 3 of 10 inten",
    ]


def test_missing_returns_are_no_doubt() -> None:
    for missing in (math.nan, math.inf):
        doubts: list[MessageError] = []
        values = {name: np.array([1.0, missing, 3.0]) for name in "xyz"}
        assert len(points_from_message(cloud(values), "/points", doubts)) == 2 and not doubts


def test_names_of_fields_do_not_flood_the_error() -> None:
    message = cloud({"y": np.ones(2)})
    message.fields += [PointField(name="long" * 10_000 + "\n\u2028\x1b[31m", datatype=7, count=1)] * 100
    with pytest.raises(MessageError) as caught:
        points_from_message(message, "/points")
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()
