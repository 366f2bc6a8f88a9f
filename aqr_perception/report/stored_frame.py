# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Report frames as bytes, for a file between the detection and the report."""

import json
from collections.abc import Mapping
from dataclasses import fields

import cv2

from aqr_perception.report.report_frame import ReportDetection, ReportFrame, ReportSensor, ReportTruth, Window

QUALITY = 80
"""JPEG quality of pictures that are given as arrays."""

_CONTENTS = ("sensors", "detections", "truth", "pictures")


def stored(frame: ReportFrame) -> tuple[bytes, dict[str, bytes]]:
    """Return a frame's numbers, and its pictures as files by name; `restored` is the inverse, but for JPEG's losses."""
    numbers = {each.name: getattr(frame, each.name) for each in fields(frame) if each.name not in _CONTENTS}
    numbers["sensors"] = [vars(sensor) for sensor in frame.sensors]
    numbers["detections"] = [vars(detection) for detection in frame.detections]
    numbers["truth"] = None if frame.truth is None else [vars(each) for each in frame.truth]
    pictures = {
        name: picture
        if isinstance(picture, bytes)
        else cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1].tobytes()
        for name, picture in frame.pictures.items()
    }
    return json.dumps(numbers, separators=(",", ":")).encode(), pictures


def restored(numbers: bytes, pictures: Mapping[str, bytes]) -> ReportFrame:
    """Return the frame that `stored` was given."""
    content = json.loads(numbers)
    truth = content.pop("truth")
    for detection in content["detections"]:
        detection["windows"] = {name: Window(*window) for name, window in detection["windows"].items()}
        detection["outlines"] = {name: [tuple(line) for line in box] for name, box in detection["outlines"].items()}
    return ReportFrame(
        sensors=tuple(ReportSensor(**sensor) for sensor in content.pop("sensors")),
        detections=tuple(ReportDetection(**detection) for detection in content.pop("detections")),
        truth=None if truth is None else tuple(ReportTruth(**each) for each in truth),
        pictures=pictures,
        **content,
    )
