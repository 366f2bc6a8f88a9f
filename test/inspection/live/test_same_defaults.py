# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The inspection judges by the node's own defaults."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from aqr_perception.inspection import clock_offsets, timing
from aqr_perception.nodes.parameters.parameter_table import PARAMETERS


def test_times_are_the_nodes_defaults() -> None:
    defaults = {parameter.name: parameter.default for parameter in PARAMETERS}
    assert {name: defaults[name] for name in timing.DEFAULTS} == timing.DEFAULTS
    assert pytest.approx(defaults["max_camera_age"] * 1e9) == clock_offsets._SAME_FRAME_NS
    assert pytest.approx(defaults["camera_wait"] * 1e9) == clock_offsets._WAIT_NS
