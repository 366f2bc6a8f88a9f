# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Table of the node's parameters, and their validation and conversion to settings."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_topic_name import validate_topic_name

from aqr_perception.frame import CLASSES
from aqr_perception.models.weights.shipped import RANDOM
from aqr_perception.nodes.declaration import Overrides, Parameter, nearest
from aqr_perception.nodes.flow.pipelining import Pipelining
from aqr_perception.nodes.input.frame_request import (
    LIDAR,
    MOST_SWEEPS,
    AssemblerSettings,
    CameraSettings,
    ClockPolicy,
    LidarSettings,
    lidar_name,
)
from aqr_perception.options import (
    Activation,
    AqrMode,
    AqrOptions,
    BiasForm,
    DetectionOptions,
    ModulationForm,
    OptionError,
    RouterAttention,
    WeightsSource,
)
from aqr_perception.tracking.track_options import TrackingOptions
from aqr_perception.visualization.picture_options import PictureOptions, PictureView

_DEFAULT_CAMERAS = ["front", "front_right", "front_left", "back", "back_left", "back_right"]
_THRESHOLDS = "class_score_thresholds."
_RESERVED = ("bev", LIDAR)
"""Names in ~/weights/ and in the detections that are no cameras'."""
_LIDAR_TOPIC, _LIDAR_TOPICS = "lidar_topic", "lidar_topics"

