# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Table of the node's parameters: those of every node, of each LiDAR, of each camera and of each class."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from aqr_perception.frame import CLASSES
from aqr_perception.nodes.flow.pipelining import Pipelining
from aqr_perception.nodes.input.frame_request import MOST_SWEEPS, ClockPolicy
from aqr_perception.nodes.parameters.declaration import Parameter
from aqr_perception.options import Activation, AqrMode, BiasForm, ModulationForm, RouterAttention, WeightsSource
from aqr_perception.visualization.picture_options import PictureView

_DEFAULT_CAMERAS = ["front", "front_right", "front_left", "back", "back_left", "back_right"]
THRESHOLDS = "class_score_thresholds."
"""Prefix of the parameters of the classes."""
LIDAR_TOPIC, LIDAR_TOPICS = "lidar_topic", "lidar_topics"
"""Names of the parameters of one LiDAR's topic and of several."""

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
    Parameter(LIDAR_TOPIC, "/lidar/points", "topic of the LiDAR's sensor_msgs/PointCloud2; empty: no LiDAR"),
    Parameter(
        LIDAR_TOPICS,
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
        "number format of the network; auto: the fastest for each part",
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


def parameters_of_lidars(values: Mapping[str, Any]) -> list[Parameter]:
    """Return the parameters of all LiDARs in `lidar_topics`."""
    numbers = range(1, len(several_topics(values)) + 1)
    return [parameter for number in numbers for parameter in lidar_parameters(number)]


def parameters_of_cameras(values: Mapping[str, Any]) -> list[Parameter]:
    """Return the parameters of all cameras in `cameras`."""
    return [parameter for camera in dict.fromkeys(camera_names(values)) for parameter in camera_parameters(camera)]


def class_parameters(classes: Sequence[str] = CLASSES) -> tuple[Parameter, ...]:
    """Return the score thresholds of a model's classes."""
    text = "score threshold of this class; negative: score_threshold applies"
    return tuple(Parameter(f"{THRESHOLDS}{name}", -1.0, text, -1.0, 1.0, run_time=True) for name in classes)


def lidar_topics(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the topics of all LiDARs, by what an error calls them."""
    several = several_topics(values)
    if several:
        return {f"lidar_topics (topic {number})": topic for number, topic in enumerate(several, start=1)}
    return {LIDAR_TOPIC: values[LIDAR_TOPIC]} if values[LIDAR_TOPIC] else {}


def several_topics(values: Mapping[str, Any]) -> list[str]:
    """Return the parameter `lidar_topics`; none if it stands for no topics."""
    topics = list(values[LIDAR_TOPICS])
    return topics if topics != [""] else []


def camera_names(values: Mapping[str, Any]) -> list[str]:
    """Return the names of the cameras; an empty text, which stands for an empty list, is none."""
    return [name for name in values["cameras"] if name]
