# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The report's HTML file: one page that loads nothing else, written frame by frame."""

import base64
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from aqr_perception.report.drive_curves import DriveCurves, sensor_state
from aqr_perception.report.picture_order import in_rows
from aqr_perception.report.report_frame import BEV, ReportDetection, ReportFrame, ReportPhase, plain_numbers

_ASSETS = Path(__file__).with_name("assets")
_KINDS = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"RI": "webp"}
"""First two bytes of the picture files that browsers show."""


def write_report(
    path: str | Path,
    frames: Iterable[ReportFrame],
    *,
    title: str,
    subtitle: str = "",
    facts: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    warning: str = "",
    phases: Sequence[ReportPhase] = (),
    start_ns: int | None = None,
    pictures_every: int = 1,
    quality: int = 80,
) -> Path:
    """Write frames as one HTML file that works without a network; return its path.

    Frames are consumed one by one, so that a long drive needs no memory for its pictures. The file appears under its
    name when it is complete.

    Args:
        path: the file to write.
        frames: in the order of their stamps.
        title, subtitle, warning: at the top of the page; the last two may be empty.
        facts: names and values, shown as tiles.
        notes: sentences about how the report was made.
        phases: parts of the drive with figures of their own.
        start_ns: stamp at which the page's seconds begin; None: that of the first frame.
        pictures_every: every n-th frame has pictures; 1: all have. The other frames keep their numbers, for smaller
            files.
        quality: JPEG quality of pictures that are given as arrays, 1 to 100.

    Raises:
        ValueError: an argument is out of range, or a picture is of an unknown kind; the message names it.
    """
    if pictures_every < 1:
        raise ValueError(f"pictures_every is {pictures_every}, but must be at least 1; 2 means every second frame")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}, but must be in 1..100")
    path = Path(path)
    content = _Content(frames, pictures_every, quality)
    environment = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    page = environment.get_template("report.html.j2").generate(
        title=title,
        subtitle=subtitle,
        facts=facts,
        notes=notes,
        warning=warning,
        frames=content.blocks(),
        # Called by the template after the last frame, when the numbers of all frames are known.
        summary=lambda: content.summary(phases, start_ns),
        asset=lambda name: (_ASSETS / name).read_text(encoding="utf-8"),
    )
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for part in page:
                file.write(part)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


class _Content:
    """The frames as data of the page; the numbers of all frames collect while the frames are written."""

    def __init__(self, frames: Iterable[ReportFrame], pictures_every: int, quality: int) -> None:
        self._frames, self._every, self._quality = frames, pictures_every, quality
        self._curves = DriveCurves()
        self._pictures: list[str] = []
        self._with_pictures: list[bool] = []
        self._signed = False

    def blocks(self) -> Iterator[dict[str, Any]]:
        """Yield the data of each frame that the page reads only when it shows the frame."""
        for index, frame in enumerate(self._frames):
            if self._curves.stamps and frame.stamp_ns < self._curves.stamps[-1]:
                raise ValueError(
                    f"frame {index} has the stamp {frame.stamp_ns} ns, which is before the frame before it "
                    f"({self._curves.stamps[-1]} ns); sort the frames by stamp"
                )
            self._curves.add(frame)
            self._signed |= frame.signed
            shown = index % self._every == 0
            self._with_pictures.append(shown and bool(frame.pictures or frame.unanswered))
            self._pictures += [name for name in frame.pictures if name not in self._pictures]
            yield {
                "unanswered": frame.unanswered,
                "pictures": {name: self._data_url(name, each) for name, each in frame.pictures.items() if shown},
                "detections": [_detection(each) for each in frame.detections],
                "sensors": [
                    {
                        "name": sensor.name,
                        "used": sensor.used,
                        "state": sensor_state(sensor)[0],
                        "reason": sensor_state(sensor)[1],
                        "failure": sensor.failure,
                        "age": None if sensor.age is None else plain_numbers([sensor.age])[0],
                    }
                    for sensor in frame.sensors
                ],
                "truth": None
                if frame.truth is None
                else [
                    {"class": each.class_name, "box": plain_numbers(each.box, 2), "detected": each.detected}
                    for each in frame.truth
                ],
                "milliseconds": {name: plain_numbers([value], 1)[0] for name, value in frame.milliseconds.items()},
            }

    def summary(self, phases: Sequence[ReportPhase], start_ns: int | None) -> dict[str, Any]:
        """Return the numbers of all frames; call it after the last of `blocks`."""
        curves = self._curves
        start = start_ns if start_ns is not None else curves.stamps[0] if curves.stamps else 0
        return {
            # Nanoseconds since 1970 do not fit into the numbers of JSON's readers.
            "start_ns": str(start),
            "seconds": [round((stamp_ns - start) / 1e9, 4) for stamp_ns in curves.stamps],
            "sensors": curves.sensors,
            "cameras": in_rows(name for name in self._pictures if name != BEV),
            "has_bev": BEV in self._pictures,
            "with_pictures": self._with_pictures,
            "signed": self._signed,
            "phases": [
                {**row, "begin": (phase.begin_ns - start) / 1e9, "end": (phase.end_ns - start) / 1e9}
                for phase, row in zip(phases, curves.phase_rows(phases), strict=True)
            ],
            **curves.as_data(),
        }

    def _data_url(self, name: str, picture: "NDArray[np.uint8] | bytes") -> str:
        """Return a picture as a data URL."""
        if not isinstance(picture, bytes):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
                found = f"{picture.dtype} {picture.shape}"
                raise ValueError(f"picture {name!r} is {found}, but must be (H, W, 3) uint8 BGR, or an encoded file")
            picture = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, self._quality))[1].tobytes()
        kind = _KINDS.get(picture[:2])
        if kind is None:
            raise ValueError(f"picture {name!r} starts with {picture[:4]!r}, but must be a JPEG, PNG or WebP file")
        return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _detection(detection: ReportDetection) -> dict[str, Any]:
    return {
        "class": detection.class_name,
        "score": plain_numbers([detection.score])[0],
        "box": plain_numbers(detection.box, 2),
        "lidar_weight": plain_numbers([detection.lidar_weight])[0],
        "camera_weight": plain_numbers([detection.camera_weight])[0],
        "camera_weights": {name: plain_numbers([weight])[0] for name, weight in detection.camera_weights.items()},
        "attention": {name: plain_numbers([share])[0] for name, share in detection.attention.items()},
        "windows": {name: plain_numbers(window) for name, window in detection.windows.items()},
        "outlines": {name: [plain_numbers(line) for line in lines] for name, lines in detection.outlines.items()},
    }
