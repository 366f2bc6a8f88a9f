# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The simulated drive of the demo, stored as a bag."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from aqr_perception.data.sources.simulated import CACHE_NAMES, TRAINING_WORLD
from aqr_perception.evaluation.workers import in_processes
from aqr_perception.simulator.bag import Entry, sensor_messages, sweep_times, write_bag
from aqr_perception.simulator.drive import Drive, draw_drive
from aqr_perception.simulator.rig import nuscenes_rig


@dataclass(frozen=True)
class DemoDrive:
    """Settings of the drive.

    Attributes:
        seed: seed of the scene. Training uses seeds from 10,000 on and evaluation 0 to 199, so the scene is new.
        seconds: length of the drive.
        rate: sweeps, and images of each camera, per second.
        picture: image width and height in pixels. Larger than the input of aqr_tiny, for the report, but less than
            twice as large, because the node decodes larger images at half size.
    """

    seed: int = 5004
    seconds: float = 20.0
    rate: float = 5.0
    picture: tuple[int, int] = (528, 192)

    @property
    def file_name(self) -> str:
        """Name of the bag; it differs for every drive and version of the simulator."""
        width, height = self.picture
        return (
            f"drive_{CACHE_NAMES[TRAINING_WORLD]}_{self.seed}_{self.seconds:g}s_{self.rate:g}hz_{width}x{height}.mcap"
        )

    def ensure_bag(self, folder: Path, progress: bool = True, workers: int | None = None) -> Path:
        """Return the path of the bag in a folder; simulate the drive first if the bag does not exist.

        Args:
            workers: number of processes; None: one for each core. The bag is the same for any number.

        Raises:
            BagError: see `BagWriter`.
            WorkerError: a process failed or ended.
        """
        path = folder / self.file_name
        if path.exists():
            return path
        workers = workers or len(os.sched_getaffinity(0))
        times = sweep_times(self.seconds, self.rate)
        sensor_frames = None
        if workers > 1 and len(times) > _FEW_SWEEPS:
            sensor_frames = in_processes(functools.partial(_sensor_messages, self), times, workers)
        return write_bag(
            self.draw(), path, self.seconds, rate=self.rate, progress=progress, sensor_frames=sensor_frames
        )

    def draw(self) -> Drive:
        """Return the drive."""
        return draw_drive(self.seed, self.seconds, nuscenes_rig(self.picture), TRAINING_WORLD)


_FEW_SWEEPS = 12
"""Number of sweeps that take less time than the start of processes."""

_draw = functools.cache(DemoDrive.draw)
"""The drive of a worker process, which cannot be sent to it."""


def _sensor_messages(settings: DemoDrive, time: float) -> list[Entry]:
    return sensor_messages(_draw(settings), time)
