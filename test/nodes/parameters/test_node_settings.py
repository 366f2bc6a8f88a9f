# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameters are documented, and validated together."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.own_classes import write_preset
from helpers.places import ROOT

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.frame import CLASSES  # noqa: E402
from aqr_perception.nodes.input import frame_request  # noqa: E402
from aqr_perception.nodes.parameters import declared_values, node_settings, parameter_table  # noqa: E402
from aqr_perception.nodes.parameters.declaration import Overrides  # noqa: E402
from aqr_perception.options import OptionError  # noqa: E402

CONFIG = ROOT / "config"


def defaults(cameras: list[str] | None = None) -> dict[str, Any]:
    values = {parameter.name: parameter.default for parameter in parameter_table.PARAMETERS}
    values["cameras"] = values["cameras"] if cameras is None else cameras
    for camera in values["cameras"]:
        values |= {parameter.name: parameter.default for parameter in parameter_table.camera_parameters(camera)}
    return values | {parameter.name: parameter.default for parameter in parameter_table.class_parameters()}


def several(*topics: str, **changes: Any) -> dict[str, Any]:
    """Return values with some LiDARs; dots in the names of changes are double underscores."""
    values = defaults(["front"]) | {"lidar_topic": "", "lidar_topics": list(topics)}
    for number in range(1, len(topics) + 1):
        values |= {parameter.name: parameter.default for parameter in parameter_table.lidar_parameters(number)}
    return values | {name.replace("__", "."): value for name, value in changes.items()}


def test_every_parameter_has_a_description_and_every_number_a_range() -> None:
    every = (
        *parameter_table.PARAMETERS,
        *parameter_table.camera_parameters("front"),
        *parameter_table.lidar_parameters(2),
        *parameter_table.class_parameters(),
    )
    assert len({parameter.name for parameter in every}) == len(every)
    for parameter in every:
        descriptor = parameter.descriptor()
        assert len(descriptor.description) > 10, parameter.name
        if isinstance(parameter.default, float) or type(parameter.default) is int:
            assert descriptor.floating_point_range or descriptor.integer_range, parameter.name


def test_the_defaults_are_valid_settings() -> None:
    settings = node_settings.read(defaults())
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
        ({"max_sweeps": frame_request.MOST_SWEEPS + 1}, "max_sweeps"),
        ({"max_sweeps": -1}, "max_sweeps"),
        ({"class_score_thresholds.car": 1.5}, "class_score_thresholds.car"),
        ({"camera_wait": -1.0}, "camera_wait"),
        ({"class_score_thresholds.car": math.nan}, "class_score_thresholds.car is nan"),
        ({"camera.front.offset": math.nan}, "camera.front.offset is nan"),
        ({"score_threshold": math.nan}, "score_threshold is nan"),
        ({"max_camera_age": 1e9}, "max_camera_age is 1000000000.0"),
        ({"use_lidar": False} | {f"camera.{name}.enabled": False for name in defaults()["cameras"]}, "no sensor"),
    ],
)
def test_an_invalid_value_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        node_settings.read(defaults() | changes)


@pytest.mark.parametrize(("given", "most"), [(0, frame_request.MOST_SWEEPS), (1, 1), (3, 3), (10, 10)])
def test_sweeps_are_limited_on_request_only(given: int, most: int) -> None:
    assert defaults()["max_sweeps"] == 0
    assert node_settings.read(defaults() | {"max_sweeps": given}).assembler.max_sweeps == most


def test_a_vehicle_may_have_no_cameras_or_no_lidar() -> None:
    assert node_settings.read(defaults([""]) | {"cameras": [""]}).assembler.cameras == ()
    assert not node_settings.read(defaults() | {"lidar_topic": ""}).assembler.is_enabled("lidar")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cameras": ["front", "bev"]}, "cameras.*'bev'.*topics"),
        ({"cameras": ["front", "lidar"]}, "cameras.*'lidar'"),
        ({"cameras": ["my camera"]}, "cameras.*'my camera'.*letters"),
        ({"cameras": ["2nd"]}, "cameras.*'2nd'"),
        ({"cameras": ["front.left"]}, r"cameras.*'front\.left'"),
        ({"cameras": ["front", "front"]}, "cameras.*distinct"),
        ({"lidar_topic": "the points"}, "lidar_topic.*'the points'.*topic"),
        ({"camera.front.image_topic": ""}, r"camera\.front\.image_topic"),
        ({"camera.front.info_topic": "/a//b"}, r"camera\.front\.info_topic"),
        ({"camera.front.image_topic": "/back/image_raw"}, r"camera\.front\.image_topic.*camera\.back\.image_topic"),
        ({"lidar_topic": "/back/image_raw"}, "camera.back.image_topic and lidar_topic"),
    ],
)
def test_names_of_cameras_and_topics_are_checked(changes: dict[str, Any], named: str) -> None:
    values = defaults(changes.get("cameras")) | changes
    with pytest.raises(OptionError, match=named):
        node_settings.read(values)


