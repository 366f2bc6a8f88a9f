# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Result files of nuScenes' detection task, as its devkit and its evaluation server read them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.constants import DETECTION_NAMES
from tqdm import tqdm

from aqr_perception.data.frames import LabelledFrames
from aqr_perception.detector import Detector
from aqr_perception.evaluation.devkit_boxes import EvaluationError, derived_attribute, world_boxes
from aqr_perception.evaluation.frame_evaluator import FrameEvaluator
from aqr_perception.evaluation.scenarios import SCENARIOS
from aqr_perception.evaluation.tracking_metrics import TrackedFrame
from aqr_perception.evaluation.workers import evaluate_frames
from aqr_perception.frame import Detections, GroundTruth, WorldTruth
from aqr_perception.options import AqrMode

FILE_NAME = "results_nusc.json"
TRACKS_FILE_NAME = "tracks_nusc.json"

_CLEAN = "clean"


def detect(
    detector: Detector, frames: LabelledFrames, mode: AqrMode, *, history: int, workers: int = 1, progress: bool = True
) -> list[tuple[Detections, GroundTruth]]:
    """Return the detections with every score in each frame, without failures, and the frame's truth.

    For data without annotations, whose detections cannot be scored.

    Args:
        mode: mode of AQR; off for a detector without a trained router.
        history: number of earlier frames given to a detector with memory; see `robustness.run`.
        workers: see `workers.evaluate_frames`.
    """
    used: AqrMode = mode if detector.has_router else "off"
    evaluator = FrameEvaluator(
        detector, frames, {_CLEAN: SCENARIOS[_CLEAN]}, (used,), 0, history if detector.remembers else 0
    )
    results = tqdm(
        evaluate_frames(evaluator, workers), "detecting", len(frames), unit="frame", leave=False, disable=not progress
    )
    return [(result.detections[_CLEAN, used], result.truth) for result in results]


def write_results(path: Path, pairs: Iterable[tuple[Detections, GroundTruth]], cameras: bool, lidar: bool) -> int:
    """Write detections as a result file of nuScenes; return the number of samples in it.

    Attributes follow from class and speed (`devkit_boxes.derived_attribute`). Detections of classes outside nuScenes'
    ten are left out, because the format has no place for them. The file is replaced atomically.

    Args:
        pairs: detections and truth of each frame; the truth's `world` gives the sample's token and pose.
        cameras, lidar: whether the model uses these sensors, for the file's ``meta``.

    Raises:
        EvaluationError: a frame is not a sample of nuScenes, or has more detections than nuScenes allows.
    """
    limit = config_factory("detection_cvpr_2019").max_boxes_per_sample
    results: dict[str, list[dict[str, Any]]] = {}
    for number, (detections, truth) in enumerate(pairs, start=1):
        if truth.world is None:
            raise EvaluationError(f"frame {number} is not a sample of nuScenes' tables, which a result file needs")
        boxes = sample_results(detections, truth.world)
        if len(boxes) > limit:
            raise EvaluationError(
                f"sample {truth.world.token} has {len(boxes)} detections, but nuScenes allows {limit}; lower "
                "max_detections"
            )
        results[truth.world.token] = boxes
    _write(path, results, cameras, lidar)
    return len(results)


def write_tracks(path: Path, frames: Iterable[TrackedFrame], cameras: bool, lidar: bool) -> int:
    """Write tracks as a result file of nuScenes' tracking task; return the number of samples in it.

    Tracks of classes that the task does not have are left out. The file is replaced atomically.

    Raises:
        EvaluationError: a frame is not a sample of nuScenes.
    """
    names = config_factory("tracking_nips_2019").tracking_names
    results: dict[str, list[dict[str, Any]]] = {}
    for number, frame in enumerate(frames, start=1):
        world, tracks = frame.truth.world, frame.tracks
        if world is None:
            raise EvaluationError(f"frame {number} is not a sample of nuScenes' tables, which a result file needs")
        boxes = world_boxes(tracks.boxes, None)  # tracks are in the world frame already
        results[world.token] = [
            {
                "sample_token": world.token,
                "translation": box[:3].tolist(),
                "size": box[3:6].tolist(),
                "rotation": box[6:10].tolist(),
                "velocity": box[10:12].tolist(),
                "tracking_id": str(identity),
                "tracking_name": tracks.classes[label],
                "tracking_score": float(score),
            }
            for box, identity, label, score in zip(boxes, tracks.ids, tracks.labels, tracks.scores, strict=True)
            if tracks.classes[label] in names
        ]
    _write(path, results, cameras, lidar)
    return len(results)


def _write(path: Path, results: Mapping[str, object], cameras: bool, lidar: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps({"meta": _meta(cameras, lidar), "results": results}))
    partial.replace(path)


def sample_results(detections: Detections, world: WorldTruth) -> list[dict[str, Any]]:
    """Return the detections of a sample as entries of a result file, in the world frame."""
    boxes = world_boxes(detections.boxes, world.model_to_world)
    entries = []
    for box, label, score in zip(boxes, detections.labels, detections.scores, strict=True):
        name = detections.classes[label]
        if name not in DETECTION_NAMES:
            continue
        entries.append(
            {
                "sample_token": world.token,
                "translation": box[:3].tolist(),
                "size": box[3:6].tolist(),
                "rotation": box[6:10].tolist(),
                "velocity": box[10:12].tolist(),
                "detection_name": name,
                "detection_score": float(score),
                "attribute_name": derived_attribute(name, box[10:12]),
            }
        )
    return entries


def _meta(cameras: bool, lidar: bool) -> Mapping[str, bool]:
    return {
        "use_camera": cameras,
        "use_lidar": lidar,
        "use_radar": False,
        "use_map": False,
        "use_external": False,
    }
