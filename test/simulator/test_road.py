# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion between road and world coordinates."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.simulator.road import Road

roads = st.builds(Road, st.one_of(st.just(0.0), st.floats(-0.004, 0.004)), st.floats(-3.0, 3.0))


@given(roads, st.floats(-200.0, 300.0), st.floats(-40.0, 40.0))
def test_coordinates_are_the_inverse_of_position(road: Road, s: float, d: float) -> None:
    found = road.coordinates(road.position(s, d))
    np.testing.assert_allclose(found, (s, d), atol=1e-3)


@given(roads, st.floats(-200.0, 300.0), st.floats(-20.0, 20.0))
def test_the_direction_is_the_derivative_of_the_position(road: Road, s: float, d: float) -> None:
    step = road.position(s + 1e-3, d) - road.position(s - 1e-3, d)
    heading = road.direction(s)
    np.testing.assert_allclose(step / np.linalg.norm(step), (np.cos(heading), np.sin(heading)), atol=1e-4)