def test_several_lidars_have_names_topics_and_scales() -> None:
    read = node_settings.read(several("/a", "b", "/c", intensity_scale=2.0, lidar__2__intensity_scale=0.5)).assembler
    assert read.sensors == ("lidar", "lidar_2", "lidar_3", "front")
    assert [(lidar.topic, lidar.intensity_scale) for lidar in read.lidars] == [("/a", 2.0), ("b", 0.5), ("/c", 2.0)]
    assert [lidar.scale_parameter for lidar in read.lidars] == [f"lidar.{n}.intensity_scale" for n in (1, 2, 3)]
    assert read.enabled == set(read.sensors)
    one = node_settings.read(several("/a", lidar__1__intensity_scale=3.0)).assembler
    assert (one.lidar_topic, one.intensity_scale, one.sensors) == ("/a", 3.0, ("lidar", "front"))
    for none in ([], [""]):
        assert node_settings.read(defaults() | {"lidar_topics": none}).assembler.lidar_topic == "/lidar/points"


def test_lidars_are_switched_together_and_one_by_one() -> None:
    read = node_settings.read(several("/a", "/b", use_lidar=False)).assembler
    assert read.enabled == {"front"} and len(read.lidars) == 2
    assert node_settings.read(several("/a", "/b", lidar__1__enabled=False)).assembler.enabled == {"lidar_2", "front"}
    off = {"lidar__1__enabled": False, "lidar__2__enabled": False, "camera__front__enabled": False}
    with pytest.raises(OptionError, match=r"no sensor is enabled: .*lidar\.<number>\.enabled"):
        node_settings.read(several("/a", "/b", **off))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (several("/a", "/b", lidar_topic="/c"), r"lidar_topic is '/c' and lidar_topics is \['/a', '/b'\].*only one"),
        (several("/a", "/b", "/a"), r"lidar_topics \(topic 1\) and lidar_topics \(topic 3\) are both '/a'"),
        (several("/a", "/front/image_raw"), r"camera\.front\.image_topic and lidar_topics \(topic 2\)"),
        (several("/a", "", "/b"), "lidar_topics.*topic 2 is empty"),
        (several("", ""), "lidar_topics.*topic 1 is empty"),
        (several("/a", "/b c"), r"lidar_topics \(topic 2\) is '/b c', but must be a topic"),
        (several("/a", "/b", cameras=["lidar_2"]), "cameras has 'lidar_2', but a LiDAR has this name"),
    ],
)
def test_wrong_topics_of_several_lidars_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    for camera in values["cameras"]:
        values |= {parameter.name: parameter.default for parameter in parameter_table.camera_parameters(camera)}
    with pytest.raises(OptionError, match=named):
        node_settings.read(values)


def test_files_of_models_lie_in_the_allowed_folders(tmp_path: Path) -> None:
    inside, outside = tmp_path / "models", tmp_path / "models_of_others"
    inside.mkdir()
    outside.mkdir()
    (inside / "link.pth").symlink_to(outside / "stolen.pth")
    confined = defaults() | {"model.directories": [str(inside)]}
    for allowed in (
        {"model.checkpoint": ""},
        {"model.checkpoint": "random"},
        {"model.preset": "petr_tiny"},
        {"model.preset": str(inside / "mine.yaml"), "model.checkpoint": str(inside / "deeper" / "mine.pth")},
    ):
        node_settings.read(confined | allowed)
    for name, file in (
        ("model.checkpoint", outside / "mine.pth"),
        ("model.checkpoint", inside / ".." / "mine.pth"),
        ("model.checkpoint", inside / "link.pth"),
        ("model.checkpoint", "./random"),
        ("model.preset", outside / "mine.yaml"),
    ):
        with pytest.raises(OptionError, match=f"{name} is .* but must lie in one of model.directories: {inside}"):
            node_settings.read(confined | {name: str(file)})
        node_settings.read(defaults() | {name: str(file)})


def test_the_allowed_folders_are_fixed_at_the_start() -> None:
    (directories,) = (parameter for parameter in parameter_table.PARAMETERS if parameter.name == "model.directories")
    assert directories.descriptor().read_only


def test_changes_of_parameters_are_taken_in_the_parameters_types() -> None:
    given = {"score_threshold": 1, "class_score_thresholds.car": 0, "max_detections": 7.0, "aqr.mode": False}
    changes = declared_values.converted([rclpy.Parameter(name, value=value) for name, value in given.items()])
    assert {change.name: change.value for change in changes} == {
        "score_threshold": 1.0,
        "class_score_thresholds.car": 0.0,
        "max_detections": 7,
        "aqr.mode": "off",
    }
    assert [type(change.value) for change in changes] == [float, float, int, str]


