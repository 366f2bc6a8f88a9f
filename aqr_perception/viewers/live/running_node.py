# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames of a running node, received over ROS 2."""

import logging
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import tf2_ros
from numpy.typing import NDArray
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import SubscriptionEventCallbacks
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from aqr_perception.bags.poses import matrix
from aqr_perception.benchmarks.live.spinning import spinning
from aqr_perception.msg import FusedDetectionArray, TrackArray
from aqr_perception.nodes.transport import transport_environment
from aqr_perception.viewers.message_frames import BEV, MessageFrames, OutputTopics
from aqr_perception.viewers.node_topics import NodeTopics, ViewError, node_topics, read_parameters
from aqr_perception.viewers.shown_frame import ShownFrame

_TYPE, _END = "aqr_perception/msg/FusedDetectionArray", "/detections"
_DISCOVERY_SECONDS, _ANSWER_SECONDS = 10.0, 5.0
_POLL_SECONDS = 0.2
_SILENT_SECONDS = 5.0
_DEPTH = 20
_MOST_WAITING = 300
"""Messages of all topics that wait for the viewer."""
_OF_NODE = (
    "cameras", "lidar_topic", "lidar_topics", "fixed_frame", "model_frame", "output_frame", "base_frame",
    "tracking.enabled",
)  # fmt: skip
_OF_CAMERA = ("image_topic", "info_topic", "compressed", "offset")

_log = logging.getLogger(__name__)


def live_frames(
    node: str = "", params: Path | None = None, count: int | None = None, seconds: float | None = None
) -> Iterator[ShownFrame]:
    """Yield the frames of a running node as they come, until Ctrl-C.

    Args:
        node: its full name; empty: the only one that runs.
        params: its parameter file; None: the node is asked for its parameters.
        count, seconds: number of frames and time after which it ends.

    Raises:
        ViewError: there is no such node, or several; or it does not answer.
    """
    with _spinning_node() as viewer:
        name = _find(viewer, node)
        values = read_parameters(params, name) if params is not None else _parameters(viewer, name)
        yield from _frames(viewer, node_topics(values, name), _offsets(values), count, seconds)


def output_topics(topics: NodeTopics, offsets: Mapping[str, float] | None = None) -> OutputTopics:
    """Return the topics that a viewer of a running node reads."""
    pictures = {camera.name: topics.output(f"weights/{camera.name}/image") for camera in topics.cameras}
    if topics.lidar_topics:
        pictures[BEV] = topics.output("weights/bev/image")
    return OutputTopics(
        detections=topics.output("detections"),
        tracks=topics.output("tracks") if topics.tracking else "",
        pictures=pictures,
        clouds=topics.lidar_topics,
        infos=tuple(camera.info_topic for camera in topics.cameras),
        fixed_frame=topics.fixed_frame,
        offsets=offsets or {},
    )


def _frames(
    viewer: Node, node: NodeTopics, offsets: Mapping[str, float], count: int | None, seconds: float | None
) -> Iterator[ShownFrame]:
    arrived: queue.Queue[tuple[str, Any]] = queue.Queue(_MOST_WAITING)
    topics = output_topics(node, offsets)
    buffer = tf2_ros.Buffer()
    listener = tf2_ros.TransformListener(buffer, viewer)
    _subscribe(viewer, topics, partial(_put, arrived))
    joined = MessageFrames(topics, partial(_lookup, buffer))
    end = None if seconds is None else time.monotonic() + seconds
    shown, last, said = 0, time.monotonic(), False
    try:
        print(f"showing {node.node}; Ctrl-C ends it", file=sys.stderr, flush=True)
        while (count is None or shown < count) and (end is None or time.monotonic() < end):
            try:
                topic, message = arrived.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                silent = time.monotonic() - last > _SILENT_SECONDS
                if silent and not said:
                    _log.warning("%s: found no frame for %g s; is it active?", topics.detections, _SILENT_SECONDS)
                said = silent
                continue
            for frame in joined.add(topic, message):
                last = time.monotonic()
                yield frame
                shown += 1
                if shown == count:
                    break
    finally:
        listener.unregister()


def _put(arrived: "queue.Queue[tuple[str, Any]]", entry: tuple[str, Any]) -> None:
    """Queue a message; drop it where the viewer is too slow, so that the memory stays bounded."""
    with suppress(queue.Full):
        arrived.put_nowait(entry)