_WINDOW = "edge length in cells; 0: as the model was trained"
_ROUTER_WINDOW = "edge length in cells, odd; 0: as the model was trained"
_AQR_CMT = "only for weights trained with the research code (AQR-CMT)"
_RESIDUAL = "AQR-CMT and aqr.modulation residual"

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "autostart",
        True,
        "true: configure and activate the node when it starts; false: wait for lifecycle transitions",
    ),
    Parameter("cameras", _DEFAULT_CAMERAS, "camera names, which are also parts of topics; [] or [''] for no cameras"),
    Parameter(_LIDAR_TOPIC, "/lidar/points", "topic of the LiDAR's sensor_msgs/PointCloud2; empty: no LiDAR"),
    Parameter(
        _LIDAR_TOPICS,
        [""],
        "topics of several LiDARs, instead of lidar_topic; their sweeps are joined in the model frame. The first one "
        "triggers frames, and the next one while it is silent; [] or ['']: lidar_topic applies",
    ),
    Parameter(
        "sensor_reliability",
        "best_effort",
        "QoS reliability of the sensor subscriptions",
        choices=("best_effort", "reliable"),
    ),
    Parameter(
        "fixed_frame",
        "",
        "TF frame fixed to the world, e.g. map or odom; empty: the vehicle's motion is ignored and sweeps are not "
        "accumulated",
    ),
    Parameter(
        "model_frame",
        "",
        "TF frame of the model's input points and boxes; empty: the frame of the (first) LiDAR. Published weights "
        "expect the axes of nuScenes' LiDAR: x right, y forward, z up",
    ),
    Parameter("output_frame", "", "TF frame of the published detections; empty: the model frame"),
    Parameter(
        "base_frame",
        "",
        "TF frame of the vehicle with z = 0 on the ground, e.g. base_link or base_footprint: the plane of "
        "~/weights/bev/grid; empty: output_frame",
    ),
    Parameter(
        "marker_lifetime",
        0.8,
        "s; markers vanish after this time without a newer frame; set it above the time between two frames",
        0.05,
        60.0,
    ),
    Parameter(
        "max_camera_age",
        0.2,
        "s; largest time difference between an image and the sweep; other images are not used",
        0.001,
        10.0,
    ),
    Parameter(
        "max_lidar_age",
        0.2,
        "s; with several LiDARs, largest time difference between a sweep and the one that triggered the frame; other "
        "sweeps are not used",
        0.001,
        10.0,
    ),
    Parameter(
        "camera_wait", 0.05, "s; longest wait for missing images, and sweeps of other LiDARs, after a sweep", 0.0, 10.0
    ),
    Parameter(
        "lidar_timeout",
        0.5,
        "s; without a sweep for this long, the next LiDAR triggers frames; without any, the node makes camera-only "
        "frames",
        0.01,
        60.0,
    ),
    Parameter("camera_only_period", 0.1, "s; shortest time between two camera-only frames", 0.001, 60.0),
    Parameter("transform_wait", 0.1, "s; longest wait for late transforms, per frame", 0.0, 10.0),
    Parameter(
        "clock_policy",
        "auto",
        "use of a sensor whose stamps are missing, constant, or far from the other sensors' and the clock; leave_out: "
        "not used; arrival: stamped with its time of arrival; auto: left out while another sensor has right stamps, "
        "stamped with its time of arrival otherwise",
        choices=get_args(ClockPolicy),
    ),
    Parameter(
        "max_latency",
        1.0,
        "s; results older than this, from the measurement to the publication, are dropped and counted in /diagnostics",
        0.01,
        3600.0,
    ),
    Parameter(
        "max_sweeps",
        0,
        "largest number of LiDAR sweeps to accumulate, limited to the number the model was trained with; 0: that "
        "number, as the preset says; more than one sweep needs fixed_frame",
        0,
        MOST_SWEEPS,
    ),
    Parameter("intensity_scale", 1.0, "factor that scales LiDAR intensities to 0..255", 1e-6, 1e6),
    Parameter("model.preset", "aqr_tiny", "name of a model preset, or path of a preset's .yaml file", run_time=True),
    Parameter(
        "model.checkpoint",
        "",
        "path of the weights, .pth or .safetensors; empty: the weights shipped for the preset, or random weights if "
        "there are none; random: random weights",
        run_time=True,
    ),
    Parameter(
        "model.directories",
        [""],
        "folders in which model.checkpoint, and model.preset if it is a path, must lie; [] or ['']: any folder",
    ),
    Parameter("model.device", "auto", "auto, cpu, cuda or cuda:N", run_time=True),
    Parameter(
        "model.precision",
        "auto",
        "number format of the network",
        choices=("auto", "fp32", "fp16", "bf16"),
        run_time=True,
    ),
    Parameter(
        "model.image_backend",
        "torch",
        "what runs the image branch; openvino needs a CPU and the library openvino, otherwise PyTorch runs it",
        choices=("torch", "openvino"),
        run_time=True,
    ),
    Parameter(
        "autoware_objects",
        False,
        "whether to publish the detections on ~/objects as autoware_perception_msgs/DetectedObjects; needs the package "
        "autoware_perception_msgs",
    ),
    Parameter("use_lidar", True, "whether to use the LiDAR, or any of several", run_time=True),
    Parameter("score_threshold", 0.3, "lowest score of published detections", 0.0, 1.0, run_time=True),
    Parameter("max_detections", 300, "largest number of detections per frame", 1, 300, run_time=True),
    Parameter(
        "max_history_gap",
        1.0,
        "s; a model with memory forgets its history when the previous frame is older than this, or when time jumps "
        "back",
        0.01,
        60.0,
        run_time=True,
    ),
    Parameter(
        "pipelining",
        "auto",
        "whether the next frame is built and the last one published while the model runs: more frames a second, each "
        "at most one frame's time older; auto: on where the model leaves a core, which is with a model on another "
        "device than the CPU or with more than two physical cores",
        choices=get_args(Pipelining),
        run_time=True,
    ),
    Parameter(
        "weights.source",
        "auto",
        "source of the published sensor weights; router: the query router (AQR); attention: attention mass; auto: the "
        "router if the model has a trained one, attention otherwise",
        choices=get_args(WeightsSource),
        run_time=True,
    ),
    Parameter(
        "weights.view",
        "weights",
        "what the pictures show; weights: of the LiDAR from above, of the camera in its image; trust: the LiDAR "
        "against the cameras, object by object",
        choices=get_args(PictureView),
        run_time=True,
    ),
    Parameter(
        "weights.by_score",
        True,
        "true: in pictures, a query is as visible as its score; false: pictures show the published maps, with every "
        "query alike",
        run_time=True,
    ),
    Parameter(
        "aqr.mode",
        "auto",
        "how the query weights act on the model; auto: as the preset says; modulation: on the features; bias: on the "
        "attention; both; gate: they multiply the attention, only for weights trained so",
        choices=get_args(AqrMode),
        run_time=True,
    ),
    Parameter("aqr.strength", 1.0, "strength of the query weights' effect; 0 equals mode off", 0.0, 4.0, run_time=True),
    Parameter("aqr.bev_window", 0, f"window of the attention bias in the BEV grid; {_WINDOW}", 0, 31, run_time=True),
    Parameter(
        "aqr.image_window", 0, f"window of the attention bias in the camera images; {_WINDOW}", 0, 31, run_time=True
    ),
    Parameter(
        "aqr.router_bev_window", 0, f"window of the router in the BEV grid; {_ROUTER_WINDOW}", 0, 31, run_time=True
    ),
    Parameter(
        "aqr.router_image_window",
        0,
        f"window of the router in the camera images; {_ROUTER_WINDOW}",
        0,
        31,
        run_time=True,
    ),
    Parameter(
        "aqr.modulation",
        "auto",
        "form of the modulation by the weight maps; interpolating: factor 1 where a weight is 1; residual: factor "
        "map + aqr.residual, as in the research code; auto: the model's own",
        choices=get_args(ModulationForm),
        run_time=True,
    ),
    Parameter(
        "aqr.bias",
        "auto",
        "form of the attention bias; additive: the weight; signed: 2 weight - 1 times a learned scale, only for "
        "weights trained so; auto: the model's own",
        choices=get_args(BiasForm),
        run_time=True,
    ),
    Parameter(
        "aqr.router_attention",
        "auto",
        f"whether the router attends to its windows or to all tokens; {_AQR_CMT}",
        choices=get_args(RouterAttention),
        run_time=True,
    ),
    Parameter(
        "aqr.activation",
        "auto",
        f"range of the query weights: sigmoid 0..1, tanh -1..1; {_AQR_CMT}",
        choices=get_args(Activation),
        run_time=True,
    ),
    Parameter(
        "aqr.residual",
        -1.0,
        f"0..2; share of the features that modulation always keeps; -1: the model's own; {_RESIDUAL}",
        -1.0,
        2.0,
        run_time=True,
    ),
    Parameter(
        "aqr.map_limit",
        -1.0,
        f"above 0, at most 1000; largest value of the maps that scale the features; -1: the model's own; {_RESIDUAL}",
        -1.0,
        1000.0,
        run_time=True,
    ),
    Parameter("aqr.sigma", 2.0, "cells; sigma of the Gaussian splats in the weight maps", 0.3, 5.0, run_time=True),
    Parameter("aqr.min_weight", 0.05, "weight map values of smaller magnitude are set to 0", 0.0, 1.49, run_time=True),
    Parameter(
        "aqr.reduce",
        "max",
        "how overlapping splats in the weight maps are combined",
        choices=("max", "sum"),
        run_time=True,
    ),
    Parameter("tracking.enabled", False, "whether to follow objects and publish ~/tracks", run_time=True),
    Parameter(
        "tracking.max_age",
        1.5,
        "s; a track without a detection is predicted for this long, then it ends",
        0.0,
        60.0,
        run_time=True,
    ),
    Parameter(
        "tracking.birth_score",
        0.3,
        "lowest score of a detection that begins a track; others of the published detections only continue tracks",
        0.0,
        1.0,
        run_time=True,
    ),
    Parameter(
        "tracking.death_score",
        0.05,
        "a track without a detection ends when its falling score is below this",
        0.0,
        1.0,
        run_time=True,
    ),
    Parameter("tracking.min_hits", 1, "detections of a track before it is published", 1, 100, run_time=True),
    Parameter(
        "tracking.max_distance",
        4.0,
        "m; largest distance between a detection and the predicted position of its track",
        0.1,
        100.0,
        run_time=True,
    ),
    Parameter(
        "tracking.velocity_error",
        5.0,
        "m/s; standard deviation of the model's velocities: small for a model that has learned them well",
        0.01,
        100.0,
        run_time=True,
    ),
)


