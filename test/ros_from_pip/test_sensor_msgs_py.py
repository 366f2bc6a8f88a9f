"""Clouds to arrays and back: any order of fields, gaps, padding and byte order."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="no ROS 2 here", exc_type=ImportError)
point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2", reason="sensor_msgs_py is not built or installed")
from sensor_msgs.msg import PointCloud2, PointField  # noqa: E402
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


@given(layouts(), st.integers(0, 4), st.integers(1, 3), st.integers(0, 7), st.booleans(), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_every_layout_is_read_as_it_was_written(layout, width, height, row_padding, big_endian, seed):
    fields, point_step = layout
    rng = np.random.default_rng(seed)
    row_step = width * point_step + row_padding
    data = rng.integers(0, 256, size=row_step * height, dtype=np.uint8)
    values = {}
    for field in fields:
        dtype = np.dtype((">" if big_endian else "<") + TYPES[field.datatype])
        values[field.name] = rng.integers(-100 if dtype.kind != "u" else 0, 100, size=(height, width)).astype(dtype)
        for row, column in np.ndindex(height, width):
            start = row * row_step + column * point_step + field.offset
            data[start : start + dtype.itemsize] = np.frombuffer(
                values[field.name][row : row + 1, column].tobytes(), np.uint8
            )
    cloud = PointCloud2(
        height=height, width=width, fields=fields, is_bigendian=big_endian, point_step=point_step, row_step=row_step
    )
    cloud.data.frombytes(data.tobytes())
    for _ in range(2):  # reading changes nothing in the message
        points = point_cloud2.read_points(cloud)
        assert points.shape == (width * height,)
        for name, expected in values.items():
            assert points[name].dtype.isnative
            np.testing.assert_array_equal(points[name], expected.ravel())
    last = fields[-1].name
    assert point_cloud2.read_points(cloud, field_names=[last]).dtype.names == (last,)
    np.testing.assert_array_equal(point_cloud2.read_points(cloud, [last])[last], values[last].ravel())


@given(layouts(), st.integers(0, 5), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_created_cloud_gives_its_points_back(layout, count, seed):
    fields, point_step = layout
    dtype = point_cloud2.dtype_from_fields(fields, point_step)
    points = np.zeros(count, dtype=dtype)
    rng = np.random.default_rng(seed)
    for name in dtype.names:
        points[name] = rng.integers(0, 100, size=count)
    cloud = point_cloud2.create_cloud(Header(frame_id="lidar"), fields, points, point_step)
    assert (cloud.width, cloud.height, cloud.point_step) == (count, 1, point_step)
    assert cloud.row_step == len(cloud.data) == count * point_step
    np.testing.assert_array_equal(point_cloud2.read_points(cloud), points)
    from_tuples = point_cloud2.create_cloud(Header(frame_id="lidar"), fields, points.tolist(), point_step)
    np.testing.assert_array_equal(point_cloud2.read_points(from_tuples), points)


def test_plain_arrays_of_one_type_go_both_ways():
    points = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    cloud = point_cloud2.create_cloud_xyz32(Header(), points)
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud), points)
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud, ["z", "x"]), points[:, [2, 0]])
    assert [tuple(point) for point in point_cloud2.read_points_list(cloud, ["y"])] == [(y,) for y in points[:, 1]]
    assert point_cloud2.read_points_list(cloud)[2].z == points[2, 2]


def test_organized_clouds_keep_their_two_dimensions_on_request():
    points = np.arange(2 * 3 * 3, dtype=np.float32).reshape(2, 3, 3)
    cloud = point_cloud2.create_cloud_xyz32(Header(), points)
    assert (cloud.width, cloud.height) == (2, 3)
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud), points.reshape(-1, 3))
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud, reshape_organized_cloud=True), points)


def test_points_with_nan_are_left_out_unless_the_cloud_is_dense():
    points = np.array([[1, 2, 3], [np.nan, 5, 6], [7, 8, np.nan]], dtype=np.float32)
    cloud = point_cloud2.create_cloud_xyz32(Header(), points)
    assert len(point_cloud2.read_points(cloud, skip_nans=True)) == 1
    assert len(point_cloud2.read_points(cloud, ["x", "y"], skip_nans=True)) == 2
    cloud.is_dense = True
    assert len(point_cloud2.read_points(cloud, skip_nans=True)) == 3


@pytest.mark.parametrize("uvs", [[2, 0], (index for index in (2, 0)), np.array([2, 0])])
def test_chosen_points_come_in_the_order_asked_for(uvs):
    points = np.arange(9, dtype=np.float32).reshape(3, 3)
    cloud = point_cloud2.create_cloud_xyz32(Header(), points)
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud, uvs=uvs), points[[2, 0]])


def test_fields_with_several_elements_and_without_names_get_names():
    fields = [
        PointField(name="rgb", offset=0, datatype=PointField.UINT8, count=3),
        PointField(name="", offset=3, datatype=PointField.UINT8, count=1),
    ]
    dtype = point_cloud2.dtype_from_fields(fields, point_step=8)
    assert dtype.names == ("rgb_0", "rgb_1", "rgb_2", "unnamed_field_1")
    assert dtype.itemsize == 8


def test_cloud_is_written_in_the_byte_order_of_this_machine():
    cloud = point_cloud2.create_cloud_xyz32(Header(), [(1.0, 2.0, 3.0)])
    assert cloud.is_bigendian == (sys.byteorder == "big")
    assert bytes(cloud.data) == np.array([1, 2, 3], dtype=np.float32).tobytes()


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (lambda cloud: point_cloud2.read_points(b""), "not a sensor_msgs"),
        (lambda cloud: point_cloud2.read_points(cloud, ["intensity"]), "intensity"),
        (lambda cloud: point_cloud2.create_cloud(Header(), cloud.fields, np.zeros(2, dtype=[("x", "f4")])), "describe"),
        (lambda cloud: point_cloud2.create_cloud_xyz32(Header(), np.zeros((2, 2, 2, 3), np.float32)), "dimensions"),
        (lambda cloud: point_cloud2.dtype_from_fields([cloud.fields[0]] * 2), "same name"),
        (lambda cloud: point_cloud2.dtype_from_fields([PointField(name="x", datatype=7, count=0)]), "count 0"),
    ],
)
def test_misuse_is_an_assertion_error_that_says_what_is_wrong(problem, message):
    cloud = point_cloud2.create_cloud(Header(), xyz_fields(), np.zeros((1, 3), np.float32))
    with pytest.raises(AssertionError, match=message):
        problem(cloud)


def test_fields_of_several_types_do_not_fit_a_plain_array():
    fields = [*xyz_fields(), PointField(name="ring", offset=12, datatype=PointField.UINT16, count=1)]
    cloud = point_cloud2.create_cloud(Header(), fields, [(1.0, 2.0, 3.0, 4)])
    with pytest.raises(AssertionError, match="several datatypes"):
        point_cloud2.read_points_numpy(cloud)
    with pytest.raises(AssertionError, match="several datatypes"):
        point_cloud2.create_cloud(Header(), fields, np.zeros((1, 4)))
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud, ("x", "y", "z")), [[1, 2, 3]])
