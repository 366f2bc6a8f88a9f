# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The share of a box's outline inside an image."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.data.outlines import _share as exact_share
from aqr_perception.data.outlines import outline_shares
from aqr_perception.frame import CameraView
from aqr_perception.geometry import box_corners, transform_points

# Looks along x of the model frame: x right is -y, y down is -z.
EXTRINSICS = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
INTRINSICS = np.array([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]])
VIEW = CameraView("front", np.zeros((100, 200, 3), np.uint8), INTRINSICS, EXTRINSICS)


def share(x: float, y: float, z: float = 0.0, size: float = 1.0, view: CameraView = VIEW) -> float:
    return float(outline_shares(np.array([[x, y, z, size, size, size, 0.0]]), [view])[0, 0])


def test_a_box_in_the_middle_is_inside() -> None:
    assert share(10, 0) == 1.0


def test_a_box_behind_the_camera_is_outside() -> None:
    assert share(-10, 0) == 0.0


def test_a_box_next_to_the_image_is_outside() -> None:
    assert share(10, 15) == 0.0


def test_a_box_cut_in_two_by_the_border_is_half_inside() -> None:
    half = replace(VIEW, intrinsics=np.array([[100.0, 0, 0], [0, 100, 50], [0, 0, 1]]))
    assert share(20, 0, view=half) == pytest.approx(0.5)


def test_a_box_around_the_camera_is_partly_inside() -> None:
    assert 0 < share(0.5, 0, size=2.0) < 0.2


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(-5, 5), st.floats(0.1, 15))
def test_the_shares_in_two_halves_of_an_image_add_up_to_the_whole(x: float, y: float, z: float, size: float) -> None:
    left = replace(VIEW, image=VIEW.image[:, :80])
    shifted = INTRINSICS - np.array([[0, 0, 80.0], [0, 0, 0], [0, 0, 0]])
    right = replace(VIEW, image=VIEW.image[:, 80:], intrinsics=shifted)
    parts = share(x, y, z, size, left) + share(x, y, z, size, right)
    assert parts == pytest.approx(share(x, y, z, size), abs=1e-4)
    assert 0 <= parts <= 1 + 1e-4


def test_no_boxes_or_no_cameras_give_empty_shares() -> None:
    assert outline_shares(np.zeros((0, 9)), [VIEW]).shape == (0, 1)
    assert outline_shares(np.zeros((2, 9)), []).shape == (2, 0)


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(-5, 5), st.floats(0.1, 15))
def test_the_short_cuts_agree_with_cutting_the_outline(x: float, y: float, z: float, size: float) -> None:
    box = np.array([[x, y, z, size, size, size, 0.3]])
    corners = transform_points(EXTRINSICS, box_corners(box)[0])
    if (corners[:, 2] <= 0.1).all():
        assert outline_shares(box, [VIEW])[0, 0] == 0
    else:
        assert outline_shares(box, [VIEW])[0, 0] == pytest.approx(exact_share(corners, VIEW), abs=1e-4)
