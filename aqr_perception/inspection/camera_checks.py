# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Cameras: pictures and calibration as the node decodes them, and oddities of CameraInfo."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aqr_perception.decoding.calibration_parts import calibration_parts, changed_parts
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.sensor_data import pinhole_image
from aqr_perception.inspection.finding import Finding, distinct, finding, from_error
from aqr_perception.inspection.observations import Topic, note_error
from aqr_perception.nodes.health.picture_content import picture_fault

_SAME_MATRIX = 1e-6
_REPEATED_SHARE = 0.3
"""Share of pictures that repeat the one before, above which the camera is named as frozen."""


@dataclass(frozen=True)
class Calibration:
    """What the CameraInfo of a topic says; of several, the last.

    Attributes:
        size: width and height.
        focal: fx and fy of K.
        view: horizontal field of view in degrees by K; NaN without one.
        distortion: model and coefficients.
        projection: whether P is filled, and how it relates to K.
        changes: names of the fields that changed, by the time of recording in nanoseconds.
    """

    frame: str = ""
    size: tuple[int, int] = (0, 0)
    focal: tuple[float, float] = (0.0, 0.0)
    view: float = math.nan
    distortion: str = ""
    projection: str = ""
    changes: tuple[tuple[int, str], ...] = ()
    distorted: bool = False
    same_p: bool = False


@dataclass(frozen=True)
class Camera:
    """A camera: its pictures with its calibration.

    Attributes:
        encoding: encoding of raw images, format of compressed ones.
        size: width and height of the pictures.
        rectified: the node's parameter with which the pictures are usable.
        why_rectified: the reason for its value.
        usable: whether at least one sample is usable.
        frame: optical frame by which the node places the camera.
    """

    image: Topic
    info: Topic | None
    calibration: Calibration
    encoding: str
    size: tuple[int, int]
    rectified: bool
    why_rectified: str
    usable: bool
    frame: str
    findings: tuple[Finding, ...]


def calibration_of(entries: Sequence[tuple[int, Any]]) -> Calibration:
    """Return what a topic's CameraInfos say.

    Args:
        entries: time of recording in nanoseconds and CameraInfo, each of them different from the one before.
    """
    if not entries:
        return Calibration()
    info = entries[-1][1]
    k, p = np.array(info.k).reshape(3, 3), np.array(info.p).reshape(3, 4)
    parts = [calibration_parts(one) for _, one in entries]
    changes = [
        (at, ", ".join(changed_parts(before, after)))
        for (at, _), before, after in zip(entries[1:], parts, parts[1:], strict=False)
    ]
    view = math.degrees(2 * math.atan2(info.width / 2, k[0, 0])) if k[0, 0] > 0 and info.width else math.nan
    same = bool(np.allclose(p[:, :3], k, rtol=_SAME_MATRIX, atol=_SAME_MATRIX)) and not p[:, 3].any()
    filled = "P is zero" if not p.any() else "P = [K | 0]" if same else f"P with fx {p[0, 0]:.1f}"
    if p[:, 3].any():
        filled += f", last column {[round(float(value), 3) for value in p[:, 3]]}"
    coefficients = [round(float(value), 5) for value in info.d[:14]]
    return Calibration(
        info.header.frame_id, (info.width, info.height), (float(k[0, 0]), float(k[1, 1])), view,
        f"{info.distortion_model or 'no model'} {coefficients if any(info.d) else 'all zero'}", filled,
        tuple(change for change in changes if change[1]), bool(any(info.d)), same,
    )  # fmt: skip


def check_camera(image: Topic, info: Topic | None, entries: Sequence[tuple[int, Any]]) -> Camera:
    """Return a camera with its oddities, judged by the node's decoders on samples.

    Args:
        entries: CameraInfos of the topic `info`; see `calibration_of`.
    """
    calibration = calibration_of(entries)
    messages, findings = _decoded(image)
    if info is None or not entries:
        needed = "a sensor_msgs/CameraInfo of the same camera"
        remedy = "record the calibration; without it, the node leaves the camera out"
        found = "no topic with its calibration" if info is None else f"no usable message on {info.name}"
        findings.append(finding("loses", image.name, "no camera_info", found, needed, remedy))
        size, encoding = _picture(messages)
        frame = image.frame or calibration.frame
        return Camera(image, info, calibration, encoding, size, False, "", False, frame, tuple(distinct(findings)))
    named = "rect" in image.name.rpartition("/image")[2] or "rect" in image.name.split("/")[-1]
    first = named or (not calibration.distorted and calibration.same_p)
    why = (
        "the topic's name says so: P applies" if named
        else "D is zero and P equals K: there is nothing to undistort" if first else "K and D apply"
    )  # fmt: skip
    tried = {flag: _try(image, info, messages, entries, flag) for flag in (first, not first)}
    rectified = first if tried[first][0] or not tried[not first][0] else not first
    if rectified != first:
        why = f"{'K and D are' if rectified else 'P is'} not usable"
        found = f"calibration that fits only with `rectified` {str(rectified).lower()}"
        remedy = "calibrate the camera, and check that the pictures are in fact " + (
            "rectified" if rectified else "raw"
        )
        findings.append(finding("odd", info.name, why, found, "K, D and P all filled", remedy))
    usable, said, size = tried[rectified]
    findings += said
    findings += _oddities(image, info, calibration, rectified)
    frame = image.frame or calibration.frame
    if image.frame and calibration.frame and image.frame != calibration.frame:
        found = f"{image.frame!r} in pictures, {calibration.frame!r} in {info.name}"
        remedy = "set one frame_id; the node uses the pictures'"
        findings.append(finding("odd", image.name, "two frames of one camera", found, "the same frame_id", remedy))
    _, encoding = _picture(messages)
    return Camera(image, info, calibration, encoding, size, rectified, why, usable, frame, tuple(distinct(findings)))


