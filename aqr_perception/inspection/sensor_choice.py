# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice of the cameras and LiDARs among the topics, with the reasons."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aqr_perception.inspection.camera_checks import Camera, check_camera
from aqr_perception.inspection.cloud_layout import CloudLayout
from aqr_perception.inspection.observations import CLOUD, IMAGES, INFO, Observations, Topic

_NO_PICTURES = ("depth", "disparity", "confidence", "compresseddepth", "mask", "segment", "theora", "infra", "debug",
                "annotated", "detection", "heatmap", "visual")  # fmt: skip
"""Words in the topics of images that are no pictures of a camera for people."""
_DEPTH_ENCODINGS = ("16UC1", "32FC1", "mono16", "16SC1")
_DERIVED = ("filter", "ground", "obstacle", "cluster", "map", "voxel", "downsampl", "segment", "crop", "debug",
            "object", "depth", "registered", "stereo", "aligned", "costmap", "outlier")  # fmt: skip
"""Words in the topics of point clouds that are made from others."""
_JOINED = ("concat", "merged", "combined", "fused")
_RADAR_FIELDS = ("rcs", "doppler", "velocity", "v_r", "radial_speed", "snr", "vx_comp", "range_rate")
_TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg", "zstd")
_RESERVED = re.compile(r"bev|lidar(_\d+)?")
_FEWEST_POINTS = 500


@dataclass(frozen=True)
class NamedCamera:
    """A camera with the name that the node gets."""

    name: str
    camera: Camera


@dataclass(frozen=True)
class Choice:
    """The sensors for the node.

    Attributes:
        cameras: usable cameras, in order.
        lidars: usable LiDARs, the one that triggers frames first.
        unusable: cameras that the node would leave out.
        notes: what was chosen where several choices were possible, and what was passed over.
    """

    cameras: tuple[NamedCamera, ...]
    lidars: tuple[Topic, ...]
    unusable: tuple[Camera, ...]
    notes: tuple[str, ...]


def choose(heard: Observations, clouds: Mapping[str, CloudLayout]) -> Choice:
    """Return the sensors of a recording.

    Args:
        clouds: layouts of the point clouds by topic.
    """
    notes: list[str] = []
    cameras = _cameras(heard, notes)
    usable = [camera for camera in cameras if camera.usable]
    lidars = _lidars(heard.of_type(CLOUD), clouds, notes)
    names = _names([camera.image.name for camera in usable])
    named = tuple(NamedCamera(name, camera) for name, camera in zip(names, usable, strict=True))
    return Choice(named, lidars, tuple(camera for camera in cameras if not camera.usable), tuple(notes))


# --- Cameras -------------------------------------------------------------------------------------------------------


def _cameras(heard: Observations, notes: list[str]) -> list[Camera]:
    infos = heard.of_type(INFO)
    groups: dict[tuple[str, str], list[Topic]] = defaultdict(list)
    for topic in heard.of_type(*IMAGES):
        reason = _no_picture(topic)
        if reason:
            notes.append(f"{topic.name} is passed over: {reason}")
        else:
            groups[(_namespace(topic.name), topic.frame)].append(topic)
    cameras = []
    for (namespace, _), streams in sorted(groups.items()):
        alone = sum(one == namespace for one, _ in groups) == 1
        checked = []
        for stream in streams:
            info = _info_for(stream, infos, alone, len(groups))
            checked.append(check_camera(stream, info, heard.calibrations.get(info.name, []) if info else []))
        best = max(checked, key=_rank)
        if len(checked) > 1:
            others = ", ".join(one.image.name for one in checked if one is not best)
            notes.append(
                f"{best.image.name} is taken, {others} passed over: streams of one camera; {_why(best, checked)}"
            )
        cameras.append(best)
    return cameras


def _no_picture(topic: Topic) -> str:
    """Return why an image topic is no camera's picture; empty if it is one."""
    word = next((word for word in _NO_PICTURES if word in topic.name.lower()), "")
    if word:
        return f"its name has {word!r}"
    try:
        encoding = topic.samples[0].decode().encoding if topic.samples and topic.type == IMAGES[0] else ""
    except Exception:  # an unreadable message is reported with its camera
        return ""
    return f"encoding {encoding} is depth" if encoding in _DEPTH_ENCODINGS else ""


def _base(topic: str) -> str:
    """Return the topic of the image without its transport: /front/image_raw for /front/image_raw/compressed."""
    parent, _, last = topic.rpartition("/")
    return parent if last in _TRANSPORTS and parent else topic


def _namespace(topic: str) -> str:
    return _base(topic).rpartition("/")[0]


def _info_for(image: Topic, infos: Sequence[Topic], alone: bool, groups: int) -> Topic | None:
    """Return the CameraInfo topic of an image topic; None if it is unclear.

    Args:
        alone: whether all images of its namespace are one camera's.
        groups: number of cameras.
    """
    namespace = _namespace(image.name)
    near = [info for info in infos if info.name.rpartition("/")[0] == namespace]
    framed = [info for info in near if info.frame == image.frame]
    for found in (near if alone else framed, framed, [info for info in infos if info.frame == image.frame]):
        if len(found) == 1 and (image.frame or found[0].frame or alone):
            return found[0]
    name = _base(image.name).rpartition("/")[2]
    similar = [info for info in near if info.name.rpartition("/")[2] in _info_names(name)]
    if len(similar) == 1:
        return similar[0]
    return infos[0] if len(infos) == groups == 1 else None


