"""Actions of the launch files. Without ROS 2's `launch`, which has no wheel, a recorder replaces it."""

import importlib.util
import re
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
ARGUMENTS = {"config", "model", "checkpoint", "device", "bag", "rviz", "use_sim_time"}


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
        if self.kind == "ParameterValue":
            return str(self.named["value_type"](yaml.safe_load(text(self.positional[0], context))))
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


def parameters(node: Recorded, context: dict[str, str]) -> dict[str, str]:
    """Return the overrides that follow the parameter file."""
    file, *overrides = node.named["parameters"]
    assert text(file, context) == context["config"]
    return {name: text(value, context) for given in overrides for name, value in given.items()}


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
    description = description_of(ROOT / "launch" / "perception.launch.py")
    (node,) = started(description)
    assert node.kind == "LifecycleNode"
    assert (node.named["package"], node.named["executable"]) == ("aqr_perception", "perception_node")
    assert "scripts/perception_node" in (ROOT / "CMakeLists.txt").read_text()
    assert parameters(node, arguments(description)) == {"use_sim_time": "False"}


def test_arguments_override_the_configuration_file(recorder: None) -> None:
    description = description_of(ROOT / "launch" / "perception.launch.py")
    given = {"config": "my.yaml", "model": "aqr_tiny", "checkpoint": "w.pth", "device": "cpu", "use_sim_time": "true"}
    (node,) = started(description, **given)
    assert parameters(node, arguments(description, **given)) == {
        "model.preset": "aqr_tiny",
        "model.checkpoint": "w.pth",
        "model.device": "cpu",
        "use_sim_time": "True",
    }


def test_overridden_parameters_are_parameters_of_the_node(recorder: None) -> None:
    pytest.importorskip("rclpy", reason="the node's parameters are declared with rclpy's types")
    from aqr_perception.nodes.parameters import PARAMETERS

    (node,) = started(description_of(ROOT / "launch" / "perception.launch.py"), model="a", checkpoint="b", device="c")
    overridden = {name for given in node.named["parameters"][1:] for name in given}
    assert overridden - {"use_sim_time"} <= {parameter.name for parameter in PARAMETERS}


def test_a_bag_waits_for_the_node_to_be_active(recorder: None) -> None:
    handler, node = started(description_of(ROOT / "launch" / "perception.launch.py"), bag="drive.mcap")
    (active,) = handler.positional
    assert active.kind == "OnStateTransition"
    assert active.named["target_lifecycle_node"] is node and active.named["goal_state"] == "active"
    (play,) = active.named["entities"]
    assert play.named["cmd"] == ["ros2", "bag", "play", "drive.mcap", "--clock"]


def test_rviz_opens_the_installed_view_on_request(recorder: None) -> None:
    description = description_of(ROOT / "launch" / "perception.launch.py")
    (rviz,) = entities(description, "Node")
    condition = rviz.named["condition"]
    assert condition.kind == "IfCondition"
    assert text(condition.positional[0], arguments(description)) == "false"
    option, view = rviz.named["arguments"]
    assert option == "-d" and Path(text(view, {})).is_file()


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
