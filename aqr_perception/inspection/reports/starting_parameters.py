# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameter file with which the node runs a recording or a running system, with the reason for each value."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import yaml

from aqr_perception.decoding.message_error import printable
from aqr_perception.inspection.assessment import Inspection
from aqr_perception.inspection.observations import COMPRESSED

_WIDTH = 120
_END_OF_SCALAR = "...\n"
"""PyYAML writes it after a scalar that is a document of its own."""


class StartingParametersError(ValueError):
    """No parameter file makes the node run; the message says why."""


def starting_parameters(found: Inspection, model: str) -> str:
    """Return the text of a parameter file.

    Args:
        model: preset name.

    Raises:
        StartingParametersError: the node would make no frames.
    """
    stops = [one for one in found.findings if one.severity == "stops"]
    if stops:
        raise StartingParametersError("; ".join(map(str, stops)))
    lines = [f"# Starting parameters for {printable(found.source)}, written by `aqr_perception inspect`."]
    lines += _comment("Values follow what was found there; check them, above all names of cameras and frames.")
    for note in found.choice.notes:
        lines += _comment(note)
    lines += ["/**:", "  ros__parameters:"]
    lines += [f"    {line}" if line else "" for line in _parameters(found, model)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _parameters(found: Inspection, model: str) -> Iterator[str]:
    names = [one.name for one in found.cameras]
    yield from _entry("cameras", names or [""], "in the order of their names" if names else "no usable camera")
    used = set(names)
    left = [one.camera.image.name for one in found.choice.cameras if one.name not in used]
    for topic in (*left, *(camera.image.name for camera in found.choice.unusable)):
        problem = next((one for one in found.findings if one.severity == "loses" and one.subject == topic), None)
        yield from _comment(f"{topic} is left out: {problem}" if problem else f"{topic} is left out: no usable picture")
    yield from _lidars(found)
    reliable = all(topic.reliable for topic in (*found.lidars, *(one.camera.image for one in found.cameras)))
    why = "all publishers are reliable" if reliable else "a publisher is best effort, or may be"
    yield from _entry("sensor_reliability", "reliable" if reliable else "best_effort", why)
    yield ""
    frames = found.frames
    values = {"fixed_frame": frames.fixed, "model_frame": frames.model, "output_frame": frames.output}
    values["base_frame"] = frames.base
    for name, value in values.items():
        yield from _entry(name, value, frames.reasons[name])
    if frames.static_transform:
        yield from _comment(f"Better: {frames.static_transform}")
        yield from _comment("and model_frame: model, the height and axes of the model's training.")
    yield ""
    for name, time in found.times.items():
        yield from _entry(name, time.seconds, time.reason)
    yield ""
    yield from _entry("model.preset", model, "as --model says")
    if not found.cameras:
        return
    yield "camera:"
    for one in found.cameras:
        camera = one.camera
        assert camera.info is not None  # a usable camera has one
        yield f"  {one.name}:"
        for problem in found.findings:
            if problem.severity == "loses" and problem.subject in (camera.image.name, camera.info.name):
                yield from (f"    {line}" for line in _comment(f"Left out of frames at times: {problem}"))
        entries: dict[str, tuple[object, str]] = {
            "image_topic": (camera.image.name, f"{camera.encoding}, {camera.size[0]} x {camera.size[1]} pixels"),
            "info_topic": (camera.info.name, ""),
            "compressed": (camera.image.type == COMPRESSED, camera.image.type),
            "rectified": (camera.rectified, camera.why_rectified),
        }
        for key, (setting, reason) in entries.items():
            yield from (f"    {line}" for line in _entry(key, setting, reason))


def _lidars(found: Inspection) -> Iterator[str]:
    clouds, lidars = found.clouds, found.lidars
    if not lidars:
        yield from _entry("lidar_topic", "", "no usable LiDAR: frames of cameras alone")
        return
    if len(lidars) == 1:
        layout = clouds[lidars[0].name]
        yield from _entry("lidar_topic", lidars[0].name, f"{layout.points[1]} points a sweep")
        yield from _entry("intensity_scale", float(layout.scale), f"to 0..255; {layout.intensity_kind}")
        return
    yield from _entry("lidar_topic", "", "lidar_topics has several")
    yield from _entry("lidar_topics", [topic.name for topic in lidars], "the first one triggers frames")
    for number, topic in enumerate(lidars, start=1):
        layout = clouds[topic.name]
        yield from _entry(f"lidar.{number}.intensity_scale", float(layout.scale), f"to 0..255; {layout.intensity_kind}")


def _entry(name: str, value: object, reason: str) -> Iterator[str]:
    """Yield a parameter with its reason behind it, or above it where the line would be long."""
    flow = isinstance(value, list)
    text = yaml.safe_dump(value, default_flow_style=flow, width=10_000, allow_unicode=True)
    written = f"{name}: {text.removesuffix(_END_OF_SCALAR).strip()}"
    if not reason:
        yield written
    elif len(written) + len(reason) + 12 <= _WIDTH:
        yield f"{written}  # {printable(reason)}"
    else:
        yield from _comment(reason)
        yield written


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        printable_line(text), _WIDTH - 8, initial_indent="# ", subsequent_indent="# ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def printable_line(text: str) -> str:
    """Return a text in one line; texts of several sentences may be long."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def write_parameters(path: Path, text: str) -> None:
    """Write a parameter file.

    Raises:
        StartingParametersError: the file exists.
    """
    if path.exists():
        raise StartingParametersError(f"{path}: found an existing file, needed a new name; remove it or choose another")
    path.write_text(text)
