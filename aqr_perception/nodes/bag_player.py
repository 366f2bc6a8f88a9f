# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Player of rosbag2 files over DDS, for systems without `ros2 bag play`: ``bag_player BAG [options]``."""

import argparse
import importlib
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader import BagMessage, BagReader, BagTopic
from aqr_perception.nodes.stamps import ns_to_stamp
from aqr_perception.nodes.stop_signals import StopSignals
from aqr_perception.nodes.transport import transport_environment

_CLOCK_PERIOD = 0.025
_DISCOVERY_POLL = 0.02
_DELIVERY_POLL = 0.1
_LATCHED_SECONDS = 1.0
_LEAST_DEPTH = 10
_DELIVERY_SECONDS = 10.0
"""Fast DDS resends a message lost in a burst after its next heartbeat, up to 3 s later."""

_PROGRESS_FORMAT = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s of the bag [{elapsed}<{remaining}]"

_log = logging.getLogger("bag_player")


class BagPlayer:
    """Publisher of a bag's serialized messages at their recorded rate. Use it as a context manager.

    Topics whose message package is not installed are skipped with a warning. Each topic is published with its recorded
    QoS. Static transforms, calibration and topics recorded as transient-local are latched: late subscribers receive
    them, too, and playback that starts within the bag begins with those recorded before.

    Args:
        topics: topics to play; empty: all.
        clock: also publish the bag's time on /clock, for nodes with `use_sim_time`.
        stop: ends playback and every wait once it is set.

    Raises:
        BagError: a topic is not in the bag, or none can be played.
    """

    def __init__(
        self,
        node: Node,
        bag: BagReader,
        topics: Sequence[str] = (),
        clock: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        self._node = node
        self._bag = bag
        self._stop = threading.Event() if stop is None else stop
        self._topics = {topic.name: topic for topic in bag.topics}
        if unknown := sorted(set(topics) - self._topics.keys()):
            needed = ", ".join(sorted(self._topics))
            raise BagError(f"{bag.path}: found no topic {', '.join(unknown)}, needed one of {needed}")
        self._publishers: dict[str, Any] = {}
        self._static: dict[str, _StaticTransforms] = {}
        for topic in self._topics.values():
            if not topics or topic.name in topics:
                self._add_publisher(topic)
        if not self._publishers:
            raise BagError(f"{bag.path}: found no topic with an installed message type; install a message package")
        self._clock = node.create_publisher(Clock, "/clock", 10) if clock else None

    def _add_publisher(self, topic: BagTopic) -> None:
        message_class = _message_class(topic.type)
        if message_class is None:
            _log.warning(
                "%s is not played: found type %s, needed an installed message package; install ros-<distro>-%s",
                topic.name,
                topic.type,
                topic.type.split("/")[0].replace("_", "-"),
            )
            return
        self._publishers[topic.name] = self._node.create_publisher(message_class, topic.name, _profile(topic))
        if _is_static(topic):
            self._static[topic.name] = _StaticTransforms(message_class)

    def wait_for_subscribers(self, seconds: float) -> bool:
        """Wait at most `seconds` until every topic has a subscriber; return whether every topic has one."""
        deadline = time.monotonic() + seconds
        while any(publisher.get_subscription_count() == 0 for publisher in self._publishers.values()):
            if time.monotonic() >= deadline or self._stop.wait(_DISCOVERY_POLL):
                return False
        return True

    def play(
        self,
        rate: float = 1.0,
        start: float = 0.0,
        duration: float | None = None,
        progress: bool = True,
        hold: Callable[[BagMessage], object] = lambda message: None,
    ) -> int:
        """Play the bag once; return the number of published messages.

        Args:
            rate: playback speed; 1 is real time.
            start, duration: part of the bag to play, in seconds of bag time.
            progress: show a progress bar.
            hold: called before each message, as long as the bag's time should stand still.
        """
        start_ns = self._bag.start_ns + round(start * 1e9)
        stop_ns = None if duration is None else start_ns + round(duration * 1e9)
        self._publish_latched(start_ns)
        length = ((stop_ns or self._bag.end_ns) - start_ns) / 1e9
        started = time.monotonic()
        count = 0
        with tqdm(total=round(max(length, 0.0), 3), unit="s", disable=not progress, bar_format=_PROGRESS_FORMAT) as bar:
            for message in self._bag.messages(tuple(self._publishers), start_ns, stop_ns):
                self._wait_until_due(message, start_ns, started, rate)
                before = time.monotonic()
                hold(message)
                started += time.monotonic() - before
                if self._stop.is_set():
                    break
                self._publish(message)
                count += 1
                bar.update((message.stamp_ns - start_ns) / 1e9 - bar.n)
        return count

    def _publish_latched(self, start_ns: int) -> None:
        """Publish what subscribers need first: latched messages that a start within the bag would leave out.

        These are all static transforms of the bag, and the last earlier message of the other latched topics. Recorders
        may store the first calibration after the first images, so the first one follows where none is earlier.
        """
        for name, static in self._static.items():
            for message in itertools.islice(self._bag.messages([name]), self._topics[name].count):
                static.add(message, replace=message.stamp_ns < start_ns)
            self._publishers[name].publish(static.message())
        others = [name for name in self._publishers if _is_latched(self._topics[name]) and name not in self._static]
        found: dict[str, BagMessage] = {}
        if others and start_ns > self._bag.start_ns:
            found = {message.topic: message for message in self._bag.messages(others, stop_ns=start_ns)}
        missing = {name for name in others if _is_calibration(self._topics[name]) and self._topics[name].count}
        missing -= found.keys()
        for message in self._bag.messages(missing, start_ns) if missing else ():
            found.setdefault(message.topic, message)
            if missing <= found.keys():
                break
        for message in found.values():
            self._publishers[message.topic].publish(message.data)
        # Subscribers that are still being discovered would receive them after the first images.
        deadline = time.monotonic() + _LATCHED_SECONDS
        for name in (*self._static, *found):
            self._wait_for_delivery(self._publishers[name], deadline)

    def _publish(self, message: BagMessage) -> None:
        static = self._static.get(message.topic)
        if static is not None:
            static.add(message)
        self._publishers[message.topic].publish(message.data if static is None else static.message())

    def _wait_until_due(self, message: BagMessage, start_ns: int, started: float, rate: float) -> None:
        """Sleep until a message is due, and keep publishing /clock."""
        due = started + (message.stamp_ns - start_ns) / 1e9 / rate
        while (remaining := due - time.monotonic()) > 0:
            self._publish_clock(message.stamp_ns - round(remaining * rate * 1e9))
            if self._stop.wait(min(remaining, _CLOCK_PERIOD) if self._clock else remaining):
                return
        self._publish_clock(message.stamp_ns)

    def _publish_clock(self, now_ns: int) -> None:
        if self._clock is not None:
            self._clock.publish(Clock(clock=ns_to_stamp(now_ns)))

    def __enter__(self) -> "BagPlayer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the delivery of the last messages, unless interrupted, and destroy the publishers."""
        deadline = time.monotonic() + _DELIVERY_SECONDS
        for publisher in self._publishers.values():
            if kind is None:
                self._wait_for_delivery(publisher, deadline)
            self._node.destroy_publisher(publisher)

    def _wait_for_delivery(self, publisher: Any, deadline: float) -> None:
        """Wait until all reliable subscribers have a publisher's messages, or until a time or a request to stop."""
        while not self._stop.is_set() and (remaining := deadline - time.monotonic()) > 0:
            if publisher.wait_for_all_acked(Duration(seconds=min(remaining, _DELIVERY_POLL))):
                return


def main(argv: Sequence[str] | None = None, stop_signals: StopSignals | None = None) -> int:
    """Play a bag; return the exit status, which is 0 after a request to stop."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(levelname)s: %(message)s")
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(remove_ros_args(["bag_player", *arguments])[1:])
    stop = threading.Event() if stop_signals is None else stop_signals.requested
    if stop_signals is not None:
        stop_signals.wait_for_clean_up()
    os.environ.update(transport_environment())
    rclpy.init(args=["bag_player", *arguments], signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node("bag_player")
        with BagReader(options.bag) as bag, BagPlayer(node, bag, options.topics, options.clock, stop) as player:
            _play(player, options, stop)
    except BagError as error:
        _log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        rclpy.try_shutdown()
    return 0


def _play(player: BagPlayer, options: argparse.Namespace, stop: threading.Event) -> None:
    stop.wait(options.delay)
    player.wait_for_subscribers(options.wait)
    for _ in itertools.count() if options.loop else range(1):
        count = player.play(options.rate, options.start, options.duration, sys.stderr.isatty())
        if stop.is_set():
            return
        if count == 0:
            raise BagError(f"{options.bag}: found no message in the part to play; change --start or --duration")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bag_player", description="Play a rosbag2 file (mcap or sqlite3) over DDS.")
    parser.add_argument("bag", type=Path, help="rosbag2 folder, or a single .mcap or .db3 file")
    parser.add_argument("--rate", type=_positive, default=1.0, help="playback speed (default: %(default)s)")
    parser.add_argument("--loop", action="store_true", help="play in a loop until interrupted")
    parser.add_argument("--clock", action="store_true", help="publish the bag's time on /clock, for use_sim_time")
    parser.add_argument("--topics", nargs="+", default=(), metavar="TOPIC", help="topics to play (default: all)")
    parser.add_argument("--start", type=_not_negative, default=0.0, metavar="S", help="skip the first S seconds")
    parser.add_argument("--duration", type=_positive, metavar="S", help="play only S seconds of the bag")
    parser.add_argument("--delay", type=_not_negative, default=0.0, metavar="S", help="wait S seconds before playing")
    parser.add_argument(
        "--wait",
        type=_not_negative,
        default=2.0,
        metavar="S",
        help="wait at most S seconds for a subscriber to every topic (default: %(default)s)",
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}, needed a positive number")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}, needed 0 or a positive number")
    return value


def _message_class(type_name: str) -> type[Any] | None:
    """Return the class of a type such as ``sensor_msgs/msg/Image``; None if its package is not installed."""
    package, *folders, name = type_name.split("/")
    try:
        message_class: type[Any] = getattr(importlib.import_module(".".join([package, *(folders or ["msg"])])), name)
    except (ImportError, AttributeError):
        return None
    return message_class


class _StaticTransforms:
    """The static transforms of a topic so far, of which a late subscriber receives only the last message."""

    def __init__(self, message_class: type[Any]) -> None:
        self._message_class = message_class
        self._by_child: dict[str, Any] = {}

    def add(self, message: BagMessage, replace: bool = True) -> None:
        """Add a message's transforms; with `replace`, they replace earlier ones of their child frames."""
        try:
            transforms = deserialize_message(message.data, self._message_class).transforms
        except Exception as error:  # rmw raises errors of several types
            _log.warning("%s: a message that is no %s is left out: %s", message.topic, message.type, error)
            return
        new = {transform.child_frame_id: transform for transform in transforms}
        self._by_child = self._by_child | new if replace else new | self._by_child

    def message(self) -> Any:
        """Return one message with all transforms."""
        return self._message_class(transforms=list(self._by_child.values()))


def _is_static(topic: BagTopic) -> bool:
    return topic.type == "tf2_msgs/msg/TFMessage" and topic.name.endswith("tf_static")


def _is_latched(topic: BagTopic) -> bool:
    recorded = any(qos.durability.name == "TRANSIENT_LOCAL" for qos in topic.qos)
    return recorded or _is_calibration(topic) or _is_static(topic)


def _is_calibration(topic: BagTopic) -> bool:
    return topic.type == "sensor_msgs/msg/CameraInfo"


def _profile(topic: BagTopic) -> QoSProfile:
    """Return the recorded depth, reliability and durability; reliable and volatile if none are recorded.

    Latched topics are reliable and transient-local whatever is recorded; subscribers of any QoS receive them. Their
    history holds what all recorded publishers together kept for late subscribers.
    """
    latched = _is_latched(topic)
    depths = [qos.depth for qos in topic.qos] or [0]
    kept = min(sum(depths) or topic.count, topic.count)
    best_effort = not latched and bool(topic.qos) and topic.qos[0].reliability.name == "BEST_EFFORT"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=max(kept if latched else depths[0], _LEAST_DEPTH),
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


if __name__ == "__main__":
    signals = StopSignals()
    signals.exit(main(stop_signals=signals))
