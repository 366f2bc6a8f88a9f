# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Play a bag into the perception node and show the results in RViz."""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

_SHARE = FindPackageShare("aqr_perception")
_AS_IN_FILE = (
    "model", "checkpoint", "device", "lidar_topic", "lidar_topics", "fixed_frame", "model_frame", "output_frame",
    "sensor_reliability", "cameras", "image_topic", "info_topic", "compressed", "rectified",
)  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    """Return the launch description: perception.launch.py with other defaults, and a required bag."""
    defaults = {
        "config": PathJoinSubstitution([_SHARE, "config", "nuscenes.yaml"]),
        **dict.fromkeys(_AS_IN_FILE, ""),
        "namespace": "",
        "log_level": "info",
        "rviz": "true",
        "use_sim_time": "true",
    }
    names = ["bag", *defaults]
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="path of the rosbag2 to play"),
            *(
                DeclareLaunchArgument(name, default_value=value, description="see perception.launch.py")
                for name, value in defaults.items()
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(PathJoinSubstitution([_SHARE, "launch", "perception.launch.py"])),
                launch_arguments=[(name, LaunchConfiguration(name)) for name in names],
            ),
        ]
    )
