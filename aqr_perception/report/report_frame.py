# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Content of a report: frames with their pictures, detections, sensors and truth, and the phases of a drive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BEV, LIDAR = "bev", "lidar"
"""Name of the bird's-eye view among the pictures, and of the LiDAR among the sensors; cameras have their own names."""


class Window(NamedTuple):
    """Gaussian window of a query in a picture.

    Attributes:
        x, y: centre as shares of the picture's width and height, from its upper left corner.
        sigma_x, sigma_y: standard deviations as shares of the picture's width and height.
    """

    x: float
    y: float
    sigma_x: float
    sigma_y: float


@dataclass(frozen=True)
class ReportDetection:
    """A detected object and what its query used.

    Attributes:
        class_name, score: as in `Detections`.
        box: the nine numbers of `Detections.boxes`, model frame.
        lidar_weight, camera_weight: weights of the LiDAR and of all cameras.
        camera_weights: weight of each camera used, by name.
        attention: share of the query's attention on each sensor, by name (`LIDAR` and cameras); empty if unknown.
        windows: the query's window in each picture that shows it, by picture name.
        outlines: the box in each picture that shows it, by picture name: lines x1, y1, x2, y2 as shares of the
            picture's width and height.
    """

    class_name: str
    score: float
    box: Sequence[float]
    lidar_weight: float
    camera_weight: float
    camera_weights: Mapping[str, float] = field(default_factory=dict)
    attention: Mapping[str, float] = field(default_factory=dict)
    windows: Mapping[str, Window] = field(default_factory=dict)
    outlines: Mapping[str, Sequence[tuple[float, float, float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportSensor:
    """A sensor in one frame.

    Attributes:
        name: `LIDAR` or a camera's name; further LiDARs have names that start with `LIDAR`.
        used: whether the frame uses the sensor's data.
        reason: why it does not; empty if it does.
        doubt: what is odd about data that is used; empty if nothing is.
        failure: what is known to be wrong with the sensor, where the data are simulated; empty if nothing is.
        age: frame stamp minus data stamp in seconds; None if unknown.
    """

    name: str
    used: bool
    reason: str = ""
    doubt: str = ""
    failure: str = ""
    age: float | None = None


@dataclass(frozen=True)
class ReportTruth:
    """A true object, with a box as `ReportDetection.box`, and whether a detection matches it."""

    class_name: str
    box: Sequence[float]
    detected: bool


@dataclass(frozen=True)
class ReportFrame:
    """One moment of a drive.

    Attributes:
        stamp_ns: time of the frame.
        sensors: every configured sensor, used or not.
        detections: highest score first.
        pictures: by camera name and `BEV`: (H, W, 3) uint8 BGR, or the bytes of a JPEG, PNG or WebP file. They have
            maps and boxes already.
        truth: the true objects that should be detected; None if they are unknown.
        milliseconds: time by stage.
        total_milliseconds: latency; None: the sum of the stages.
        signed: whether weights may be negative.
        unanswered: why there is no result for this moment; empty if there is one. Without result, there are no
            detections and no pictures.
    """

    stamp_ns: int
    sensors: Sequence[ReportSensor] = ()
    detections: Sequence[ReportDetection] = ()
    pictures: Mapping[str, "NDArray[np.uint8] | bytes"] = field(default_factory=dict)
    truth: Sequence[ReportTruth] | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    total_milliseconds: float | None = None
    signed: bool = False
    unanswered: str = ""

    @property
    def latency(self) -> float | None:
        """Milliseconds from the data to the detections; None if unknown."""
        if self.total_milliseconds is not None:
            return self.total_milliseconds
        return sum(self.milliseconds.values()) if self.milliseconds else None


@dataclass(frozen=True)
class ReportPhase:
    """A part of a drive that is summarised by itself, such as the failure of a sensor.

    Attributes:
        name: as shown.
        begin_ns, end_ns: stamps of the first moment and of the first moment after it.
        sensors: names of the sensors that fail; empty if all work.
    """

    name: str
    begin_ns: int
    end_ns: int
    sensors: Sequence[str] = ()

    def contains(self, stamp_ns: int) -> bool:
        return self.begin_ns <= stamp_ns < self.end_ns


def plain_numbers(values: "NDArray[Any] | Sequence[float]", digits: int = 4) -> list[float | None]:
    """Return numbers for JSON: rounded, and None for those that are not finite."""
    return [round(float(value), digits) if np.isfinite(value) else None for value in np.asarray(values).ravel()]