def _decoded(image: Topic) -> tuple[list[Any], list[Finding]]:
    """Return the sampled messages that can be read."""
    messages, findings = [], list[Finding]()
    for sample in image.samples:
        try:
            messages.append((sample.stamp_ns, sample.decode()))
        except Exception as error:  # messages come from outside
            note_error(image, error)
            found, needed = f"{type(error).__name__}: {error}", "a message according to its definition"
            remedy = "record the bag again; check the driver"
            findings.append(finding("loses", image.name, "unreadable message", found, needed, remedy))
    return messages, findings


def _try(
    image: Topic, info: Topic, messages: Sequence[tuple[int, Any]], entries: Sequence[tuple[int, Any]], rectified: bool
) -> tuple[bool, list[Finding], tuple[int, int]]:
    """Decode the samples as the node does; return whether one is usable, the findings, and the pictures' size."""
    findings, usable, size = list[Finding](), False, (0, 0)
    for at, message in messages:
        calibration = next((one for when, one in reversed(entries) if when <= at), entries[0][1])
        doubts = list[MessageError]()
        try:
            pinhole = pinhole_image(message, calibration, image.name, info.name, rectified, False, 0, doubts)
        except MessageError as error:
            findings.append(from_error(error, "loses"))
            continue
        except Exception as error:  # the node leaves the sensor out, too
            found, needed = f"{type(error).__name__}: {error}", "a usable message"
            findings.append(finding("loses", image.name, "unexpected error", found, needed, "report this as a bug"))
            continue
        if not message.header.frame_id and not calibration.header.frame_id:
            found, remedy = "header.frame_id ''", "set header.frame_id in the driver"
            findings.append(finding("loses", image.name, "empty frame_id", found, "the TF frame of the data", remedy))
            continue
        usable, size = True, (pinhole.pixels.shape[1], pinhole.pixels.shape[0])
        findings += [from_error(doubt, "odd") for doubt in doubts]
        fault = picture_fault(pinhole.pixels)
        if fault:
            needed, remedy = "a picture of the surroundings", "check lens, exposure and driver"
            findings.append(finding("odd", image.name, fault, "a sample that shows nothing", needed, remedy))
    return usable, findings, size


def _oddities(image: Topic, info: Topic, calibration: Calibration, rectified: bool) -> list[Finding]:
    findings = []
    if calibration.changes:
        at, parts = calibration.changes[0]
        found = f"{len(calibration.changes) + 1} calibrations; {parts} changed first at {at / 1e9:.3f} s"
        remedy = "publish one calibration per topic"
        findings.append(finding("odd", info.name, "calibration changes", found, "one calibration", remedy))
    if image.repeats >= max(_REPEATED_SHARE * len(image.recorded), 2):
        found = f"{image.repeats} of {len(image.recorded)} pictures equal to the one before, under new stamps"
        findings.append(finding("odd", image.name, "frozen picture", found, "new pictures", "check camera and driver"))
    if 0 in calibration.size:
        found = "{} x {}".format(*calibration.size)
        remedy = "fill width and height in the calibration; the picture's size is taken instead"
        findings.append(finding("odd", info.name, "no size in camera_info", found, "the calibrated size", remedy))
    return findings


def _picture(messages: Sequence[tuple[int, Any]]) -> tuple[tuple[int, int], str]:
    """Return size (0, 0 for compressed ones) and encoding of the last sample."""
    if not messages:
        return (0, 0), ""
    last = messages[-1][1]
    if hasattr(last, "encoding"):
        return (last.width, last.height), last.encoding
    return (0, 0), last.format
