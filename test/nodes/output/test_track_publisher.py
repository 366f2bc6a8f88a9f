# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tracks as messages, in the output frame."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from visualization_msgs.msg import Marker

from aqr_perception.frame import Detections, Frame, Result, WeightMaps
from aqr_perception.geometry import rigid_transform
from aqr_perception.nodes.output.track_publisher import TrackPublisher
from aqr_perception.tracking.track_options import TrackingOptions

SECOND = 1_000_000_000


class Topics:
    """A node whose topics all have one subscriber, which keeps the messages."""

    def __init__(self) -> None:
        self.heard: dict[str, list[Any]] = {}
        self.warnings: list[str] = []

    def create_publisher(self, kind: type, topic: str, depth: int) -> SimpleNamespace:
        heard = self.heard[topic] = []
        return SimpleNamespace(publish=heard.append, get_subscription_count=lambda: 1)


@pytest.fixture
def make() -> Callable[..., tuple[TrackPublisher, Topics]]:
    ids = itertools.count(1)

    def make(fixed_frame: str = "odom", enabled: bool = True) -> tuple[TrackPublisher, Topics]:
        topics = Topics()
        options = TrackingOptions(enabled=enabled)
        return TrackPublisher(topics, options, ids, fixed_frame, 0.8, topics.warnings.append), topics

    return make


def scene(stamp_ns: int, boxes: list[list[float]], pose: np.ndarray | None) -> tuple[Frame, Result]:
    """Return a frame with cars at these x, y."""
    whole = np.zeros((len(boxes), 9), np.float32)
    whole[:, 3:6] = 4, 2, 1.5
    whole[:, :2] = np.reshape(boxes, (-1, 2))
    weight = np.full(len(boxes), 0.75, np.float32)
    none = np.zeros((len(boxes), 0), np.float32)
    detections = Detections(whole, weight, np.zeros(len(boxes), np.int64), weight, 1 - weight, none)
    frame = Frame(stamp_ns, None, (), "lidar", pose)
    return frame, Result(detections, WeightMaps(None, (-1, -1, 1, 1), {}, "router"))


def publish(
    tracks: TrackPublisher, stamp_ns: int, boxes: list[list[float]], pose: np.ndarray | None = None, epoch: int = 0
) -> None:
    """Publish a frame with cars at these x, y."""
    frame, result = scene(stamp_ns, boxes, pose)
    tracks.publish(frame, result, rigid_transform([0, 0, 1.8], [0, 0, 0, 1]), "base_link", epoch)


def test_following_tells_the_track_of_each_detection(make: Any) -> None:
    tracks, topics = make()
    frame, result = scene(SECOND, [[30.0, 3.0], [10.0, -8.0]], np.eye(4))
    first = tracks.follow(frame, result, 0)
    frame, result = scene(2 * SECOND, [[10.0, -8.0], [50.0, 0.0], [30.0, 3.0]], np.eye(4))
    second = tracks.follow(frame, result, 0)
    assert sorted(first) == [1, 2] and second.tolist() == [first[1], 3, first[0]]
    assert topics.heard["~/tracks"] == [], "nothing is sent yet"
    tracks.send(2 * SECOND, np.eye(4), "base_link")
    assert [track.id for track in topics.heard["~/tracks"][-1].tracks] == [1, 2, 3]
    tracks.clear()
    tracks.send(3 * SECOND, np.eye(4), "base_link")
    assert len(topics.heard["~/tracks"]) == 1, "ended tracks are not sent again"


def test_without_tracking_no_detection_has_a_track(make: Any) -> None:
    tracks, _ = make(enabled=False)
    assert tracks.follow(*scene(SECOND, [[30.0, 3.0]], np.eye(4)), 0) is None


