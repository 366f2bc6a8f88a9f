# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detections are always published; other outputs are made only for subscribers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.msg import FrameTiming
from builtin_interfaces.msg import Time
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from aqr_perception.frame import CameraView, CameraWeightMap, Detections, Frame, Result, WeightMaps
from aqr_perception.geometry import rigid_transform
from aqr_perception.nodes.input.frame_request import SensorUse
from aqr_perception.nodes.output import detection_messages, publishers
from aqr_perception.nodes.output.ground_plane import GroundPlane
from aqr_perception.nodes.output.marker_publisher import MarkerPublisher
from aqr_perception.nodes.output.publishers import Publishers
from aqr_perception.visualization.picture_options import PictureOptions, PictureView

CAMERAS = ("front", "back")
DETECTIONS = "~/detections"
BEV = ("~/weights/bev/image", "~/weights/bev/raw", "~/weights/bev/grid")
OPTIONAL = (
    "~/detections_3d",
    "~/markers",
    "~/queries",
    *BEV,
    *(f"~/weights/{camera}/{kind}" for camera in CAMERAS for kind in ("image", "raw")),
)
MAKERS = {
    "~/detections_3d": "detection_messages.detections_3d",
    "~/markers": "detection_messages.markers",
    "~/queries": "query_messages.query_cloud",
    "~/weights/bev/image": "bev_picture",
    "~/weights/bev/raw": "weight_messages.raw_image",
    "~/weights/bev/grid": "weight_messages.occupancy_grid",
    "~/weights/front/image": "camera_picture",
    "~/weights/back/raw": "weight_messages.raw_image",
}


class Topic:
    """Stand-in for an rclpy publisher."""

    def __init__(self, name: str, subscribed: bool) -> None:
        self.name, self.subscribed, self.messages = name, subscribed, list[Any]()

    def get_subscription_count(self) -> int:
        return int(self.subscribed)

    def publish(self, message: object) -> None:
        self.messages.append(message)


class StandInNode:
    """A node with subscribers to some of its topics."""

    def __init__(self, subscribed: Sequence[str]) -> None:
        self.subscribed = subscribed
        self.topics: dict[str, Topic] = {}
        self.destroyed: list[str] = []

    def create_publisher(self, kind: type, name: str, depth: int) -> Topic:
        self.topics[name] = Topic(name, name in self.subscribed)
        return self.topics[name]

    def destroy_publisher(self, topic: Topic) -> None:
        self.destroyed.append(topic.name)

    def published(self) -> dict[str, int]:
        return {name: len(topic.messages) for name, topic in self.topics.items() if topic.messages}

    def last(self, name: str) -> Any:
        return self.topics[name].messages[-1]


def scene(cameras: Sequence[str] = CAMERAS, with_lidar: bool = True) -> tuple[Frame, Result]:
    intrinsics = np.array([[20.0, 0.0, 16.0], [0.0, 20.0, 9.0], [0.0, 0.0, 1.0]])
    forward = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    views = tuple(CameraView(name, np.zeros((18, 32, 3), np.uint8), intrinsics, forward) for name in cameras)
    detections = Detections(
        np.array([[10, 0, 0, 4, 2, 1.5, 0, 1, 0]], np.float32),
        np.array([0.9], np.float32),
        np.array([0]),
        np.array([0.7], np.float32),
        np.array([0.3], np.float32),
        np.full((1, len(views)), 0.3, np.float32),
    )
    maps = {name: CameraWeightMap(np.ones((9, 16), np.float32), np.diag([0.5, 0.5, 1.0])) for name in cameras}
    bev = np.ones((10, 10), np.float32) if with_lidar else None
    points = np.zeros((3, 5), np.float32) if with_lidar else None
    frame = Frame(1_500_000_000, points, views, "lidar")
    return frame, Result(detections, WeightMaps(bev, (-50.0, -50.0, 50.0, 50.0), maps, "router"))


def publish(node: StandInNode, frame: Frame, result: Result) -> None:
    sensors = [SensorUse("lidar", frame.points is not None)]
    to_output = rigid_transform([1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0])
    headers = {name: Header(frame_id=f"{name}_optical", stamp=Time(sec=1, nanosec=480_000_000)) for name in CAMERAS}
    outputs = Publishers(node, CAMERAS, 0.8)
    outputs.publish(frame, result, sensors, to_output, "map", headers, GroundPlane("base_link", to_output))


