# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ground truth of a drive, read from its bag: true objects and camera geometry, which the node does not get."""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.detections import detections_from_message
from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import matrix, stamp_to_ns
from aqr_perception.bags.reader import BagReader
from aqr_perception.frame import CLASSES
from aqr_perception.geometry import invert, project, transform_points
from aqr_perception.simulator.bag import LIDAR_FRAME, TRUTH_TOPIC

SAME_SWEEP_NS = 50_000_000
"""A camera-only frame has the stamp of its newest image, which is slightly older than the missing sweep."""


class CameraGeometry(NamedTuple):
    """A camera's image size (width, height), (3, 3) intrinsics and (4, 4) LiDAR frame -> optical frame."""

    size: tuple[int, int]
    intrinsics: NDArray[np.float64]
    from_lidar: NDArray[np.float64]

    def in_view(self, boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return the mask (N,) of the boxes (N, >=3), LiDAR frame, with their centre in the image."""
        pixels, depths = project(self.intrinsics, transform_points(self.from_lidar, np.asarray(boxes, np.float64)))
        with np.errstate(invalid="ignore"):
            inside = ((pixels >= 0) & (pixels < self.size)).all(axis=1)
        in_view: NDArray[np.bool_] = inside & (depths > 0)
        return in_view


@dataclass(frozen=True)
class TrueObjects:
    """The true objects at the time of one sweep.

    Attributes:
        stamp_ns: the sweep's stamp.
        boxes: (N, 9) as `Detections.boxes`, LiDAR frame.
        labels: (N,) indices into `classes`.
        hit: (N,) bool, whether the intact LiDAR hits the object; the others are occluded or far.
        classes: class names of the labels.
    """

    stamp_ns: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    hit: NDArray[np.bool_]
    classes: tuple[str, ...] = CLASSES


@dataclass(frozen=True)
class DriveTruth:
    """Ground truth of a whole drive.

    Attributes:
        start_ns: the bag's first stamp; the drive's seconds count from it.
        sweeps: the true objects of each sweep, in order of time.
        cameras: by name.
    """

    start_ns: int
    sweeps: Sequence[TrueObjects]
    cameras: Mapping[str, CameraGeometry]

    def seconds(self, stamp_ns: int) -> float:
        """Return the time since the start of the drive."""
        return (stamp_ns - self.start_ns) / 1e9

    def sweep_index(self, stamp_ns: int) -> int | None:
        """Return the index of the sweep that a frame with this stamp belongs to; None if no sweep is close enough."""
        stamps = [sweep.stamp_ns for sweep in self.sweeps]
        after = bisect.bisect_left(stamps, stamp_ns)
        neighbours = [index for index in (after - 1, after) if 0 <= index < len(stamps)]
        nearest = min(neighbours, key=lambda index: abs(stamps[index] - stamp_ns), default=None)
        return None if nearest is None or abs(stamps[nearest] - stamp_ns) > SAME_SWEEP_NS else nearest

    def sweep_at(self, stamp_ns: int) -> TrueObjects | None:
        """Return the true objects of the sweep that a frame with this stamp belongs to."""
        index = self.sweep_index(stamp_ns)
        return None if index is None else self.sweeps[index]


def read_truth(path: Path) -> DriveTruth:
    """Read the ground truth of a simulated bag.

    Raises:
        BagError: the bag is broken or has no true objects.
    """
    sweeps, infos, mounts = [], {}, {}
    with BagReader(path) as bag:
        start_ns = bag.start_ns
        topics = [topic.name for topic in bag.topics]
        if TRUTH_TOPIC not in topics:
            needed = f"{TRUTH_TOPIC}, as `aqr_perception simulate bag` writes it"
            raise BagError(f"{path}: found topics {', '.join(topics)}, needed {needed}")
        needed_topics = [name for name in topics if name in (TRUTH_TOPIC, "/tf_static") or _is_camera_info(name)]
        for message in bag.messages(needed_topics):
            content = message.decode()
            if message.topic == TRUTH_TOPIC:
                sweeps.append(_true_objects(content))
            elif message.topic == "/tf_static":
                mounts.update({entry.child_frame_id: matrix(entry.transform) for entry in content.transforms})
            else:
                infos[content.header.frame_id] = content
    cameras = {name: _camera_geometry(info, mounts[name], mounts[LIDAR_FRAME]) for name, info in infos.items()}
    return DriveTruth(start_ns, sweeps, cameras)


def _is_camera_info(topic: str) -> bool:
    return topic.endswith("/camera_info")


def _camera_geometry(info: Any, camera_mount: NDArray[np.float64], lidar_mount: NDArray[np.float64]) -> CameraGeometry:
    """Return a camera's geometry from its CameraInfo and the (4, 4) poses of camera and LiDAR on the vehicle."""
    intrinsics = np.array(info.k, np.float64).reshape(3, 3)
    return CameraGeometry((info.width, info.height), intrinsics, invert(camera_mount) @ lidar_mount)


def _true_objects(message: Any) -> TrueObjects:
    objects = detections_from_message(message)
    stamp_ns = stamp_to_ns(message.header.stamp)
    return TrueObjects(stamp_ns, objects.boxes, objects.labels, objects.scores > 0, objects.classes)
