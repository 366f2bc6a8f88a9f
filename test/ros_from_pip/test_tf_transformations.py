# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""tf_transformations against SciPy's rotations and the original's documented values. Holds for the original, too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

tft = pytest.importorskip("tf_transformations", reason="tf_transformations is not built or installed")

quaternions = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1)
units = quaternions.map(lambda q: q / np.linalg.norm(q))
angles = st.floats(-3.1, 3.1)


def same_rotation(quaternion0, quaternion1, tolerance=1e-6):
    return (Rotation.from_quat(quaternion0) * Rotation.from_quat(quaternion1).inv()).magnitude() < tolerance


@given(quaternions)
@settings(max_examples=40, deadline=None)
def test_a_quaternion_of_any_length_survives_the_way_through_a_matrix(quaternion):
    matrix = tft.quaternion_matrix(quaternion)
    np.testing.assert_allclose(matrix[:3, :3], Rotation.from_quat(quaternion).as_matrix(), atol=1e-9)
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])
    np.testing.assert_array_equal(matrix[:3, 3], 0)
    again = tft.quaternion_from_matrix(matrix)
    assert same_rotation(again, quaternion) and again[3] >= 0


@given(units, st.tuples(*[st.floats(-50, 50)] * 3))
@settings(max_examples=40, deadline=None)
def test_the_translation_of_a_matrix_does_not_change_its_quaternion(quaternion, translation):
    matrix = tft.quaternion_matrix(quaternion)
    matrix[:3, 3] = translation
    assert same_rotation(tft.quaternion_from_matrix(matrix), quaternion)


@given(angles, angles, angles)
@settings(max_examples=40, deadline=None)
def test_euler_angles_turn_about_the_static_axes(roll, pitch, yaw):
    expected = Rotation.from_euler("xyz", (roll, pitch, yaw))
    assert same_rotation(tft.quaternion_from_euler(roll, pitch, yaw), expected.as_quat())


@given(units, units)
@settings(max_examples=40, deadline=None)
def test_a_product_of_quaternions_applies_the_right_one_first(second, first):
    expected = Rotation.from_quat(second) * Rotation.from_quat(first)
    assert same_rotation(tft.quaternion_multiply(second, first), expected.as_quat())


def test_values_are_those_of_the_originals_documentation():
    np.testing.assert_allclose(
        tft.quaternion_from_euler(1, 2, 3, "ryxz"), [0.310622, -0.718287, 0.444435, 0.435953], atol=1e-6
    )
    np.testing.assert_allclose(tft.quaternion_multiply([1, -2, 3, 4], [-5, 6, 7, 8]), [-44, -14, 48, 28])
    about_x = Rotation.from_rotvec([0.123, 0, 0]).as_matrix()
    np.testing.assert_allclose(tft.quaternion_matrix([0.06146124, 0, 0, 0.99810947])[:3, :3], about_x, atol=1e-8)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(0.123 * np.array([1, 2, 3]) / np.sqrt(14)).as_matrix()
    np.testing.assert_allclose(
        tft.quaternion_from_matrix(matrix), [0.0164262, 0.0328524, 0.0492786, 0.9981095], atol=1e-7
    )
    np.testing.assert_array_equal(tft.quaternion_matrix([0, 0, 0, 0]), np.eye(4))