def test_only_detections_are_made_without_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("made without a subscriber")

    for maker in {*MAKERS.values(), "weight_messages.colour_image"}:
        monkeypatch.setattr(f"{publishers.__name__}.{maker}", refuse)
    node = StandInNode([])
    publish(node, *scene())
    assert node.published() == {DETECTIONS: 1}


def test_every_topic_with_a_subscriber_is_published() -> None:
    node = StandInNode(OPTIONAL)
    publish(node, *scene())
    assert node.published() == dict.fromkeys((DETECTIONS, *OPTIONAL), 1)


@pytest.mark.parametrize("topic", MAKERS)
def test_only_the_subscribed_topic_is_made(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def recording(maker: str, make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: (made.append(maker), make(*arguments, **named))[1]

    for maker in set(MAKERS.values()):
        room, _, name = maker.rpartition(".")
        owner = getattr(publishers, room) if room else publishers
        monkeypatch.setattr(owner, name, recording(maker, getattr(owner, name)))
    node = StandInNode([topic])
    publish(node, *scene())
    assert node.published() == {DETECTIONS: 1, topic: 1}
    assert made == [MAKERS[topic]]


def test_signed_maps_are_published_as_signed() -> None:
    frame, result = scene()
    maps = {
        name: dataclasses.replace(weights, values=-weights.values)
        for name, weights in result.weight_maps.cameras.items()
    }
    assert result.weight_maps.bev is not None
    outputs = {}
    for signed in (False, True):
        node = StandInNode(OPTIONAL)
        signed_maps = dataclasses.replace(result.weight_maps, bev=-result.weight_maps.bev, cameras=maps, signed=signed)
        publish(node, frame, dataclasses.replace(result, weight_maps=signed_maps))
        outputs[signed] = node
    assert set(outputs[True].last("~/weights/bev/grid").data) == {17}
    assert set(outputs[False].last("~/weights/bev/grid").data) == {-1}
    assert "L +0.70 C +0.30" in outputs[True].last("~/markers").markers[3].text
    for name in ("bev", "front"):
        raw = np.frombuffer(outputs[True].last(f"~/weights/{name}/raw").data, "<f4")
        assert (raw == -1).all()
        images = [node.last(f"~/weights/{name}/image") for node in outputs.values()]
        # The bottom left corner has neither boxes nor the legend.
        unsigned, signed_corner = (
            np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)[-1, 0].astype(int)
            for image in images
        )
        assert signed_corner[0] > signed_corner[2] + 20 and unsigned[0] < unsigned[2] + 20


def test_without_lidar_there_is_a_picture_from_above_but_no_map() -> None:
    """Without it, viewers would keep the last picture with LiDAR."""
    node = StandInNode(OPTIONAL)
    publish(node, *scene(with_lidar=False))
    assert set(node.published()) == {DETECTIONS, *OPTIONAL} - {"~/weights/bev/raw", "~/weights/bev/grid"}


def test_pictures_say_which_sensors_are_missing_and_follow_the_options() -> None:
    def shown(view: PictureView, used: bool) -> bytes:
        node, (frame, result) = StandInNode(OPTIONAL), scene()
        outputs = Publishers(node, CAMERAS, 0.8)
        outputs.pictures = PictureOptions(view)
        headers = {camera: Header(stamp=Time(sec=3), frame_id=camera) for camera in CAMERAS}
        outputs.publish(frame, result, [SensorUse("radar", used)], np.eye(4), "lidar", headers, None)
        return bytes(node.last("~/weights/bev/image").data)

    assert len({shown("weights", True), shown("weights", False), shown("trust", True)}) == 3


def test_an_unused_camera_has_no_picture() -> None:
    node = StandInNode(OPTIONAL)
    publish(node, *scene(cameras=["back"]))
    assert not {"~/weights/front/image", "~/weights/front/raw"} & set(node.published())
    assert node.published()["~/weights/back/image"] == 1


def test_a_camera_without_a_weight_map_still_shows_boxes() -> None:
    frame, result = scene()
    result.weight_maps.cameras.pop("front")
    node = StandInNode(OPTIONAL)
    publish(node, frame, result)
    assert "~/weights/front/raw" not in node.published()
    assert np.frombuffer(node.last("~/weights/front/image").data, np.uint8).any(), "boxes on a black picture"


def test_messages_have_the_stamp_of_the_frame_and_their_own_frame_id() -> None:
    node = StandInNode(OPTIONAL)
    publish(node, *scene())
    headers = {name: node.last(name).header for name in node.published() if name != "~/markers"}
    headers["~/markers"] = node.last("~/markers").markers[0].header
    stamps = {name: (header.stamp.sec, header.stamp.nanosec) for name, header in headers.items()}
    of_cameras = {f"~/weights/{camera}/{kind}" for camera in CAMERAS for kind in ("image", "raw")}
    assert {name for name, stamp in stamps.items() if stamp == (1, 480_000_000)} == of_cameras
    assert {name for name, stamp in stamps.items() if stamp == (1, 500_000_000)} == set(stamps) - of_cameras
    frames = {name: header.frame_id for name, header in headers.items()}
    assert {name for name, frame in frames.items() if frame == "map"} == {DETECTIONS, "~/detections_3d", "~/markers"}
    assert frames["~/weights/bev/grid"] == "base_link"
    assert frames["~/weights/bev/raw"] == frames["~/weights/bev/image"] == "lidar"
    assert frames["~/weights/front/raw"] == frames["~/weights/front/image"] == "front_optical"
    assert node.last(DETECTIONS).detections[0].pose.position.x == pytest.approx(11.0)


def test_destroy_removes_every_publisher() -> None:
    node = StandInNode([])
    outputs = Publishers(node, CAMERAS, 0.8)
    outputs.publish_timing(FrameTiming())
    assert node.published() == {"~/timing": 1}
    outputs.destroy()
    assert sorted(node.destroyed) == sorted(node.topics)


def test_a_grid_of_unknown_ground_is_left_out() -> None:
    node = StandInNode(OPTIONAL)
    frame, result = scene()
    headers = dict.fromkeys(CAMERAS, Header())
    Publishers(node, CAMERAS, 0.8).publish(frame, result, [], np.eye(4), "lidar", headers, None)
    assert set(node.published()) == {DETECTIONS, *OPTIONAL} - {"~/weights/bev/grid"}


@pytest.mark.parametrize("tilt", [0.0, 0.1])
def test_the_grid_lies_flat_on_the_ground_below_the_vehicle(tilt: float) -> None:
    to_base = rigid_transform([1.0, 2.0, 1.8], [0.0, np.sin(tilt / 2), 0.0, np.cos(tilt / 2)])
    placement = GroundPlane("base_link", to_base).placement()
    corners = placement[:3] @ np.array([[-50.0, -50, 0, 1], [50, -50, 0, 1], [50, 50, 0, 1]]).T
    np.testing.assert_allclose(corners[2], 0.0, atol=1e-12)
    below = placement[:3, 3]
    np.testing.assert_allclose(np.cross(below - to_base[:3, 3], to_base[:3, 2]), 0.0, atol=1e-9)


def test_a_model_frame_upside_down_has_no_ground_below() -> None:
    with pytest.raises(ValueError, match="z axis"):
        GroundPlane("base_link", np.diag([1.0, -1.0, -1.0, 1.0])).placement()


class Markers:
    """The marker topic, with a clock that moves by hand."""

    def __init__(self) -> None:
        self.now, self.node = 0.0, StandInNode(OPTIONAL)
        self.publisher = MarkerPublisher(self.node, 5, 0.8, lambda: self.now)

    def actions(self) -> list[list[int]]:
        return [[marker.action for marker in found.markers] for found in self.node.topics["~/markers"].messages]

    def publish(self) -> None:
        _, result = scene()
        self.publisher.publish(detection_messages.markers(result, np.eye(4), Header(frame_id="lidar")))


def test_markers_have_a_lifetime_and_are_deleted_once_when_it_is_over() -> None:
    markers = Markers()
    markers.publish()
    boxes = markers.node.last("~/markers").markers[1:]
    assert {(marker.lifetime.sec, round(marker.lifetime.nanosec, -3)) for marker in boxes} == {(0, 800_000_000)}
    for now in (0.7, 0.9, 2.0):
        markers.now = now
        markers.publisher.delete_old()
    assert markers.actions()[1:] == [[Marker.DELETEALL]] and markers.node.last("~/markers").markers[0].header.frame_id
    markers.publish()
    markers.publisher.delete()
    markers.publisher.delete()
    assert markers.actions()[3:] == [[Marker.DELETEALL]]
