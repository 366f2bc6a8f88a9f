"""These tests are about our own packages, from source. Elsewhere than on Python wheels, ROS 2 has the originals."""

import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
from helpers.places import ROOT

SOURCES = ROOT / "ros_from_pip" / "src"


def ros_comes_from_pip() -> bool:
    try:
        version("ros-rclpy")
    except PackageNotFoundError:
        return False
    return True


if ros_comes_from_pip():
    sys.path[:0] = sorted(str(setup.parent) for setup in SOURCES.glob("*/setup.py"))


@pytest.fixture(autouse=True, scope="session")
def only_where_ros_comes_from_pip() -> None:
    if not ros_comes_from_pip():
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
