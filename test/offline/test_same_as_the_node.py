# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The running node on the played bag and `process` on the file give the same detections."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.processed_drive import FRAMES, Drive

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.msg import FusedDetectionArray, TrackArray  # noqa: E402
from helpers.vehicle import RunningNode  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402

from aqr_perception.bags.reader import BagReader  # noqa: E402
from aqr_perception.nodes.stamps import stamp_to_ns  # noqa: E402

pytestmark = pytest.mark.slow


def spin(executor: SingleThreadedExecutor, holds: Callable[[], bool], seconds: float) -> None:
    """Spin until a condition holds, or some seconds have passed."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.05)


def numbers(one: Any) -> list[float]:
    at, turn, size, speed = one.pose.position, one.pose.orientation, one.size, one.velocity
    return [at.x, at.y, at.z, turn.x, turn.y, turn.z, turn.w, size.x, size.y, size.z, speed.x, speed.y, speed.z]


def numbers_in_line(one: dict[str, Any]) -> list[float]:
    return [*one["position"], *one["orientation"], *one["size"], *one["velocity"]]


def test_the_node_on_the_played_bag_finds_the_same(drive: Drive, processed: Path, tmp_path: Path) -> None:
    lines = {
        line["stamp_ns"]: line for line in map(json.loads, (processed / "detections.jsonl").read_text().splitlines())
    }
    arrays: list[FusedDetectionArray] = []
    tracks: list[TrackArray] = []
    rclpy.init()
    node = RunningNode(drive.parameters, "-p", "use_sim_time:=true", log=tmp_path / "node.log")
    listener = rclpy.create_node("listener")
    listener.create_subscription(FusedDetectionArray, "/aqr_perception/detections", arrays.append, 20)
    listener.create_subscription(TrackArray, "/aqr_perception/tracks", tracks.append, 20)
    executor = SingleThreadedExecutor()
    executor.add_node(listener)
    # Slow enough for the node to answer every frame, also on a busy machine.
    with BagReader(drive.bag) as bag:
        topics = [topic.name for topic in bag.topics if not topic.name.startswith(("/ground_truth", "/clock"))]
    play = ["bag_player", str(drive.bag), "--clock", "--rate", "0.1", "--wait", "30", "--topics", *topics]
    try:
        spin(executor, lambda: listener.count_subscribers("/lidar/points") > 0, 60.0)
        player = subprocess.Popen(play, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            spin(executor, lambda: len(arrays) >= FRAMES and len(tracks) >= FRAMES, 60.0)
        finally:
            player.terminate()
            player.wait(timeout=20)
    finally:
        executor.shutdown()
        listener.destroy_node()
        node.stop()
        rclpy.try_shutdown()
    both = [array for array in arrays if stamp_to_ns(array.header.stamp) in lines]
    assert len(both) == len(arrays) == FRAMES, node.log.read_text()
    for array in both:
        line = lines[stamp_to_ns(array.header.stamp)]
        assert array.header.frame_id == line["frame_id"]
        assert [(use.name, use.used) for use in array.sensors] == [
            (use["name"], use["used"]) for use in line["sensors"]
        ]
        assert [one.class_name for one in array.detections] == [one["class"] for one in line["detections"]]
        for ours, theirs in zip(array.detections, line["detections"], strict=True):
            np.testing.assert_allclose(numbers(ours), numbers_in_line(theirs), atol=2e-3)
            weights = [theirs["score"], theirs["lidar_weight"], theirs["camera_weight"]]
            np.testing.assert_allclose([ours.score, ours.lidar_weight, ours.camera_weight], weights, atol=1e-3)
            np.testing.assert_allclose(ours.camera_weights, list(theirs["camera_weights"].values()), atol=1e-3)
    for array in tracks:
        expected = lines[stamp_to_ns(array.header.stamp)]["tracks"]
        assert [one.id for one in array.tracks] == [one["id"] for one in expected]
