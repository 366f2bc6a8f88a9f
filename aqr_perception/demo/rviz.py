"""RViz beside the demo, where there is one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aqr_perception.simulator.bag import LIDAR_TOPIC

_CONFIGURED = "/LIDAR_TOP"
"""The LiDAR's topic in config/aqr_perception.rviz."""


def why_not() -> str:
    """Say, in a sentence, why RViz cannot be opened here; empty where it can."""
    if shutil.which("rviz2") is None:
        return "RViz is not opened: found no rviz2 on the path; it comes with a ROS 2 desktop installation."
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "RViz is not opened: found no display (DISPLAY and WAYLAND_DISPLAY are empty)."
    return ""


@contextmanager
def opened(config: Path) -> Iterator[None]:
    """Show RViz with a configuration for as long as the drive is played."""
    command = ["rviz2", "-d", str(config), "--ros-args", "-p", "use_sim_time:=true"]
    command += ["-r", f"{_CONFIGURED}:={LIDAR_TOPIC}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
