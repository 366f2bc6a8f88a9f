# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms, projection and box corners."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aqr_perception.geometry import (
    box_corners,
    interpolate,
    invert,
    project,
    quaternion_xyzw,
    rigid_transform,
    transform_points,
)

coordinates = st.floats(-100, 100, allow_nan=False)
quaternions = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1)
translations = arrays(np.float64, 3, elements=coordinates)


@given(translations, quaternions, arrays(np.float64, (5, 3), elements=coordinates))
def test_a_transform_followed_by_its_inverse_is_the_identity(translation, quaternion, points) -> None:
    transform = rigid_transform(translation, quaternion)
    moved = transform_points(invert(transform), transform_points(transform, points))
    np.testing.assert_allclose(moved, points, atol=1e-9)


@given(quaternions)
def test_quaternion_to_matrix_and_back_is_the_identity_up_to_sign(quaternion) -> None:
    unit = quaternion / np.linalg.norm(quaternion)
    returned = quaternion_xyzw(rigid_transform([0, 0, 0], quaternion))
    assert abs(abs(unit @ returned) - 1) < 1e-9


@given(arrays(np.float64, (4, 3), elements=st.floats(1, 50)))
def test_projected_points_lie_on_the_rays_through_their_pixels(points) -> None:
    intrinsics = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    pixels, depths = project(intrinsics, points)
    rays = np.c_[pixels, np.ones(4)] @ np.linalg.inv(intrinsics).T
    np.testing.assert_allclose(rays * depths[:, None], points, rtol=1e-9)


def test_points_behind_a_camera_have_negative_depth() -> None:
    _, depths = project(np.eye(3), np.array([[0.0, 0.0, -2.0]]))
    assert depths[0] == -2.0


@given(arrays(np.float64, (3, 7), elements=st.floats(0.5, 10)))
def test_box_corners_match_the_centre_and_size_of_the_box(boxes) -> None:
    corners = box_corners(boxes)
    np.testing.assert_allclose(corners.mean(axis=1), boxes[:, :3], atol=1e-9)
    length = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1)
    width = np.linalg.norm(corners[:, 0] - corners[:, 3], axis=1)
    height = np.linalg.norm(corners[:, 0] - corners[:, 4], axis=1)
    np.testing.assert_allclose(np.c_[length, width, height], boxes[:, 3:6], atol=1e-9)
    heading = corners[:, [0, 3]].mean(axis=1) - corners[:, [1, 2]].mean(axis=1)
    np.testing.assert_allclose(
        np.c_[np.cos(boxes[:, 6]), np.sin(boxes[:, 6])] * boxes[:, 3:4], heading[:, :2], atol=1e-9
    )


poses = st.builds(rigid_transform, translations, quaternions)


@given(poses, poses, st.floats(0.0, 1.0))
def test_interpolation_starts_and_ends_at_its_poses_and_stays_rigid(first, second, share: float) -> None:
    np.testing.assert_allclose(interpolate(first, second, 0.0), first, atol=1e-9)
    np.testing.assert_allclose(interpolate(first, second, 1.0), second, atol=1e-9)
    between = interpolate(first, second, share)
    np.testing.assert_allclose(between @ invert(between), np.eye(4), atol=1e-9)
