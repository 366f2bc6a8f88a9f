# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A recorded drive as the frames and phases of a report."""

import itertools
import math
from collections.abc import Iterator, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.demo.drive_metrics import detected_objects, evaluated_objects
from aqr_perception.demo.failures import Failure
from aqr_perception.demo.pictures import bev_with_truth
from aqr_perception.demo.recorded_drive import RecordedDrive
from aqr_perception.demo.recording import BEV, FrameRecord
from aqr_perception.demo.truth import TrueObjects
from aqr_perception.geometry import box_corners
from aqr_perception.models.preprocessing import image_to_model
from aqr_perception.options import AqrOptions
from aqr_perception.report.query_windows import bev_outline
from aqr_perception.report.report_frame import (
    LIDAR,
    ReportDetection,
    ReportFrame,
    ReportPhase,
    ReportSensor,
    ReportTruth,
    Window,
)

ALL_WORK = "all sensors working"

_BEV_WIDTH = 640
_SIGMA = AqrOptions.sigma


def report_frames(drive: RecordedDrive) -> Iterator[ReportFrame]:
    """Yield one frame for each sweep of the drive, also for those without detections."""
    frames = drive.frames_by_sweep()
    for index, truth in enumerate(drive.truth.sweeps):
        record = frames.get(index)
        yield _unanswered(drive, truth) if record is None else _frame(drive, truth, record)


def report_phases(drive: RecordedDrive) -> list[ReportPhase]:
    """Return the drive's parts between the edges of its failures, in order."""
    edges = {0.0, drive.seconds}
    edges |= {min(edge, drive.seconds) for failure in drive.failures for edge in (failure.begin, failure.end)}
    times = sorted(edges)
    phases = []
    for begin, end in itertools.pairwise(times):
        failing = drive.active_failures((begin + end) / 2)
        name = ", ".join(map(str, failing.values())) or ALL_WORK
        # The last sweep ends with the drive.
        last = 1 if end == drive.seconds else 0
        phases.append(ReportPhase(name, _ns(drive, begin), _ns(drive, end) + last, tuple(failing)))
    return phases


def _ns(drive: RecordedDrive, seconds: float) -> int:
    return drive.truth.start_ns + round(seconds * 1e9)


def _unanswered(drive: RecordedDrive, truth: TrueObjects) -> ReportFrame:
    seconds = drive.truth.seconds(truth.stamp_ns)
    failing = drive.active_failures(seconds)
    names = drive.sensor_names
    return ReportFrame(
        stamp_ns=truth.stamp_ns,
        sensors=[ReportSensor(name, False, "no frame", failure=_failure(failing, name)) for name in names],
        truth=_truth(truth, None),
        unanswered=f"The node published no detections for the sweep at {seconds:.1f} s.",
    )


def _frame(drive: RecordedDrive, truth: TrueObjects, record: FrameRecord) -> ReportFrame:
    # By the sweep: images of a failing camera are taken during the sweep, and camera-only frames have their stamps.
    failing = drive.active_failures(drive.truth.seconds(truth.stamp_ns))
    jpeg = {name: data for name, data in record.pictures.items() if name != BEV}
    return ReportFrame(
        stamp_ns=truth.stamp_ns,
        sensors=[_sensor(record, name, failing) for name in drive.sensor_names],
        detections=_detections(drive, record),
        pictures={**jpeg, BEV: _bev_picture(drive, truth, record)},
        truth=_truth(truth, record),
        milliseconds=record.stages,
        total_milliseconds=record.milliseconds,
        signed=drive.recording.signed,
    )


def _failure(failing: Mapping[str, Failure], name: str) -> str:
    return str(failing[name]) if name in failing else ""


