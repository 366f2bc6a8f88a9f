# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensor messages for bags, created without ROS."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from aqr_perception.geometry import quaternion_xyzw

TYPESTORE = get_typestore(Stores.ROS2_KILTED)
"""Definitions and classes of the messages of ROS 2's common interfaces and of this package, by type name."""


def definitions() -> Path:
    """Return the folder of this package's message definitions, in an installed package or in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "definitions"
    return installed if installed.is_dir() else package.parent / "msg"


for _path in sorted(definitions().glob("*.msg")):
    TYPESTORE.register(get_types_from_msg(_path.read_text(), f"aqr_perception/msg/{_path.stem}"))

for _name, _fields in {
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose",
    "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size",
    "Detection3D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox3D bbox\nstring id",
    "Detection3DArray": "std_msgs/Header header\nvision_msgs/Detection3D[] detections",
}.items():  # vision_msgs is no part of ROS 2's common interfaces
    TYPESTORE.register(get_types_from_msg(_fields, f"vision_msgs/msg/{_name}"))

for _name, _fields in {
    "ObjectClassification": "uint8 label\nfloat32 probability",
    "DetectedObjectKinematics": "geometry_msgs/PoseWithCovariance pose_with_covariance\nbool has_position_covariance\n"
    "uint8 orientation_availability\ngeometry_msgs/TwistWithCovariance twist_with_covariance\nbool has_twist\n"
    "bool has_twist_covariance",
    "Shape": "uint8 type\ngeometry_msgs/Polygon footprint\ngeometry_msgs/Vector3 dimensions",
    "DetectedObject": "float32 existence_probability\nautoware_perception_msgs/ObjectClassification[] classification\n"
    "autoware_perception_msgs/DetectedObjectKinematics kinematics\nautoware_perception_msgs/Shape shape",
    "DetectedObjects": "std_msgs/Header header\nautoware_perception_msgs/DetectedObject[] objects",
}.items():  # autoware_perception_msgs 1.12; without its constants, which are not part of the data
    TYPESTORE.register(get_types_from_msg(_fields, f"autoware_perception_msgs/msg/{_name}"))

_DATATYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}  # sensor_msgs/PointField


def make(type_name: str, **fields: Any) -> Any:
    """Return a message of a type in `TYPESTORE`, e.g. ``std_msgs/msg/Header``, from values of all its fields."""
    return TYPESTORE.types[type_name](**fields)


def time(stamp_ns: int) -> Any:
    """Return a builtin_interfaces/Time."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)


def header(stamp_ns: int, frame_id: str) -> Any:
    """Return a std_msgs/Header."""
    return make("std_msgs/msg/Header", stamp=time(stamp_ns), frame_id=frame_id)


def transform(stamp_ns: int, parent: str, child: str, child_to_parent: NDArray[np.float64]) -> Any:
    """Return a TransformStamped of a rigid (4, 4) matrix in metres, child frame -> parent frame."""
    x, y, z = child_to_parent[:3, 3].tolist()
    qx, qy, qz, qw = quaternion_xyzw(child_to_parent).tolist()
    return make(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=make(
            "geometry_msgs/msg/Transform",
            translation=make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
            rotation=make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        ),
    )


def tf(transforms: list[Any]) -> Any:
    """Return a TFMessage of TransformStampeds, see `transform`."""
    return make("tf2_msgs/msg/TFMessage", transforms=transforms)


def cloud(stamp_ns: int, frame_id: str, records: NDArray[np.void]) -> Any:
    """Return an unorganised PointCloud2 of a (N,) structured array of little-endian numbers, including its padding."""
    fields = [
        make("sensor_msgs/msg/PointField", name=name, offset=entry[1], datatype=_DATATYPES[entry[0].str[1:]], count=1)
        for name, entry in (records.dtype.fields or {}).items()
    ]
    return make(
        "sensor_msgs/msg/PointCloud2",
        header=header(stamp_ns, frame_id),
        height=1,
        width=len(records),
        fields=fields,
        is_bigendian=False,
        point_step=records.dtype.itemsize,
        row_step=records.dtype.itemsize * len(records),
        data=np.frombuffer(records.tobytes(), np.uint8),
        is_dense=False,
    )


