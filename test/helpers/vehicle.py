# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A vehicle for tests: publishes made-up sensor messages over DDS and receives the node's output."""

import array
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import rclpy
import yaml
from aqr_perception.msg import FusedDetectionArray
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Log, SetParametersResult
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header
from tf2_ros.static_transform_broadcaster import StaticTransformBroadcaster

from aqr_perception.geometry import invert, quaternion_xyzw
from aqr_perception.nodes.stamps import ns_to_stamp, stamp_to_ns
from aqr_perception.nodes.transport import transport_environment

# Images are sent in bursts: without the profile, a busy machine loses some (docs/transport.md).
os.environ.update(transport_environment())

CAMERAS = ("front", "front_right", "front_left", "back", "back_left", "back_right")
COMPRESSED = "back"
SIZE = (400, 225)
PERIOD_NS = 100_000_000
_LAST_WORDS = 8000


def configuration(folder: Path, **overrides: Any) -> Path:
    """Write the node's parameters for this vehicle; return the file."""
    cameras = {name: {"compressed": name == COMPRESSED, "rectified": False} for name in CAMERAS}
    parameters = {
        "cameras": list(CAMERAS),
        "camera": cameras,
        "lidar_topic": "/lidar/points",
        "output_frame": "base_link",
        "sensor_reliability": "reliable",
        "score_threshold": 0.0,
        "camera_wait": 2.0,
        # Within the default 0.5 s, a loaded machine may deliver images but not yet their sweep; see test_assembler.py.
        "lidar_timeout": 2.0,
        # The stamps advance by one period a frame, however long a loaded machine takes for it.
        "max_latency": 3600.0,
        "model.checkpoint": "random",
        **overrides,
    }
    path = folder / "vehicle.yaml"
    path.write_text(yaml.safe_dump({"aqr_perception": {"ros__parameters": parameters}}))
    return path


