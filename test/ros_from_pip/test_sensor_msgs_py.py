# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Layouts of points and the creation of clouds."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="no ROS 2 here", exc_type=ImportError)
point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2", reason="sensor_msgs_py is not built or installed")
from sensor_msgs.msg import PointField  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

TYPES = {
    PointField.INT8: "i1",
    PointField.UINT8: "u1",
    PointField.INT16: "i2",
    PointField.UINT16: "u2",
    PointField.INT32: "i4",
    PointField.UINT32: "u4",
    PointField.FLOAT32: "f4",
    PointField.FLOAT64: "f8",
}


def xyz_fields():
    return [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]


@st.composite
def layouts(draw):
    """Fields in any order with gaps between them, and a point step with bytes to spare."""
    datatypes = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=5))
    fields, offset = [], 0
    for index, datatype in enumerate(datatypes):
        offset += draw(st.integers(0, 3))
        fields.append(PointField(name=f"f{index}", offset=offset, datatype=datatype, count=1))
        offset += np.dtype(TYPES[datatype]).itemsize
    return draw(st.permutations(fields)), offset + draw(st.integers(0, 5))


@given(layouts())
@settings(max_examples=80, deadline=None)
def test_the_type_of_a_point_has_the_fields_at_their_offsets(layout):
    fields, point_step = layout
    dtype = point_cloud2.dtype_from_fields(fields, point_step=point_step)
    assert dtype.itemsize == point_step and dtype.names == tuple(field.name for field in fields)
    for field in fields:
        assert dtype.fields[field.name] == (np.dtype(TYPES[field.datatype]), field.offset)


@given(layouts(), st.integers(0, 5), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_a_created_cloud_holds_its_points(layout, count, seed):
    fields, point_step = layout
    dtype = point_cloud2.dtype_from_fields(fields, point_step)
    points = np.zeros(count, dtype=dtype)
    rng = np.random.default_rng(seed)
    for name in dtype.names:
        points[name] = rng.integers(0, 100, size=count)
    for given_points in (points, points.tolist()):
        cloud = point_cloud2.create_cloud(Header(frame_id="lidar"), fields, given_points, point_step)
        assert (cloud.header.frame_id, cloud.width, cloud.height, cloud.point_step) == ("lidar", count, 1, point_step)
        assert cloud.row_step == len(cloud.data) == count * point_step
        np.testing.assert_array_equal(np.frombuffer(cloud.data, dtype), points)


def test_clouds_of_coordinates_are_made_of_plain_arrays():
    points = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    cloud = point_cloud2.create_cloud_xyz32(Header(), points)
    assert [field.name for field in cloud.fields] == ["x", "y", "z"]
    np.testing.assert_array_equal(np.frombuffer(cloud.data, np.float32).reshape(7, 3), points)


def test_fields_with_several_elements_and_without_names_get_names():
    fields = [
        PointField(name="rgb", offset=0, datatype=PointField.UINT8, count=3),
        PointField(name="", offset=3, datatype=PointField.UINT8, count=1),
    ]
    dtype = point_cloud2.dtype_from_fields(fields, point_step=8)
    assert dtype.names == ("rgb_0", "rgb_1", "rgb_2", "unnamed_field_1")
    assert dtype.itemsize == 8


def test_a_cloud_is_written_in_the_byte_order_of_this_machine():
    cloud = point_cloud2.create_cloud_xyz32(Header(), [(1.0, 2.0, 3.0)])
    assert cloud.is_bigendian == (sys.byteorder == "big")
    assert bytes(cloud.data) == np.array([1, 2, 3], dtype=np.float32).tobytes()


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (lambda fields: point_cloud2.create_cloud(Header(), fields, np.zeros(2, dtype=[("x", "f4")])), "describe"),
        (lambda fields: point_cloud2.create_cloud_xyz32(Header(), np.zeros((2, 2, 2, 3), np.float32)), "dimensions"),
        (lambda fields: point_cloud2.dtype_from_fields([fields[0]] * 2), "same name"),
        (lambda fields: point_cloud2.dtype_from_fields([PointField(name="x", datatype=7, count=0)]), "count 0"),
    ],
)
def test_misuse_is_an_assertion_error_that_names_the_fault(problem, message):
    with pytest.raises(AssertionError, match=message):
        problem(xyz_fields())


def test_fields_of_several_types_do_not_fit_a_plain_array():
    fields = [*xyz_fields(), PointField(name="ring", offset=12, datatype=PointField.UINT16, count=1)]
    with pytest.raises(AssertionError, match="several datatypes"):
        point_cloud2.create_cloud(Header(), fields, np.zeros((1, 4)))
