# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Labelled bags of any layout: decoded as the message says, or refused with bag, topic and value."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import get_types_from_msg

from aqr_perception.bags import messages
from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader import BagReader
from aqr_perception.bags.writer import BagWriter
from aqr_perception.data.rig_file import Rig, RigCamera
from aqr_perception.data.sources.bags import BagDataset
from aqr_perception.frame import LabelledFrame
from aqr_perception.simulator.bag import TRUTH_TOPIC, write_bag
from aqr_perception.simulator.drive import draw_drive
from aqr_perception.simulator.rig import nuscenes_rig

Change = Callable[[str, Any], Any]
Records = list[tuple[str, int, Any]]
"""Topic, stamp and message of each record of a bag."""
VISION = {
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n",
    "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n",
    "Detection3D": "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox3D bbox\nstring id\n",
    "Detection3DArray": "std_msgs/Header header\nDetection3D[] detections\n",
}
for _name, _text in VISION.items():
    if f"vision_msgs/msg/{_name}" not in messages.TYPESTORE.types:
        messages.TYPESTORE.register(get_types_from_msg(_text, f"vision_msgs/msg/{_name}"))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short raw bag of two sweeps and two cameras."""
    path, rig = tmp_path_factory.mktemp("drive") / "drive.mcap", nuscenes_rig((96, 32))
    rig = replace(rig, cameras=rig.cameras[:2])
    return write_bag(draw_drive(3, 2.0, rig), path, 0.2, raw=True, progress=False)


@pytest.fixture(scope="module")
def drive(bag: Path) -> Records:
    """The bag's messages, which the tests do not change."""
    with BagReader(bag) as reader:
        return [(message.topic, message.stamp_ns, message.decode()) for message in reader.messages()]


@pytest.fixture(scope="module")
def plain(bag: Path) -> LabelledFrame:
    return BagDataset(bag, 1)[1]


def rewritten(drive: Records, folder: Path, change: Change, rename: Callable[[str], str] = str) -> Path:
    """Copy a bag with changed messages; a change that returns None leaves the message out."""
    path = folder / "own.mcap"
    with BagWriter(path) as writer:
        for topic, stamp_ns, message in drive:
            changed = change(topic, message)
            if changed is not None:
                writer.write(rename(topic), changed, stamp_ns, latched=topic == "/tf_static")
    return path


def last(bag: Path, **options: Any) -> LabelledFrame:
    data = BagDataset(bag, 1, **options)
    return data[len(data) - 1]


def truth(change: Callable[[Any], Any]) -> Change:
    return lambda topic, message: change(message) if topic == TRUTH_TOPIC else message


def sensors(part: str, change: Callable[[Any], Any]) -> Change:
    return lambda topic, message: change(message) if topic.endswith(part) else message


def test_pictures_of_other_encodings_have_the_same_pixels(drive: Records, tmp_path: Path, plain: LabelledFrame) -> None:
    def bgra(image: Any) -> Any:
        pixels = np.asarray(image.data).reshape(image.height, image.width, 3)
        wide = np.concatenate((pixels[..., ::-1], pixels[..., :1]), -1).reshape(image.height, -1)
        wide = np.pad(wide, ((0, 0), (0, 8)))
        return replace(image, encoding="rgba8", step=wide.shape[1], data=wide.reshape(-1))

    frame = last(rewritten(drive, tmp_path, sensors("image_raw", bgra))).frame
    for view, own in zip(frame.cameras, plain.frame.cameras, strict=True):
        np.testing.assert_array_equal(view.image, own.image)


def test_points_of_another_layout_are_the_same_points(drive: Records, tmp_path: Path, plain: LabelledFrame) -> None:
    def padded(cloud: Any) -> Any:
        old = np.asarray(cloud.data).view(np.uint8).reshape(-1, 16)
        new = np.zeros((len(old), 32), np.uint8)
        new[:, :12], new[:, 16:20] = old[:, :12], old[:, 12:]
        fields = [replace(field, offset=16) if field.name == "intensity" else field for field in cloud.fields]
        return replace(cloud, point_step=32, row_step=32 * len(old), data=new.reshape(-1), fields=fields)

    frame = last(rewritten(drive, tmp_path, sensors("points", padded))).frame
    assert frame.points is not None and plain.frame.points is not None
    np.testing.assert_array_equal(frame.points, plain.frame.points)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("/front/image_raw", lambda m: replace(m, encoding="banana"), "/front/image_raw: .*banana"),
        ("/front/image_raw", lambda m: replace(m, data=m.data[:100]), "/front/image_raw: incomplete image"),
        ("/front/camera_info", lambda m: replace(m, k=np.zeros(9)), "/front/camera_info: zero intrinsics"),
        ("/front/camera_info", lambda m: replace(m, height=999), "/front/image_raw: wrong image size: found 96 x 999"),
        ("/front/camera_info", lambda m: replace(m, distortion_model="fish"), "unknown distortion.*fish"),
        ("/lidar/points", lambda m: replace(m, data=m.data[:-1]), "/lidar/points: incomplete point cloud"),
        ("/lidar/points", lambda m: replace(m, header=messages.header(0, "lidar")), "/lidar/points: found .*stamps"),
        (
            "/lidar/points",
            lambda m: replace(m, header=replace(m.header, frame_id="roof")),
            "found no transform roof -> .*record /tf",
        ),
    ],
)
def test_sensor_data_that_cannot_be_used_is_named_with_bag_and_topic(
    drive: Records, tmp_path: Path, part: str, change: Callable[[Any], Any], said: str
) -> None:
    with pytest.raises(BagError, match=rf"own\.mcap.*{said}"):
        last(rewritten(drive, tmp_path, sensors(part, change)))


