# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Geometry of image proposals."""

import math

import pytest
import torch
from helpers.pinhole_camera import FOCAL, HEIGHT, SIZE, looking_along
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models.proposals.rays import depth_scale, focal_length, ray_features, rotate_shape, viewing_azimuth

CELLS = (16, 44)


@settings(deadline=None, max_examples=40)
@given(yaw=st.floats(-3.0, 3.0))
def test_the_focal_length_is_that_of_the_pinhole(yaw: float) -> None:
    assert float(focal_length(looking_along(yaw))) == pytest.approx(FOCAL, rel=1e-4)


@settings(deadline=None, max_examples=40)
@given(yaw=st.floats(-3.0, 3.0), ahead=st.floats(2.0, 50.0))
def test_a_point_straight_ahead_has_the_cameras_azimuth(yaw: float, ahead: float) -> None:
    place = torch.tensor([0.5 + ahead * math.cos(yaw), ahead * math.sin(yaw), HEIGHT])
    assert float(viewing_azimuth(looking_along(yaw), place)) == pytest.approx(yaw, abs=1e-3)


@settings(deadline=None, max_examples=40)
@given(yaw=st.floats(-3.0, 3.0), row=st.integers(7, 15), column=st.integers(0, 43))
def test_ray_features_give_the_depth_of_the_ground(yaw: float, row: int, column: int) -> None:
    projection, below = looking_along(yaw), 1.7
    rays = ray_features(projection[None, None], SIZE, CELLS)
    assert rays.shape == (1, 1, 2, *CELLS)
    depth = below * float(rays[0, 0, 1, row, column].exp() * depth_scale(projection))
    pixel = torch.tensor([(column + 0.5) * SIZE[1] / CELLS[1], (row + 0.5) * SIZE[0] / CELLS[0], 1.0])
    met = torch.linalg.solve(projection, torch.cat((pixel * depth, torch.ones(1))))
    assert float(met[2]) == pytest.approx(HEIGHT - below, abs=1e-2)


@settings(deadline=None, max_examples=40)
@given(azimuth=st.floats(-6.0, 6.0))
def test_rotating_a_shape_back_restores_it(azimuth: float) -> None:
    shape = torch.tensor([0.1, 0.2, 0.3, 0.6, 0.8, 3.0, -4.0])
    angle = torch.tensor(azimuth)
    turned = rotate_shape(shape, angle)
    torch.testing.assert_close(rotate_shape(turned, -angle), shape, atol=1e-5, rtol=0)
    assert float(turned[5:].norm()) == pytest.approx(5.0, rel=1e-4)
