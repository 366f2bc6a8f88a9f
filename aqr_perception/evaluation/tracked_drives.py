# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tracking of a detector's detections in whole drives, beside a nearest-neighbour baseline."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from aqr_perception.data.frames import LabelledFrames, drive_of
from aqr_perception.evaluation.drive_detections import (
    BLACK_CAMERA,
    CONDITIONS,
    LIDAR_GONE,
    Condition,
    DetectedFrame,
    LabelledDrive,
)
from aqr_perception.evaluation.tracking_metrics import TrackedFrame, TrackingScores, evaluate_tracks
from aqr_perception.evaluation.workers import in_processes
from aqr_perception.frame import LabelledFrame
from aqr_perception.simulator.drive import draw_drive, world_rig
from aqr_perception.tracking.track_options import TrackingOptions
from aqr_perception.tracking.tracker import Tracker

Method = Literal["nearest", "kalman"]
METHODS: tuple[Method, ...] = ("nearest", "kalman")
Results = Mapping[tuple[Condition, Method], TrackingScores]

_STEP = 0.5
"""Seconds between two frames, as between nuScenes' keyframes."""


def simulated_drive(
    seed: int,
    duration: float,
    picture: tuple[int, int],
    sweeps: int,
    world: int = 1,
    sweep_interval: float = 0.0,
) -> LabelledDrive:
    """Return a simulated drive with a frame every half second.

    Args:
        duration: in seconds.
        picture: width and height of the images in pixels.
        sweeps: LiDAR sweeps in a frame.
        world: version of the simulated world.
        sweep_interval: seconds between two sweeps; see `Drive`.
    """
    origin = {"seed": seed, "duration": duration, "picture": picture, "sweeps": sweeps, "world": world}
    origin["sweep_interval"] = sweep_interval
    begin = partial(_simulated_frames, seed, duration, picture, sweeps, world, sweep_interval)
    return LabelledDrive(f"simulated_{seed}", len(np.arange(0.0, duration, _STEP)), begin, origin)


def _simulated_frames(
    seed: int, duration: float, picture: tuple[int, int], sweeps: int, world: int, sweep_interval: float
) -> Iterable[LabelledFrame]:
    rig = world_rig(world, seed, picture)
    drive = draw_drive(seed, duration, rig, world, sweeps=sweeps, sweep_interval=sweep_interval)
    for time in np.arange(0.0, duration, _STEP):
        labelled = drive.frame(float(time))
        yield replace(labelled, frame=replace(labelled.frame, to_fixed=labelled.model_to_world))


@dataclass(frozen=True)
class _SomeFrames:
    """Frames of a data set by index."""

    frames: LabelledFrames
    indices: Sequence[int]

    def __call__(self) -> Iterable[LabelledFrame]:
        return map(self.frames.__getitem__, self.indices)


def recorded_drives(
    frames: LabelledFrames, origin: Mapping[str, object], largest: int | None = None
) -> list[LabelledDrive]:
    """Return the drives of a data set, in order.

    Args:
        origin: all that the data set depends on, as JSON values.
        largest: number of drives; None for all.
    """
    drives: dict[str, list[int]] = {}
    for index in range(len(frames)):
        drives.setdefault(drive_of(frames, index), []).append(index)
    return [
        LabelledDrive(name, len(indices), _SomeFrames(frames, indices), {**origin, "frames": [name, *indices]})
        for name, indices in list(drives.items())[:largest]
    ]


def track(
    drives: Mapping[str, Sequence[DetectedFrame]], options: TrackingOptions
) -> dict[tuple[Condition, Method], dict[str, list[TrackedFrame]]]:
    """Return the tracks of detected drives, with our tracker and with the nearest-neighbour baseline.

    Both get the same detections. Failures that begin after the longest drive's end are left out.
    """
    longest = max(((frames[-1].stamp_ns - frames[0].stamp_ns) / 1e9 for frames in drives.values() if frames), default=0)
    conditions = CONDITIONS if longest >= BLACK_CAMERA[1] else CONDITIONS[:1]
    return {
        (condition, method): {
            name: list(_tracked(frames, Tracker(options, method=method), condition)) for name, frames in drives.items()
        }
        for condition in conditions
        for method in METHODS
    }


def _tracked(frames: Sequence[DetectedFrame], tracker: Tracker, condition: Condition) -> Iterable[TrackedFrame]:
    for frame in frames:
        tracks = tracker.update(frame.stamp_ns, frame.detections[condition], frame.to_world)
        # The devkit fills gaps itself, and counts a prediction of a hidden object as a false positive.
        yield TrackedFrame(frame.stamp_ns, frame.to_world, frame.truth, tracks.keep(~tracks.predicted))


def score(
    tracked: Mapping[tuple[Condition, Method], Mapping[str, Sequence[TrackedFrame]]],
    workers: int = 1,
    progress: bool = False,
) -> dict[tuple[Condition, Method], TrackingScores]:
    """Return the tracking metrics of each condition and method.

    Args:
        workers: processes that share them.
        progress: whether to show a progress bar.
    """
    if workers == 1:
        return {key: evaluate_tracks(frames, progress=progress) for key, frames in tracked.items()}
    values = in_processes(evaluate_tracks, tracked.values(), min(workers, len(tracked)))
    return dict(zip(tracked, values, strict=True))


def table(results: Results) -> str:
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


def failures_line(results: Results, drives: Sequence[LabelledDrive]) -> str:
    """Return what fails in the drives, as a sentence."""
    camera, begin, end = BLACK_CAMERA
    said = f"{camera} camera black from {begin:g} to {end:g} s, no LiDAR from {LIDAR_GONE[0]:g} to {LIDAR_GONE[1]:g} s"
    frames = sum(drive.count for drive in drives)
    if ("failures", "kalman") not in results:
        return f"{len(drives)} drives, {frames} frames; all end before the first failure ({said})"
    return f"{len(drives)} drives, {frames} frames; failures: {said}"
