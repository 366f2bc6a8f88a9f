# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Made-up sensors that publish over DDS: pictures and sweeps of a simulated drive, with the stamps of their sending."""

import array
import time
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.simulator.drive import Drive, draw_drive
from aqr_perception.simulator.rig import nuscenes_rig

PREFIX = "benchmark_"
"""Beginning of the names of cameras and TF frames, so that they meet no others."""
BASE_FRAME, LIDAR_FRAME = f"{PREFIX}base_link", f"{PREFIX}lidar"

_FRAMES, _FRAME_STEP = 4, 0.2
_SEED = 7
_RENDERED_WIDTH = 400
_NOISE = 6.0
"""Standard deviation of the noise in grey levels, with which a JPEG is as large as one of a real camera."""
_JPEG_QUALITY = 85
_STAMP = slice(4, 12)
"""Place of the header's stamp in a serialised message: after the encapsulation, sec and nanosec."""


@dataclass(frozen=True)
class FeedCase:
    """What the sensors send.

    Attributes:
        cameras: number of cameras, at most six.
        size: width and height of the pictures in pixels.
        raw: pictures are raw bgr8, not JPEG.
        points: points of a sweep.
        rate: frames per second.
    """

    cameras: int = 6
    size: tuple[int, int] = (1600, 900)
    raw: bool = False
    points: int = 35_000
    rate: float = 5.0

    def __post_init__(self) -> None:
        limits = {"cameras": (self.cameras, 1, 6), "points": (self.points, 1, 2_000_000), "rate": (self.rate, 0.1, 200)}
        limits |= {name: (side, 16, 8192) for name, side in zip(("width", "height"), self.size, strict=True)}
        for name, (value, least, most) in limits.items():
            if not least <= value <= most:
                raise ValueError(f"{name}: found {value}, needed {least} to {most}")

    @property
    def camera_names(self) -> list[str]:
        return [f"{PREFIX}{mount.name}" for mount in nuscenes_rig().cameras[: self.cameras]]

    def parameters(self) -> dict[str, Any]:
        """Return the node's parameters for these sensors; topics are relative to the node's namespace."""
        suffix = "image_raw" if self.raw else "image_raw/compressed"
        parameters: dict[str, Any] = {
            "cameras": self.camera_names,
            "lidar_topic": "lidar/points",
            "output_frame": BASE_FRAME,
        }
        for name in self.camera_names:
            parameters[f"camera.{name}.image_topic"] = f"{name}/{suffix}"
            parameters[f"camera.{name}.info_topic"] = f"{name}/camera_info"
            parameters[f"camera.{name}.compressed"] = not self.raw
            parameters[f"camera.{name}.rectified"] = True
        return parameters