def unset(rotation: Any) -> Any:
    return replace(rotation, z=0.0, w=0.0)


def first(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda message: replace(message, detections=[change(message.detections[0]), *message.detections[1:]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda o: replace(o, size=replace(o.size, x=0.0)), r"found the size \[0.0"),
        (lambda o: replace(o, size=replace(o.size, x=float("nan"))), "finite numbers"),
        (lambda o: replace(o, pose=replace(o.pose, position=replace(o.pose.position, x=np.inf))), "finite numbers"),
        (
            lambda o: replace(o, pose=replace(o.pose, orientation=replace(o.pose.orientation, z=0.0, w=0.0))),
            "orientation",
        ),
    ],
)
def test_a_label_that_is_no_box_is_named_or_left_out(
    drive: Records, tmp_path: Path, plain: LabelledFrame, change: Callable[[Any], Any], said: str
) -> None:
    bag = rewritten(drive, tmp_path, truth(first(change)))
    with pytest.raises(BagError, match=rf"own\.mcap: /ground_truth/objects at .*object 0.*{said}"):
        BagDataset(bag)
    data = BagDataset(bag, skip_bad=True)
    assert data.left_out == 2 and len(data[1].truth) == len(plain.truth) - 1


def as_vision(message: Any) -> Any:
    def covariance(pose: Any) -> Any:
        return messages.make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36))

    def convert(number: int, entry: Any) -> Any:
        hypothesis = messages.make("vision_msgs/msg/ObjectHypothesis", class_id=entry.class_name, score=1.0)
        result = messages.make(
            "vision_msgs/msg/ObjectHypothesisWithPose", hypothesis=hypothesis, pose=covariance(entry.pose)
        )
        box = messages.make("vision_msgs/msg/BoundingBox3D", center=entry.pose, size=entry.size)
        return messages.make(
            "vision_msgs/msg/Detection3D", header=message.header, results=[result], bbox=box, id=str(number)
        )

    entries = [convert(number, entry) for number, entry in enumerate(message.detections)]
    return messages.make("vision_msgs/msg/Detection3DArray", header=message.header, detections=entries)


def as_markers(message: Any, kind: int = 1) -> Any:
    def convert(number: int, entry: Any) -> Any:
        zero = messages.make("builtin_interfaces/msg/Duration", sec=0, nanosec=0)
        colour = messages.make("std_msgs/msg/ColorRGBA", r=0.0, g=0.0, b=0.0, a=1.0)
        texture = messages.compressed_image(0, "", b"")
        return messages.make(
            "visualization_msgs/msg/Marker", header=message.header, ns=entry.class_name, id=number, type=kind, action=0,
            pose=entry.pose, scale=entry.size, color=colour, lifetime=zero, frame_locked=False, points=[], colors=[],
            texture_resource="", texture=texture, uv_coordinates=[], text="", mesh_resource="",
            mesh_file=messages.make("visualization_msgs/msg/MeshFile", filename="", data=np.zeros(0, np.uint8)),
            mesh_use_embedded_materials=False,
        )  # fmt: skip

    entries = [convert(number, entry) for number, entry in enumerate(message.detections)]
    return messages.make("visualization_msgs/msg/MarkerArray", markers=entries)


@pytest.mark.parametrize("convert", [as_vision, as_markers])
def test_labels_come_from_other_message_types(
    drive: Records, tmp_path: Path, plain: LabelledFrame, convert: Callable[[Any], Any]
) -> None:
    bag = rewritten(drive, tmp_path, truth(convert), lambda topic: "/labels" if topic == TRUTH_TOPIC else topic)
    found, expected = last(bag).truth, plain.truth
    np.testing.assert_allclose(found.boxes[:, :7], expected.boxes[:, :7], atol=1e-5)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert np.isnan(found.boxes[:, 7:]).all() and list(found.tracks) == list(range(len(found)))


def test_markers_of_another_kind_are_refused(drive: Records, tmp_path: Path) -> None:
    bag = rewritten(drive, tmp_path, truth(lambda message: as_markers(message, 9)))
    with pytest.raises(BagError, match=r"/ground_truth/objects at .*TEXT_VIEW_FACING, needed CUBE"):
        BagDataset(bag)


