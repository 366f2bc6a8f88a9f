# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames of a recording: a sweep with past sweeps and the nearest image of each camera, in the LiDAR's frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.recordings.recorded_data import Matrix, RecordedImage, RecordedSweep, Recording
from aqr_perception.frame import CameraView, Frame
from aqr_perception.geometry import interpolate, invert, transform_points
from aqr_perception.sweep_choice import spaced_sweeps

LARGEST_CAMERA_AGE = 0.2
"""Seconds between a sweep and an image of the same frame, at most."""
_LONGEST_SWEEP_GAP = 0.25
"""Seconds between two sweeps of one cloud, at most."""


@dataclass(frozen=True)
class RecordedFrame:
    """A sweep with the nearest image of each camera.

    Attributes:
        sweeps: newest first.
        images: the image and the (4, 4) transform LiDAR at the newest sweep's stamp -> camera at the image's stamp.
    """

    sweeps: tuple[RecordedSweep, ...]
    images: tuple[tuple[RecordedImage, Matrix], ...]
    lidar_to_fixed: Matrix | None
    past_to_newest: tuple[Matrix, ...]

    def points(self) -> NDArray[np.float32]:
        """Return the points (N, 5) as `Frame.points`, in the LiDAR's frame at the newest sweep's stamp."""
        clouds = []
        for sweep, to_newest in zip(self.sweeps, self.past_to_newest, strict=True):
            points = sweep.read().copy()
            if sweep is not self.sweeps[0]:
                points[:, :3] = transform_points(to_newest, points)
            points[:, 4] = (self.sweeps[0].stamp_ns - sweep.stamp_ns) / 1e9
            clouds.append(points)
        cloud = np.concatenate(clouds)
        finite: NDArray[np.float32] = cloud[np.isfinite(cloud).all(axis=1)]
        return finite

    def frame(self) -> Frame:
        """Return the detector's input, with images without lens distortion."""
        stamp_ns = self.sweeps[0].stamp_ns
        views = tuple(
            CameraView(image.camera, image.rectified(), image.intrinsics, extrinsics, (stamp_ns - image.stamp_ns) / 1e9)
            for image, extrinsics in self.images
        )
        return Frame(stamp_ns, self.points(), views, "lidar", self.lidar_to_fixed)


def recorded_frames(recording: Recording, sweeps: int = 1, sweep_interval: float = 0.0) -> Iterator[RecordedFrame]:
    """Yield the frame of each sweep.

    Args:
        sweeps: sweeps of one point cloud, at most; past ones need the vehicle's motion and no gap.
        sweep_interval: see `sweep_choice.spaced_sweeps`.
    """
    stamps = np.array(sorted(recording.poses), np.int64)
    by_camera = {name: [image for image in recording.images if image.camera == name] for name in recording.cameras}
    for index, sweep in enumerate(recording.sweeps):
        images = []
        for candidates in by_camera.values():
            image = min(candidates, key=lambda entry: abs(entry.stamp_ns - sweep.stamp_ns))
            if abs(image.stamp_ns - sweep.stamp_ns) <= LARGEST_CAMERA_AGE * 1e9:
                motion = _motion(recording, stamps, sweep.stamp_ns, image.stamp_ns)
                images.append((image, invert(image.camera_to_vehicle) @ motion @ sweep.lidar_to_vehicle))
        chosen = [sweep]
        if recording.poses:
            past_ns = (recording.sweeps[number].stamp_ns for number in range(index, -1, -1))
            steps = spaced_sweeps(past_ns, sweeps, sweep_interval, _LONGEST_SWEEP_GAP)
            chosen = [recording.sweeps[index - step] for step in steps]
        moves = [np.eye(4)]
        for past in chosen[1:]:
            motion = _motion(recording, stamps, past.stamp_ns, sweep.stamp_ns)
            moves.append(invert(sweep.lidar_to_vehicle) @ motion @ past.lidar_to_vehicle)
        to_fixed = None
        if recording.poses:
            to_fixed = vehicle_to_fixed(recording, stamps, sweep.stamp_ns) @ sweep.lidar_to_vehicle
        yield RecordedFrame(tuple(chosen), tuple(images), to_fixed, tuple(moves))


def _motion(recording: Recording, stamps: NDArray[np.int64], begin_ns: int, end_ns: int) -> Matrix:
    """Return the vehicle's motion, vehicle at one time -> vehicle at another; the identity if it is unknown."""
    if not recording.poses:
        return np.eye(4)
    return invert(vehicle_to_fixed(recording, stamps, end_ns)) @ vehicle_to_fixed(recording, stamps, begin_ns)


def vehicle_to_fixed(recording: Recording, stamps: NDArray[np.int64], stamp_ns: int) -> Matrix:
    """Return the (4, 4) pose at a time, interpolated between the recording's poses; outside them, the nearest.

    Args:
        stamps: the poses' stamps, sorted.
    """
    stamp_ns = int(np.clip(stamp_ns, stamps[0], stamps[-1]))
    after = int(np.searchsorted(stamps, stamp_ns))
    end = int(stamps[after])
    if end == stamp_ns:
        return recording.poses[end]
    begin = int(stamps[after - 1])
    return interpolate(recording.poses[begin], recording.poses[end], (stamp_ns - begin) / (end - begin))
