# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""RViz during the demo, if it is installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aqr_perception.simulator.bag import VEHICLE_FRAME
from aqr_perception.viewers.node_topics import read_node_topics
from aqr_perception.viewers.rviz_config import rviz_config


def unavailable_reason() -> str:
    """Return why RViz cannot be opened, as a sentence; empty if it can."""
    if shutil.which("rviz2") is None:
        return "RViz is not opened: found no rviz2 on the path; install a ROS 2 desktop."
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "RViz is not opened: found no display (DISPLAY and WAYLAND_DISPLAY are empty)."
    return ""


@contextmanager
def open_rviz(params: Path) -> Iterator[None]:
    """Run RViz with the view of a node for the duration of a `with` block.

    Args:
        params: parameter file of the node.

    Raises:
        YamlFileError, ViewError: see `read_node_topics`.
    """
    with tempfile.TemporaryDirectory() as folder:
        view = Path(folder) / "aqr_perception.rviz"
        view.write_text(rviz_config(read_node_topics(params), VEHICLE_FRAME))
        command = ["rviz2", "-d", str(view), "--ros-args", "-p", "use_sim_time:=true"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait()