@pytest.mark.parametrize("name", ["nuscenes.yaml", "perception.yaml"])
def test_shipped_configurations_are_valid_and_name_only_known_parameters(name: str) -> None:
    values = yaml.safe_load((CONFIG / name).read_text())["/**"]["ros__parameters"]

    def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        leaves: dict[str, Any] = {}
        for key, value in tree.items():
            leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return leaves

    given = flat(values)
    known = defaults(values["cameras"])
    assert set(given) <= set(known)
    assert all(type(given[key]) is type(known[key]) for key in given)
    node_settings.read(known | given)


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
    values = declared_values.declare(own)
    assert thresholds_of(values) == {"car": -1.0, "truck": -1.0, "pedestrian": -1.0, "forklift": 0.25}
    assert node_settings.read(values).detection.class_score_thresholds == {"forklift": 0.25}
    assert own.describe_parameter("class_score_thresholds.forklift").description.startswith("score threshold")
    assert tuple(thresholds_of(declared_values.declare(new_node()))) == CLASSES


@pytest.mark.parametrize("preset", ["cmt_huge", "/nowhere.yaml"])
def test_an_invalid_preset_declares_the_default_classes(new_node: Callable[..., Any], preset: str) -> None:
    assert tuple(thresholds_of(declared_values.declare(new_node(model__preset=preset)))) == CLASSES


def test_thresholds_of_another_models_classes_are_declared_later(new_node: Callable[..., Any]) -> None:
    node = new_node(class_score_thresholds__forklift=0.25, class_score_thresholds__crane=7.0)
    overrides = Overrides(node)
    values = declared_values.declare(node, overrides)
    assert "forklift" not in thresholds_of(values)
    declared_values.declare_classes(node, ("car", "forklift"), values, overrides)
    assert tuple(thresholds_of(values)) == (*CLASSES, "forklift")
    assert node_settings.read(values).detection.class_score_thresholds == {"forklift": 0.25}
    assert not overrides.problems
    declared_values.declare_classes(node, ("crane",), values, overrides)
    assert "class_score_thresholds.crane is 7.0" in overrides.problems["class_score_thresholds.crane"]


def test_ignored_values_are_named_with_the_nearest_name(new_node: Callable[..., Any]) -> None:
    node = new_node(
        cameras=["front"],
        scor_threshold=0.4,
        camera__front__image_topik="/x",
        camera__frnt__image_topic="/x",
        class_score_thresholds__pedestrain=0.2,
        entirely_different=1,
        use_sim_time=False,
        score_threshold=0.5,
    )
    overrides = Overrides(node)
    sentences = declared_values.ignored(overrides, declared_values.declare(node, overrides))
    assert len(sentences) == 5
    assert "camera.frnt.image_topic has no effect: cameras has no 'frnt'; did you mean front?" in sentences
    for name, nearest in (
        ("camera.front.image_topik", "; did you mean camera.front.image_topic?"),
        ("class_score_thresholds.pedestrain", "; did you mean class_score_thresholds.pedestrian?"),
        ("entirely_different", "has no effect"),
        ("scor_threshold", "; did you mean score_threshold?"),
    ):
        (sentence,) = (sentence for sentence in sentences if sentence.startswith(name))
        assert sentence.endswith(nearest)


def test_given_topics_of_several_lidars_replace_the_default_of_the_one(new_node: Callable[..., Any]) -> None:
    values = declared_values.declare(
        new_node(cameras=["front"], lidar_topics=["/a", "/b"], lidar__2__intensity_scale=2)
    )
    assert (values["lidar_topic"], values["lidar.1.enabled"], values["lidar.2.intensity_scale"]) == ("", True, 2.0)
    assert [lidar.topic for lidar in node_settings.read(values).assembler.lidars] == ["/a", "/b"]
    both = declared_values.declare(new_node(lidar_topic="/lidar/points", lidar_topics="/a"))
    with pytest.raises(OptionError, match=r"lidar_topic is '/lidar/points' and lidar_topics is \['/a'\]"):
        node_settings.read(both)
    neither = declared_values.declare(new_node(lidar_topics=[""]))
    assert neither["lidar_topic"] == "/lidar/points" and "lidar.1.enabled" not in neither


def test_values_of_lidars_that_do_not_exist_are_named(new_node: Callable[..., Any]) -> None:
    node = new_node(lidar_topics=["/a", "/b"], lidar__3__enabled=False, lidar__2__enabeld=False, lidar__0__enabled=True)
    overrides = Overrides(node)
    first, second, third = declared_values.ignored(overrides, declared_values.declare(node, overrides))
    assert first.startswith("lidar.0.enabled has no effect: lidar_topics has 2 topics")
    assert second.endswith("did you mean lidar.2.enabled?")
    assert third.startswith("lidar.3.enabled has no effect: lidar_topics has 2 topics")


def test_a_node_refuses_read_only_changes_and_values_out_of_range() -> None:
    context = rclpy.Context()
    context.init()
    node = rclpy.create_node("parameters_under_test", context=context)
    try:
        values = declared_values.declare(node)
        node_settings.read(values)
        refused = node.set_parameters(
            [rclpy.Parameter("lidar_topic", value="/x"), rclpy.Parameter("score_threshold", value=2.0)]
        )
        assert not any(result.successful for result in refused) and all(result.reason for result in refused)
        assert node.set_parameters([rclpy.Parameter("score_threshold", value=0.5)])[0].successful
    finally:
        node.destroy_node()
        context.shutdown()