_PROCESS = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class RunningNode:
    """The node in its own process, as a user runs it; `domain`: another DDS domain than the environment's."""

    _started: ClassVar[list["RunningNode"]] = []

    def __init__(self, config: Path, *arguments: str, log: Path, domain: int | None = None) -> None:
        self.log = log
        RunningNode._started.append(self)
        command = ["perception_node", "--ros-args", "--params-file", str(config), *arguments]
        environment = {**os.environ, **_PROCESS}
        if domain is not None:
            environment["ROS_DOMAIN_ID"] = str(domain)
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)

    @classmethod
    def last_words(cls) -> str:
        """Abort the nodes that still run; return their logs, which end with the stack of every thread."""
        running = [node for node in cls._started if node.process.poll() is None]
        for node in running:
            node.process.send_signal(signal.SIGABRT)
            node.process.wait(timeout=20)
        return "\n".join(node.log.read_text()[-_LAST_WORDS:] for node in running) or "no node runs"

    def stop(self, by: int = signal.SIGINT) -> int:
        """Interrupt the process; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Vehicle:
    """Publishers of sensors and transforms and subscriptions to the node's output, on one rclpy node."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("vehicle")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._images = {
            name: self.node.create_publisher(CompressedImage if name == COMPRESSED else Image, f"/{name}/image_raw", 10)
            for name in CAMERAS
        }
        self._infos = {name: self.node.create_publisher(CameraInfo, f"/{name}/camera_info", 10) for name in CAMERAS}
        self._cloud = self.node.create_publisher(PointCloud2, "/lidar/points", 10)
        self._broadcaster = StaticTransformBroadcaster(self.node)
        self._broadcaster.sendTransform(self._transforms())
        self.arrays: list[FusedDetectionArray] = []
        self.warnings: list[str] = []
        self.heard: dict[str, list[Any]] = {}
        self.listen(FusedDetectionArray, "/aqr_perception/detections", self.arrays)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(Log, "/rosout", self._on_log, latched)
        self.stamp_ns = time.time_ns()

    def listen(self, kind: type, topic: str, into: list[Any] | None = None) -> list[Any]:
        """Return a list to which the topic's messages are appended."""
        messages = self.heard.setdefault(topic, []) if into is None else into
        self.node.create_subscription(kind, topic, messages.append, 10)
        return messages

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()

    def wait_for(self, holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        """Spin until a condition holds; fail with its name after some seconds."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                waited = f"waited {seconds:.0f} s in vain for {what}; warnings: {self.warnings[-5:]}"
                raise AssertionError(f"{waited}\n{RunningNode.last_words()}")
            self._executor.spin_once(timeout_sec=0.05)

    def wait_until_connected(self) -> None:
        publishers = (*self._images.values(), *self._infos.values(), self._cloud)

        def connected() -> bool:
            return all(publisher.get_subscription_count() for publisher in publishers)

        self.wait_for(connected, "the node's subscriptions", 40.0)
        self.wait_until_known()

    def wait_until_known(self) -> None:
        """Wait until the node has discovered every subscription made so far.

        The node sends nothing to a subscription that it has not discovered, even if the subscriber knows the node.
        Subscriptions are announced in the order of their creation, so a message on the last one proves all others.
        """
        health: list[DiagnosticArray] = []
        self.listen(DiagnosticArray, "/diagnostics", health)
        self.wait_for(lambda: bool(health), "the node's health", 40.0)

    def drive(
        self,
        *,
        without: Sequence[str] = (),
        images: dict[str, Image | CompressedImage] | None = None,
        infos: dict[str, CameraInfo] | None = None,
        cloud: PointCloud2 | None = None,
    ) -> FusedDetectionArray:
        """Send a frame without some sensors, or with some messages replaced; return its detections."""
        self.send(without=without, images=images, infos=infos, cloud=cloud)

        def answers() -> list[FusedDetectionArray]:
            return [found for found in self.arrays if stamp_to_ns(found.header.stamp) == self.stamp_ns]

        self.wait_for(lambda: bool(answers()), "a detection array of the frame's stamp")
        return answers()[0]

    def next_frame(self) -> None:
        """Advance the stamp of all following messages by one frame."""
        self.stamp_ns += PERIOD_NS

    def send(
        self,
        *,
        without: Sequence[str] = (),
        images: dict[str, Image | CompressedImage] | None = None,
        infos: dict[str, CameraInfo] | None = None,
        cloud: PointCloud2 | None = None,
    ) -> None:
        for name in CAMERAS:
            if name not in without:
                self._infos[name].publish((infos or {}).get(name) or self.info(name))
                self._images[name].publish((images or {}).get(name) or self.image(name))
        if "lidar" not in without:
            self._cloud.publish(self.cloud() if cloud is None else cloud)

    def header(self, frame: str) -> Header:
        return Header(stamp=ns_to_stamp(self.stamp_ns), frame_id=frame)

    def picture(self, name: str) -> np.ndarray:
        random = np.random.default_rng(CAMERAS.index(name))
        return cv2.resize(random.integers(0, 255, (9, 16, 3), dtype=np.uint8), SIZE)

    def image(self, name: str) -> Image | CompressedImage:
        picture = self.picture(name)
        if name == COMPRESSED:
            jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
            return CompressedImage(header=self.header(name), format="jpeg", data=array.array("B", jpeg))
        image = Image(header=self.header(name), width=SIZE[0], height=SIZE[1], encoding="bgr8", step=3 * SIZE[0])
        image.data = array.array("B", picture.tobytes())
        return image

    def info(self, name: str) -> CameraInfo:
        info = CameraInfo(header=self.header(name), width=SIZE[0], height=SIZE[1], distortion_model="plumb_bob")
        info.k = [316.0, 0.0, 200.0, 0.0, 316.0, 112.0, 0.0, 0.0, 1.0]
        info.d = [0.0] * 5
        return info

    def cloud(self) -> PointCloud2:
        random = np.random.default_rng(0)
        points = random.uniform((-40, -40, -2), (40, 40, 1), (4000, 3)).astype(np.float32)
        return point_cloud2.create_cloud_xyz32(self.header("lidar"), points)

    def set_parameters(self, **values: Any) -> SetParametersResult:
        """Set parameters of the node together; dots are written as double underscores."""
        client = self.node.create_client(SetParametersAtomically, "/aqr_perception/set_parameters_atomically")
        request = SetParametersAtomically.Request()
        request.parameters = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()
        ]
        return self._call(client, request).result

    def change_state(self, transition: int) -> bool:
        client = self.node.create_client(ChangeState, "/aqr_perception/change_state")
        request = ChangeState.Request()
        request.transition.id = transition
        return self._call(client, request).success

    def _call(self, client: Any, request: Any) -> Any:
        self.wait_for(client.service_is_ready, f"the service {client.srv_name}")
        future = client.call_async(request)
        self.wait_for(future.done, f"an answer of {client.srv_name}")
        self.node.destroy_client(client)
        return future.result()

    def _on_log(self, message: Log) -> None:
        if message.name == "aqr_perception" and message.level >= 30:
            self.warnings.append(message.msg)

    def _transforms(self) -> list[TransformStamped]:
        """Return base_link -> lidar, and lidar -> each camera, which look outwards."""
        yaws = {name: angle for name, angle in zip(CAMERAS, (0, -60, 60, 180, 120, -120), strict=True)}
        transforms = [_transform("base_link", "lidar", np.eye(4))]
        for name, degrees in yaws.items():
            yaw = np.radians(degrees)
            right, forward = np.array([np.sin(yaw), -np.cos(yaw), 0]), np.array([np.cos(yaw), np.sin(yaw), 0])
            to_camera = np.eye(4)
            to_camera[:3, :3] = np.stack((right, [0, 0, -1], forward))
            transforms.append(_transform("lidar", name, invert(to_camera)))
        return transforms


def _transform(parent: str, child: str, matrix: np.ndarray) -> TransformStamped:
    message = TransformStamped(header=Header(frame_id=parent), child_frame_id=child)
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = matrix[:3, 3]
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion_xyzw(matrix)
    return message
