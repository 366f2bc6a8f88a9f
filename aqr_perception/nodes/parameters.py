"""The node's parameters: declared once in one table, and read together into settings that are valid as a whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from aqr_perception.frame import CLASSES
from aqr_perception.nodes.input.frame_request import LIDAR, AssemblerSettings, CameraSettings
from aqr_perception.options import AqrMode, AqrOptions, DetectionOptions, OptionError, WeightsSource


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        low, high: inclusive range of a number.
        choices: the values allowed; empty: any.
        run_time: whether it may change while the node runs; otherwise set it before the node starts.
    """

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    run_time: bool = False

    def descriptor(self) -> ParameterDescriptor:
        described = ParameterDescriptor(name=self.name, description=self.description, read_only=not self.run_time)
        if self.choices:
            described.additional_constraints = f"one of {', '.join(self.choices)}"
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                described.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)]
            else:
                described.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high)]
        return described


_RING = ["front", "front_right", "front_left", "back", "back_left", "back_right"]
_WINDOW = "cells, odd; 0: the model's own"

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("autostart", True, "configure and activate at start; false: wait for lifecycle transitions"),
    Parameter("cameras", _RING, "names of the cameras; [''] for none"),
    Parameter("lidar_topic", "/lidar/points", "sensor_msgs/PointCloud2; empty: no LiDAR"),
    Parameter(
        "sensor_reliability", "best_effort", "QoS of the sensor subscriptions", choices=("best_effort", "reliable")
    ),
    Parameter(
        "fixed_frame",
        "",
        "TF frame that does not move with the vehicle, e.g. map or odom; empty: transforms are "
        "static and sweeps are not accumulated",
    ),
    Parameter(
        "model_frame",
        "",
        "TF frame in which the model sees the scene; empty: the LiDAR's own. Published weights "
        "expect nuScenes' LiDAR axes: x right, y forward, z up",
    ),
    Parameter("output_frame", "", "TF frame of what is published; empty: the model's frame"),
    Parameter("max_camera_age", 0.2, "s; an image further from the sweep does not take part", 0.001, 10.0),
    Parameter("camera_wait", 0.05, "s; longest wait for missing cameras after a sweep", 0.0, 10.0),
    Parameter("lidar_timeout", 0.5, "s; a LiDAR silent for longer is taken for dead, cameras go on alone", 0.01, 60.0),
    Parameter("camera_only_period", 0.1, "s; shortest time between frames without LiDAR", 0.001, 60.0),
    Parameter("transform_wait", 0.1, "s; longest wait of one frame for late transforms", 0.0, 10.0),
    Parameter(
        "max_sweeps",
        10,
        "LiDAR sweeps accumulated, though no more than the model was trained with; more than one needs fixed_frame",
        1,
        10,
    ),
    Parameter("intensity_scale", 1.0, "factor on LiDAR intensities, so that they span 0..255", 1e-6, 1e6),
    Parameter("model.preset", "aqr_tiny", "name of a model preset, or path of a .yaml", run_time=True),
    Parameter(
        "model.checkpoint",
        "",
        "weights, .pth or .safetensors; empty: those shipped for the preset, or random ones where there are none; "
        "random: random ones",
        run_time=True,
    ),
    Parameter("model.device", "auto", "auto, cpu, cuda or cuda:N", run_time=True),
    Parameter(
        "model.precision",
        "auto",
        "number format of the network",
        choices=("auto", "fp32", "fp16", "bf16"),
        run_time=True,
    ),
    Parameter("use_lidar", True, "whether the LiDAR takes part", run_time=True),
    Parameter("score_threshold", 0.3, "detections scoring less are not published", 0.0, 1.0, run_time=True),
    Parameter("max_detections", 300, "most detections of a frame", 1, 300, run_time=True),
    Parameter(
        "max_history_gap",
        1.0,
        "s; models with a memory forget when the frame before is older, or when time jumps back",
        0.01,
        60.0,
        run_time=True,
    ),
    Parameter(
        "weights.source",
        "auto",
        "router (AQR), attention (attention mass), or auto: the router where trained",
        choices=get_args(WeightsSource),
        run_time=True,
    ),
    Parameter(
        "aqr.mode",
        "auto",
        "how query weights act on the model; auto: as the preset says",
        choices=get_args(AqrMode),
        run_time=True,
    ),
    Parameter("aqr.strength", 1.0, "how strongly they act; 0 is the same as off", 0.0, 4.0, run_time=True),
    Parameter("aqr.bev_window", 0, f"window of the bias on the BEV grid; {_WINDOW}", 0, 31, run_time=True),
    Parameter("aqr.image_window", 0, f"window of the bias in the cameras; {_WINDOW}", 0, 31, run_time=True),
    Parameter("aqr.router_bev_window", 0, f"BEV window the router looks at; {_WINDOW}", 0, 31, run_time=True),
    Parameter("aqr.router_image_window", 0, f"camera window the router looks at; {_WINDOW}", 0, 31, run_time=True),
    Parameter("aqr.sigma", 2.0, "cells; width of the splats in the weight maps", 0.3, 5.0, run_time=True),
    Parameter("aqr.min_weight", 0.05, "map values below this become 0", 0.0, 1.49, run_time=True),
    Parameter("aqr.reduce", "max", "how overlapping splats combine", choices=("max", "sum"), run_time=True),
)


