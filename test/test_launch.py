# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Actions of the launch files. Without ROS 2's `launch`, which has no wheel, a recorder replaces it."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from helpers.places import ROOT

LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
PERCEPTION = ROOT / "launch" / "perception.launch.py"
OF_ONE_PARAMETER = {
    "model": "model.preset",
    "checkpoint": "model.checkpoint",
    "device": "model.device",
    "lidar_topic": "lidar_topic",
    "fixed_frame": "fixed_frame",
    "model_frame": "model_frame",
    "output_frame": "output_frame",
    "sensor_reliability": "sensor_reliability",
}
OF_CAMERAS = {"cameras", "image_topic", "info_topic", "compressed", "rectified"}
ARGUMENTS = {
    *OF_ONE_PARAMETER,
    *OF_CAMERAS,
    "lidar_topics",
    "config",
    "namespace",
    "log_level",
    "bag",
    "rviz",
    "use_sim_time",
}


class Recorded:
    """Recorded construction of a launch object: the name of its class and the arguments."""

    def __init__(self, kind: str, *positional: Any, **named: Any) -> None:
        self.kind, self.positional, self.named = kind, positional, named

    def perform(self, context: dict[str, str]) -> str:
        """Return the value of a substitution; this repository is the share folder of every package."""
        if self.kind == "LaunchConfiguration":
            return context[self.positional[0]]
        if self.kind == "FindPackageShare":
            return str(ROOT)
        assert self.kind == "PathJoinSubstitution"
        return "/".join(text(part, context) for part in self.positional[0])


def text(value: Any, context: dict[str, str]) -> str:
    return value.perform(context) if isinstance(value, Recorded) else value


class RecordingModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *positional, **named: Recorded(name, *positional, **named)


