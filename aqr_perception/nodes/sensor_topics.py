# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Subscriptions of the node to its sensors' data and calibrations, and what is known of their publishers."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from message_filters import Subscriber
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription, SubscriptionEventCallbacks
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from aqr_perception.nodes.calibration_topic import CalibrationTopic
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.health.topic_links import LATCHED, NO_FAULT, Link, LinkState, link_state
from aqr_perception.nodes.input.frame_request import AssemblerSettings, CameraSettings
from aqr_perception.nodes.input.message_history import GuardedSubscriber
from aqr_perception.options import OptionError

if TYPE_CHECKING:
    from aqr_perception.nodes.input.assembler import Assembler


def check_topics(node: Node, topics: Mapping[str, str]) -> None:
    """Check that sensors have different topics after remapping; parameters are checked before it.

    Args:
        topics: by sensor.

    Raises:
        OptionError: two sensors have the same topic.
    """
    owners: dict[str, str] = {}
    for sensor, topic in topics.items():
        resolved = node.resolve_topic_name(topic)
        if resolved in owners:
            both = f"sensors {owners[resolved]} and {sensor} both have the topic {resolved}"
            raise OptionError(f"{both}, but each sensor needs its own topic")
        owners[resolved] = sensor


class SensorTopics:
    """Connections between the sensors' topics and an assembler, until `destroy`.

    Args:
        node: subscribes.
        settings: the sensors and their topics.
        reliable: whether subscriptions to data ask for reliable delivery.
        assembler: gets the messages.
        diagnostics: counts them.
        arrived: called after the assembler has stored a message.
    """

    def __init__(
        self,
        node: Node,
        settings: AssemblerSettings,
        reliable: bool,
        assembler: "Assembler",
        diagnostics: Diagnostics,
        arrived: Callable[[], None],
    ) -> None:
        self._node, self._diagnostics, self._arrived = node, diagnostics, arrived
        self._qos = QoSProfile(
            depth=5, reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        )
        self._resources: list[Callable[[], object]] = []
        self._links: dict[str, tuple[Link, Link | None]] = {}
        self._calibrations: dict[str, CalibrationTopic] = {}
        self._calibration_links: dict[str, LinkState] = {}
        # Callbacks run in the order of registration: the assembler stores a message before `_on_message` passes it on.
        for camera in settings.cameras:
            kind = CompressedImage if camera.compressed else Image
            images = self._subscriber(kind, camera.image_topic, camera.name)
            infos = self._subscriber(CameraInfo, camera.info_topic, camera.name)
            assembler.connect_camera(camera.name, images, self._calibration(camera, infos))
            images.registerCallback(self._on_message, camera.name)
            self._links[camera.name] = (self._link(images.sub), self._link(infos.sub))
        for lidar in settings.lidars:
            sweeps = self._subscriber(PointCloud2, lidar.topic, lidar.name)
            assembler.connect_lidar(sweeps, lidar.name)
            sweeps.registerCallback(self._on_message, lidar.name)
            self._links[lidar.name] = (self._link(sweeps.sub), None)

    def destroy(self) -> None:
        """End all subscriptions."""
        while self._resources:
            self._resources.pop()()

    def report_links(self, now: float) -> None:
        """Tell the diagnostics whether the topics have publishers of a fitting type and QoS."""
        for sensor, (data, calibration) in self._links.items():
            calibration_state = NO_FAULT
            if calibration is not None:
                calibration_state = self._calibration_links[sensor] = link_state(self._node, calibration)
            self._diagnostics.set_links(sensor, link_state(self._node, data), calibration_state, now)

    def follow_calibrations(self, now: float) -> None:
        """Open or close the latched subscriptions to calibrations, as the last report of the links needs."""
        for camera, calibration in self._calibrations.items():
            calibration.follow(self._calibration_links.get(camera, NO_FAULT), now)

    def _subscriber(self, kind: type, topic: str, sensor: str) -> Subscriber:
        messages = self._guarded(kind, topic, sensor, self._qos, warn=True)
        self._resources.append(partial(self._node.destroy_subscription, messages.sub))
        return messages

    def _guarded(self, kind: type, topic: str, sensor: str, qos: QoSProfile, warn: bool) -> Subscriber:
        """Return a subscriber that counts lost messages; `warn`: and logs publishers of an incompatible QoS or type."""
        diagnostics = self._diagnostics
        events = SubscriptionEventCallbacks(
            message_lost=lambda lost: diagnostics.add_lost(sensor, lost.total_count_change), use_default_callbacks=warn
        )
        dropped = partial(self._on_dropped_message, sensor)
        return GuardedSubscriber(self._node, kind, topic, qos_profile=qos, event_callbacks=events, on_error=dropped)

    def _calibration(self, camera: CameraSettings, infos: Subscriber) -> CalibrationTopic:
        """Return the filter of a camera's calibration, from a subscription and from latched ones made when needed."""

        def open_latched() -> tuple[Subscriber, Callable[[], object]]:
            latched = self._guarded(CameraInfo, camera.info_topic, camera.name, LATCHED, warn=False)
            latched.registerCallback(self._on_calibration, camera, False)
            return latched, partial(self._node.destroy_subscription, latched.sub)

        infos.registerCallback(self._on_calibration, camera, True)
        calibration = self._calibrations[camera.name] = CalibrationTopic(infos, open_latched)
        self._resources.append(calibration.close)
        return calibration

    def _link(self, subscription: "Subscription[Any]") -> Link:
        kind = "/".join((subscription.msg_type.__module__.split(".")[0], "msg", subscription.msg_type.__name__))
        return Link(subscription.topic_name, kind, (self._qos,))

    def _on_message(self, message: Image | CompressedImage | PointCloud2, sensor: str) -> None:
        self._diagnostics.add_message(sensor, time.monotonic(), message)
        self._arrived()

    def _on_calibration(self, info: CameraInfo, camera: CameraSettings, live: bool) -> None:
        changed = self._diagnostics.add_calibration(camera.name, info, time.monotonic(), live)
        if changed:
            self._node.get_logger().warning(
                f"{camera.info_topic}: found another calibration than before ({changed}), needed one that stays; the "
                "newest one is used. Publish one calibration per topic, and restart the driver to change it",
                throttle_duration_sec=5.0,
            )

    def _on_dropped_message(self, sensor: str, error: Exception) -> None:
        self._diagnostics.add_dropped(sensor, str(error), time.monotonic())
        self._node.get_logger().warning(f"a message is dropped: {error}", throttle_duration_sec=5.0)