class SensorFeed:
    """Publishers of the sensors.

    Messages are serialised once; only their stamps change, so that the sender takes little of the machine's time.

    Args:
        node: rclpy node of the publishers, in the perception node's namespace.
    """

    def __init__(self, node: Any, case: FeedCase) -> None:
        from rclpy.publisher import PublisherEventCallbacks
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from rclpy.serialization import serialize_message
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
        from tf2_msgs.msg import TFMessage

        self._next = 0
        drive = draw_drive(_SEED, 20.0, nuscenes_rig(_rendered_size(case)))
        suffix, kind = ("image_raw", Image) if case.raw else ("image_raw/compressed", CompressedImage)
        images = [node.create_publisher(kind, f"{name}/{suffix}", 10) for name in case.camera_names]
        # The node also asks for latched calibration, which these publishers need not warn about.
        quiet = PublisherEventCallbacks(use_default_callbacks=False)
        infos = [
            node.create_publisher(CameraInfo, f"{name}/camera_info", 10, event_callbacks=quiet)
            for name in case.camera_names
        ]
        lidar = node.create_publisher(PointCloud2, "lidar/points", 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._static = node.create_publisher(TFMessage, "/tf_static", latched)
        self._static.publish(_mounts(drive, case))
        calibration = _calibration(drive, case)
        self._frames: list[list[tuple[Any, bytearray]]] = []
        for index in range(_FRAMES):
            at = 1.0 + index * _FRAME_STEP
            # The sweep comes last: it completes a frame.
            sent = [*zip(infos, calibration, strict=True), *zip(images, _images(drive, case, at), strict=True)]
            sent.append((lidar, _cloud(drive, case, at)))
            self._frames.append([(publisher, bytearray(serialize_message(message))) for publisher, message in sent])
        self.frame_bytes = sum(len(content) for _, content in self._frames[0])

    def send(self) -> int:
        """Publish the next frame; return its stamp in nanoseconds."""
        stamp_ns = time.time_ns()
        sec, nanosec = divmod(stamp_ns, 1_000_000_000)
        stamp = np.array([sec, nanosec], "<u4").tobytes()
        for publisher, content in self._frames[self._next]:
            content[_STAMP] = stamp
            publisher.publish(bytes(content))
        self._next = (self._next + 1) % len(self._frames)
        return stamp_ns


def _rendered_size(case: FeedCase) -> tuple[int, int]:
    width, height = case.size
    rendered = min(_RENDERED_WIDTH, width)
    return rendered, max(1, round(height * rendered / width))


def _images(drive: Drive, case: FeedCase, at: float) -> list[Any]:
    """Return a picture of each camera, enlarged from a smaller one and with noise."""
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header

    width, height = case.size
    noise = np.random.default_rng(round(at * 1e3))
    sent = []
    for name, mount in zip(case.camera_names, drive.rig.cameras, strict=False):
        smooth = cv2.resize(drive.picture(mount, at).image, case.size, interpolation=cv2.INTER_CUBIC)
        pixels = np.clip(smooth + noise.normal(0, _NOISE, smooth.shape), 0, 255).astype(np.uint8)
        header = Header(frame_id=name)
        if case.raw:
            message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
            message.data = _bytes(pixels)
        else:
            message = CompressedImage(header=header, format="bgr8; jpeg compressed bgr8")
            message.data = _bytes(cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))[1])
        sent.append(message)
    return sent


def _calibration(drive: Drive, case: FeedCase) -> list[Any]:
    from sensor_msgs.msg import CameraInfo
    from std_msgs.msg import Header

    width, height = case.size
    sent = []
    for name, mount in zip(case.camera_names, drive.rig.cameras, strict=False):
        scale = np.diag([width / mount.size[0], height / mount.size[1], 1.0])
        matrix = scale @ mount.intrinsics
        info = CameraInfo(header=Header(frame_id=name), width=width, height=height, distortion_model="plumb_bob")
        info.d, info.k = [0.0] * 5, matrix.reshape(-1).tolist()
        info.r, info.p = np.eye(3).reshape(-1).tolist(), np.c_[matrix, np.zeros(3)].reshape(-1).tolist()
        sent.append(info)
    return sent


def _cloud(drive: Drive, case: FeedCase, at: float) -> Any:
    """Return a sweep, cut or repeated to the number of points."""
    from sensor_msgs.msg import PointCloud2, PointField
    from std_msgs.msg import Header

    points, _ = drive.single_sweep(at)
    values = np.resize(points[:, :4].astype("<f4"), (case.points, 4))
    message = PointCloud2(header=Header(frame_id=LIDAR_FRAME), height=1, width=case.points, point_step=16)
    message.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(("x", "y", "z", "intensity"))
    ]
    message.row_step, message.is_dense = 16 * case.points, True
    message.data = _bytes(values)
    return message


def _mounts(drive: Drive, case: FeedCase) -> Any:
    from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
    from std_msgs.msg import Header
    from tf2_msgs.msg import TFMessage
    from tf_transformations import quaternion_from_matrix

    poses = {LIDAR_FRAME: drive.rig.lidar.to_vehicle}
    poses |= {name: mount.to_vehicle for name, mount in zip(case.camera_names, drive.rig.cameras, strict=False)}
    transforms = []
    for child, pose in poses.items():
        (x, y, z), (qx, qy, qz, qw) = pose[:3, 3].tolist(), (float(value) for value in quaternion_from_matrix(pose))
        moved = Transform(translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        transforms.append(TransformStamped(header=Header(frame_id=BASE_FRAME), child_frame_id=child, transform=moved))
    return TFMessage(transforms=transforms)


def _bytes(values: NDArray[Any]) -> "array.array[int]":
    """Return the values' bytes as rclpy takes them without a check of each."""
    content = array.array("B")
    content.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return content