def camera_parameters(camera: str) -> tuple[Parameter, ...]:
    """Return one camera's parameters."""
    prefix = f"camera.{camera}"
    return (
        Parameter(f"{prefix}.image_topic", f"/{camera}/image_raw", "sensor_msgs/Image or CompressedImage"),
        Parameter(f"{prefix}.info_topic", f"/{camera}/camera_info", "sensor_msgs/CameraInfo"),
        Parameter(f"{prefix}.compressed", False, "whether the pictures are sensor_msgs/CompressedImage"),
        Parameter(f"{prefix}.rectified", False, "whether they are rectified: then P holds, otherwise K and D"),
        Parameter(f"{prefix}.offset", 0.0, "s; by how much the stamps are later than the exposure", -10.0, 10.0),
        Parameter(f"{prefix}.enabled", True, "whether the camera takes part", run_time=True),
    )


def class_parameters() -> tuple[Parameter, ...]:
    """Return the score thresholds by class."""
    text = "score threshold of this class; negative: score_threshold"
    return tuple(Parameter(f"class_score_thresholds.{name}", -1.0, text, -1.0, 1.0, run_time=True) for name in CLASSES)


@dataclass(frozen=True)
class ModelSettings:
    """Which model runs, and where; the arguments of `Detector`."""

    preset: str
    checkpoint: str
    device: str
    precision: str


@dataclass(frozen=True)
class Settings:
    """All parameters, validated together."""

    assembler: AssemblerSettings
    detection: DetectionOptions
    model: ModelSettings
    reliable: bool


def declare(node: Node) -> dict[str, Any]:
    """Declare every parameter on a node and return the values, with the user's overrides."""
    values: dict[str, Any] = {}

    def add(parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            declared = node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
            values[parameter.name] = declared.value

    add(PARAMETERS)
    for camera in _camera_names(values):
        add(camera_parameters(camera))
    add(class_parameters())
    return values


def read(values: Mapping[str, Any]) -> Settings:
    """Return the settings that parameter values mean.

    Raises:
        OptionError: a value is wrong, by itself or beside the others; it is named with what is needed.
    """
    cameras = _camera_names(values)
    for parameter in PARAMETERS:
        if parameter.choices and values[parameter.name] not in parameter.choices:
            found, needed = values[parameter.name], ", ".join(parameter.choices)
            raise OptionError(f"{parameter.name} is {found!r}, but must be one of {needed}")
    enabled = {camera for camera in cameras if values[f"camera.{camera}.enabled"]}
    if values["lidar_topic"] and values["use_lidar"]:
        enabled.add(LIDAR)
    if not enabled:
        raise OptionError("no sensor takes part: set use_lidar or one of camera.<name>.enabled to true")
    assembler = AssemblerSettings(
        cameras=tuple(_camera(values, camera) for camera in cameras),
        enabled=frozenset(enabled),
        **{name: values[name] for name in _ASSEMBLER},
    )
    thresholds = {name: values[f"class_score_thresholds.{name}"] for name in CLASSES}
    detection = DetectionOptions(
        score_threshold=values["score_threshold"],
        class_score_thresholds={name: threshold for name, threshold in thresholds.items() if threshold >= 0},
        max_detections=values["max_detections"],
        weights_source=values["weights.source"],
        max_history_gap=values["max_history_gap"],
        aqr=AqrOptions(**{name: values[f"aqr.{name}"] for name in _AQR}),
    )
    model = ModelSettings(*(values[f"model.{name}"] for name in ("preset", "checkpoint", "device", "precision")))
    return Settings(assembler, detection, model, values["sensor_reliability"] == "reliable")


_ASSEMBLER = (
    "lidar_topic", "fixed_frame", "model_frame", "output_frame", "max_camera_age", "camera_wait", "lidar_timeout",
    "camera_only_period", "transform_wait", "max_sweeps", "intensity_scale",
)  # fmt: skip
_AQR = tuple(parameter.name.removeprefix("aqr.") for parameter in PARAMETERS if parameter.name.startswith("aqr."))


def _camera_names(values: Mapping[str, Any]) -> list[str]:
    return [name for name in values["cameras"] if name]


def _camera(values: Mapping[str, Any], name: str) -> CameraSettings:
    fields: tuple[str, ...] = ("image_topic", "info_topic", "compressed", "rectified", "offset")
    return CameraSettings(name, **{field: values[f"camera.{name}.{field}"] for field in fields})
