"""RViz during the demo, if it is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aqr_perception.simulator.bag import LIDAR_TOPIC

_CONFIGURED_TOPIC = "/LIDAR_TOP"
"""Topic of the LiDAR in config/aqr_perception.rviz."""


def unavailable_reason() -> str:
    """Return why RViz cannot be opened, as a sentence; empty if it can."""
    if shutil.which("rviz2") is None:
        return "RViz is not opened: found no rviz2 on the path; install a ROS 2 desktop."
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "RViz is not opened: found no display (DISPLAY and WAYLAND_DISPLAY are empty)."
    return ""


@contextmanager
def open_rviz(config: Path) -> Iterator[None]:
    """Run RViz with a configuration file for the duration of a `with` block."""
    command = ["rviz2", "-d", str(config), "--ros-args", "-p", "use_sim_time:=true"]
    command += ["-r", f"{_CONFIGURED_TOPIC}:={LIDAR_TOPIC}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