def lidar_parameters(number: int) -> tuple[Parameter, ...]:
    """Return the parameters of one LiDAR in `lidar_topics`, the first of which has number 1."""
    return (
        Parameter(
            f"lidar.{number}.intensity_scale",
            0.0,
            "factor that scales this LiDAR's intensities to 0..255; 0: intensity_scale applies",
            0.0,
            1e6,
        ),
        Parameter(f"lidar.{number}.enabled", True, "whether to use this LiDAR", run_time=True),
    )


def camera_parameters(camera: str) -> tuple[Parameter, ...]:
    """Return the parameters of one camera."""
    prefix = f"camera.{camera}"
    return (
        Parameter(
            f"{prefix}.image_topic",
            f"/{camera}/image_raw",
            "topic of the camera's sensor_msgs/Image or CompressedImage",
        ),
        Parameter(f"{prefix}.info_topic", f"/{camera}/camera_info", "topic of the camera's sensor_msgs/CameraInfo"),
        Parameter(f"{prefix}.compressed", False, "true: images are sensor_msgs/CompressedImage; false: Image"),
        Parameter(
            f"{prefix}.rectified",
            False,
            "true: images are rectified, CameraInfo's P applies; false: images are undistorted with K and D",
        ),
        Parameter(
            f"{prefix}.offset", 0.0, "s; delay of the image stamps, subtracted to get the exposure time", -10.0, 10.0
        ),
        Parameter(
            f"{prefix}.baseline_in_tf",
            False,
            "true: TF places this camera itself, and P's baseline (right stereo camera) does not apply",
        ),
        Parameter(f"{prefix}.enabled", True, "whether to use the camera", run_time=True),
    )


