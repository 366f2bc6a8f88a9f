"""Player of rosbag2 files over DDS, for systems without `ros2 bag play`: ``bag_player BAG [options]``."""

import argparse
import importlib
import itertools
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rosbags.interfaces import Qos
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader import BagMessage, BagReader, BagTopic
from aqr_perception.nodes.stamps import ns_to_stamp

_CLOCK_PERIOD = 0.025
_DISCOVERY_POLL = 0.02
_DELIVERY_SECONDS = 10.0
"""Fast DDS resends a message lost in a burst after its next heartbeat, up to 3 s later."""

_PROGRESS_FORMAT = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s of the bag [{elapsed}<{remaining}]"

_log = logging.getLogger("bag_player")


class BagPlayer:
    """Publisher of a bag's serialized messages at their recorded rate. Use it as a context manager.

    Topics whose message package is not installed are skipped with a warning. Each topic is published with its recorded
    QoS.

    Args:
        topics: topics to play; empty: all.
        clock: also publish the bag's time on /clock, for nodes with `use_sim_time`.

    Raises:
        BagError: a topic is not in the bag, or none can be played.
    """

    def __init__(self, node: Node, bag: BagReader, topics: Sequence[str] = (), clock: bool = False) -> None:
        self._node = node
        self._bag = bag
        known = {topic.name for topic in bag.topics}
        if unknown := sorted(set(topics) - known):
            raise BagError(f"{bag.path}: found no topic {', '.join(unknown)}, needed one of {', '.join(sorted(known))}")
        self._publishers: dict[str, Any] = {}
        for topic in bag.topics:
            if topic.name not in self._publishers and (not topics or topic.name in topics):
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

    def wait_for_subscribers(self, seconds: float) -> bool:
        """Wait at most `seconds` until every topic has a subscriber; return whether every topic has one."""
        deadline = time.monotonic() + seconds
        while any(publisher.get_subscription_count() == 0 for publisher in self._publishers.values()):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_DISCOVERY_POLL)
        return True

    def play(self, rate: float = 1.0, start: float = 0.0, duration: float | None = None, progress: bool = True) -> int:
        """Play the bag once; return the number of published messages.

        Args:
            rate: playback speed; 1 is real time.
            start, duration: part of the bag to play, in seconds of bag time.
            progress: show a progress bar.
        """
        start_ns = self._bag.start_ns + round(start * 1e9)
        stop_ns = None if duration is None else start_ns + round(duration * 1e9)
        length = ((stop_ns or self._bag.end_ns) - start_ns) / 1e9
        started = time.monotonic()
        count = 0
        with tqdm(total=round(max(length, 0.0), 3), unit="s", disable=not progress, bar_format=_PROGRESS_FORMAT) as bar:
            for message in self._bag.messages(tuple(self._publishers), start_ns, stop_ns):
                self._wait_until_due(message, start_ns, started, rate)
                self._publishers[message.topic].publish(message.data)
                count += 1
                bar.update((message.stamp_ns - start_ns) / 1e9 - bar.n)
        return count

    def _wait_until_due(self, message: BagMessage, start_ns: int, started: float, rate: float) -> None:
        """Sleep until a message is due, and keep publishing /clock."""
        due = started + (message.stamp_ns - start_ns) / 1e9 / rate
        while (remaining := due - time.monotonic()) > 0:
            self._publish_clock(message.stamp_ns - round(remaining * rate * 1e9))
            time.sleep(min(remaining, _CLOCK_PERIOD) if self._clock else remaining)
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
                publisher.wait_for_all_acked(Duration(seconds=max(0.0, deadline - time.monotonic())))
            self._node.destroy_publisher(publisher)


def main(argv: Sequence[str] | None = None) -> int:
    """Play a bag; return the exit status (130 if interrupted)."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(levelname)s: %(message)s")
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(remove_ros_args(["bag_player", *arguments])[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as on Ctrl-C, and destroy the publishers
    rclpy.init(args=["bag_player", *arguments], signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node("bag_player")
        with BagReader(options.bag) as bag, BagPlayer(node, bag, options.topics, options.clock) as player:
            _play(player, options)
    except BagError as error:
        _log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        rclpy.try_shutdown()
    return 0


def _play(player: BagPlayer, options: argparse.Namespace) -> None:
    time.sleep(options.delay)
    player.wait_for_subscribers(options.wait)
    for _ in itertools.count() if options.loop else range(1):
        count = player.play(options.rate, options.start, options.duration, sys.stderr.isatty())
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


def _profile(topic: BagTopic) -> QoSProfile:
    """Return the recorded depth, reliability and durability; reliable and volatile if none are recorded."""
    qos: Qos | None = topic.qos[0] if topic.qos else None
    latched = topic.name == "/tf_static" if qos is None else qos.durability.name == "TRANSIENT_LOCAL"
    best_effort = qos is not None and qos.reliability.name == "BEST_EFFORT"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=max(qos.depth if qos is not None else 0, 10),
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


if __name__ == "__main__":
    sys.exit(main())
