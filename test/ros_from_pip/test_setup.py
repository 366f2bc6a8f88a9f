# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Errors of `make setup` on machines that cannot run it: what is missing, what is needed, and the remedy."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.places import ROOT

SETUP = ROOT / "ros_from_pip" / "setup.sh"
TOOLS = ("bash", "dirname", "flock", "grep", "paste", "sort", "tr")
PYTHON_3_12 = "case $2 in *print*) echo 3.12.1;; *rclpy*) exit 1;; esac"
PYTHON_3_9 = "case $2 in *print*) echo 3.9.18;; *) exit 1;; esac"
WITH_ONLY_RCLPY = "case $2 in *print*) echo 3.12.1;; *cv_bridge*|*vision_msgs*) exit 1;; esac"


class Machine:
    """A checkout with nothing but setup.sh, and a PATH with nothing but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "ros_from_pip").mkdir()
        self.script = shutil.copy(SETUP, folder / "ros_from_pip")
        for requirements in SETUP.parent.glob("requirements*.txt"):
            shutil.copy(requirements, folder / "ros_from_pip")
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found
            (self.bin / tool).symlink_to(found)

    def has(self, tool: str, script: str = "") -> None:
        path = self.bin / tool
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def refusal(self, **environment: str) -> str:
        """Run setup, which must fail and leave nothing behind; return what it says."""
        done = subprocess.run(
            [shutil.which("bash") or "bash", self.script],
            env={"PATH": str(self.bin), "HOME": os.environ["HOME"], **environment},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 1
        assert list(self.folder.glob(".ros*")) == []
        assert len(done.stderr.splitlines()) == 1
        return done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An x86-64 Linux with Python 3.12 and a compiler; each test takes something away."""
    made = Machine(tmp_path)
    made.has("uname", "case $1 in -s) echo Linux;; -m) echo x86_64;; esac")
    made.has("python3", PYTHON_3_12)
    made.has("g++")
    made.has("make")
    return made


def test_another_architecture_needs_an_installed_ros(machine: Machine) -> None:
    machine.has("uname", "case $1 in -s) echo Linux;; -m) echo aarch64;; esac")
    message = machine.refusal()
    assert "found Linux on aarch64" in message and "x86_64" in message and "install ROS 2" in message


def test_an_old_python_is_named_with_the_supported_versions(machine: Machine) -> None:
    machine.has("python3", PYTHON_3_9)
    message = machine.refusal()
    assert "found Python 3.9.18" in message and "3.10 to 3.13" in message and "apt-get install python3" in message


def test_a_missing_python_is_reported_with_the_remedy(machine: Machine) -> None:
    (machine.bin / "python3").unlink()
    message = machine.refusal()
    assert "found no Python" in message and "apt-get install python3" in message


@pytest.mark.parametrize("tool", ["g++", "make"])
def test_a_missing_build_tool_is_named_with_its_package(machine: Machine, tool: str) -> None:
    (machine.bin / tool).unlink()
    message = machine.refusal()
    assert f"{tool} is missing" in message and "apt-get install build-essential" in message


@pytest.mark.parametrize("prefix", ["", "/elsewhere/.ros/ws:/elsewhere/.ros/venv:"])
def test_a_sourced_ros_is_used_on_any_architecture_and_its_missing_packages_named(
    machine: Machine, prefix: str
) -> None:
    machine.has("uname", "case $1 in -s) echo Linux;; -m) echo aarch64;; esac")
    machine.has("python3", WITH_ONLY_RCLPY)
    for tool in ("find", "xargs", "sha256sum"):
        (machine.bin / tool).symlink_to(shutil.which(tool) or tool)
    message = machine.refusal(AMENT_PREFIX_PATH=f"{prefix}/opt/ros/jazzy", ROS_DISTRO="jazzy")
    assert "ROS 2 jazzy lacks cv_bridge vision_msgs" in message and "rosdep install" in message


def test_the_environment_of_another_clone_is_not_a_sourced_ros(machine: Machine) -> None:
    machine.has("uname", "case $1 in -s) echo Linux;; -m) echo aarch64;; esac")
    machine.has("python3", WITH_ONLY_RCLPY)
    message = machine.refusal(AMENT_PREFIX_PATH="/elsewhere/.ros/ws:/elsewhere/.ros/underlay:/elsewhere/.ros/venv")
    assert "found Linux on aarch64" in message and "install ROS 2" in message


@pytest.mark.parametrize("distro", ["humble", "lyrical", "../elsewhere"])
def test_a_distribution_without_wheels_is_refused_with_those_that_have_them(machine: Machine, distro: str) -> None:
    message = machine.refusal(DISTRO=distro)
    assert f"found DISTRO={distro}" in message and "wheels of jazzy kilted only" in message
    for name in ("jazzy", "kilted"):
        assert (SETUP.parent / f"requirements_{name}.txt").is_file()


def test_a_distribution_other_than_the_sourced_one_is_refused(machine: Machine) -> None:
    message = machine.refusal(AMENT_PREFIX_PATH="/opt/ros/humble", ROS_DISTRO="humble", DISTRO="jazzy")
    assert "found DISTRO=jazzy and a sourced ROS 2 humble" in message and "leave DISTRO out" in message


def test_the_environment_of_another_distribution_is_not_a_sourced_ros(machine: Machine) -> None:
    machine.has("uname", "case $1 in -s) echo Linux;; -m) echo aarch64;; esac")
    machine.has("python3", WITH_ONLY_RCLPY)
    prefix = "/elsewhere/.ros-jazzy/ws:/elsewhere/.ros-jazzy/venv"
    assert "found Linux on aarch64" in machine.refusal(AMENT_PREFIX_PATH=prefix, ROS_DISTRO="jazzy")