def labels_json(drive: Records, target: Path, **changes: Any) -> Path:
    frames = [
        {
            "stamp_ns": stamp_ns,
            "frame_id": "lidar",
            "objects": [
                {
                    "class": entry.class_name,
                    "box": [
                        entry.pose.position.x, entry.pose.position.y, entry.pose.position.z,
                        entry.size.x, entry.size.y, entry.size.z,
                        2 * float(np.arctan2(entry.pose.orientation.z, entry.pose.orientation.w)),
                    ],
                    "velocity": [entry.velocity.x, entry.velocity.y],
                }
                for entry in message.detections
            ],
            **changes,
        }
        for topic, stamp_ns, message in drive if topic == TRUTH_TOPIC
    ]  # fmt: skip
    target.write_text(json.dumps({"frames": frames}))
    return target


def without_truth(topic: str, message: Any) -> Any:
    return None if topic == TRUTH_TOPIC else message


def test_labels_come_from_a_json_beside_the_bag(drive: Records, tmp_path: Path, plain: LabelledFrame) -> None:
    bag = rewritten(drive, tmp_path, without_truth)
    with pytest.raises(BagError, match=r"labels: found none .*needed one topic .* or own\.labels\.json"):
        BagDataset(bag)
    labels_json(drive, tmp_path / "own.labels.json")
    np.testing.assert_allclose(last(bag).truth.boxes, plain.truth.boxes, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stamp_ns": 1.7e9}, r"frames\[0\]: stamp_ns: found 1700000000.0"),
        ({"stamp_ns": 1_700_000_000}, "needed times of the labels"),
        ({"frame_id": ""}, r"frames\[0\]: frame_id: found ''"),
        ({"objects": [{"class": "car", "box": [1, 2, 3, 0, 1, 1, 0]}]}, r"objects\[0\] \(car\): found the size \[0.0"),
        ({"objects": [{"class": "car", "box": [1, 2, 3]}]}, r"objects\[0\]: box: found \[1, 2, 3\], needed 7"),
        ({"objects": "none"}, r"frames\[0\]: found"),
    ],
)
def test_a_json_that_is_not_understood_is_named_by_entry(
    drive: Records, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    bag = rewritten(drive, tmp_path, without_truth)
    labels_json(drive, tmp_path / "own.labels.json", **changes)
    with pytest.raises(BagError, match=said):
        BagDataset(bag)


def test_a_rig_file_chooses_topics_names_and_classes(drive: Records, tmp_path: Path, plain: LabelledFrame) -> None:
    rename = {"/front/image_raw": "/a/rgb", "/front/camera_info": "/a/info", "/lidar/points": "/top"}
    vans = truth(lambda m: replace(m, detections=[replace(o, class_name=f"my_{o.class_name}") for o in m.detections]))
    bag = rewritten(drive, tmp_path, vans, lambda topic: rename.get(topic, topic))
    rig = Rig(
        (RigCamera("nose", "/a/rgb", "/a/info"),), ("/top",), "odom", classes={"my_car": "car"}, source="rig.yaml"
    )
    found = last(bag, rig=rig)
    assert [view.name for view in found.frame.cameras] == ["nose"]
    own = next(view for view in plain.frame.cameras if view.name == "front")
    np.testing.assert_array_equal(found.frame.cameras[0].image, own.image)
    cars = plain.truth.boxes[plain.truth.labels == 0]
    np.testing.assert_allclose(found.truth.boxes, cars, atol=1e-5)
    with pytest.raises(BagError, match=r"lidar_topic is '/nowhere': found not in the bag.*the bag has /top"):
        BagDataset(bag, rig=replace(rig, lidar_topics=("/nowhere",)))
    wrong = replace(rig, cameras=(RigCamera("nose", "/a/rgb", "/a/info", compressed=True),))
    with pytest.raises(BagError, match=r"camera.nose.image_topic is '/a/rgb': found of type sensor_msgs/msg/Image"):
        BagDataset(bag, rig=wrong)


def test_a_choice_of_point_clouds_needs_a_rig_file(drive: Records, tmp_path: Path) -> None:
    path = tmp_path / "two.mcap"
    with BagWriter(path) as writer:
        for topic, stamp_ns, message in drive:
            names = ("/left", "/right") if topic == "/lidar/points" else (topic,)
            for name in names:
                writer.write(name, message, stamp_ns, latched=topic == "/tf_static")
    with pytest.raises(BagError, match=r"found the point clouds /left, /right, needed one.*--rig"):
        BagDataset(path)
    both = last(path, rig=Rig(lidar_topics=("/left", "/right"), fixed_frame="odom"))
    alone = last(path, rig=Rig(lidar_topics=("/left",), fixed_frame="odom"))
    assert both.frame.points is not None and alone.frame.points is not None
    assert len(both.frame.points) == 2 * len(alone.frame.points)


def test_stamps_of_recording_may_differ_from_those_of_measurement(
    drive: Records, tmp_path: Path, plain: LabelledFrame
) -> None:
    path = tmp_path / "late.mcap"
    with BagWriter(path) as writer:
        for topic, stamp_ns, message in drive:
            writer.write(topic, message, stamp_ns + 3_600_000_000_000, latched=topic == "/tf_static")
    found = last(path)
    np.testing.assert_allclose(found.truth.boxes, plain.truth.boxes, atol=1e-5)
    assert found.frame.stamp_ns == plain.frame.stamp_ns and len(found.frame.cameras) == len(plain.frame.cameras)
