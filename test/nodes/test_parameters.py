"""Parameters are documented, and validated together."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.own_classes import write_preset
from helpers.places import ROOT

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from rclpy.exceptions import ParameterException  # noqa: E402

from aqr_perception.frame import CLASSES  # noqa: E402
from aqr_perception.nodes import parameters  # noqa: E402
from aqr_perception.options import OptionError  # noqa: E402

CONFIG = ROOT / "config"


def defaults(cameras: list[str] | None = None) -> dict[str, Any]:
    values = {parameter.name: parameter.default for parameter in parameters.PARAMETERS}
    values["cameras"] = values["cameras"] if cameras is None else cameras
    for camera in values["cameras"]:
        values |= {parameter.name: parameter.default for parameter in parameters.camera_parameters(camera)}
    return values | {parameter.name: parameter.default for parameter in parameters.class_parameters()}


def test_every_parameter_has_a_description_and_every_number_a_range() -> None:
    every = (*parameters.PARAMETERS, *parameters.camera_parameters("front"), *parameters.class_parameters())
    assert len({parameter.name for parameter in every}) == len(every)
    for parameter in every:
        descriptor = parameter.descriptor()
        assert len(descriptor.description) > 10, parameter.name
        if isinstance(parameter.default, float) or type(parameter.default) is int:
            assert descriptor.floating_point_range or descriptor.integer_range, parameter.name


def test_the_defaults_are_valid_settings() -> None:
    settings = parameters.read(defaults())
    assert settings.assembler.sensors[0] == "lidar" and len(settings.assembler.sensors) == 7
    assert settings.detection.class_score_thresholds == {}
    assert settings.model.preset == "aqr_tiny"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"aqr.router_image_window": 8}, "aqr.router_image_window"),
        ({"aqr.mode": "loud"}, "aqr.mode.*both"),
        ({"weights.source": "magic"}, "weights.source.*attention"),
        ({"sensor_reliability": "perhaps"}, "sensor_reliability"),
        ({"max_sweeps": 11}, "max_sweeps"),
        ({"class_score_thresholds.car": 1.5}, "class_score_thresholds.car"),
        ({"camera_wait": -1.0}, "camera_wait"),
        ({"use_lidar": False} | {f"camera.{name}.enabled": False for name in defaults()["cameras"]}, "no sensor"),
    ],
)
def test_an_invalid_value_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        parameters.read(defaults() | changes)


def test_a_vehicle_may_have_no_cameras_or_no_lidar() -> None:
    assert parameters.read(defaults([""]) | {"cameras": [""]}).assembler.cameras == ()
    assert not parameters.read(defaults() | {"lidar_topic": ""}).assembler.is_enabled("lidar")


@pytest.mark.parametrize("name", ["nuscenes.yaml", "perception.yaml"])
def test_shipped_configurations_are_valid_and_name_only_known_parameters(name: str) -> None:
    values = yaml.safe_load((CONFIG / name).read_text())["aqr_perception"]["ros__parameters"]

    def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        leaves: dict[str, Any] = {}
        for key, value in tree.items():
            leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return leaves

    given = flat(values)
    known = defaults(values["cameras"])
    assert set(given) <= set(known)
    assert all(type(given[key]) is type(known[key]) for key in given)
    parameters.read(known | given)


@pytest.fixture
def new_node() -> Iterator[Callable[..., Any]]:
    """Make nodes with parameter overrides."""
    context = rclpy.Context()
    context.init()
    nodes = []

    def make(**overrides: Any) -> Any:
        given = [rclpy.Parameter(name.replace("__", "."), value=value) for name, value in overrides.items()]
        nodes.append(rclpy.create_node("parameters_under_test", context=context, parameter_overrides=given))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.shutdown()


def thresholds_of(values: dict[str, Any]) -> dict[str, float]:
    prefix = "class_score_thresholds."
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def test_thresholds_are_declared_for_the_classes_of_the_preset(new_node: Callable[..., Any], tmp_path: Path) -> None:
    own = new_node(model__preset=write_preset(tmp_path), class_score_thresholds__forklift=0.25)
    values = parameters.declare(own)
    assert thresholds_of(values) == {"car": -1.0, "truck": -1.0, "pedestrian": -1.0, "forklift": 0.25}
    assert parameters.read(values).detection.class_score_thresholds == {"forklift": 0.25}
    assert own.describe_parameter("class_score_thresholds.forklift").description.startswith("score threshold")
    assert tuple(thresholds_of(parameters.declare(new_node()))) == CLASSES


@pytest.mark.parametrize("preset", ["cmt_huge", "/nowhere.yaml"])
def test_an_invalid_preset_declares_the_default_classes(new_node: Callable[..., Any], preset: str) -> None:
    assert tuple(thresholds_of(parameters.declare(new_node(model__preset=preset)))) == CLASSES


def test_thresholds_of_another_models_classes_are_declared_later(new_node: Callable[..., Any]) -> None:
    node = new_node(class_score_thresholds__forklift=0.25, class_score_thresholds__crane=7.0)
    values = parameters.declare(node)
    assert "forklift" not in thresholds_of(values)
    parameters.declare_classes(node, ("car", "forklift"), values)
    assert tuple(thresholds_of(values)) == (*CLASSES, "forklift")
    assert parameters.read(values).detection.class_score_thresholds == {"forklift": 0.25}
    with pytest.raises(ParameterException, match=r"class_score_thresholds\.crane"):
        parameters.declare_classes(node, ("crane",), values)


def test_a_node_refuses_read_only_changes_and_values_out_of_range() -> None:
    context = rclpy.Context()
    context.init()
    node = rclpy.create_node("parameters_under_test", context=context)
    try:
        values = parameters.declare(node)
        parameters.read(values)
        refused = node.set_parameters(
            [rclpy.Parameter("lidar_topic", value="/x"), rclpy.Parameter("score_threshold", value=2.0)]
        )
        assert not any(result.successful for result in refused) and all(result.reason for result in refused)
        assert node.set_parameters([rclpy.Parameter("score_threshold", value=0.5)])[0].successful
    finally:
        node.destroy_node()
        context.shutdown()
