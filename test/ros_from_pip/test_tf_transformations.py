"""tf_transformations against SciPy's rotations, and against itself in round trips."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation, Slerp

tft = pytest.importorskip("tf_transformations", reason="tf_transformations is not built or installed")

angles = st.floats(-3.1, 3.1)
vectors = arrays(np.float64, 3, elements=st.floats(-5, 5).map(lambda value: round(value, 3))).filter(
    lambda vector: np.linalg.norm(vector) > 0.1
)
quaternions = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1)


def same_rotation(quaternion0, quaternion1, tolerance=1e-6):
    return (Rotation.from_quat(quaternion0) * Rotation.from_quat(quaternion1).inv()).magnitude() < tolerance


@given(quaternions)
@settings(max_examples=40, deadline=None)
def test_quaternion_survives_the_way_through_a_matrix(quaternion):
    matrix = tft.quaternion_matrix(quaternion)
    np.testing.assert_allclose(matrix[:3, :3], Rotation.from_quat(quaternion).as_matrix(), atol=1e-9)
    assert same_rotation(tft.quaternion_from_matrix(matrix), quaternion)


@pytest.mark.parametrize("axes", sorted(tft._AXES2TUPLE))
def test_euler_angles_mean_what_scipy_means_by_the_same_axes(axes):
    sequence = axes[1:] if axes[0] == "s" else axes[1:].upper()
    rng = np.random.default_rng(1)
    for triple in rng.uniform(-3, 3, size=(5, 3)):
        expected = Rotation.from_euler(sequence, triple)
        np.testing.assert_allclose(tft.euler_matrix(*triple, axes)[:3, :3], expected.as_matrix(), atol=1e-9)
        quaternion = tft.quaternion_from_euler(*triple, axes)
        assert same_rotation(quaternion, expected.as_quat())
        again = tft.euler_from_quaternion(quaternion, tft._AXES2TUPLE[axes])
        np.testing.assert_allclose(tft.euler_matrix(*again, axes)[:3, :3], expected.as_matrix(), atol=1e-9)


@given(quaternions, quaternions, vectors)
@settings(max_examples=40, deadline=None)
def test_product_of_quaternions_applies_the_right_one_first(second, first, point):
    both = Rotation.from_quat(tft.quaternion_multiply(second, first))
    expected = Rotation.from_quat(second).apply(Rotation.from_quat(first).apply(point))
    np.testing.assert_allclose(both.apply(point), expected, atol=1e-6)


@given(quaternions, st.floats(0.2, 5))
@settings(max_examples=40, deadline=None)
def test_inverse_undoes_a_quaternion_of_any_length(quaternion, length):
    quaternion = quaternion * length
    product = tft.quaternion_multiply(quaternion, tft.quaternion_inverse(quaternion))
    np.testing.assert_allclose(product, [0, 0, 0, 1], atol=1e-9)


@given(quaternions, quaternions, st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_slerp_takes_the_shorter_way_at_constant_speed(start, end, fraction):
    assume(abs(np.dot(start, end)) < 0.999 * np.linalg.norm(start) * np.linalg.norm(end))
    assume(abs(np.dot(start, end)) > 1e-3)
    expected = Slerp([0, 1], Rotation.from_quat([start, end]))(fraction)
    assert same_rotation(tft.quaternion_slerp(start, end, fraction), expected.as_quat(), 1e-5)


def test_slerp_extrapolates_and_can_go_the_longer_way():
    quarter = tft.quaternion_about_axis(np.pi / 2, (0, 0, 1))
    half_a_turn = tft.quaternion_slerp((0, 0, 0, 1), quarter, 2.0)
    assert same_rotation(half_a_turn, tft.quaternion_about_axis(np.pi, (0, 0, 1)))
    the_other_way = tft.quaternion_slerp((0, 0, 0, 1), np.negative(quarter), 0.5, shortestpath=False)
    assert same_rotation(the_other_way, tft.quaternion_about_axis(-3 * np.pi / 4, (0, 0, 1)))


@given(vectors, angles, st.floats(0.2, 3), vectors)
@settings(max_examples=30, deadline=None)
def test_parts_of_a_transform_make_the_transform_again(translation, angle, scale, axis):
    matrix = tft.concatenate_matrices(
        tft.translation_matrix(translation), tft.rotation_matrix(angle, axis), tft.scale_matrix(scale)
    )
    parts = tft.decompose_matrix(matrix)
    assert tft.is_same_transform(tft.compose_matrix(*parts), matrix)
    np.testing.assert_allclose(parts[0], scale)
    np.testing.assert_allclose(parts[3], translation)
    assert tft.is_same_transform(tft.concatenate_matrices(tft.inverse_matrix(matrix), matrix), tft.identity_matrix())


@given(vectors, angles.filter(lambda angle: abs(angle) > 0.1), vectors)
@settings(max_examples=30, deadline=None)
def test_rotation_about_an_axis_through_a_point_leaves_the_point(axis, angle, point):
    matrix = tft.rotation_matrix(angle, axis, point)
    np.testing.assert_allclose((matrix @ [*point, 1])[:3], point, atol=1e-9)
    assert tft.is_same_transform(tft.rotation_matrix(*tft.rotation_from_matrix(matrix)), matrix)


@given(vectors, angles, st.booleans(), st.booleans(), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_superimposition_finds_the_transform_between_two_sets_of_points(translation, angle, scaling, usesvd, seed):
    points = np.random.default_rng(seed).normal(size=(3, 6))
    scale = 1.7 if scaling else 1.0
    moved = scale * Rotation.from_rotvec([0, angle, 0]).as_matrix() @ points + translation[:, None]
    matrix = tft.superimposition_matrix(points, moved, scaling, usesvd)
    np.testing.assert_allclose(matrix[:3, :3] @ points + matrix[:3, 3:], moved, atol=1e-6)


def test_superimposition_needs_three_pairs_of_points():
    with pytest.raises(ValueError, match="same shape"):
        tft.superimposition_matrix(np.eye(3)[:, :2], np.eye(3)[:, :2])


@given(vectors, vectors, vectors)
@settings(max_examples=30, deadline=None)
def test_projection_puts_points_on_the_plane_and_keeps_those_already_there(point, normal, direction):
    assume(abs(np.dot(normal, direction)) > 0.3)
    for matrix in (tft.projection_matrix(point, normal), tft.projection_matrix(point, normal, direction)):
        projected = matrix @ [1.0, 2.0, 3.0, 1.0]
        assert abs(np.dot(projected[:3] - point, normal)) < 1e-6
        np.testing.assert_allclose(matrix @ projected, projected, atol=1e-6)
        assert tft.is_same_transform(tft.projection_matrix(*tft.projection_from_matrix(matrix)), matrix)


def test_matrix_that_projects_nothing_is_refused():
    with pytest.raises(ValueError, match="no projection"):
        tft.projection_from_matrix(np.identity(4))


def test_view_volume_becomes_the_unit_cube():
    low, high = np.array([-1.0, -2.0, 0.5]), np.array([3.0, 1.0, 9.0])
    bounds = np.stack([low, high], axis=1).ravel()
    box = tft.clip_matrix(*bounds)
    np.testing.assert_allclose(box @ [*low, 1], [-1, -1, -1, 1])
    np.testing.assert_allclose(box @ [*high, 1], [1, 1, 1, 1])
    near_corner = tft.clip_matrix(*bounds, perspective=True) @ [*low, 1]
    np.testing.assert_allclose(near_corner / near_corner[3], [-1, -1, -1, 1])
    with pytest.raises(ValueError, match="near"):
        tft.clip_matrix(-1, 1, -1, 1, 0, 1, perspective=True)
    with pytest.raises(ValueError, match="increase"):
        tft.clip_matrix(1, -1, -1, 1, 0, 1)


def test_dragging_the_ball_from_its_middle_to_its_edge_is_half_a_turn_about_the_screen():
    ball = tft.Arcball()
    ball.place([100, 100], 50)
    ball.down([100, 100])
    ball.drag([150, 100])
    np.testing.assert_allclose(ball.matrix()[:3, :3], Rotation.from_rotvec([0, np.pi, 0]).as_matrix(), atol=1e-9)
    with pytest.raises(ValueError, match="shape"):
        tft.Arcball(initial=np.zeros(3))


def test_random_quaternions_are_unit_quaternions_and_repeatable_from_their_numbers():
    assert tft.vector_norm(tft.random_quaternion()) == pytest.approx(1.0)
    np.testing.assert_array_equal(tft.random_quaternion([0.1, 0.2, 0.3]), tft.random_quaternion([0.1, 0.2, 0.3]))
    with pytest.raises(AssertionError, match="2 elements"):
        tft.random_quaternion([0.1, 0.2])


@given(arrays(np.float64, (4, 3), elements=st.floats(0.1, 5)), st.sampled_from([0, 1, -1]))
@settings(max_examples=20, deadline=None)
def test_unit_vectors_have_length_one_along_their_axis(data, axis):
    np.testing.assert_allclose(tft.vector_norm(tft.unit_vector(data, axis=axis), axis=axis), 1.0)
    in_place = data.copy()
    assert tft.unit_vector(in_place, axis=axis, out=in_place) is None
    np.testing.assert_allclose(in_place, tft.unit_vector(data, axis=axis))
