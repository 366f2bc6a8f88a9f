"""Tracking of a detector's detections in whole drives, with all sensors and with failing ones."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from tqdm import tqdm

from aqr_perception.data.corruption.random_corruption import with_points, with_views
from aqr_perception.detector import Detector
from aqr_perception.evaluation.tracking_metrics import TrackedFrame, TrackingScores, evaluate_tracks
from aqr_perception.frame import LabelledFrame
from aqr_perception.options import DetectionOptions
from aqr_perception.simulator.drive import draw_drive, world_rig
from aqr_perception.tracking.track_options import TrackingOptions
from aqr_perception.tracking.tracker import Tracker

Condition = Literal["clean", "failures"]
Method = Literal["kalman", "nearest"]

BLACK_CAMERA = ("front", 6.0, 12.0)
"""Camera, begin and end, in seconds of a drive, of the demo's first failure: black images."""
LIDAR_GONE = (12.0, 16.0)
"""Begin and end of the demo's second failure."""

_STEP = 0.5
"""Seconds between two frames, as between nuScenes' keyframes."""


def simulated_drive(
    seed: int, duration: float, picture: tuple[int, int], sweeps: int, world: int = 1
) -> Iterable[LabelledFrame]:
    """Return the frames of a simulated drive, twice a second.

    Args:
        duration: in seconds.
        picture: width and height of the images in pixels.
        sweeps: LiDAR sweeps in a frame.
        world: version of the simulated world.
    """
    drive = draw_drive(seed, duration, world_rig(world, seed, picture), world, sweeps=sweeps)
    for time in np.arange(0.0, duration, _STEP):
        labelled = drive.frame(float(time))
        yield replace(labelled, frame=replace(labelled.frame, to_fixed=labelled.model_to_world))


def with_failures(labelled: LabelledFrame, seconds: float) -> LabelledFrame:
    """Return the frame with the demo's failures at a time in seconds since the drive's start."""
    camera, begin, end = BLACK_CAMERA
    if begin <= seconds < end:
        black = (
            replace(view, image=np.zeros_like(view.image)) if view.name == camera else view
            for view in labelled.frame.cameras
        )
        labelled = with_views(labelled, tuple(black))
    if LIDAR_GONE[0] <= seconds < LIDAR_GONE[1]:
        labelled = with_points(labelled, None)
    return labelled


def run(
    detector: Detector,
    drives: Mapping[str, Callable[[], Iterable[LabelledFrame]]],
    options: TrackingOptions,
    detection: DetectionOptions,
    progress: bool = False,
) -> dict[tuple[Condition, Method], TrackingScores]:
    """Return the tracking metrics of drives with our tracker and with the nearest-neighbour baseline.

    Both get the same detections.

    Args:
        drives: name -> function that begins the drive's frames, in order of time.
        progress: whether to show a progress bar.
    """
    results: dict[tuple[Condition, Method], dict[str, list[TrackedFrame]]] = {}
    conditions: tuple[Condition, ...] = ("clean", "failures")
    methods: tuple[Method, ...] = ("nearest", "kalman")
    for name, begin in tqdm(drives.items(), desc="tracking", unit="drive", disable=not progress):
        for condition in conditions:
            trackers = {method: Tracker(options, method=method) for method in methods}
            first = None
            for labelled in begin():
                stamp, to_world = labelled.frame.stamp_ns, labelled.model_to_world
                first = stamp if first is None else first
                failing = with_failures(labelled, (stamp - first) / 1e9) if condition == "failures" else labelled
                detections = detector.detect(failing.frame, detection).detections
                for method, tracker in trackers.items():
                    tracks = tracker.update(stamp, detections, to_world)
                    # The devkit fills gaps itself, and counts a prediction of a hidden object as a false positive.
                    seen = tracks.keep(~tracks.predicted)
                    tracked = TrackedFrame(stamp, to_world, labelled.truth, seen)
                    results.setdefault((condition, method), {}).setdefault(name, []).append(tracked)
    return {key: evaluate_tracks(frames) for key, frames in results.items()}


def table(results: Mapping[tuple[Condition, Method], TrackingScores]) -> str:
    """Return the figures as Markdown."""
    rows = [
        "| sensors | tracker | AMOTA | AMOTP (m) | identity switches | fragmentations |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (condition, method), scores in results.items():
        rows.append(
            f"| {condition} | {method} | {scores.amota:.3f} | {scores.amotp:.3f} | {scores.switches} | "
            f"{scores.fragmentations} |"
        )
    return "\n".join(rows)