def camera_info(
    stamp_ns: int,
    frame_id: str,
    size: tuple[int, int],
    intrinsics: NDArray[np.float64],
    distortion: Sequence[float] = (),
) -> Any:
    """Return the CameraInfo of an image's (width, height), (3, 3) intrinsics and plumb_bob coefficients."""
    return make(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp_ns, frame_id),
        height=size[1],
        width=size[0],
        distortion_model="plumb_bob",
        d=np.array(distortion, np.float64) if len(distortion) else np.zeros(5),
        k=intrinsics.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.c_[intrinsics, np.zeros(3)].reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )


def compressed_image(stamp_ns: int, frame_id: str, file: bytes, codec: Literal["jpeg", "png"] = "jpeg") -> Any:
    """Return a CompressedImage of a JPEG or PNG file's bytes."""
    return make(
        "sensor_msgs/msg/CompressedImage",
        header=header(stamp_ns, frame_id),
        format=f"bgr8; {codec} compressed bgr8",
        data=np.frombuffer(file, np.uint8),
    )


def image(stamp_ns: int, frame_id: str, pixels: NDArray[np.uint8]) -> Any:
    """Return an Image of (H, W, 3) uint8 BGR pixels."""
    height, width = pixels.shape[:2]
    return make(
        "sensor_msgs/msg/Image",
        header=header(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding="bgr8",
        is_bigendian=0,
        step=3 * width,
        data=pixels.reshape(-1),
    )


def fused_detection(class_name: str, box: NDArray[Any], *, score: float = 1.0) -> Any:
    """Return a FusedDetection of a (9,) box as `Detections.boxes`, with all sensor weights 0."""
    x, y, z, length, width, height, yaw, vx, vy = np.asarray(box, dtype=np.float64).tolist()
    orientation = make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2)))
    return make(
        "aqr_perception/msg/FusedDetection",
        class_name=class_name,
        score=score,
        pose=make(
            "geometry_msgs/msg/Pose", position=make("geometry_msgs/msg/Point", x=x, y=y, z=z), orientation=orientation
        ),
        size=make("geometry_msgs/msg/Vector3", x=length, y=width, z=height),
        velocity=make("geometry_msgs/msg/Vector3", x=vx, y=vy, z=0.0),
        lidar_weight=0.0,
        camera_weight=0.0,
        camera_weights=np.zeros(0, np.float32),
    )


def fused_detections(stamp_ns: int, frame_id: str, detections: list[Any]) -> Any:
    """Return a FusedDetectionArray without sensors, for ground truth."""
    return make(
        "aqr_perception/msg/FusedDetectionArray",
        header=header(stamp_ns, frame_id),
        sensors=[],
        camera_names=[],
        weights_source="",
        detections=detections,
    )


def detection3d(
    stamp_ns: int,
    frame_id: str,
    class_name: str,
    pose: tuple[Sequence[float], Sequence[float]],
    size: Sequence[float],
    track: str = "",
) -> Any:
    """Return a labelled vision_msgs/Detection3D, score 1.

    Args:
        pose: position x, y, z in metres and orientation x, y, z, w of the box's centre.
        size: length, width and height in metres.
        track: identity of the object.
    """
    (px, py, pz), (qx, qy, qz, qw) = (map(float, values) for values in pose)
    length, width, height = map(float, size)
    centre = make(
        "geometry_msgs/msg/Pose",
        position=make("geometry_msgs/msg/Point", x=px, y=py, z=pz),
        orientation=make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
    )
    hypothesis = make(
        "vision_msgs/msg/ObjectHypothesisWithPose",
        hypothesis=make("vision_msgs/msg/ObjectHypothesis", class_id=class_name, score=1.0),
        pose=make("geometry_msgs/msg/PoseWithCovariance", pose=centre, covariance=np.zeros(36)),
    )
    box = make(
        "vision_msgs/msg/BoundingBox3D",
        center=centre,
        size=make("geometry_msgs/msg/Vector3", x=length, y=width, z=height),
    )
    return make(
        "vision_msgs/msg/Detection3D", header=header(stamp_ns, frame_id), results=[hypothesis], bbox=box, id=track
    )


def detections3d(stamp_ns: int, frame_id: str, detections: list[Any]) -> Any:
    """Return a vision_msgs/Detection3DArray."""
    return make("vision_msgs/msg/Detection3DArray", header=header(stamp_ns, frame_id), detections=detections)