def test_tracks_lie_in_the_output_frame_and_follow_objects_in_the_fixed_one(make: Any) -> None:
    tracks, topics = make()
    for index in range(4):
        pose = rigid_transform([5.0 * index, 0, 0], [0, 0, 0, 1])
        publish(tracks, index * SECOND // 2, [[30 - 5.0 * index, 3.0]] if index < 3 else [], pose)
    last = topics.heard["~/tracks"][-1]
    assert (last.header.frame_id, last.tracking_frame, last.header.stamp.sec) == ("base_link", "odom", 1)
    (track,) = last.tracks
    assert (track.id, track.class_name, track.hits, track.missed, track.predicted) == (1, "car", 3, 1, True)
    assert track.age == pytest.approx(1.5)
    assert (track.pose.position.x, track.pose.position.y) == (pytest.approx(15, abs=1e-3), pytest.approx(3, abs=1e-3))
    assert track.pose.position.z == pytest.approx(1.8)
    covariance = np.reshape(track.velocity_covariance, (3, 3))
    assert covariance[0, 0] == covariance[1, 1] > 0 == covariance[2, 2]
    assert (track.lidar_weight, track.camera_weight) == (pytest.approx(0.75), pytest.approx(0.25))
    assert [entry.id for entry in topics.heard["~/tracks_3d"][-1].detections] == ["1"]
    clear, box, label, trail = topics.heard["~/track_markers"][-1].markers
    assert clear.action == Marker.DELETEALL and box.color.a < 0.2
    assert label.text == "car 1 predicted"
    assert len(trail.points) == 4 and all(abs(point.x - 15) < 1e-3 for point in trail.points)
    assert topics.warnings == []


def test_a_time_jump_ends_the_tracks_and_no_id_returns(make: Any) -> None:
    tracks, topics = make()
    for stamp, epoch in ((10, 0), (11, 0), (3, 1), (12, 2)):
        publish(tracks, stamp * SECOND, [[5, 5]], np.eye(4), epoch)
    assert [[track.id for track in message.tracks] for message in topics.heard["~/tracks"]] == [[1], [1], [2], [3]]
    other, heard = make()  # after another configuration of the node
    publish(other, 0, [[5, 5]], np.eye(4))
    assert heard.heard["~/tracks"][0].tracks[0].id == 4


def test_without_fixed_frame_the_model_frame_serves_with_one_warning(make: Any) -> None:
    tracks, topics = make(fixed_frame="")
    for index in range(3):
        publish(tracks, index * SECOND, [[5, 5]])
    assert [message.tracking_frame for message in topics.heard["~/tracks"]] == ["lidar"] * 3
    (warning,) = topics.warnings
    assert "fixed_frame" in warning


def test_a_frame_without_its_place_gives_no_tracks_and_a_reason(make: Any) -> None:
    tracks, topics = make()
    publish(tracks, 0, [[5, 5]], np.eye(4))
    publish(tracks, SECOND, [[5, 5]], None)
    publish(tracks, 3 * SECOND // 2, [[5, 5]], np.eye(4))
    assert [[track.id for track in message.tracks] for message in topics.heard["~/tracks"]] == [[1], [1]]
    assert "odom" in topics.warnings[0]


def test_nothing_is_published_while_tracking_is_off_and_a_new_start_has_new_ids(make: Any) -> None:
    tracks, topics = make(enabled=False)
    publish(tracks, 0, [[5, 5]], np.eye(4))
    assert topics.heard["~/tracks"] == []
    for stamp, enabled in ((1, True), (2, False), (3, True)):
        tracks.options = TrackingOptions(enabled=enabled)
        publish(tracks, stamp * SECOND, [[5, 5]], np.eye(4))
    assert [[track.id for track in message.tracks] for message in topics.heard["~/tracks"]] == [[1], [2]]


def test_markers_go_with_the_node(make: Any) -> None:
    tracks, topics = make()
    publish(tracks, 0, [[5, 5]], np.eye(4))
    tracks.delete_markers()
    (only,) = topics.heard["~/track_markers"][-1].markers
    assert only.action == Marker.DELETEALL
