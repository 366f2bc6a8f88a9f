# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Start the perception node, and optionally play a bag and open RViz."""

import atexit
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from launch.action import Action
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, RegisterEventHandler
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.substitutions import FindPackageShare

from aqr_perception.nodes.transport import transport_environment
from aqr_perception.viewers.node_topics import read_node_topics
from aqr_perception.viewers.rviz_config import rviz_config
from launch import LaunchContext, LaunchDescription

_SHARE = FindPackageShare("aqr_perception")
_VIEW_FRAME = "base_link"
"""TF frame of RViz's view, if the parameters name none."""

_NONE = "none"
_FLAGS = {"true": True, "1": True, "false": False, "0": False}

_OVERRIDES = {
    "model": ("model.preset", "model preset"),
    "checkpoint": ("model.checkpoint", "path of the weights, or random"),
    "device": ("model.device", "auto, cpu, cuda or cuda:N"),
    "lidar_topic": ("lidar_topic", "topic of the LiDAR; none: no LiDAR, unless there are lidar_topics"),
    "fixed_frame": ("fixed_frame", "TF frame fixed to the world; none: the vehicle's motion is ignored"),
    "model_frame": ("model_frame", "TF frame of the model's points; none: the LiDAR's frame"),
    "output_frame": ("output_frame", "TF frame of the detections; none: the model frame"),
    "sensor_reliability": ("sensor_reliability", "best_effort or reliable"),
}
"""Launch arguments that override one parameter each, with their descriptions; empty: as in the parameter file."""

_BY_CAMERA = {
    "image_topic": "topic of each camera's images, with {camera} for its name",
    "info_topic": "topic of each camera's CameraInfo, with {camera} for its name",
    "compressed": "true: the images are sensor_msgs/CompressedImage",
    "rectified": "true: the images are rectified",
}
"""Launch arguments that override a parameter of every camera; they need the argument `cameras`."""


def _actions(context: LaunchContext, *_args: object, **_kwargs: object) -> list[Action]:
    """Return the actions that start the node, play the bag once the node is active, and open RViz."""

    def argument(name: str) -> str:
        value: str = LaunchConfiguration(name).perform(context)
        return value

    config = argument("config")
    if not Path(config).is_file():
        raise RuntimeError(f"config:={config}: found no such file, needed a parameter file of the node")
    use_sim_time = {"use_sim_time": _flag("use_sim_time", argument("use_sim_time"))}
    environment = transport_environment()
    overrides = {
        **_overrides(argument),
        **_lidar_overrides(argument),
        **_camera_overrides(argument),
        **use_sim_time,
    }
    node = LifecycleNode(
        package="aqr_perception",
        executable="perception_node",
        name="aqr_perception",
        namespace=argument("namespace"),
        output="screen",
        parameters=[config, overrides],
        ros_arguments=["--log-level", argument("log_level")],
        additional_env=environment,
    )
    actions = [node]
    if bag := argument("bag"):
        # Wait until the node is active: a short bag could end before a large model is loaded.
        play = ExecuteProcess(cmd=["ros2", "bag", "play", bag, "--clock"], output="screen", additional_env=environment)
        active = OnStateTransition(target_lifecycle_node=node, goal_state="active", entities=[play], handle_once=True)
        actions.insert(0, RegisterEventHandler(active))
    view = None
    if _flag("rviz", argument("rviz")) and _has_rviz():
        view = _rviz_view(Path(config), argument("namespace"), overrides)
    if view is not None:
        actions.append(
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", str(view)],
                parameters=[use_sim_time],
                additional_env=environment,
            )
        )
    return actions


def _flag(name: str, value: str) -> bool:
    if value.lower() not in _FLAGS:
        raise RuntimeError(f"{name}:={value}: needed true or false")
    return _FLAGS[value.lower()]


def _overrides(argument: Callable[[str], str]) -> dict[str, str]:
    given = {parameter: argument(name) for name, (parameter, _) in _OVERRIDES.items()}
    return {parameter: "" if value == _NONE else value for parameter, value in given.items() if value}


