"""The types that cross rooms: what the sensors saw (`Frame`) and what the detector made of it (`Result`).

NumPy only, so that the node, offline processing, training and tests share them without ROS or torch.

Conventions: lengths in metres, angles in radians, times in seconds unless a name says otherwise. The
*model frame* is the right-handed frame, z up, in which points, boxes and extrinsics of one `Frame` are given; it is the
LiDAR's own frame unless configured otherwise. Camera frames are optical frames (REP-103: x right, y down, z forward).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CLASSES: tuple[str, ...] = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
"""The ten nuScenes detection classes; a label is an index into this tuple."""


@dataclass(frozen=True)
class CameraView:
    """One camera's contribution to a frame.

    Attributes:
        name: the camera's name, e.g. ``front``.
        image: (H, W, 3) uint8, BGR, free of lens distortion.
        intrinsics: (3, 3) float64 pinhole matrix in pixels of ``image``.
        extrinsics: (4, 4) float64, model frame at the frame's stamp -> camera optical frame at the image's own stamp.
        age: frame stamp minus image stamp, in seconds (negative where the image is newer).
    """

    name: str
    image: NDArray[np.uint8]
    intrinsics: NDArray[np.float64]
    extrinsics: NDArray[np.float64]
    age: float = 0.0


@dataclass(frozen=True)
class Frame:
    """Everything the detector gets to see at one moment.

    Attributes:
        stamp_ns: time of the frame, nanoseconds: the LiDAR sweep's stamp, or the newest image's in a camera-only frame.
        points: (N, 5) float32: x, y, z in the model frame, intensity 0..255, time lag to the newest sweep in seconds;
            None where there is no LiDAR. (0, 5) is an empty sweep, which is not the same thing.
        cameras: the views that take part, in configured order; possibly none.
        frame_id: TF name of the model frame.
        to_fixed: (4, 4) float64, model frame at the frame's stamp -> a frame that stands still; None where the
            vehicle's motion is not known. Models with a memory need it.
    """

    stamp_ns: int
    points: NDArray[np.float32] | None
    cameras: tuple[CameraView, ...] = ()
    frame_id: str = "lidar"
    to_fixed: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Detections:
    """Objects found in one frame, best first.

    Attributes:
        boxes: (N, 9) float32: x, y, z of the box centre, length (along the heading), width, height, yaw about +z
            (0 along +x, counter-clockwise), velocity x, y in m/s; all in the model frame.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64, indices into `CLASSES`.
        lidar_weight, camera_weight: (N,) float32 in 0..1, what each modality's evidence was worth for this object.
        camera_weights: (N, V) float32, the same for each camera, in the frame's camera order.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    lidar_weight: NDArray[np.float32]
    camera_weight: NDArray[np.float32]
    camera_weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class CameraWeightMap:
    """One camera's weight map and where it lies in that camera's picture.

    Attributes:
        values: (h, w) float32 in [0, 1.5].
        image_to_map: (3, 3) float64 affine: homogeneous pixel of `CameraView.image` -> map cell (column, row), cell
            centres at half-integers.
    """

    values: NDArray[np.float32]
    image_to_map: NDArray[np.float64]


@dataclass(frozen=True)
class WeightMaps:
    """Rendered query weights of one frame.

    Attributes:
        bev: (H, W) float32 in [0, 1.5]; row = y, column = x, ascending; None where no LiDAR took part.
        bev_range: x_min, y_min, x_max, y_max of the grid in metres, model frame.
        cameras: by camera name.
        source: ``router`` (AQR) or ``attention`` (attention mass by segment).
    """

    bev: NDArray[np.float32] | None
    bev_range: tuple[float, float, float, float]
    cameras: Mapping[str, CameraWeightMap]
    source: Literal["router", "attention"]


@dataclass(frozen=True)
class Result:
    """What the detector made of a frame.

    Attributes:
        detections: in the frame's model frame.
        weight_maps: rendered weights.
        seconds: wall time by stage, in order of execution.
    """

    detections: Detections
    weight_maps: WeightMaps
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GroundTruth:
    """The objects that really are in a frame.

    Attributes:
        boxes: (N, 9) float32, as `Detections.boxes`.
        labels: (N,) int64, indices into `CLASSES`.
        tracks: (N,) int64, the same for one object in all frames of its drive; -1 where that is not known.
        lidar_points: (N,) int64, points of the frame inside each box.
        visibility: (N, V) float32 in 0..1, the share of each object's outline that each camera sees, in the frame's
            camera order: cut off at the picture's border and hidden parts count as not seen.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]
    lidar_points: NDArray[np.int64]
    visibility: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, kept: NDArray) -> "GroundTruth":
        """Return some of the objects, by mask or by index."""
        fields = (self.boxes, self.labels, self.tracks, self.lidar_points, self.visibility)
        return GroundTruth(*(values[kept] for values in fields))


@dataclass(frozen=True)
class LabelledFrame:
    """A frame with its truth, for training and evaluation.

    Attributes:
        model_to_world: (4, 4) float64, model frame at the frame's stamp -> a frame that stands still.
    """

    frame: Frame
    truth: GroundTruth
    model_to_world: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
