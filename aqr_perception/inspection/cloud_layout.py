# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Layout and content of the point clouds of a topic: fields, points, intensities, height of the sensor."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.ground import ground_height
from aqr_perception.decoding.clouds import INTENSITY_FIELDS, points_from_message
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.plausibility import fitting_scale
from aqr_perception.decoding.sensor_data import scaled_points
from aqr_perception.inspection.finding import Finding, finding, from_error
from aqr_perception.inspection.observations import Topic, note_error

_TYPES = {1: "int8", 2: "uint8", 3: "int16", 4: "uint16", 5: "int32", 6: "uint32", 7: "float32", 8: "float64"}
_TIME_FIELDS = ("time", "t", "timestamp", "time_stamp", "offset_time", "time_offset")
_QUANTILE = 0.995
"""Share of the intensities by which the scale is chosen; the largest ones are often reflectors."""
_MOST_GROUND_POINTS = 60_000
_MOST_FIELDS = 20


@dataclass(frozen=True)
class Sweep:
    """A decoded sample: (N, 4) float32 points as sent, in the sensor's frame."""

    stamp_ns: int
    frame: str
    points: NDArray[np.float32]


_Decoded: TypeAlias = tuple[Any, Sweep, int]
"""A sample's message, its points with returns, and the number of points sent."""


@dataclass(frozen=True)
class CloudLayout:
    """Point clouds of a topic, from samples.

    Attributes:
        fields: ``name type`` of each field.
        size: columns and rows of the last sample.
        points: smallest, median and largest number of points with finite coordinates.
        without_return: share of points without finite coordinates, or at the origin.
        intensity: lowest and highest intensity, and the 99.5th percentile; NaN without a field.
        scale: factor that brings the intensities to 0..255.
        height: of the sensor above the ground in metres; NaN if the samples show no clear ground.
        reach: 99th percentile of the horizontal distances in metres.
        sectors: share of the directions around the sensor in which there are points, of 36.
        sweeps: decoded samples.
    """

    fields: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    points: tuple[int, int, int] = (0, 0, 0)
    without_return: float = math.nan
    intensity: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    scale: float = 1.0
    has_ring: bool = False
    has_time: bool = False
    height: float = math.nan
    reach: float = math.nan
    sectors: float = 0.0
    sweeps: tuple[Sweep, ...] = field(default=(), repr=False)
    findings: tuple[Finding, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether at least one sample has points that the node can use."""
        return bool(self.sweeps)

    @property
    def intensity_kind(self) -> str:
        """The range of the intensities in words."""
        low, high, top = self.intensity
        if math.isnan(high):
            return "no intensity field"
        if high == low:
            return f"constant {low:g}"
        scale = "0..1" if top <= 1 else "0..255" if top <= 255 * 1.05 else "more than 8 bits"
        return f"{scale} (found {low:.4g} to {high:.4g}, 99.5 % below {top:.4g})"


def cloud_layout(topic: Topic) -> CloudLayout:
    """Return the layout of a topic of sensor_msgs/PointCloud2."""
    decoded, findings = _decode(topic)
    sweeps = [sweep for _, sweep, _ in decoded]
    if not decoded:
        return CloudLayout(findings=tuple(findings))
    last = decoded[-1][0]
    names = [one.name for one in last.fields]
    everything = np.concatenate([sweep.points for sweep in sweeps])
    counts = [len(sweep.points) for sweep in sweeps]
    named = any(name in names for name in INTENSITY_FIELDS)
    intensity, scale = _intensity(everything[:, 3]) if named and len(everything) else ((math.nan,) * 3, 1.0)
    heights = [height for height in map(_height, sweeps[:3]) if height is not None]
    azimuth = np.arctan2(everything[:, 1], everything[:, 0])
    sectors = (
        len(np.unique(np.clip((azimuth + np.pi) / (2 * np.pi) * 36, 0, 35).astype(int))) / 36
        if len(everything)
        else 0.0
    )
    usable = [sweep for sweep in sweeps if len(sweep.points)]
    findings += _judged(topic.name, decoded, scale)
    if not named:
        found, needed = f"fields {', '.join(names[:_MOST_FIELDS])}", f"one of {', '.join(INTENSITY_FIELDS)}"
        remedy = "let the driver publish intensities; without them they are 0"
        findings.append(finding("odd", topic.name, "no intensity field", found, needed, remedy))
    return CloudLayout(
        fields=tuple(_field_text(one) for one in last.fields[:_MOST_FIELDS]),
        size=(last.width, last.height),
        points=(min(counts), sorted(counts)[len(counts) // 2], max(counts)),
        without_return=1 - sum(counts) / max(sum(sent for _, _, sent in decoded), 1),
        intensity=intensity,
        scale=scale,
        has_ring="ring" in names or "channel" in names,
        has_time=any(name in names for name in _TIME_FIELDS),
        height=float(np.median(heights)) if heights else math.nan,
        reach=float(np.percentile(np.hypot(everything[:, 0], everything[:, 1]), 99)) if len(everything) else math.nan,
        sectors=sectors,
        sweeps=tuple(usable),
        findings=tuple(findings),
    )


def _decode(topic: Topic) -> tuple[list[_Decoded], list[Finding]]:
    """Return the samples' messages, their points with returns, and the number of points sent."""
    decoded, findings = [], list[Finding]()
    for sample in topic.samples:
        try:
            message = sample.decode()
            doubts = list[MessageError]()
            points = points_from_message(message, topic.name, doubts)
        except MessageError as error:
            findings.append(from_error(error, "loses"))
            continue
        except Exception as error:  # messages come from outside
            note_error(topic, error)
            findings.append(_unreadable(topic.name, error))
            continue
        returns = points[points[:, :3].any(axis=1)]
        stamp = message.header.stamp
        sweep = Sweep(stamp.sec * 1_000_000_000 + stamp.nanosec, message.header.frame_id, returns)
        decoded.append((message, sweep, message.width * message.height))
    return decoded, findings


def _judged(topic: str, decoded: Sequence[_Decoded], scale: float) -> list[Finding]:
    """Return what the node's decoder says of the samples, with the chosen intensity scale."""
    findings = []
    for message, sweep, sent in decoded:
        doubts = list[MessageError]()
        try:
            points = scaled_points(message, topic, scale, doubts)
        except MessageError as error:
            findings.append(from_error(error, "loses"))
            continue
        findings += [from_error(doubt, "odd") for doubt in doubts]
        if not len(points) or not len(sweep.points):
            found = f"{sent} points, none finite and away from the origin"
            findings.append(
                finding("loses", topic, "empty point cloud", found, "one or more returns", "check the sensor")
            )
    return findings


def _unreadable(topic: str, error: Exception) -> Finding:
    found, needed = f"{type(error).__name__}: {error}", "a message according to its definition"
    return finding("loses", topic, "unreadable message", found, needed, "record the bag again; check the driver")


def _intensity(values: NDArray[np.float32]) -> tuple[tuple[float, float, float], float]:
    top = float(np.quantile(values, _QUANTILE))
    low, high = float(values.min()), float(values.max())
    return (low, high, top), 1.0 if high == low else float(f"{fitting_scale(top):.4g}")


def _height(sweep: Sweep) -> float | None:
    return ground_height(sweep.points[:: max(1, len(sweep.points) // _MOST_GROUND_POINTS)])


def _field_text(entry: object) -> str:
    name, kind, count = (getattr(entry, part) for part in ("name", "datatype", "count"))
    several = f"[{count}]" if count != 1 else ""
    return f"{name} {_TYPES.get(kind, f'type {kind}')}{several}"
