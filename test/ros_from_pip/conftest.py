# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tests of our own packages, from source. Where ROS 2 is sourced, it has the originals, and only some tests run."""

import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
from helpers.places import ROOT

SOURCES = ROOT / "ros_from_pip" / "src"
HOLD_FOR_THE_ORIGINALS = {"test_message_filters.py", "test_tf_transformations.py"}


def ros_comes_from_pip() -> bool:
    try:
        version("ros-rclpy")
    except PackageNotFoundError:
        return False
    return True


if ros_comes_from_pip():
    sys.path[:0] = sorted(str(setup.parent) for setup in SOURCES.glob("*/setup.py"))


@pytest.fixture(autouse=True)
def skip_tests_that_do_not_hold_for_the_originals(request: pytest.FixtureRequest) -> None:
    if not ros_comes_from_pip() and request.path.name not in HOLD_FOR_THE_ORIGINALS:
        pytest.skip("ROS 2 is not installed from Python wheels here")


@pytest.fixture
def talker():
    yield from _process()


@pytest.fixture
def hearer():
    yield from _process()


def _process():
    from helpers.tf2_nodes import Process  # only where ROS is: tests without it share this file

    process = Process()
    yield process
    process.shutdown()
