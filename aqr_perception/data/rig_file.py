# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rig files: the sensors and classes of one's own recordings, under the names of the node's parameters.

A rig file is a parameter file of the node (``/**: ros__parameters:``), or the parameters alone. The same file starts
the node on the car (``--params-file rig.yaml``) and reads its recordings (``--rig rig.yaml``). Parameters that concern
only the node are passed over. A second section, ``data:``, has what only recordings need; the node does not read it:

    /**:
      ros__parameters:
        cameras: [front, rear]          # order of `Frame.cameras`
        lidar_topic: /lidar/points      # or lidar_topics: a list, the first one gives the times of the frames
        fixed_frame: odom
        camera:
          front: {image_topic: /front/image_raw/compressed, info_topic: /front/camera_info, compressed: true}
          rear: {image_topic: /rear/image_raw, info_topic: /rear/camera_info, rectified: true}
    data:
      ros__parameters:
        lidar_channel: LIDAR_TOP        # sensor in nuScenes-like tables, KITTI and DDAD folders
        camera_channels: {front: CAM_FRONT, rear: CAM_BACK}
        labels: /ground_truth/objects   # topic of a bag, or the end of a JSON's name beside it, such as .labels.json
        classes: {Van: car, Tram: ''}   # data's name -> class of the model; '' leaves the objects out

API: `read_rig(path)` returns a `Rig`; `Rig.cameras` are `RigCamera`s with the node's names; `Rig.class_of(name,
classes)` maps a name of the data to a class of the model.
"""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from aqr_perception.models.config.typed_values import WrongValueError, read
from aqr_perception.models.config.yaml_file import YamlFileError, read_yaml
from aqr_perception.options import require

_NODE_ONLY = (
    "autostart", "sensor_reliability", "output_frame", "base_frame", "marker_lifetime", "camera_wait", "max_lidar_age",
    "lidar_timeout", "camera_only_period", "transform_wait", "clock_policy", "max_latency", "use_lidar",
    "score_threshold", "max_detections", "max_history_gap", "pipelining", "autoware_objects", "use_sim_time",
)  # fmt: skip
_NODE_ONLY_GROUPS = ("model", "weights", "aqr", "class_score_thresholds", "qos_overrides", "tracking")
_NODE_PARAMETERS: Mapping[str, Any] = {
    "fixed_frame": str,
    "model_frame": str,
    "max_camera_age": float,
    "max_sweeps": int,
    "intensity_scale": float,
}
_DATA_ENTRIES: Mapping[str, Any] = {
    "lidar_channel": str,
    "camera_channels": Mapping[str, str],
    "labels": str,
    "classes": Mapping[str, str],
}
_CAMERA_NODE_ONLY = ("enabled",)
_LIDAR_OPTIONS = ("intensity_scale", "enabled")
_PARAMETERS = "ros__parameters"
_DATA = "data"


class RigError(ValueError):
    """A rig file cannot be used; the message names the file, the entry, the value found and the value needed."""


@dataclass(frozen=True)
class RigCamera:
    """One camera; all but `channel` as the node's parameters ``camera.NAME.*``.

    Attributes:
        name: the camera's name in frames.
        image_topic, info_topic: topics of its images and of its CameraInfo.
        compressed: whether the images are CompressedImage; None: as the bag says.
        rectified: whether the images are rectified, so that CameraInfo's P holds; otherwise K and D.
        offset: delay of the stamps after the exposure in seconds, subtracted from every stamp.
        baseline_in_tf: whether TF places this camera itself, so that P's baseline does not apply.
        channel: its name in nuScenes-like tables, KITTI (``image_2``) or DDAD folders; empty: not in such data.
    """

    name: str
    image_topic: str = ""
    info_topic: str = ""
    compressed: bool | None = None
    rectified: bool = False
    offset: float = 0.0
    baseline_in_tf: bool = False
    channel: str = ""

    def __post_init__(self) -> None:
        require(-10 <= self.offset <= 10, f"camera.{self.name}.offset", self.offset, "in -10..10 s")


@dataclass(frozen=True)
class Rig:
    """The sensors and classes of a vehicle's recordings.

    Attributes:
        cameras: the cameras, in the order of `Frame.cameras`.
        lidar_topics: topics of its PointCloud2s; empty without LiDAR. The first one gives the times of the frames.
        fixed_frame: TF frame that does not move with the vehicle; empty: motion is ignored, sweeps are not accumulated.
        model_frame: TF frame of points and boxes; empty: the sweep's.
        max_camera_age: largest time in seconds between a sweep and its images.
        max_sweeps: largest number of sweeps in a frame; None: as the model was trained.
        intensity_scale: factor that scales intensities to 0..255.
        intensity_scales: the LiDARs' own factors, in the order of `lidar_topics`; 0 where `intensity_scale` applies.
        lidar_channel: the LiDAR's name in nuScenes-like tables, KITTI or DDAD folders; empty: the format's usual one.
        labels: topic of the labels in bags, or the end of a JSON's name beside the bag; empty: see `BagDataset`.
        classes: name in the data -> class of the model; an empty class leaves the objects out.
        source: the rig file, for errors.
    """

    cameras: tuple[RigCamera, ...] = ()
    lidar_topics: tuple[str, ...] = ()
    fixed_frame: str = ""
    model_frame: str = ""
    max_camera_age: float = 0.2
    max_sweeps: int | None = None
    intensity_scale: float = 1.0
    intensity_scales: tuple[float, ...] = ()
    lidar_channel: str = ""
    labels: str = ""
    classes: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        require(len(set(names)) == len(names), "cameras", names, "distinct names")
        require(0 < self.max_camera_age <= 10, "max_camera_age", self.max_camera_age, "in (0, 10] s")
        require(self.max_sweeps is None or self.max_sweeps >= 1, "max_sweeps", self.max_sweeps, "at least 1")
        require(1e-6 <= self.intensity_scale <= 1e6, "intensity_scale", self.intensity_scale, "in 1e-6..1e6")
        for number, scale in enumerate(self.intensity_scales, start=1):
            require(0 <= scale <= 1e6, f"lidar.{number}.intensity_scale", scale, "in 0..1e6")

    def scale_of(self, lidar_topic: str) -> float:
        """Return the factor that scales a LiDAR's intensities to 0..255."""
        own = dict(zip(self.lidar_topics, self.intensity_scales, strict=False))
        return own.get(lidar_topic, 0.0) or self.intensity_scale

    def class_of(self, name: str, classes: Collection[str]) -> str | None:
        """Return the class of the model that a name of the data stands for; None to leave the object out.

        A name without an entry in `classes` is the class itself, if the model has it.
        """
        wanted = self.classes.get(name, name)
        return wanted if wanted in classes else None

    def by_channel(self) -> dict[str, RigCamera]:
        """Return the cameras by channel, in order, without those that have none."""
        return {camera.channel: camera for camera in self.cameras if camera.channel}


def read_rig(path: Path) -> Rig:
    """Return the rig of a file.

    Raises:
        RigError: the file is missing or not YAML, or an entry is unknown, missing or of a wrong type or value.
    """
    try:
        content = read_yaml(path)
        node, data = _sections(content, str(path))
        return replace(_rig(node, data, str(path)), source=str(path))
    except (YamlFileError, WrongValueError) as error:
        raise RigError(str(error)) from error
    except ValueError as error:
        message = str(error)
        raise RigError(message if message.startswith(str(path)) else f"{path}: {message}") from error


def _sections(content: Any, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the node's parameters, as a tree, and the entries for recordings."""
    if not isinstance(content, dict):
        raise RigError(f"{where}: found {content!r}, needed a mapping with 'cameras' and 'lidar_topic'")
    content = dict(content)
    data = _unwrapped(content.pop(_DATA, {}), f"{where}: {_DATA}")
    wrapped = {name: part for name, part in content.items() if isinstance(part, dict) and _PARAMETERS in part}
    if not wrapped:
        return _tree(content, where), data
    if len(wrapped) != len(content) or len(wrapped) > 1:
        found = ", ".join(map(str, content))
        raise RigError(f"{where}: found the sections {found}, needed one with {_PARAMETERS}, and possibly '{_DATA}'")
    ((name, part),) = wrapped.items()
    return _tree(_unwrapped(part, f"{where}: {name}"), where), data


def _unwrapped(part: Any, where: str) -> dict[str, Any]:
    inner = part.get(_PARAMETERS, part) if isinstance(part, dict) else part
    if not isinstance(inner, dict):
        raise RigError(f"{where}: found {inner!r}, needed a mapping")
    return inner


def _tree(parameters: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return parameters with dotted names, as ``camera.front.offset``, as nested mappings."""
    tree: dict[str, Any] = {}
    for name, value in parameters.items():
        *groups, last = str(name).split(".")
        level = tree
        for group in groups:
            level = level.setdefault(group, {})
            if not isinstance(level, dict):
                raise RigError(f"{where}: found {group!r} both as a value and as a group, needed one of them")
        inner = _tree(value, where) if isinstance(value, dict) else value
        if isinstance(inner, dict) and isinstance(level.get(last), dict):
            inner = {**level[last], **inner}
        level[last] = inner
    return tree


def _rig(node: dict[str, Any], data: dict[str, Any], where: str) -> Rig:
    own = ("cameras", "camera", "lidar", "lidar_topic", "lidar_topics", *_NODE_PARAMETERS)
    _refuse_unknown(node, (*own, *_NODE_ONLY, *_NODE_ONLY_GROUPS), where)
    _refuse_unknown(data, _DATA_ENTRIES, f"{where}: {_DATA}")
    names = [name for name in read(tuple[str, ...], node.get("cameras", []), f"{where}: cameras") if name]
    options, channels = node.get("camera", {}), data.get("camera_channels", {})
    for entry, value, text in (("camera", options, where), ("camera_channels", channels, f"{where}: {_DATA}")):
        if not isinstance(value, dict):
            raise RigError(f"{text}: {entry}: found {value!r}, needed a mapping by camera")
        _refuse_unknown(value, names, f"{text}: {entry}", "'cameras' has")
    cameras = tuple(_camera(name, options.get(name, {}), channels.get(name, ""), where) for name in names)
    values = {
        name: read(kind, node[name], f"{where}: {name}") for name, kind in _NODE_PARAMETERS.items() if name in node
    }
    if values.get("max_sweeps") == 0:
        values["max_sweeps"] = None  # as in the node: as many as the model was trained with
    values |= {
        name: read(_DATA_ENTRIES[name], data[name], f"{where}: {_DATA}: {name}")
        for name in ("lidar_channel", "labels", "classes")
        if name in data
    }
    topics = _lidar_topics(node, where)
    return Rig(cameras, topics, intensity_scales=_intensity_scales(node, len(topics), where), **values)


def _intensity_scales(node: dict[str, Any], count: int, where: str) -> tuple[float, ...]:
    """Return the LiDARs' own factors; 0 where `intensity_scale` applies."""
    groups = node.get("lidar", {})
    if not isinstance(groups, dict):
        raise RigError(f"{where}: lidar: found {groups!r}, needed a mapping by number")
    numbers = [str(number) for number in range(1, count + 1)]
    _refuse_unknown(groups, numbers, f"{where}: lidar", "the numbers of 'lidar_topics' are")
    scales = []
    for number in numbers:
        place, options = f"{where}: lidar: {number}", groups.get(number, {})
        if not isinstance(options, dict):
            raise RigError(f"{place}: found {options!r}, needed a mapping")
        _refuse_unknown(options, _LIDAR_OPTIONS, place)
        scales.append(read(float, options.get("intensity_scale", 0.0), f"{place}: intensity_scale"))
    return tuple(scales) if any(scales) else ()


def _lidar_topics(node: dict[str, Any], where: str) -> tuple[str, ...]:
    topics = read(tuple[str, ...], node.get("lidar_topics", []), f"{where}: lidar_topics")
    one = read(str, node.get("lidar_topic", ""), f"{where}: lidar_topic")
    return tuple(dict.fromkeys(topic for topic in (*topics, *([] if any(topics) else [one])) if topic))


def _camera(name: str, options: Any, channel: Any, where: str) -> RigCamera:
    place = f"{where}: camera: {name}"
    if not isinstance(options, dict):
        raise RigError(f"{place}: found {options!r}, needed a mapping")
    known = {entry.name for entry in fields(RigCamera)} - {"name", "channel"}
    _refuse_unknown(options, (*known, *_CAMERA_NODE_ONLY), place)
    given = {key: value for key, value in options.items() if key in known}
    topics = {"image_topic": f"/{name}/image_raw", "info_topic": f"/{name}/camera_info"}
    camera: RigCamera = read(RigCamera, {"name": name, **topics, **given}, place)
    return replace(camera, channel=read(str, channel, f"{where}: {_DATA}: camera_channels: {name}"))


def _refuse_unknown(entries: Mapping[str, Any], known: Collection[str], where: str, has: str = "known are") -> None:
    for name in entries:
        if name not in known:
            similar = difflib.get_close_matches(str(name), known, 1)
            question = f"; did you mean {similar[0]}?" if similar else ""
            raise RigError(f"{where}: found the entry {name!r}, {has} {', '.join(sorted(known)) or 'none'}{question}")
