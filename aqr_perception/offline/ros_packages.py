# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""ROS 2's Python packages that the node's steps need, without a running ROS 2."""

import importlib
from collections.abc import Iterable

from aqr_perception.offline.offline_error import OfflineError

NEEDED = (
    "rclpy", "message_filters", "tf2_ros", "tf_transformations", "builtin_interfaces", "diagnostic_msgs",
    "geometry_msgs", "nav_msgs", "sensor_msgs", "std_msgs", "vision_msgs", "visualization_msgs", "aqr_perception.msg",
)  # fmt: skip


def require_ros(packages: Iterable[str] = NEEDED) -> None:
    """Check that all packages of ROS 2 can be imported.

    Raises:
        OfflineError: one cannot; the message names it.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            missing = getattr(error, "name", None) or package
            raise OfflineError(
                f"process: found no Python package {missing} ({error}), needed ROS 2 and the built aqr_perception, "
                "because bags go through the node's own code; source ROS 2 and this package's workspace, or run "
                "`make setup` and `. .ros/env.sh` in a clone"
            ) from error
