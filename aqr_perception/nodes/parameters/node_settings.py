# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Settings of the node from the values of its parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from aqr_perception.nodes.flow.pipelining import Pipelining
from aqr_perception.nodes.input.frame_request import (
    MOST_SWEEPS,
    AssemblerSettings,
    CameraSettings,
    LidarSettings,
    lidar_name,
)
from aqr_perception.nodes.parameters.parameter_table import THRESHOLDS, camera_names, lidar_topics, several_topics
from aqr_perception.nodes.parameters.value_checks import check
from aqr_perception.options import AqrOptions, DetectionOptions, OptionError
from aqr_perception.tracking.track_options import TrackingOptions
from aqr_perception.visualization.picture_options import PictureOptions


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


def read(values: Mapping[str, Any]) -> Settings:
    """Return the settings of parameter values, by name.

    Raises:
        OptionError: a value or a combination of values is invalid; the text names the parameter and the value needed.
    """
    check(values)
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


def _assembler_settings(values: Mapping[str, Any]) -> AssemblerSettings:
    cameras = camera_names(values)
    enabled = {camera for camera in cameras if values[f"camera.{camera}.enabled"]}
    lidars = _lidar_settings(values)
    of_lidars = [values[f"lidar.{number}.enabled"] for number, _ in enumerate(several_topics(values), start=1)]
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
    for number, topic in enumerate(lidar_topics(values).values(), start=1):
        parameter = f"lidar.{number}.intensity_scale"
        scale = values.get(parameter, 0.0) or values["intensity_scale"]
        settings.append(LidarSettings(lidar_name(number), topic, scale, parameter))
    return tuple(settings)


def _camera_settings(values: Mapping[str, Any], camera: str) -> CameraSettings:
    return CameraSettings(camera, **{name: values[f"camera.{camera}.{name}"] for name in _CAMERA_PARAMETERS})


def _detection_options(values: Mapping[str, Any]) -> DetectionOptions:
    thresholds = {name: threshold for name, threshold in values.items() if name.startswith(THRESHOLDS)}
    return DetectionOptions(
        score_threshold=values["score_threshold"],
        class_score_thresholds={
            name.removeprefix(THRESHOLDS): threshold for name, threshold in thresholds.items() if threshold >= 0
        },
        max_detections=values["max_detections"],
        weights_source=values["weights.source"],
        max_history_gap=values["max_history_gap"],
        aqr=AqrOptions(**{field.name: values[f"aqr.{field.name}"] for field in fields(AqrOptions)}),
    )


_ASSEMBLER_PARAMETERS = (
    "fixed_frame", "model_frame", "output_frame", "max_camera_age", "max_lidar_age", "camera_wait", "lidar_timeout",
    "camera_only_period", "transform_wait", "clock_policy", "max_latency", "base_frame", "marker_lifetime",
)  # fmt: skip
_CAMERA_PARAMETERS = ("image_topic", "info_topic", "compressed", "rectified", "offset", "baseline_in_tf")