def _subscribe(viewer: Node, topics: OutputTopics, put: Callable[[tuple[str, Any]], object]) -> None:
    def subscribe(kind: type, topic: str, profile: QoSProfile) -> None:
        events = SubscriptionEventCallbacks(use_default_callbacks=False)
        viewer.create_subscription(kind, topic, lambda message: put((topic, message)), profile, event_callbacks=events)

    reliable = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
    sensors = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
    latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for topic in topics.infos:  # some drivers send calibration all the time, others once and latched
        subscribe(CameraInfo, topic, sensors)
        subscribe(CameraInfo, topic, latched)
    for topic in topics.clouds:
        subscribe(PointCloud2, topic, sensors)
    for topic in topics.pictures.values():
        subscribe(Image, topic, reliable)
    if topics.tracks:
        subscribe(TrackArray, topics.tracks, reliable)
    subscribe(FusedDetectionArray, topics.detections, reliable)


def _find(viewer: Node, node: str) -> str:
    """Return the full name of the node that publishes detections; wait for it."""
    deadline = time.monotonic() + _DISCOVERY_SECONDS
    while True:
        topics = [name for name, types in viewer.get_topic_names_and_types() if _TYPE in types]
        found = sorted(
            name.removesuffix(_END) for name in topics if name.endswith(_END) and viewer.count_publishers(name)
        )
        if node in found or (not node and len(found) == 1):
            return node or found[0]
        if not node and len(found) > 1:
            raise ViewError(f"view live: found the nodes {', '.join(found)}, needed one; choose with --node")
        if time.monotonic() > deadline:
            needed = f"{node}{_END}" if node else f"a node that publishes {_TYPE}"
            raise ViewError(
                f"view live: found {', '.join(found) or 'no outputs'} within {_DISCOVERY_SECONDS:.0f} s, needed "
                f"{needed}; start the node, and check ROS_DOMAIN_ID"
            )
        time.sleep(_POLL_SECONDS)


def _parameters(viewer: Node, node: str) -> dict[str, Any]:
    """Return the parameters of a running node that say its topics and frames."""
    values = _asked(viewer, node, _OF_NODE)
    cameras = [name for name in values.get("cameras", ()) if name]
    return values | _asked(viewer, node, [f"camera.{name}.{entry}" for name in cameras for entry in _OF_CAMERA])


def _asked(viewer: Node, node: str, names: Any) -> dict[str, Any]:
    client = viewer.create_client(GetParameters, f"{node}/get_parameters")
    try:
        if not client.wait_for_service(timeout_sec=_ANSWER_SECONDS):
            raise ViewError(f"{node}: found no service get_parameters, needed it; give --params FILE instead")
        future = client.call_async(GetParameters.Request(names=list(names)))
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not future.done() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS / 10)
        answer = future.result() if future.done() else None
        if answer is None:
            raise ViewError(
                f"{node}: found no answer of get_parameters within {_ANSWER_SECONDS:g} s, needed the parameters; give "
                "--params FILE instead"
            )
    finally:
        viewer.destroy_client(client)
    pairs = zip(names, (parameter_value_to_python(value) for value in answer.values), strict=False)
    return {name: value for name, value in pairs if value is not None}


def _offsets(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the delay of each camera's stamps in seconds."""
    ends = [name for name in values if name.startswith("camera.") and name.endswith(".offset")]
    return {name.split(".")[1]: float(values[name]) for name in ends}


def _lookup(buffer: tf2_ros.Buffer, target: str, source: str, stamp_ns: int) -> NDArray[np.float64] | None:
    try:
        found = buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
    except tf2_ros.TransformException:
        return None
    return matrix(found.transform)


@contextmanager
def _spinning_node() -> Iterator[Node]:
    """Give a node whose callbacks run in a background thread, in a context of its own."""
    os.environ.update(transport_environment())
    context = rclpy.Context()
    # Ctrl-C ends the command, which then finishes the recording.
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    viewer = rclpy.create_node("aqr_perception_view", context=context)
    try:
        with spinning(viewer):
            yield viewer
    finally:
        viewer.destroy_node()
        context.try_shutdown()
