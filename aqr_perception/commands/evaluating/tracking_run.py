# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""``aqr_perception evaluate --tracking``: nuScenes' tracking metrics of drives."""

import argparse
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from aqr_perception.commands.output import result_line, write_json

if TYPE_CHECKING:
    from aqr_perception.data.sources.catalogue import Data
    from aqr_perception.detector import Detector
    from aqr_perception.evaluation.drive_detections import LabelledDrive
    from aqr_perception.models.config.presets import Preset

_log = logging.getLogger(__name__)

_DRIVES = 20
"""Simulated drives of ``--tracking`` without a number."""


def run_tracking(options: argparse.Namespace, open_data: "Callable[[Preset], Data]") -> int:
    """Track the objects of drives, and print the metrics.

    Args:
        open_data: opens the frames of a preset.
    """
    from aqr_perception.detector import Detector
    from aqr_perception.evaluation import nuscenes_results, tracked_drives
    from aqr_perception.evaluation.drive_detections import StoredDrives
    from aqr_perception.options import DetectionOptions
    from aqr_perception.tracking.track_options import TrackingOptions

    if options.tracking < 0 or options.folders or options.data == "keyframes":
        found = f"--tracking {options.tracking or ''}".strip() + f" with --data {options.data}"
        found += "".join(f" {folder}" for folder in options.folders)
        raise ValueError(f"{found}: needed a number of drives from 1 (or none), and --data synthetic, nuscenes, ...")
    if not 0 < options.drive_seconds <= 600:
        raise ValueError(f"--drive-seconds: found {options.drive_seconds:g}, needed more than 0 and at most 600")
    detector = Detector(options.model, options.checkpoint, options.device, options.precision)
    drives = _drives(options, detector, open_data)
    store = StoredDrives(options.output / "tracking", detector, DetectionOptions())
    known = sum(store.stored(drive) is not None for drive in drives)
    if known:
        _log.info(
            "%d of %d drives: detections of an earlier run with the same weights and options, from %s; remove the "
            "folder to detect again", known, len(drives), store.folder,
        )  # fmt: skip
    progress = sys.stderr.isatty()
    detected = dict(store.detect(drives, options.workers, progress))
    tracked = tracked_drives.track(detected, TrackingOptions())
    results = tracked_drives.score(tracked, options.workers, progress)
    print(tracked_drives.table(results))
    print(tracked_drives.failures_line(results, drives))
    if options.data == "nuscenes":
        path = options.output / nuscenes_results.TRACKS_FILE_NAME
        frames = (frame for drive in tracked["clean", "kalman"].values() for frame in drive)
        nuscenes_results.write_tracks(path, frames, detector.uses_cameras, detector.uses_lidar)
        print(result_line(path, options.frames))
    write_json(
        options.json, {f"{condition}, {method}": scores.as_dict() for (condition, method), scores in results.items()}
    )
    return 0


def _drives(
    options: argparse.Namespace, detector: "Detector", open_data: "Callable[[Preset], Data]"
) -> "list[LabelledDrive]":
    """Return the drives of ``--tracking``."""
    from aqr_perception.data.sources.simulated import TRAINING_WORLD, VALIDATION_SEEDS, accumulated_sweeps
    from aqr_perception.evaluation import tracked_drives

    preset = detector.model.preset
    if options.data == "synthetic":
        count = options.tracking or _DRIVES
        if count > len(VALIDATION_SEEDS):
            raise ValueError(f"--tracking {count}: needed at most {len(VALIDATION_SEEDS)} drives of --data synthetic")
        picture = (352, 128) if preset.image is None else preset.image.size
        sweeps, interval = accumulated_sweeps(preset)
        world = options.world or TRAINING_WORLD
        return [
            tracked_drives.simulated_drive(seed, options.drive_seconds, picture, sweeps, world, interval)
            for seed in VALIDATION_SEEDS[:count]
        ]
    data = open_data(preset)
    if not data.labelled:
        raise ValueError(f"{options.data_root}: found no annotations, needed them to score tracks")
    root = options.data_root.resolve()
    origin = {
        "data": options.data,
        "version": options.data_version,
        "root": str(root),
        # Other tables or labels at the same place are another drive.
        "changed": max(path.stat().st_mtime_ns for path in (root, *root.glob("*"), *root.glob("*/*"))),
        "rig": None if options.rig is None else options.rig.read_text(),
    }
    return tracked_drives.recorded_drives(data.frames, origin, options.tracking or None)
