"""A made-up drive for tests: one object a moment, a camera ahead, and answers as exact as wanted."""

import cv2
import numpy as np

from aqr_perception.demo.failures import Failure
from aqr_perception.demo.played import PlayedDrive
from aqr_perception.demo.recording import BEV, RING, Answer, Recording
from aqr_perception.demo.truth import CameraPose, DriveTruth, TrueObjects
from aqr_perception.frame import Detections

START_NS = 1_700_000_000_000_000_000
PERIOD = 0.2
AHEAD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""LiDAR frame -> optical frame of a camera that looks along +x."""

BLACK = Failure("front", "/front/image_raw/compressed", "black", 1.0, 2.0)
GONE = Failure("lidar", "/lidar/points", "gone", 2.0, 3.0)


def boxes(*centres: tuple[float, float]) -> np.ndarray:
    return np.array([[x, y, 0, 4, 2, 1.5, 0.3, 1, 0] for x, y in centres], np.float32).reshape(-1, 9)


def truth_at(moment: int, centres: np.ndarray, labels: np.ndarray | None = None) -> TrueObjects:
    labels = np.zeros(len(centres), np.int64) if labels is None else labels
    return TrueObjects(START_NS + round((moment + 1) * PERIOD * 1e9), centres, labels, np.ones(len(centres), bool))


def detections_at(
    centres: np.ndarray, scores: np.ndarray | None = None, views: int = 6, weight: float = 0.8
) -> Detections:
    count = len(centres)
    return Detections(
        boxes=centres,
        scores=np.linspace(0.9, 0.4, count, dtype=np.float32) if scores is None else scores,
        labels=np.zeros(count, np.int64),
        lidar_weight=np.full(count, 0.7, np.float32),
        camera_weight=np.full(count, weight, np.float32),
        camera_weights=np.full((count, views), weight, np.float32),
    )


def camera() -> CameraPose:
    return CameraPose((100, 50), np.array([[50.0, 0, 50], [0, 50, 25], [0, 0, 1]]), AHEAD)


def jpeg(level: int, size: tuple[int, int] = (96, 48)) -> bytes:
    return cv2.imencode(".jpg", np.full((size[1], size[0], 3), level, np.uint8))[1].tobytes()


def played(moments: int = 20, trained: bool = True) -> PlayedDrive:
    """A drive in which everything is found; the front camera's weight falls to a quarter while it is black."""
    objects = [truth_at(moment, boxes((10.0, 0.0), (5.0, 20.0))) for moment in range(moments)]
    cameras = dict.fromkeys(RING, camera())
    truth = DriveTruth(START_NS, objects, cameras)
    answers = []
    for moment in objects:
        lidar = not GONE.holds(truth.seconds(moment.stamp_ns))
        # Without LiDAR, frames bear the stamp of the newest picture.
        stamp_ns = moment.stamp_ns if lidar else moment.stamp_ns - 10_000_000
        weight = 0.2 if BLACK.holds(truth.seconds(stamp_ns)) else 0.8
        names = (*RING, BEV) if lidar else RING
        answers.append(
            Answer(
                stamp_ns=stamp_ns,
                detections=detections_at(moment.boxes, weight=weight),
                camera_names=RING,
                left_out={} if lidar else {"lidar": "too old"},
                milliseconds=400.0,
                pictures={name: jpeg(90, (200, 200) if name == BEV else (96, 48)) for name in names},
                map_means=dict.fromkeys(names, weight),
            )
        )
    recording = Recording(answers, "a model <for tests>", trained)
    return PlayedDrive(recording, truth, (BLACK, GONE), moments * PERIOD, (-51.2, -51.2, 51.2, 51.2))
