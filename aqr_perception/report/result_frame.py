# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Report frames of a detector's frames and results."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import Frame, Result
from aqr_perception.options import AqrOptions
from aqr_perception.report.query_windows import box_outlines, by_name, query_windows
from aqr_perception.report.report_frame import (
    BEV,
    LIDAR,
    ReportDetection,
    ReportFrame,
    ReportSensor,
    ReportTruth,
)
from aqr_perception.visualization.bev_picture import bev_picture
from aqr_perception.visualization.camera_picture import camera_picture


def report_frame(
    frame: Frame,
    result: Result,
    *,
    sensors: Sequence[ReportSensor] | None = None,
    truth: Sequence[ReportTruth] | None = None,
    sigma: float = AqrOptions.sigma,
    with_pictures: bool = True,
    bev_size: int = 640,
    total_milliseconds: float | None = None,
) -> ReportFrame:
    """Return the report's frame of a detector's frame and result.

    The windows need `Result.queries`, and the attention `DetectionOptions.attention`; without them, the report lacks
    these.

    Args:
        frame, result: input and output of `Detector.detect`.
        sensors: every configured sensor; None: those of the frame.
        truth: see `ReportFrame.truth`.
        sigma: `AqrOptions.sigma` of the detection.
        with_pictures: whether to draw the pictures, which takes most of the time.
        bev_size: width of the bird's-eye view in pixels.
        total_milliseconds: see `ReportFrame`.
    """
    maps, found = result.weight_maps, result.detections
    return ReportFrame(
        stamp_ns=frame.stamp_ns,
        sensors=tuple(sensors) if sensors is not None else _used_sensors(frame),
        detections=_detections(frame, result, sigma),
        pictures={
            **{
                view.name: camera_picture(view, maps.cameras.get(view.name), found, maps.signed)
                for view in frame.cameras
            },
            BEV: bev_picture(maps, frame.points, found, bev_size),
        }
        if with_pictures
        else {},
        truth=truth,
        milliseconds={stage: 1e3 * seconds for stage, seconds in result.seconds.items()},
        total_milliseconds=total_milliseconds,
        signed=maps.signed,
    )


def _used_sensors(frame: Frame) -> tuple[ReportSensor, ...]:
    lidar = ReportSensor(LIDAR, frame.points is not None, "" if frame.points is not None else "no data")
    return (lidar, *(ReportSensor(view.name, True, age=view.age) for view in frame.cameras))


def _detections(frame: Frame, result: Result, sigma: float) -> tuple[ReportDetection, ...]:
    found, maps, queries = result.detections, result.weight_maps, result.queries
    # A model without cameras has no weights of the frame's cameras.
    names = [view.name for view in frame.cameras][: found.camera_weights.shape[1]]
    attention: list[Mapping[str, float]] = [{} for _ in range(len(found))]
    placed = [] if queries is None else query_windows(queries.points, maps, frame.cameras, sigma)
    if queries is not None and queries.attention is not None:
        attention = [by_name([LIDAR, *names], shares.tolist()) for shares in queries.attention]
    scene = maps.scene_range or maps.bev_range
    outlines = box_outlines(found.boxes, frame.cameras, scene)
    return tuple(
        ReportDetection(
            class_name=found.classes[int(found.labels[index])],
            score=float(found.scores[index]),
            box=_floats(found.boxes[index]),
            lidar_weight=float(found.lidar_weight[index]),
            camera_weight=float(found.camera_weight[index]),
            camera_weights=by_name(names, found.camera_weights[index].tolist()),
            attention=attention[index],
            windows=placed[index] if placed else {},
            outlines=outlines[index],
        )
        for index in range(len(found))
    )


def _floats(values: NDArray[np.float32]) -> list[float]:
    numbers: list[float] = values.tolist()
    return numbers