def _lidar_overrides(argument: Callable[[str], str]) -> dict[str, object]:
    topics, one = _lidar_topics(argument), argument("lidar_topic")
    if not argument("lidar_topics"):
        return {}
    if not topics:
        return {"lidar_topics": [""]}
    if one not in ("", _NONE):
        raise RuntimeError(f"lidar_topic:={one} and lidar_topics:={','.join(topics)}: needed one of them")
    # A topic in the parameter file would contradict the argument.
    return {"lidar_topic": "", "lidar_topics": topics}


def _lidar_topics(argument: Callable[[str], str]) -> list[str]:
    value = argument("lidar_topics")
    return [] if value in ("", _NONE) else [topic.strip() for topic in value.split(",")]


def _camera_overrides(argument: Callable[[str], str]) -> dict[str, object]:
    names = "" if argument("cameras") == _NONE else argument("cameras")
    cameras = [name.strip() for name in names.split(",") if name.strip()]
    overrides: dict[str, object] = {"cameras": cameras or [""]} if argument("cameras") else {}
    for name in _BY_CAMERA:
        if not (value := argument(name)):
            continue
        if not cameras:
            raise RuntimeError(f"{name}:={value} needs the cameras' names, for example cameras:=front,back")
        for camera in cameras:
            is_topic = name.endswith("_topic")
            given = value.replace("{camera}", camera) if is_topic else _flag(name, value)
            overrides[f"camera.{camera}.{name}"] = given
    return overrides


def _has_rviz() -> bool:
    """Return whether RViz is installed; warn if it is not."""
    if shutil.which("rviz2"):
        return True
    logging.getLogger("perception.launch").warning(
        "rviz:=true, but found no rviz2 on the path: the node runs without RViz; install ros-<distro>-rviz2"
    )
    return False


def _rviz_view(config: Path, namespace: str, overrides: Mapping[str, object]) -> Path | None:
    """Write RViz's view of the node that starts here, and return its file; None, with a warning, if it has none."""
    logger = logging.getLogger("perception.launch")
    try:
        topics = read_node_topics(config, namespace, overrides)
    except ValueError as error:
        logger.warning(f"rviz:=true: {error}: the node runs without RViz")
        return None
    frame = topics.vehicle_frame
    if not frame:
        frame = _VIEW_FRAME
        logger.warning(
            "rviz:=true: found no output_frame, base_frame, model_frame or fixed_frame, needed a TF frame for the "
            f"view: RViz shows {frame}; set output_frame, or choose the Fixed Frame in RViz"
        )
    folder = Path(tempfile.mkdtemp(prefix="aqr_perception_rviz_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    view = folder / "aqr_perception.rviz"
    view.write_text(rviz_config(topics, frame))
    return view


def generate_launch_description() -> LaunchDescription:
    """Return the launch description; `ros2 launch --show-args` lists the arguments."""
    as_in_file = "; empty: as in the parameter file"
    overrides = {name: description for name, (_, description) in _OVERRIDES.items()}
    overrides["lidar_topics"] = (
        "topics of several LiDARs, separated by commas, instead of lidar_topic; none: lidar_topic"
    )
    overrides["cameras"] = "names of the cameras, separated by commas; none: no cameras"
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "config",
                default_value=PathJoinSubstitution([_SHARE, "config", "perception.yaml"]),
                description="path of the node's parameter file",
            ),
            *(
                DeclareLaunchArgument(name, default_value="", description=description + as_in_file)
                for name, description in {**overrides, **_BY_CAMERA}.items()
            ),
            DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="lowest severity of the node's log lines",
            ),
            DeclareLaunchArgument(
                "bag", default_value="", description="path of a rosbag2 to play once the node is active; empty: none"
            ),
            DeclareLaunchArgument("rviz", default_value="false", description="true: open RViz, if it is installed"),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="true: use the time of /clock"),
            OpaqueFunction(function=_actions),
        ]
    )