def class_parameters(classes: Sequence[str] = CLASSES) -> tuple[Parameter, ...]:
    """Return the score thresholds of a model's classes."""
    text = "score threshold of this class; negative: score_threshold applies"
    return tuple(Parameter(f"{_THRESHOLDS}{name}", -1.0, text, -1.0, 1.0, run_time=True) for name in classes)


@dataclass(frozen=True)
class ModelSettings:
    """Choice of the model and its device; the arguments of `Detector`."""

    preset: str
    checkpoint: str
    device: str
    precision: str
    image_backend: Literal["torch", "openvino"] = "torch"


@dataclass(frozen=True)
class Settings:
    """Settings from all parameters, validated together."""

    assembler: AssemblerSettings
    detection: DetectionOptions
    model: ModelSettings
    reliable: bool
    tracking: TrackingOptions
    pictures: PictureOptions
    pipelining: Pipelining
    autoware_objects: bool


def declare(node: Node, overrides: Overrides | None = None) -> dict[str, Any]:
    """Declare every parameter on a node and return their values.

    Classes are those of `model.preset`.

    Args:
        overrides: the user's values; those that cannot be used are noted there, and the defaults are declared.
    """
    given = Overrides(node) if overrides is None else overrides
    values = {parameter.name: given.declare(node, parameter) for parameter in _for_given_lidars(given)}
    for number, _ in enumerate(_several_topics(values), start=1):
        values |= {parameter.name: given.declare(node, parameter) for parameter in lidar_parameters(number)}
    for camera in dict.fromkeys(_camera_names(values)):
        values |= {parameter.name: given.declare(node, parameter) for parameter in camera_parameters(camera)}
    declare_classes(node, _start_classes(values), values, given)
    return values


def _for_given_lidars(given: Overrides) -> list[Parameter]:
    """Return `PARAMETERS`, where the default of `lidar_topic` does not contradict a given `lidar_topics`."""
    by_name = {parameter.name: parameter for parameter in PARAMETERS}
    if any(given.value(by_name[_LIDAR_TOPICS])) and not given.is_given(_LIDAR_TOPIC):
        by_name[_LIDAR_TOPIC] = replace(by_name[_LIDAR_TOPIC], default="")
    return list(by_name.values())


def _start_classes(values: Mapping[str, Any]) -> tuple[str, ...]:
    from aqr_perception.detector import preset_classes  # imports PyTorch, which takes seconds

    try:
        _check_directories(values)
        return preset_classes(values["model.preset"])
    except (ValueError, OSError):  # the node reports an invalid preset when it is configured
        return CLASSES


def declare_classes(node: Node, classes: Sequence[str], values: dict[str, Any], overrides: Overrides) -> None:
    """Declare the score thresholds of a model's classes that are not in `values` yet, and add their values."""
    new = [parameter for parameter in class_parameters(classes) if parameter.name not in values]
    values |= {parameter.name: overrides.declare(node, parameter) for parameter in new}


