# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Content of the output files for one frame."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import Detections, Frame, Result, WorldTruth
from aqr_perception.msg import FusedDetectionArray, TrackArray
from aqr_perception.nodes.frame_steps import Placed
from aqr_perception.nodes.stamps import stamp_to_ns
from aqr_perception.offline.bag_playback import DueFrame
from aqr_perception.offline.journal import AnsweredFrame, Blob
from aqr_perception.offline.recorded_topics import OutputMessage
from aqr_perception.report.report_frame import ReportFrame, ReportSensor
from aqr_perception.report.result_frame import report_frame
from aqr_perception.report.stored_frame import restored, stored

_DIGITS = 5
"""Decimal places in JSON lines, of metres, m/s, scores and weights."""

_OBSERVED, _REPORT, _PICTURE = "observed", "report", "report picture"
_NPZ, _JSON = "npz", "json"


def answered(
    due: DueFrame,
    placed: Placed,
    result: Result,
    messages: Sequence[OutputMessage],
    unanswered: int,
    token: str,
    tracking: bool,
    report: ReportFrame | None = None,
) -> AnsweredFrame:
    """Return what the output files need of a frame.

    Args:
        token: of the frame in a result file of nuScenes; empty: there is none.
        tracking: whether the objects are followed; then the detections are kept for `replayed`.
        report: what the report shows of the frame, for `reported`; None: there is no report.
    """
    arrays = {type(one.message): one.message for one in messages if isinstance(one.message, FusedDetectionArray)}
    tracks = next((one.message for one in messages if isinstance(one.message, TrackArray)), None)
    line = _line(arrays[FusedDetectionArray], tracks)
    return AnsweredFrame(
        due.number,
        placed.frame.stamp_ns,
        due.due_ns,
        json.dumps(line, separators=(",", ":")),
        tuple(Blob(one.topic, one.type, one.data) for one in messages),
        (*((_observed(placed, result.detections, due.epoch),) if tracking else ()), *_report_blobs(report)),
        unanswered,
        _boxes(placed.frame, result.detections, token) if token else None,
    )


def replayed(frame: AnsweredFrame) -> tuple[Frame, Detections, NDArray[np.float64], str, int] | None:
    """Return frame, detections, output transform, output frame and epoch of an answered frame, for its tracks."""
    blob = next((blob for blob in frame.blobs if blob.name == _OBSERVED), None)
    if blob is None:
        return None
    with np.load(io.BytesIO(blob.data), allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    to_fixed = arrays["to_fixed"] if arrays["to_fixed"].size else None
    frame_id, output_frame, *classes = arrays["texts"].tolist()
    detections = Detections(
        arrays["boxes"],
        arrays["scores"],
        arrays["labels"],
        arrays["lidar_weight"],
        arrays["camera_weight"],
        arrays["camera_weights"],
        tuple(classes),
    )
    empty = Frame(frame.stamp_ns, None, (), frame_id, to_fixed)
    return empty, detections, arrays["to_output"], output_frame, int(arrays["epoch"])


def to_report(placed: Placed, result: Result, sigma: float, with_pictures: bool) -> ReportFrame:
    """Return what the report shows of a frame: the same for each run, therefore without the time that it took.

    Args:
        sigma: `AqrOptions.sigma` of the detection.
    """
    sensors = [
        ReportSensor(use.name, use.used, use.detail or use.reason, use.doubt, age=use.age) for use in placed.sensors
    ]
    frame = report_frame(placed.frame, result, sensors=sensors, sigma=sigma, with_pictures=with_pictures)
    return replace(frame, milliseconds={})


def reported(frame: AnsweredFrame) -> ReportFrame | None:
    """Return what the report shows of an answered frame; None if it was kept without."""
    numbers = next((blob.data for blob in frame.blobs if blob.name == _REPORT), None)
    if numbers is None:
        return None
    return restored(numbers, {blob.type: blob.data for blob in frame.blobs if blob.name == _PICTURE})


def _report_blobs(report: ReportFrame | None) -> list[Blob]:
    if report is None:
        return []
    numbers, pictures = stored(report)
    return [Blob(_REPORT, _JSON, numbers), *(Blob(_PICTURE, name, data) for name, data in pictures.items())]


def _observed(placed: Placed, found: Detections, epoch: int) -> Blob:
    to_fixed = placed.frame.to_fixed
    packed = io.BytesIO()
    np.savez(
        packed,
        boxes=found.boxes,
        scores=found.scores,
        labels=found.labels,
        lidar_weight=found.lidar_weight,
        camera_weight=found.camera_weight,
        camera_weights=found.camera_weights,
        to_fixed=np.zeros(0) if to_fixed is None else to_fixed,
        to_output=placed.to_output,
        epoch=np.array(epoch),
        texts=np.array([placed.frame.frame_id, placed.output_frame, *found.classes]),
    )
    return Blob(_OBSERVED, _NPZ, packed.getvalue())


def _line(found: FusedDetectionArray, tracks: TrackArray | None) -> dict[str, Any]:
    """Return the JSON object of a frame: the content of ~/detections, and of ~/tracks if there are any."""
    line: dict[str, Any] = {
        "stamp_ns": stamp_to_ns(found.header.stamp),
        "frame_id": found.header.frame_id,
        "weights_source": found.weights_source,
        "sensors": [
            {"name": use.name, "used": use.used, "age": _rounded(use.age), "reason": use.reason}
            for use in found.sensors
        ],
        "detections": [
            {
                "class": one.class_name,
                "score": _rounded(one.score),
                **_box(one),
                "lidar_weight": _rounded(one.lidar_weight),
                "camera_weight": _rounded(one.camera_weight),
                "camera_weights": dict(zip(found.camera_names, map(_rounded, one.camera_weights), strict=False)),
            }
            for one in found.detections
        ],
    }
    if tracks is not None:
        line["tracking_frame"] = tracks.tracking_frame
        line["tracks"] = [
            {
                "id": one.id,
                "class": one.class_name,
                "score": _rounded(one.score),
                **_box(one),
                "age": _rounded(one.age),
                "hits": one.hits,
                "missed": one.missed,
                "predicted": one.predicted,
                "lidar_weight": _rounded(one.lidar_weight),
                "camera_weight": _rounded(one.camera_weight),
            }
            for one in tracks.tracks
        ]
    return line


def _box(one: Any) -> dict[str, list[float | None]]:
    at, turn, size, speed = one.pose.position, one.pose.orientation, one.size, one.velocity
    return {
        "position": [_rounded(value) for value in (at.x, at.y, at.z)],
        "orientation": [_rounded(value) for value in (turn.x, turn.y, turn.z, turn.w)],
        "size": [_rounded(value) for value in (size.x, size.y, size.z)],
        "velocity": [_rounded(value) for value in (speed.x, speed.y, speed.z)],
    }


def _rounded(value: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return round(float(value), _DIGITS) + 0.0 if np.isfinite(value) else None


def _boxes(frame: Frame, found: Detections, token: str) -> list[dict[str, Any]]:
    """Return the entries of nuScenes' result file, in the fixed frame; in the model frame without one."""
    from aqr_perception.evaluation.nuscenes_results import sample_results

    world = np.eye(4) if frame.to_fixed is None else frame.to_fixed
    nothing = np.zeros((0, 12))
    return sample_results(found, WorldTruth(token, world, world[:3, 3], nothing, (), nothing[:, :10]))