class RecordingImporter:
    """Imports `launch`, `launch_ros` and their submodules as recorders."""

    @classmethod
    def find_spec(cls, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, cls, is_package=True) if name.split(".")[0] in ("launch", "launch_ros") else None

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        return RecordingModule(spec.name)

    @staticmethod
    def exec_module(_module: ModuleType) -> None:
        """Do nothing: a recorder has no code."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def launch_modules() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] in ("launch", "launch_ros")]

    real = {name: sys.modules.pop(name) for name in launch_modules()}
    monkeypatch.setattr(sys, "meta_path", [RecordingImporter, *sys.meta_path])
    yield
    for name in launch_modules():
        del sys.modules[name]
    sys.modules.update(real)


def description_of(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("launch_file", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def entities(description: Recorded, kind: str) -> list[Recorded]:
    return [entity for entity in description.positional[0] if entity.kind == kind]


def arguments(description: Recorded, **given: str) -> dict[str, str]:
    """Return the values of all launch arguments; those without a default must be given."""
    declared = {
        entity.positional[0]: entity.named.get("default_value")
        for entity in entities(description, "DeclareLaunchArgument")
    }
    assert set(given) <= set(declared)
    return {name: text(given.get(name, default), {}) for name, default in declared.items()}


def started(description: Recorded, **given: str) -> list[Recorded]:
    context = arguments(description, **given)
    return [
        entity
        for function in entities(description, "OpaqueFunction")
        for entity in function.named["function"](context) or []
    ]


def parameters(node: Recorded, config: str = str(ROOT / "config" / "perception.yaml")) -> dict[str, Any]:
    """Return the overrides that follow the parameter file."""
    file, overrides = node.named["parameters"]
    assert file == config
    return overrides


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_a_launch_file_declares_and_describes_the_documented_arguments(path: Path, recorder: None) -> None:
    declared = entities(description_of(path), "DeclareLaunchArgument")
    assert {argument.positional[0] for argument in declared} == ARGUMENTS
    assert all(argument.named["description"] for argument in declared)


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_the_default_configuration_is_a_file_that_is_installed(path: Path, recorder: None) -> None:
    config = Path(arguments(description_of(path), bag="drive.mcap")["config"])
    assert config.is_file() and config.parent == ROOT / "config"
    assert re.search(r"install\(DIRECTORY config launch DESTINATION share", (ROOT / "CMakeLists.txt").read_text())


def test_the_node_starts_as_configured_without_arguments(recorder: None) -> None:
    (node,) = started(description_of(PERCEPTION))
    assert node.kind == "LifecycleNode"
    assert (node.named["package"], node.named["executable"]) == ("aqr_perception", "perception_node")
    assert "scripts/perception_node" in (ROOT / "CMakeLists.txt").read_text()
    assert parameters(node) == {"use_sim_time": False}
    assert (node.named["namespace"], node.named["ros_arguments"]) == ("", ["--log-level", "info"])


def test_arguments_override_the_configuration_file(recorder: None, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.touch()
    given = {name: f"my_{name}" for name in OF_ONE_PARAMETER}
    (node,) = started(description_of(PERCEPTION), config=str(config), use_sim_time="true", **given)
    expected = {parameter: f"my_{name}" for name, parameter in OF_ONE_PARAMETER.items()}
    assert parameters(node, str(config)) == {**expected, "use_sim_time": True}


def test_none_empties_a_topic_or_a_frame_of_the_configuration_file(recorder: None) -> None:
    (node,) = started(description_of(PERCEPTION), lidar_topic="none", output_frame="none", cameras="none")
    assert parameters(node) == {"lidar_topic": "", "output_frame": "", "cameras": [""], "use_sim_time": False}


def test_topics_of_several_lidars_replace_the_one_of_the_configuration_file(recorder: None) -> None:
    (node,) = started(description_of(PERCEPTION), lidar_topics="/front/points, /left/points", lidar_topic="none")
    topics = ["/front/points", "/left/points"]
    assert parameters(node) == {"lidar_topic": "", "lidar_topics": topics, "use_sim_time": False}
    (node,) = started(description_of(PERCEPTION), lidar_topics="none", lidar_topic="/points")
    assert parameters(node) == {"lidar_topic": "/points", "lidar_topics": [""], "use_sim_time": False}


def test_the_topics_of_all_cameras_follow_a_pattern(recorder: None) -> None:
    given = {"image_topic": "/cam/{camera}/jpeg", "info_topic": "/cam/{camera}/info", "compressed": "True"}
    (node,) = started(description_of(PERCEPTION), cameras="left, right", rectified="false", **given)
    assert parameters(node) == {
        "cameras": ["left", "right"],
        "camera.left.image_topic": "/cam/left/jpeg",
        "camera.right.image_topic": "/cam/right/jpeg",
        "camera.left.info_topic": "/cam/left/info",
        "camera.right.info_topic": "/cam/right/info",
        "camera.left.compressed": True,
        "camera.right.compressed": True,
        "camera.left.rectified": False,
        "camera.right.rectified": False,
        "use_sim_time": False,
    }


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"config": "/nowhere/my.yaml"}, "config:=/nowhere/my.yaml: found no such file"),
        ({"image_topic": "/x/{camera}"}, "image_topic:=/x/{camera} needs the cameras' names"),
        ({"lidar_topic": "/a", "lidar_topics": "/b"}, "lidar_topic:=/a and lidar_topics:=/b: needed one of them"),
        ({"cameras": "none", "compressed": "true"}, "compressed:=true needs the cameras' names"),
        ({"cameras": "front", "rectified": "perhaps"}, "rectified:=perhaps: needed true or false"),
        ({"use_sim_time": "yes please"}, "use_sim_time:=yes please: needed true or false"),
        ({"rviz": "on"}, "rviz:=on: needed true or false"),
    ],
)
def test_arguments_without_a_meaning_stop_the_launch_with_a_sentence(
    recorder: None, given: dict[str, str], named: str
) -> None:
    with pytest.raises(RuntimeError, match=re.escape(named)):
        started(description_of(PERCEPTION), **given)


def test_overridden_parameters_are_parameters_of_the_node(recorder: None) -> None:
    pytest.importorskip("rclpy", reason="the node's parameters are declared with rclpy's types")
    from aqr_perception.nodes.parameters.parameter_table import PARAMETERS, camera_parameters

    given = {name: "x" for name in (*OF_ONE_PARAMETER, *OF_CAMERAS)} | {"compressed": "1", "rectified": "0"}
    (node,) = started(description_of(PERCEPTION), **given)
    known = {parameter.name for parameter in (*PARAMETERS, *camera_parameters("x"))}
    assert set(parameters(node)) - {"use_sim_time"} <= known
    assert len(parameters(node)) == len(given) + 1


def test_namespace_and_log_level_reach_the_node(recorder: None) -> None:
    (node,) = started(description_of(PERCEPTION), namespace="robot1", log_level="debug")
    assert (node.named["namespace"], node.named["ros_arguments"]) == ("robot1", ["--log-level", "debug"])


def test_a_bag_waits_for_the_node_to_be_active(recorder: None) -> None:
    handler, node = started(description_of(PERCEPTION), bag="drive.mcap")
    (active,) = handler.positional
    assert active.kind == "OnStateTransition"
    assert active.named["target_lifecycle_node"] is node and active.named["goal_state"] == "active"
    (play,) = active.named["entities"]
    assert play.named["cmd"] == ["ros2", "bag", "play", "drive.mcap", "--clock"]


def rviz_is(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/ros/bin/{name}" if installed else None)


def rviz_view(rviz: Recorded) -> dict[str, Any]:
    """Return the configuration that RViz is started with."""
    option, view = rviz.named["arguments"]
    assert option == "-d"
    content: dict[str, Any] = yaml.safe_load(Path(view).read_text())["Visualization Manager"]
    return content


def shown_topics(rviz: Recorded) -> set[str]:
    return {display["Topic"]["Value"] for display in rviz_view(rviz)["Displays"] if "Topic" in display}


def test_rviz_opens_a_view_of_the_nodes_own_parameters(recorder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rviz_is(monkeypatch, installed=True)
    (_node,) = started(description_of(PERCEPTION))
    config = str(ROOT / "config" / "demo.yaml")
    _node, rviz = started(description_of(PERCEPTION), rviz="true", use_sim_time="1", config=config)
    assert (rviz.kind, rviz.named["package"]) == ("Node", "rviz2")
    assert rviz.named["parameters"] == [{"use_sim_time": True}]
    assert {"/lidar/points", "/aqr_perception/weights/front/image", "/aqr_perception/markers"} <= shown_topics(rviz)
    assert rviz_view(rviz)["Global Options"]["Fixed Frame"] == "odom"


def test_rviz_shows_what_the_arguments_say(recorder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rviz_is(monkeypatch, installed=True)
    given = {"namespace": "/robot1", "lidar_topic": "/top/points", "cameras": "left,right", "output_frame": "vehicle"}
    _node, rviz = started(description_of(PERCEPTION), rviz="true", **given)
    shown = shown_topics(rviz)
    pictures = {topic for topic in shown if topic.endswith("/image")}
    assert pictures == {f"/robot1/aqr_perception/weights/{name}/image" for name in ("left", "right", "bev")}
    assert "/top/points" in shown and "/robot1/aqr_perception/markers" in shown
    assert rviz_view(rviz)["Global Options"]["Fixed Frame"] == "vehicle"
    _node, rviz = started(description_of(PERCEPTION), rviz="true", lidar_topics="/left/points,/right/points")
    assert {"/left/points", "/right/points"} <= shown_topics(rviz) and "/lidar/points" not in shown_topics(rviz)


def test_rviz_without_any_frame_in_the_parameters_is_said(
    recorder: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    rviz_is(monkeypatch, installed=True)
    config = tmp_path / "plain.yaml"
    config.write_text("/**:\n  ros__parameters:\n    cameras: [front]\n")
    _node, rviz = started(description_of(PERCEPTION), rviz="true", config=str(config))
    assert rviz_view(rviz)["Global Options"]["Fixed Frame"] == "base_link"
    assert "RViz shows base_link; set output_frame" in caplog.text


def test_the_node_starts_without_rviz_where_its_parameters_show_no_view(
    recorder: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    rviz_is(monkeypatch, installed=True)
    config = tmp_path / "other.yaml"
    config.write_text("/camera_driver:\n  ros__parameters:\n    rate: 10\n")
    (node,) = started(description_of(PERCEPTION), rviz="true", config=str(config))
    assert node.kind == "LifecycleNode"
    assert "found the sections /camera_driver, needed one for /aqr_perception" in caplog.text


def test_without_rviz_the_node_starts_with_a_warning(
    recorder: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rviz_is(monkeypatch, installed=False)
    (node,) = started(description_of(PERCEPTION), rviz="true")
    assert node.kind == "LifecycleNode"
    assert "found no rviz2 on the path" in caplog.text and caplog.records[0].levelname == "WARNING"


def test_every_process_uses_the_profile_of_fast_dds_unless_the_user_has_one(
    recorder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rviz_is(monkeypatch, installed=True)

    def environments() -> list[dict[str, str]]:
        handler, node, rviz = started(description_of(PERCEPTION), rviz="true", bag="drive.mcap")
        (play,) = handler.positional[0].named["entities"]
        return [process.named["additional_env"] for process in (node, rviz, play)]

    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "my.xml")
    assert environments() == [{}] * 3
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE")
    for environment in environments():
        (profile,) = environment.values()
        assert Path(profile).name == "fastdds.xml" and Path(profile).is_file()


def test_the_bag_launch_file_passes_on_every_argument(recorder: None) -> None:
    description = description_of(ROOT / "launch" / "bag.launch.py")
    (included,) = entities(description, "IncludeLaunchDescription")
    (source,) = included.positional
    assert Path(text(source.positional[0], {})) == ROOT / "launch" / "perception.launch.py"
    context = arguments(description, bag="drive.mcap")
    passed = {name: text(value, context) for name, value in included.named["launch_arguments"]}
    assert passed == context and set(passed) == ARGUMENTS
    assert (passed["bag"], passed["rviz"], passed["use_sim_time"]) == ("drive.mcap", "true", "true")


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_ros_own_launch_reads_the_launch_files(path: Path) -> None:
    launch = pytest.importorskip("launch", reason="no wheel of ROS 2's launch exists; runs where ROS 2 is installed")
    pytest.importorskip("launch_ros", reason="no wheel of ROS 2's launch_ros exists; runs where ROS 2 is installed")
    context = launch.LaunchContext()
    declared = {argument.name: argument.default_value for argument in description_of(path).get_launch_arguments()}
    assert set(declared) == ARGUMENTS
    assert Path("".join(part.perform(context) for part in declared["config"])).is_file()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (
            {"namespace": "robot1", "lidar_topic": "none", "cameras": "front"},
            "robot1.aqr_perception]: running aqr_tiny",
        ),
        ({"config": "/nowhere.yaml"}, "config:=/nowhere.yaml: found no such file"),
        ({"log_level": "loud"}, '"loud" is not valid'),
    ],
)
def test_ros_own_launch_starts_the_node(given: dict[str, str], found: str) -> None:
    pytest.importorskip("launch", reason="no wheel of ROS 2's launch exists; runs where ROS 2 is installed")
    pytest.importorskip("launch_ros", reason="no wheel of ROS 2's launch_ros exists; runs where ROS 2 is installed")
    arguments = [(name, value) for name, value in given.items()]
    program = f"""
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription, Shutdown, TimerAction
from launch.launch_description_sources import PythonLaunchDescriptionSource

included = IncludeLaunchDescription(PythonLaunchDescriptionSource({str(PERCEPTION)!r}), launch_arguments={arguments!r})
service = LaunchService()
service.include_launch_description(LaunchDescription([included, TimerAction(period=20.0, actions=[Shutdown()])]))
service.run()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    output = done.stdout + done.stderr
    assert found in output
    assert "Traceback" not in output