def ignored(overrides: Overrides, values: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each value that the user gave a name that is not a parameter."""
    return [_ignored(name, values) for name in overrides.unknown(values)]


def _ignored(name: str, values: Mapping[str, Any]) -> str:
    kind, _, rest = name.partition(".")
    camera = number = rest.partition(".")[0]
    if f"{kind}." == _THRESHOLDS:
        similar = nearest(name, values)
        return f"{name} has no effect: model.preset {values['model.preset']} has no class {rest}{similar}"
    count = len(_several_topics(values))
    if kind == LIDAR and number.isdecimal() and not 1 <= int(number) <= count:
        return f"{name} has no effect: lidar_topics has {count} topics, the first of which is lidar.1"
    if kind == "camera" and camera not in values["cameras"]:
        return f"{name} has no effect: cameras has no {camera!r}{nearest(camera, _camera_names(values))}"
    return f"{name} is not a parameter of this node and has no effect{nearest(name, values)}"


def converted(changes: Sequence[RosParameter]) -> list[RosParameter]:
    """Return changes of parameters in the parameters' types, where their meaning is clear."""
    return [_converted(change) for change in changes]


def _converted(change: RosParameter) -> RosParameter:
    for parameter in PARAMETERS:
        if change.name == parameter.name and change.value is not None:
            return RosParameter(change.name, value=parameter.converted(change.value))
    if change.name.startswith(_THRESHOLDS) and type(change.value) is int:
        return RosParameter(change.name, value=float(change.value))
    return change


def read(values: Mapping[str, Any]) -> Settings:
    """Return the settings of parameter values, by name.

    Raises:
        OptionError: a value or a combination of values is invalid; the text names the parameter and the value needed.
    """
    _check_lidars(values)
    _check_cameras(values)
    _check_each(values)
    _check_topics(values)
    _check_directories(values)
    return Settings(
        assembler=_assembler_settings(values),
        detection=_detection_options(values),
        model=ModelSettings(**{field.name: values[f"model.{field.name}"] for field in fields(ModelSettings)}),
        reliable=values["sensor_reliability"] == "reliable",
        tracking=TrackingOptions(**{field.name: values[f"tracking.{field.name}"] for field in fields(TrackingOptions)}),
        pictures=PictureOptions(**{field.name: values[f"weights.{field.name}"] for field in fields(PictureOptions)}),
        pipelining=values["pipelining"],
        autoware_objects=values["autoware_objects"],
    )


def _check_each(values: Mapping[str, Any]) -> None:
    classes = [name.removeprefix(_THRESHOLDS) for name in values if name.startswith(_THRESHOLDS)]
    cameras = (parameter for camera in _camera_names(values) for parameter in camera_parameters(camera))
    numbers = range(1, len(_several_topics(values)) + 1)
    lidars = (parameter for number in numbers for parameter in lidar_parameters(number))
    for parameter in (*PARAMETERS, *class_parameters(classes), *cameras, *lidars):
        parameter.check(values[parameter.name])


def _check_lidars(values: Mapping[str, Any]) -> None:
    one, several = values[_LIDAR_TOPIC], _several_topics(values)
    if several and one:
        found = f"{_LIDAR_TOPIC} is {one!r} and {_LIDAR_TOPICS} is {several}"
        raise OptionError(f"{found}, but only one of them may be set; leave {_LIDAR_TOPIC} out or set it to ''")
    if "" in several:
        empty = several.index("") + 1
        raise OptionError(f"{_LIDAR_TOPICS} is {several}, but must have no empty text; topic {empty} is empty")


def _check_cameras(values: Mapping[str, Any]) -> None:
    lidars = [lidar_name(number) for number, _ in enumerate(_lidar_topics(values), start=1)]
    for name in _camera_names(values):
        if name in lidars:
            raise OptionError(f"cameras has {name!r}, but a LiDAR has this name; choose another name")
        if name in _RESERVED:
            raise OptionError(f"cameras has {name!r}, but the node has topics of this name; choose another name")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            needed = "letters, digits and underscores, with a letter first, because topics contain the names"
            raise OptionError(f"cameras has {name!r}, but names must be {needed}")


def _check_topics(values: Mapping[str, Any]) -> None:
    cameras = dict.fromkeys(_camera_names(values))
    images = {f"camera.{camera}.image_topic": values[f"camera.{camera}.image_topic"] for camera in cameras}
    infos = {f"camera.{camera}.info_topic": values[f"camera.{camera}.info_topic"] for camera in cameras}
    lidars = _lidar_topics(values)
    for name, topic in (images | infos | lidars).items():
        try:
            validate_topic_name(topic)
            validate_full_topic_name(expand_topic_name(topic, "aqr_perception", "/"))
        except InvalidTopicNameException as error:
            reason = str(error).partition(":")[2].split("\n")[0].strip()
            raise OptionError(f"{name} is {topic!r}, but must be a topic: {reason}") from error
    owners: dict[str, str] = {}
    for name, topic in (images | lidars).items():
        if topic in owners:
            raise OptionError(f"{owners[topic]} and {name} are both {topic!r}, but each sensor needs its own topic")
        owners[topic] = name


def _check_directories(values: Mapping[str, Any]) -> None:
    """Check that the model's files lie in the allowed folders, links followed."""
    folders = [folder for folder in values["model.directories"] if folder]
    if not folders:
        return
    preset, checkpoint = values["model.preset"], values["model.checkpoint"]
    files = {"model.preset": preset} if preset.endswith(".yaml") else {}
    if checkpoint not in ("", RANDOM):
        files["model.checkpoint"] = checkpoint
    for name, file in files.items():
        if not any(Path(file).resolve().is_relative_to(Path(folder).resolve()) for folder in folders):
            raise OptionError(f"{name} is {file!r}, but must lie in one of model.directories: {', '.join(folders)}")


def _assembler_settings(values: Mapping[str, Any]) -> AssemblerSettings:
    cameras = _camera_names(values)
    enabled = {camera for camera in cameras if values[f"camera.{camera}.enabled"]}
    lidars = _lidar_settings(values)
    of_lidars = [values[f"lidar.{number}.enabled"] for number, _ in enumerate(_several_topics(values), start=1)]
    if values["use_lidar"]:
        enabled |= {lidar.name for lidar, on in zip(lidars, of_lidars or [True], strict=False) if on}
    if not enabled:
        switches = " or one of lidar.<number>.enabled" if of_lidars else ""
        raise OptionError(f"no sensor is enabled: set use_lidar{switches} or one of camera.<name>.enabled to true")
    return AssemblerSettings(
        cameras=tuple(_camera_settings(values, camera) for camera in cameras),
        lidar_topic=lidars[0].topic if lidars else "",
        intensity_scale=lidars[0].intensity_scale if lidars else values["intensity_scale"],
        further_lidars=lidars[1:],
        enabled=frozenset(enabled),
        # `RunningModel.supported_settings` limits it to the model's number.
        max_sweeps=values["max_sweeps"] or MOST_SWEEPS,
        **{name: values[name] for name in _ASSEMBLER_PARAMETERS},
    )


def _lidar_settings(values: Mapping[str, Any]) -> tuple[LidarSettings, ...]:
    settings = []
    for number, topic in enumerate(_lidar_topics(values).values(), start=1):
        parameter = f"lidar.{number}.intensity_scale"
        scale = values.get(parameter, 0.0) or values["intensity_scale"]
        settings.append(LidarSettings(lidar_name(number), topic, scale, parameter))
    return tuple(settings)


def _lidar_topics(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the topics of all LiDARs, by what an error calls them."""
    several = _several_topics(values)
    if several:
        return {f"lidar_topics (topic {number})": topic for number, topic in enumerate(several, start=1)}
    return {_LIDAR_TOPIC: values[_LIDAR_TOPIC]} if values[_LIDAR_TOPIC] else {}


def _several_topics(values: Mapping[str, Any]) -> list[str]:
    """Return `lidar_topics`; none if it stands for no topics."""
    topics = list(values[_LIDAR_TOPICS])
    return topics if topics != [""] else []


def _camera_settings(values: Mapping[str, Any], camera: str) -> CameraSettings:
    return CameraSettings(camera, **{name: values[f"camera.{camera}.{name}"] for name in _CAMERA_PARAMETERS})


def _detection_options(values: Mapping[str, Any]) -> DetectionOptions:
    thresholds = {name: threshold for name, threshold in values.items() if name.startswith(_THRESHOLDS)}
    return DetectionOptions(
        score_threshold=values["score_threshold"],
        class_score_thresholds={
            name.removeprefix(_THRESHOLDS): threshold for name, threshold in thresholds.items() if threshold >= 0
        },
        max_detections=values["max_detections"],
        weights_source=values["weights.source"],
        max_history_gap=values["max_history_gap"],
        aqr=AqrOptions(**{field.name: values[f"aqr.{field.name}"] for field in fields(AqrOptions)}),
    )


def _camera_names(values: Mapping[str, Any]) -> list[str]:
    return [name for name in values["cameras"] if name]


_ASSEMBLER_PARAMETERS = (
    "fixed_frame", "model_frame", "output_frame", "max_camera_age", "max_lidar_age", "camera_wait", "lidar_timeout",
    "camera_only_period", "transform_wait", "clock_policy", "max_latency", "base_frame", "marker_lifetime",
)  # fmt: skip
_CAMERA_PARAMETERS = ("image_topic", "info_topic", "compressed", "rectified", "offset", "baseline_in_tf")
