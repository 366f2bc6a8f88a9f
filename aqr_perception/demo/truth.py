"""What a drive's bag knows and the node is not told: the true objects, and where the cameras look."""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import matrix, stamp_to_ns
from aqr_perception.bags.reader import BagReader
from aqr_perception.frame import CLASSES, Detections
from aqr_perception.geometry import invert, project, transform_points
from aqr_perception.simulator.bag import LIDAR_FRAME, TRUTH_TOPIC

_SAME_MOMENT_NS = 50_000_000
"""A frame without LiDAR bears its newest picture's stamp, a little before the sweep that would have ended the turn."""


class CameraPose(NamedTuple):
    """Where a camera looks: its picture's (width, height), (3, 3) intrinsics, (4, 4) LiDAR frame -> optical frame."""

    size: tuple[int, int]
    intrinsics: NDArray[np.float64]
    from_lidar: NDArray[np.float64]

    def sees(self, boxes: NDArray) -> NDArray[np.bool_]:
        """Return which boxes (N, >=3), LiDAR frame, have their centre in the picture."""
        pixels, depths = project(self.intrinsics, transform_points(self.from_lidar, np.asarray(boxes, np.float64)))
        with np.errstate(invalid="ignore"):
            inside = ((pixels >= 0) & (pixels < self.size)).all(axis=1)
        return inside & (depths > 0)


@dataclass(frozen=True)
class TrueObjects:
    """The objects at one moment.

    Attributes:
        stamp_ns: the sweep's.
        boxes: (N, 9) as `Detections.boxes`, LiDAR frame.
        labels: (N,) indices into `CLASSES`.
        hit: (N,) whether the LiDAR, intact, hits the object: others are hidden or far.
    """

    stamp_ns: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    hit: NDArray[np.bool_]


@dataclass(frozen=True)
class DriveTruth:
    """The truth of a whole drive.

    Attributes:
        start_ns: the bag's first stamp, from which seconds are counted.
        moments: in order of time, one a sweep.
        cameras: by name.
    """

    start_ns: int
    moments: Sequence[TrueObjects]
    cameras: Mapping[str, CameraPose]

    def seconds(self, stamp_ns: int) -> float:
        return (stamp_ns - self.start_ns) / 1e9

    def moment_of(self, stamp_ns: int) -> int | None:
        """Return the index of the moment that a frame of this stamp shows; None where there is none."""
        stamps = [moment.stamp_ns for moment in self.moments]
        after = bisect.bisect_left(stamps, stamp_ns)
        near = [index for index in (after - 1, after) if 0 <= index < len(stamps)]
        best = min(near, key=lambda index: abs(stamps[index] - stamp_ns), default=None)
        return None if best is None or abs(stamps[best] - stamp_ns) > _SAME_MOMENT_NS else best


def detections_of(message: Any) -> Detections:
    """Return a FusedDetectionArray, of rclpy or read from a bag, as `Detections` in the frame that its header names."""
    found = message.detections
    boxes = [
        [
            *(item.pose.position.x, item.pose.position.y, item.pose.position.z),
            *(item.size.x, item.size.y, item.size.z),
            2.0 * float(np.arctan2(item.pose.orientation.z, item.pose.orientation.w)),
            *(item.velocity.x, item.velocity.y),
        ]
        for item in found
    ]
    weights = [np.asarray(item.camera_weights, np.float32) for item in found]
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 9),
        scores=np.array([item.score for item in found], np.float32),
        labels=np.array([CLASSES.index(item.class_name) for item in found], np.int64),
        lidar_weight=np.array([item.lidar_weight for item in found], np.float32),
        camera_weight=np.array([item.camera_weight for item in found], np.float32),
        camera_weights=np.stack(weights) if weights else np.zeros((0, len(message.camera_names)), np.float32),
    )


def read_truth(path: Path) -> DriveTruth:
    """Read the truth of a bag that the simulator wrote.

    Raises:
        BagError: the bag is broken, or has no true objects.
    """
    moments, infos, mounts = [], {}, {}
    with BagReader(path) as bag:
        start_ns = bag.start_ns
        topics = [topic.name for topic in bag.topics]
        if TRUTH_TOPIC not in topics:
            needed = f"{TRUTH_TOPIC}, as `aqr_perception simulate bag` writes it"
            raise BagError(f"{path}: found topics {', '.join(topics)}, needed {needed}")
        told = [name for name in topics if name in (TRUTH_TOPIC, "/tf_static") or name.endswith("/camera_info")]
        for message in bag.messages(told):
            content = message.decode()
            if message.topic == TRUTH_TOPIC:
                moments.append(_true_objects(content))
            elif message.topic == "/tf_static":
                mounts.update({entry.child_frame_id: matrix(entry.transform) for entry in content.transforms})
            else:
                infos[content.header.frame_id] = content
    cameras = {
        name: CameraPose(
            (info.width, info.height), np.array(info.k).reshape(3, 3), invert(mounts[name]) @ mounts[LIDAR_FRAME]
        )
        for name, info in infos.items()
    }
    return DriveTruth(start_ns, moments, cameras)


def _true_objects(message: Any) -> TrueObjects:
    found = detections_of(message)
    return TrueObjects(stamp_to_ns(message.header.stamp), found.boxes, found.labels, found.scores > 0)
