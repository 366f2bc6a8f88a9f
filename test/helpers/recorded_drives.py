# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Made-up recorded drives for tests: two objects per sweep, cameras that look ahead, exact detections."""

import cv2
import numpy as np

from aqr_perception.demo.failures import Failure
from aqr_perception.demo.recorded_drive import RecordedDrive
from aqr_perception.demo.recording import BEV, CAMERA_GRID, FrameRecord, Recording
from aqr_perception.demo.truth import CameraGeometry, DriveTruth, TrueObjects
from aqr_perception.frame import Detections

START_NS = 1_700_000_000_000_000_000
PERIOD = 0.2
AHEAD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""LiDAR frame -> optical frame of a camera that looks along +x."""

BLACK = Failure("front", "/front/image_raw/compressed", "black", 1.0, 2.0)
GONE = Failure("lidar", "/lidar/points", "gone", 2.0, 3.0)


def boxes_at(*centres: tuple[float, float]) -> np.ndarray:
    return np.array([[x, y, 0, 4, 2, 1.5, 0.3, 1, 0] for x, y in centres], np.float32).reshape(-1, 9)


def truth_at(sweep: int, boxes: np.ndarray, labels: np.ndarray | None = None) -> TrueObjects:
    labels = np.zeros(len(boxes), np.int64) if labels is None else labels
    return TrueObjects(START_NS + round((sweep + 1) * PERIOD * 1e9), boxes, labels, np.ones(len(boxes), bool))


def detections_at(
    boxes: np.ndarray, scores: np.ndarray | None = None, views: int = 6, weight: float = 0.8
) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=boxes,
        scores=np.linspace(0.9, 0.4, count, dtype=np.float32) if scores is None else scores,
        labels=np.zeros(count, np.int64),
        lidar_weight=np.full(count, 0.7, np.float32),
        camera_weight=np.full(count, weight, np.float32),
        camera_weights=np.full((count, views), weight, np.float32),
    )


def camera() -> CameraGeometry:
    return CameraGeometry((100, 50), np.array([[50.0, 0, 50], [0, 50, 25], [0, 0, 1]]), AHEAD)


def jpeg(level: int, size: tuple[int, int] = (96, 48)) -> bytes:
    return cv2.imencode(".jpg", np.full((size[1], size[0], 3), level, np.uint8))[1].tobytes()


def recorded_drive(sweeps: int = 20, trained: bool = True, black_weight: float = 0.2) -> RecordedDrive:
    """Return a drive with every object detected; the cameras' weight falls from 0.8 while the front camera is black."""
    objects = [truth_at(sweep, boxes_at((10.0, 0.0), (5.0, 20.0))) for sweep in range(sweeps)]
    truth = DriveTruth(START_NS, objects, dict.fromkeys(CAMERA_GRID, camera()))
    frames = [_frame(truth, sweep, black_weight) for sweep in objects]
    recording = Recording(frames, "a model <for tests>", trained)
    return RecordedDrive(recording, truth, (BLACK, GONE), sweeps * PERIOD, (-51.2, -51.2, 51.2, 51.2))


def _frame(truth: DriveTruth, sweep: TrueObjects, black_weight: float) -> FrameRecord:
    with_lidar = not GONE.is_active(truth.seconds(sweep.stamp_ns))
    # Without LiDAR, frames have the stamp of the newest image.
    stamp_ns = sweep.stamp_ns if with_lidar else sweep.stamp_ns - 10_000_000
    weight = black_weight if BLACK.is_active(truth.seconds(stamp_ns)) else 0.8
    names = (*CAMERA_GRID, BEV) if with_lidar else CAMERA_GRID
    return FrameRecord(
        stamp_ns=stamp_ns,
        detections=detections_at(sweep.boxes, weight=weight),
        camera_names=CAMERA_GRID,
        unused={} if with_lidar else {"lidar": "too old"},
        milliseconds=400.0,
        pictures={name: jpeg(90, (200, 200) if name == BEV else (96, 48)) for name in names},
        map_means=dict.fromkeys(names, weight),
    )
