# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Input and output of the detector: `Frame` (sensor data at one moment) and `Result` (detections and sensor weights).

The node, offline processing, training and tests share these types. They need only NumPy.

Conventions:
    - Lengths are in metres, angles in radians, and times in seconds unless a name says otherwise.
    - The *model frame* is the right-handed coordinate frame, z up, of a `Frame`'s points, boxes and extrinsics. It is
      the LiDAR frame unless configured otherwise.
    - Camera frames are optical frames (REP-103: x right, y down, z forward).
    - ``A -> B`` describes a transform that maps coordinates in frame A to coordinates in frame B.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
"""The ten nuScenes detection classes: the default of `Preset.classes`, and the classes of the simulator."""


@dataclass(frozen=True)
class FramePlacement:
    """Where a model frame lies on the vehicle; z is up.

    Attributes:
        height: metres from the ground up to the origin.
        forward: the axis along which the vehicle drives.
    """

    height: float
    forward: Literal["x", "y"]


@dataclass(frozen=True)
class CameraView:
    """One camera image with its calibration.

    Attributes:
        name: the camera's name, e.g. ``front``.
        image: (H, W, 3) uint8, BGR, without lens distortion.
        intrinsics: (3, 3) float64, pinhole matrix in pixels of ``image``.
        extrinsics: (4, 4) float64, model frame at the frame's stamp -> camera frame at the image's stamp. It includes
            the vehicle's motion between the two stamps.
        age: frame stamp minus image stamp in seconds; negative if the image is newer than the frame.
    """

    name: str
    image: NDArray[np.uint8]
    intrinsics: NDArray[np.float64]
    extrinsics: NDArray[np.float64]
    age: float = 0.0