def _info_names(image: str) -> tuple[str, ...]:
    """Return the names that the CameraInfo of an image's name may have."""
    return "camera_info", image.replace("image", "camera_info"), f"{image}_info", f"{image}_camera_info"


def _rank(camera: Camera) -> tuple[object, ...]:
    """Return what makes a stream of one camera the better one."""
    grey = "mono" in camera.encoding or (camera.encoding.startswith("8UC1"))
    return (
        camera.usable, len(camera.image.recorded), not grey, "raw" in camera.image.name,
        camera.image.type == IMAGES[0], camera.image.name,
    )  # fmt: skip


def _why(best: Camera, checked: Sequence[Camera]) -> str:
    if not all(one.usable for one in checked):
        return "it is usable" if best.usable else "none is usable"
    if any(len(one.image.recorded) < len(best.image.recorded) for one in checked):
        return "it has the most pictures"
    return "all would do"


def _names(topics: Sequence[str]) -> list[str]:
    """Return distinct names for cameras from their topics: letters, digits and underscores."""
    parts = [[part for part in _base(topic).split("/") if part] for topic in topics]
    names: list[str] = []
    for own in parts:
        words = own[:-1] or own  # the last part names the stream: image_raw
        # A part that all cameras have says nothing.
        telling = [word for word in words if len(parts) < 2 or any(word not in other for other in parts)] or words
        name = re.sub(r"\W+", "_", "_".join(telling)).strip("_").lower() or "camera"
        name = name if name[0].isalpha() else f"camera_{name}"
        name = f"camera_{name}" if _RESERVED.fullmatch(name) else name
        count = 2
        unique = name
        while unique in names:
            unique, count = f"{name}_{count}", count + 1
        names.append(unique)
    return names


# --- LiDARs --------------------------------------------------------------------------------------------------------


def _lidars(topics: Sequence[Topic], clouds: Mapping[str, CloudLayout], notes: list[str]) -> tuple[Topic, ...]:
    candidates = []
    for topic in topics:
        reason = _no_lidar(topic, clouds[topic.name])
        if reason:
            notes.append(f"{topic.name} is passed over: {reason}")
        else:
            candidates.append(topic)
    joined = [topic for topic in candidates if any(word in topic.name.lower() for word in _JOINED)]
    if joined and len(candidates) > 1:
        best = max(joined, key=lambda topic: clouds[topic.name].points[1])
        others = ", ".join(topic.name for topic in candidates if topic is not best)
        notes.append(f"{best.name} is taken, {others} passed over: by its name, it joins the sweeps of several LiDARs")
        return (best,)
    original = [topic for topic in candidates if not any(word in topic.name.lower() for word in _DERIVED)]
    if original and len(original) < len(candidates):
        others = ", ".join(topic.name for topic in candidates if topic not in original)
        notes.append(f"{others} passed over: by the name, made from other point clouds")
    by_frame: dict[str, list[Topic]] = defaultdict(list)
    for topic in original or candidates:
        by_frame[topic.frame].append(topic)
    chosen = []
    for frame, same in sorted(by_frame.items()):
        best = max(same, key=lambda topic: (len(topic.recorded), clouds[topic.name].points[1], topic.name))
        chosen.append(best)
        if len(same) > 1:
            others = ", ".join(topic.name for topic in same if topic is not best)
            notes.append(
                f"{best.name} is taken, {others} passed over: point clouds in one frame ({frame}) are those of one "
                "LiDAR, and it has the most messages and points"
            )
    chosen.sort(key=lambda topic: (-clouds[topic.name].sectors, -clouds[topic.name].points[1], topic.name))
    if len(chosen) > 1:
        names = ", ".join(topic.name for topic in chosen)
        notes.append(
            f"several LiDARs are joined, {names}; the first one triggers frames, because it sees most around it"
        )
    return tuple(chosen)


def _no_lidar(topic: Topic, layout: CloudLayout) -> str:
    """Return why a point cloud is no LiDAR's; empty if it is one."""
    if not layout.usable:
        return layout.findings[0].problem if layout.findings else "no sample was read"
    names = [field.split(" ")[0].lower() for field in layout.fields]
    radar = next((name for name in names if name in _RADAR_FIELDS), "")
    if radar or "radar" in topic.name.lower():
        return f"a radar's, with the field {radar!r}" if radar else "a radar's, by its name"
    if "rgb" in names or "rgba" in names or "optical" in topic.frame:
        return "a depth camera's (colours, or an optical frame)"
    if layout.points[1] < _FEWEST_POINTS:
        return f"only {layout.points[1]} points, a LiDAR has at least {_FEWEST_POINTS}"
    return ""
