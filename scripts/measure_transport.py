#!/usr/bin/env python3
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Measure how many frames of six cameras and a LiDAR arrive complete from another process; see docs/transport.md."""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage

from aqr_perception.nodes.stamps import ns_to_stamp
from aqr_perception.nodes.transport import transport_environment

CAMERAS = 6
TOPICS = [f"/measure_transport/{name}" for name in (*(f"camera_{index}" for index in range(CAMERAS)), "lidar")]


def send(frames: int, rate: float, sizes: list[int]) -> None:
    """Publish frames, each as a burst of one message per topic."""
    node = Node("measure_transport_sender")
    publishers = [node.create_publisher(CompressedImage, topic, 10) for topic in TOPICS]
    messages = [CompressedImage(data=os.urandom(size)) for size in sizes]
    while any(publisher.get_subscription_count() == 0 for publisher in publishers):
        time.sleep(0.05)
    time.sleep(1.0)
    start = time.monotonic()
    for frame in range(frames):
        time.sleep(max(0.0, start + frame / rate - time.monotonic()))
        for publisher, message in zip(publishers, messages, strict=True):
            message.header.stamp = ns_to_stamp(frame)
            publisher.publish(message)
    time.sleep(2.0)


def receive(sender: "subprocess.Popen[bytes]", reliability: ReliabilityPolicy) -> int:
    """Return the number of frames of which every message arrives until the sender ends."""
    node = Node("measure_transport_receiver")
    heard: Counter[int] = Counter()

    def count(message: CompressedImage) -> None:
        heard[message.header.stamp.nanosec] += 1

    qos = QoSProfile(depth=5, reliability=reliability)
    for topic in TOPICS:
        node.create_subscription(CompressedImage, topic, count, qos)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while sender.poll() is None:
        executor.spin_once(timeout_sec=0.1)
    return sum(number == len(TOPICS) for number in heard.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rate", type=float, default=5.0, help="frames per second (default: %(default)s)")
    parser.add_argument("--image", type=int, default=257_000, help="bytes of an image (default: %(default)s)")
    parser.add_argument("--sweep", type=int, default=560_000, help="bytes of a sweep (default: %(default)s)")
    parser.add_argument("--reliable", action="store_true", help="subscribe as reliable (default: best effort)")
    parser.add_argument(
        "--profile", action="store_true", help="use config/fastdds.xml unless the environment names another"
    )
    parser.add_argument("--send", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.profile:
        os.environ.update(transport_environment())
    rclpy.init()
    if options.send:
        send(options.frames, options.rate, [options.image] * CAMERAS + [options.sweep])
    else:
        sender = subprocess.Popen([sys.executable, *sys.argv, "--send"])
        complete = receive(sender, ReliabilityPolicy.RELIABLE if options.reliable else ReliabilityPolicy.BEST_EFFORT)
        print(f"{complete} of {options.frames} frames are complete")
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