def _sensor(record: FrameRecord, name: str, failing: Mapping[str, Failure]) -> ReportSensor:
    used = name not in record.unused and (name in record.camera_names or name == LIDAR)
    age = record.ages.get(name, math.nan)
    return ReportSensor(
        name,
        used,
        "" if used else record.unused.get(name, "not configured"),
        record.doubts.get(name, ""),
        _failure(failing, name),
        None if math.isnan(age) else age,
    )


def _truth(truth: TrueObjects, record: FrameRecord | None) -> list[ReportTruth]:
    evaluated = evaluated_objects(truth)
    found = np.zeros(len(evaluated), bool) if record is None else detected_objects(record.detections, truth)
    return [
        ReportTruth(truth.classes[int(truth.labels[index])], truth.boxes[index].tolist(), bool(found[index]))
        for index in np.flatnonzero(evaluated)
    ]


def _bev_picture(drive: RecordedDrive, truth: TrueObjects, record: FrameRecord) -> NDArray[np.uint8]:
    picture = bev_with_truth(record, truth, drive.bev_range)
    height = round(_BEV_WIDTH * picture.shape[0] / picture.shape[1])
    return cv2.resize(picture, (_BEV_WIDTH, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _detections(drive: RecordedDrive, record: FrameRecord) -> list[ReportDetection]:
    found, queries = record.detections, record.queries
    if queries is not None and len(queries.points) != len(found):
        raise ValueError(f"frame {record.stamp_ns}: found {len(queries.points)} queries of {len(found)} detections")
    windows = _windows(drive, record)
    ground = box_corners(found.boxes)[:, :4, :2]
    return [
        ReportDetection(
            class_name=found.classes[int(found.labels[index])],
            score=float(found.scores[index]),
            box=found.boxes[index].tolist(),
            lidar_weight=float(found.lidar_weight[index]),
            camera_weight=float(found.camera_weight[index]),
            camera_weights=dict(zip(record.camera_names, found.camera_weights[index].tolist(), strict=True)),
            attention={}
            if queries is None
            else {name: float(share[index]) for name, share in queries.attention.items() if np.isfinite(share[index])},
            windows=windows[index],
            outlines={BEV: bev_outline(ground[index], drive.bev_range)},
        )
        for index in range(len(found))
    ]


def _windows(drive: RecordedDrive, record: FrameRecord) -> list[dict[str, Window]]:
    """Return the windows of the detections' queries in the frame's pictures, where their places are known."""
    windows: list[dict[str, Window]] = [{} for _ in range(len(record.detections))]
    queries = record.queries
    if queries is None:
        return windows
    if BEV in record.map_shapes:
        x_min, y_min, x_max, y_max = drive.bev_range
        low_x, low_y, high_x, high_y = drive.feature_range or drive.bev_range
        rows, columns = record.map_shapes[BEV]
        sigma_x = _SIGMA * (high_x - low_x) / columns / (x_max - x_min)
        sigma_y = _SIGMA * (high_y - low_y) / rows / (y_max - y_min)
        for window, (x, y, _) in zip(windows, queries.points.tolist(), strict=True):
            if low_x <= x < high_x and low_y <= y < high_y:
                window[BEV] = Window((x - x_min) / (x_max - x_min), (y_max - y) / (y_max - y_min), sigma_x, sigma_y)
    for name, pixels in queries.pixels.items():
        size = drive.truth.cameras[name].size if name in drive.truth.cameras else None
        if size is None or name not in record.map_shapes or not all(drive.model_image):
            continue
        rows, columns = record.map_shapes[name]
        scale = image_to_model(size, drive.model_image)
        # Cells of the map are those of the model's image, which shows the camera's picture scaled.
        sigma_u = _SIGMA * drive.model_image[0] / columns / scale[0, 0]
        sigma_v = _SIGMA * drive.model_image[1] / rows / scale[1, 1]
        for window, (u, v) in zip(windows, pixels.tolist(), strict=True):
            if math.isfinite(u):
                window[name] = Window(u / size[0], v / size[1], sigma_u / size[0], sigma_v / size[1])
    return windows