@dataclass(frozen=True)
class Frame:
    """Sensor data at one moment: the input of the detector.

    Attributes:
        stamp_ns: time of the frame in nanoseconds: the stamp of the LiDAR sweep, or of the newest image if the frame
            has no LiDAR.
        points: (N, 5) float32: x, y, z in the model frame, intensity in 0..255, and the point's age relative to the
            newest sweep in seconds. None means no LiDAR data; (0, 5) is a sweep without returns.
        cameras: views in configured order; without missing cameras.
        frame_id: TF name of the model frame.
        to_fixed: (4, 4) float64, model frame at the frame's stamp -> a fixed frame such as ``odom``; None if the
            vehicle's motion is unknown. Models that use earlier frames need it.
    """

    stamp_ns: int
    points: NDArray[np.float32] | None
    cameras: tuple[CameraView, ...] = ()
    frame_id: str = "lidar"
    to_fixed: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Detections:
    """Objects detected in one frame, highest score first.

    Attributes:
        boxes: (N, 9) float32 in the model frame: x, y, z of the box centre, length (along the heading), width, height,
            yaw about +z (0 along +x, counter-clockwise), and velocity x, y in m/s.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64, indices into ``classes``.
        lidar_weight, camera_weight: (N,) float32, weight of the LiDAR and of the cameras for each object: in 0..1, or
            in [-1, 1] for models with signed weights (negative: the sensor is suppressed; 0: neutral; positive:
            trusted).
        camera_weights: (N, V) float32 in the same range, weight of each camera for each object, in the order of
            `Frame.cameras`.
        classes: the model's class names.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    lidar_weight: NDArray[np.float32]
    camera_weight: NDArray[np.float32]
    camera_weights: NDArray[np.float32]
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class QueryEvidence:
    """Queries of a weight map with their scores, from which pictures are drawn; a map alone does not tell the scores.

    Attributes:
        positions: (Q, 3) float32, centre of each query's box in metres, model frame.
        scores: (Q,) float32 in 0..1, of the query's best class.
        weights: (Q,) float32 as `Detections.lidar_weight`, of the map's sensor.
        lidar_weight, camera_weight: (Q,) float32, see `Detections`.
        sigma: standard deviation of the Gaussian of a query along x and y (columns and rows), in metres for the BEV and
            in pixels of the image for a camera.
    """

    positions: NDArray[np.float32]
    scores: NDArray[np.float32]
    weights: NDArray[np.float32]
    lidar_weight: NDArray[np.float32]
    camera_weight: NDArray[np.float32]
    sigma: tuple[float, float]


@dataclass(frozen=True)
class CameraWeightMap:
    """Weight map of one camera and its position in the camera image.

    Attributes:
        values: (h, w) float32 as `WeightMaps.bev`.
        image_to_map: (3, 3) float64, affine: homogeneous pixel of `CameraView.image` -> map cell (column, row). Cell
            centres are at half-integers.
        queries: the queries that this camera sees; None if they are unknown.
    """

    values: NDArray[np.float32]
    image_to_map: NDArray[np.float64]
    queries: QueryEvidence | None = None


@dataclass(frozen=True)
class WeightMaps:
    """Sensor weights of one frame as maps over the bird's-eye view (BEV) and over each camera image.

    Attributes:
        bev: (H, W) float32 in [0, 1.5], or in [-1.5, 1.5] if ``signed``; rows ascend with y and columns with x. None if
            the frame has no LiDAR data. Where the maps scale the features, `AqrOptions.map_limit` replaces 1.5.
        bev_range: x_min, y_min, x_max, y_max of the BEV grid in metres, model frame; see `Preset.bev_range`.
        cameras: camera name -> weight map.
        source: ``router`` (adaptive query routing, AQR) or ``attention`` (attention mass by sensor).
        signed: whether weights and maps may be negative: then negative values suppress a sensor, 0 is neutral, and
            positive values trust it. Otherwise 0 means no evidence.
        scene_range: as `bev_range`, the model's scene, which pictures show; the BEV grid may end before it. None: the
            BEV grid is the scene.
        queries: the queries with their LiDAR weights, also of a frame without LiDAR; None if they are unknown.
    """

    bev: NDArray[np.float32] | None
    bev_range: tuple[float, float, float, float]
    cameras: Mapping[str, CameraWeightMap]
    source: Literal["router", "attention"]
    signed: bool = False
    scene_range: tuple[float, float, float, float] | None = None
    queries: QueryEvidence | None = None


@dataclass(frozen=True)
class DetectionQueries:
    """The decoder's query behind each detection, in the order of the detections.

    Attributes:
        points: (N, 3) float32 in metres, model frame: centres of the queries' windows and of their weights in the maps.
        attention: (N, 1 + V) float32 in 0..1: share of the query's attention on the LiDAR and on each of
            `Frame.cameras`, in the last decoder layer. It sums to 1, or is 0 for a frame without data. None unless
            `DetectionOptions.attention` is set.
    """

    points: NDArray[np.float32]
    attention: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Result:
    """Output of the detector for one frame.

    Attributes:
        detections: detected objects in the model frame.
        weight_maps: sensor weights behind these detections.
        seconds: stage name -> wall time, in order of execution.
        queries: the queries behind these detections; None if they are unknown.
    """

    detections: Detections
    weight_maps: WeightMaps
    seconds: Mapping[str, float] = field(default_factory=dict)
    queries: DetectionQueries | None = None


@dataclass(frozen=True)
class WorldTruth:
    """Annotated objects of one frame in the world frame, unrounded, as a data set's tables give them.

    The evaluation of nuScenes compares boxes there, and measures ranges from the vehicle's origin.

    Attributes:
        token: name of the frame in the tables.
        model_to_world: (4, 4) float64, model frame at the frame's stamp -> world frame.
        ego_position: (3,) float64, the vehicle's origin in the world frame.
        boxes: (N, 12) float64: x, y, z of the box centre, width, length, height, rotation (quaternion w, x, y, z), and
            velocity x, y in m/s (NaN: unknown).
        attributes: N names of attributes, such as ``vehicle.parked``; empty where an object has none.
        bicycle_racks: (R, 10) float64, as the first columns of ``boxes``; bicycles and motorcycles in them do not
            count.
    """

    token: str
    model_to_world: NDArray[np.float64]
    ego_position: NDArray[np.float64]
    boxes: NDArray[np.float64]
    attributes: tuple[str, ...]
    bicycle_racks: NDArray[np.float64]

    def keep(self, selection: NDArray[np.bool_] | NDArray[np.intp]) -> "WorldTruth":
        """Return the objects that a mask or an array of indices selects."""
        kept = np.arange(len(self.boxes))[selection]
        return replace(self, boxes=self.boxes[kept], attributes=tuple(self.attributes[index] for index in kept))


@dataclass(frozen=True)
class GroundTruth:
    """Annotated objects of one frame.

    Attributes:
        boxes: (N, 9) float32, as `Detections.boxes`.
        labels: (N,) int64, indices into ``classes``.
        tracks: (N,) int64, object identity across the frames of a drive; -1 if unknown.
        lidar_points: (N,) int64, number of the frame's LiDAR points inside each box.
        visibility: (N, V) float32 in 0..1, share of each object's outline that each camera sees, in the order of
            `Frame.cameras`. Parts outside the image or behind other objects are not visible.
        classes: the class names of the labels.
        radar_points: (N,) int64, number of the frame's radar points inside each box; None without radar.
        world: the same objects in the world frame; None for sources that do not evaluate there.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]
    lidar_points: NDArray[np.int64]
    visibility: NDArray[np.float32]
    classes: tuple[str, ...] = CLASSES
    radar_points: NDArray[np.int64] | None = None
    world: WorldTruth | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, selection: NDArray[np.bool_] | NDArray[np.intp]) -> "GroundTruth":
        """Return the objects that a mask or an array of indices selects."""
        return GroundTruth(
            self.boxes[selection],
            self.labels[selection],
            self.tracks[selection],
            self.lidar_points[selection],
            self.visibility[selection],
            self.classes,
            None if self.radar_points is None else self.radar_points[selection],
            None if self.world is None else self.world.keep(selection),
        )

    def relabelled(self, classes: tuple[str, ...]) -> "GroundTruth":
        """Return the objects whose class is in another list, with labels that index into that list."""
        if classes == self.classes:
            return self
        new_labels = np.array([classes.index(name) if name in classes else -1 for name in self.classes], np.int64)
        kept = self.keep(new_labels[self.labels] >= 0)
        return replace(kept, labels=new_labels[kept.labels], classes=classes)


@dataclass(frozen=True)
class LabelledFrame:
    """A frame with its annotated objects, for training and evaluation.

    Attributes:
        model_to_world: (4, 4) float64, model frame at the frame's stamp -> a frame fixed to the ground.
    """

    frame: Frame
    truth: GroundTruth
    model_to_world: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
