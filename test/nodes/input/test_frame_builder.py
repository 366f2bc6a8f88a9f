# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Requests become frames; a sensor with bad data is left out."""

import json
import math
import os
import re
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tf2_ros
from helpers.keyframe_bag import write_keyframe_bag
from helpers.places import REFERENCE
from helpers.recorded_messages import read
from helpers.sensor_messages import INTRINSICS, MS, START, image, info, sweep, transform, with_header
from message_filters import SimpleFilter
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from aqr_perception.decoding import camera_images, sensor_data
from aqr_perception.frame import FramePlacement
from aqr_perception.geometry import invert, project, rigid_transform, transform_points
from aqr_perception.nodes.input import frame_builder
from aqr_perception.nodes.input.assembler import Assembler
from aqr_perception.nodes.input.frame_builder import AssembledFrame, FrameBuilder
from aqr_perception.nodes.input.frame_request import AssemblerSettings, CameraSettings, FrameRequest
from aqr_perception.nodes.input.transforms import FrameTransforms

KEYFRAME = REFERENCE / "nuscenes_keyframe"
MOUNT = rigid_transform([0.5, 0.1, -0.2], [-0.5, 0.5, -0.5, 0.5])


class Rig:
    """A LiDAR and two cameras on a standing vehicle; tests may spoil messages before the frame is built."""

    def __init__(self, **changes: Any) -> None:
        cameras = tuple(CameraSettings(name, f"/{name}/image", f"/{name}/info", True) for name in ("front", "back"))
        defaults = {"cameras": cameras, "lidar_topic": "/points", "transform_wait": 0.0}
        self.now = 0.0
        self.assembler = Assembler(AssemblerSettings(**(defaults | changes)), clock=lambda: self.now)
        self.lidar = SimpleFilter()
        self.assembler.connect_lidar(self.lidar)
        self.cameras = {camera.name: (SimpleFilter(), SimpleFilter()) for camera in self.assembler.settings.cameras}
        for name, (images, infos) in self.cameras.items():
            self.assembler.connect_camera(name, images, infos)
        self.builder = FrameBuilder()
        self.buffer = tf2_ros.Buffer()
        self.buffer.set_transform_static(transform("lidar", "front", MOUNT), "test")
        self.buffer.set_transform_static(transform("lidar", "back", MOUNT), "test")
        self.images = {"front": image("front"), "back": image("back")}
        self.infos = {"front": info("front"), "back": info("back")}
        self.sweep: PointCloud2 | None = sweep([[1, 2, 3, 40], [4, 5, 6, 70]])

    def request(self) -> FrameRequest:
        """Send the messages to the assembler; return the request for their frame."""
        for name, (images, infos) in self.cameras.items():
            if name in self.infos:
                infos.signalMessage(self.infos[name])
            if name in self.images:
                images.signalMessage(self.images[name])
        if self.sweep is not None:
            self.lidar.signalMessage(self.sweep)
        for self.now in (0.0, 10.0, 20.0):
            if found := self.assembler.poll():
                return found
        raise AssertionError("no frame is due")

    def build(self) -> AssembledFrame:
        settings = self.assembler.settings
        transforms = FrameTransforms(self.buffer, settings.fixed_frame, settings.transform_wait)
        return self.builder.build(self.request(), transforms)


def test_a_frame_holds_points_images_and_calibration() -> None:
    built = Rig(intensity_scale=2.0).build()
    assert built.frame is not None
    assert (built.frame.stamp_ns, built.frame.frame_id, built.warnings) == (START, "lidar", [])
    np.testing.assert_array_equal(built.frame.points, [[1, 2, 3, 80, 0], [4, 5, 6, 140, 0]])
    assert [view.name for view in built.frame.cameras] == ["front", "back"]
    for view in built.frame.cameras:
        assert view.image.shape == (24, 40, 3)
        np.testing.assert_array_equal(view.intrinsics, INTRINSICS)
        np.testing.assert_allclose(view.extrinsics, invert(MOUNT), atol=1e-12)
    assert [(use.name, use.used, use.age, use.reason) for use in built.sensors] == [
        ("lidar", True, 0.0, ""),
        ("front", True, 0.0, ""),
        ("back", True, 0.0, ""),
    ]


def truncated_jpeg(rig: Rig) -> None:
    rig.images["front"].data = rig.images["front"].data[:-40]


def wrong_encoding(rig: Rig) -> None:
    rig.images["front"] = with_header(
        Image(height=24, width=40, step=40, encoding="banana", data=array("B", bytes(960))), "front", START
    )


def zero_intrinsics(rig: Rig) -> None:
    rig.infos["front"].k = np.zeros(9)


def missing_transform(rig: Rig) -> None:
    rig.images["front"].header.frame_id = "nowhere"


@pytest.mark.parametrize(
    ("spoil", "reason", "named"),
    [
        (truncated_jpeg, "truncated JPEG", "/front/image: truncated JPEG: found"),
        (wrong_encoding, "wrong encoding", "/front/image: wrong encoding: found 'banana'"),
        (zero_intrinsics, "zero intrinsics", "/front/info: zero intrinsics: found K with fx = 0"),
        (missing_transform, "no transform", "needed lidar -> nowhere"),
    ],
)
def test_a_bad_camera_is_left_out_and_named_and_the_next_good_one_is_used(spoil: Any, reason: str, named: str) -> None:
    rig = Rig()
    good_image, good_info = image("front", START + MS), info("front")
    spoil(rig)
    built = rig.build()
    assert built.frame is not None
    assert built.frame.points is not None
    assert [view.name for view in built.frame.cameras] == ["back"]
    assert [(use.name, use.used, use.reason) for use in built.sensors] == [
        ("lidar", True, ""),
        ("front", False, reason),
        ("back", True, ""),
    ]
    (warning,) = built.warnings
    assert named in warning

    rig.images, rig.infos, rig.sweep = {"front": good_image}, {"front": good_info}, sweep([[1, 2, 3, 4]], START + MS)
    after = rig.build()
    assert after.frame is not None
    assert (after.warnings, len(after.frame.cameras)) == ([], 2)


def test_a_point_cloud_without_x_leaves_the_cameras() -> None:
    rig = Rig()
    rig.sweep = sweep([[1, 2, 3]], names="yzi")
    built = rig.build()
    assert built.frame is not None
    assert (built.frame.points, len(built.frame.cameras)) == (None, 2)
    assert (built.sensors[0].used, built.sensors[0].reason) == (False, "point cloud without x")
    assert built.warnings[0].startswith("/points: point cloud without x: found fields y, z, i")


@pytest.mark.parametrize("points", [[], [[math.nan] * 4] * 5, [[0.0] * 4] * 5], ids=["none", "NaN", "origin"])
def test_a_point_cloud_without_returns_is_not_used_and_is_named(points: list[list[float]]) -> None:
    rig = Rig()
    rig.sweep = sweep(points)
    built = rig.build()
    assert built.frame is not None
    assert built.frame.points is not None
    assert built.frame.points.shape == (0, 5)
    assert (built.sensors[0].used, built.sensors[0].reason) == (False, "empty point cloud")
    assert [use.used for use in built.sensors[1:]] == [True, True]
    assert built.warnings[0].startswith("/points: empty point cloud")


def test_where_nothing_is_left_there_is_no_frame_but_a_warning() -> None:
    rig = Rig()
    rig.images, rig.sweep = {}, sweep([[1, 2, 3]], names="yzi")
    built = rig.build()
    assert built.frame is None
    assert (
        "no sensor is left for the frame at 1500000000.000000 s (lidar: point cloud without x, front: no data"
        in (built.warnings[-1])
    )


def test_a_camera_only_frame_is_given_in_the_output_frame() -> None:
    rig = Rig(lidar_topic="", output_frame="lidar")
    rig.sweep = None
    built = rig.build()
    assert built.frame is not None
    assert (built.frame.points, built.frame.frame_id, len(built.frame.cameras)) == (None, "lidar", 2)


def test_a_camera_only_frame_without_any_frame_id_is_refused_with_the_remedy() -> None:
    rig = Rig(lidar_topic="")
    rig.sweep = None
    built = rig.build()
    assert built.frame is None
    assert "set the parameter `model_frame` or `output_frame`" in built.warnings[0]
    assert [use.reason for use in built.sensors] == ["no model frame"] * 2


# --- One sensor's fault is that sensor's alone -----------------------------------------------------------------


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_the_pictures_of_a_frame_are_decoded_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, both, threads = Rig(), threading.Barrier(2, timeout=10.0), set[int]()
    original = camera_images.picture_from_message

    def meet(*arguments: Any) -> Any:
        both.wait()
        threads.add(threading.get_ident())
        return original(*arguments)

    monkeypatch.setattr(camera_images, "picture_from_message", meet)
    built = rig.build()
    assert [view.name for view in built.frame.cameras] == ["front", "back"] and len(threads) == 2
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    for one, other in zip(built.frame.cameras, Rig().build().frame.cameras, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


class UnexpectedError(Exception):
    """An error that no decoder should raise."""


@pytest.mark.parametrize("error", [UnexpectedError, ZeroDivisionError, MemoryError, np.linalg.LinAlgError])
@pytest.mark.parametrize("place", ["picture_from_message", "pinhole_picture", "described_size", "camera_doubt"])
def test_an_unexpected_error_of_one_camera_leaves_the_others(
    place: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    module = frame_builder if hasattr(frame_builder, place) else sensor_data
    original, calls = getattr(module, place), []

    def fails_first(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise error("odd\nvalue")
        return original(*arguments)

    monkeypatch.setattr(module, place, fails_first)
    built = rig.build()
    assert built.frame is not None and built.frame.points is not None
    assert [view.name for view in built.frame.cameras] == ["back"]
    assert built.sensors[1].reason == f"{error.__name__}: odd\\nvalue"
    assert built.warnings == [
        f"/front/image: unexpected error: found {error.__name__}: odd\\nvalue, needed a usable message; report this "
        "as a bug"
    ]
    assert [type(found) for found in built.unexpected] == [error]


@pytest.mark.parametrize("place", ["points_from_message", "intensity_doubt", "check_distances"])
def test_an_unexpected_error_of_the_lidar_leaves_the_cameras(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise UnexpectedError

    rig = Rig()
    monkeypatch.setattr(frame_builder if hasattr(frame_builder, place) else sensor_data, place, fail)
    built = rig.build()
    assert built.frame is not None
    assert (built.frame.points, len(built.frame.cameras), built.sensors[0].used) == (None, 2, False)
    assert built.sensors[0].reason == "UnexpectedError: " and len(built.unexpected) == 1


def no_pixels_left(rig: Rig) -> None:
    rig.infos["front"].binning_x = rig.infos["front"].binning_y = 100


def unknown_mosaic(rig: Rig) -> None:
    rig.images["front"].format = "bayer_nonsense; jpeg"
    grey = cv2.imencode(".jpg", np.zeros((24, 40), np.uint8))[1].tobytes()
    rig.images["front"].data = array("B", grey)


def decompression_bomb(rig: Rig) -> None:
    data = bytearray(rig.images["front"].data)
    start = data.find(b"\xff\xc0")
    data[start + 5 : start + 9] = b"\xff\xdc\xff\xdc"
    rig.images["front"].data = array("B", bytes(data))


def infinite_transform(rig: Rig) -> None:
    mount = MOUNT.copy()
    mount[0, 3] = np.inf
    rig.buffer.set_transform_static(transform("lidar", "front", mount), "test")


def no_frame_id(rig: Rig) -> None:
    rig.images["front"].header.frame_id = rig.infos["front"].header.frame_id = ""


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (no_pixels_left, "wrong image size"),
        (unknown_mosaic, "wrong encoding"),
        (decompression_bomb, "truncated JPEG"),
        (infinite_transform, "no transform"),
        (no_frame_id, "empty frame_id"),
    ],
)
def test_what_one_camera_sends_costs_no_other_sensor(spoil: Any, reason: str) -> None:
    rig = Rig()
    spoil(rig)
    built = rig.build()
    assert built.frame is not None and built.frame.points is not None
    assert [use.used for use in built.sensors] == [True, False, True]
    assert built.sensors[1].reason == reason and built.unexpected == []
    assert any("/front" in warning or "front" in warning for warning in built.warnings)


# --- Plausibility ------------------------------------------------------------------------------------------------


def uniform_sweep(intensity: float, unit: float = 1.0, stamp_ns: int = START) -> PointCloud2:
    rng = np.random.default_rng(0)
    points = np.c_[rng.uniform(-40, 40, (2000, 2)) * unit, rng.normal(0, 0.02, 2000), rng.uniform(0, intensity, 2000)]
    return sweep(points.tolist(), stamp_ns)


def test_a_doubt_is_said_once_and_stays_with_the_sensor() -> None:
    rig = Rig()
    rig.images, rig.infos = {}, {}
    said = []
    for index in range(5):
        rig.sweep = uniform_sweep(5000.0, stamp_ns=START + index * 50 * MS)
        built = rig.build()
        said += built.warnings
        assert built.sensors[0].used and built.sensors[0].doubt == "intensity out of range"
    assert len(said) == 1 and re.search(r"`intensity_scale` 0\.051\d* would fit", said[0])


def test_one_absurd_intensity_never_reaches_the_model() -> None:
    rig = Rig(intensity_scale=255.0)
    rig.sweep = sweep([[1, 2, 3, 0.5], [4, 5, 6, 9e5], [7, 8, 9, 1e38]])
    built = rig.build()
    assert built.frame is not None and built.frame.points is not None
    np.testing.assert_array_equal(built.frame.points[:, 3], [127.5, 0, 0])
    assert built.sensors[0].used and "absurd intensities" in built.sensors[0].doubt


def test_points_in_millimetres_leave_the_lidar_out() -> None:
    rig = Rig()
    rig.sweep = uniform_sweep(200.0, unit=200.0)
    built = rig.build()
    assert (built.sensors[0].used, built.sensors[0].reason) == (False, "implausible distances")
    assert built.frame is not None and len(built.frame.cameras) == 2
    rig.sweep = uniform_sweep(200.0, unit=10_000.0, stamp_ns=START + 50 * MS)
    later = rig.build()
    assert not later.sensors[0].used


def test_a_camera_frame_that_is_a_body_frame_is_said_once() -> None:
    rig = Rig()
    rig.buffer.set_transform_static(transform("lidar", "front", rigid_transform([1, 0, 0], [0, 0, 0, 1])), "test")
    built = rig.build()
    assert [use.doubt for use in built.sensors] == ["", "camera frame is not optical", ""]
    assert len(built.warnings) == 1 and "'front'" in built.warnings[0]


def test_a_baseline_that_tf_holds_is_not_applied_again() -> None:
    camera = CameraSettings("front", "/front/image", "/front/info", True, rectified=True, baseline_in_tf=True)
    rig = Rig(cameras=(camera,))
    rig.infos, rig.images = {"front": info("front")}, {"front": image("front")}
    rig.infos["front"].p = np.c_[INTRINSICS, [-30 * 0.12, 0, 0]].reshape(-1)
    built = rig.build()
    assert built.frame is not None and built.warnings == []
    np.testing.assert_allclose(built.frame.cameras[0].extrinsics, invert(MOUNT), atol=1e-12)


def test_a_model_frame_at_another_height_than_the_models_is_said_once() -> None:
    rig = Rig()
    rig.images, rig.infos = {}, {}
    said = []
    for index in range(6):
        rig.sweep = uniform_sweep(200.0, stamp_ns=START + index * 50 * MS)
        transforms = FrameTransforms(rig.buffer, "", 0.0)
        said += rig.builder.build(rig.request(), transforms, 0, FramePlacement(1.84, "x")).warnings
    assert len(said) == 1
    assert said[0].startswith("/points: model frame at another height: found 'lidar' 0.00 m above the ground")


def test_a_lidar_without_frame_id_is_named_and_the_cameras_go_on_in_the_output_frame() -> None:
    rig = Rig(output_frame="lidar")
    assert rig.sweep is not None
    rig.sweep.header.frame_id = ""
    built = rig.build()
    assert built.frame is not None and (built.frame.points, len(built.frame.cameras)) == (None, 2)
    assert [(use.used, use.reason) for use in built.sensors] == [(False, "empty frame_id"), (True, ""), (True, "")]
    assert built.warnings[0].startswith("/points: empty frame_id: found header.frame_id ''")
    nowhere = Rig()
    assert nowhere.sweep is not None
    nowhere.sweep.header.frame_id = ""
    built = nowhere.build()
    assert built.frame is None and built.warnings[0].startswith("/points: empty frame_id")
    assert "`output_frame`" in built.warnings[0]


def test_an_empty_sweep_hides_the_past_ones() -> None:
    rig = Rig(cameras=(), fixed_frame="odom", max_sweeps=3)
    rig.images, rig.infos = {}, {}
    used = []
    for index, points in enumerate([[[1, 0, 0, 1]], [], [[3, 0, 0, 1]]]):
        stamp_ns = START + index * 50 * MS
        rig.buffer.set_transform(transform("odom", "lidar", np.eye(4), stamp_ns), "test")
        rig.sweep = sweep(points, stamp_ns)
        built = rig.build()
        assert built.frame is not None and built.frame.points is not None
        used.append((built.sensors[0].used, len(built.frame.points)))
    assert used == [(True, 1), (False, 0), (True, 2)]


def test_points_move_to_the_model_frame() -> None:
    rig = Rig(model_frame="base_link")
    lidar_mount = rigid_transform([0, 0, 2], [0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    rig.buffer.set_transform_static(transform("base_link", "lidar", lidar_mount), "test")
    frame = rig.build().frame
    assert frame is not None
    assert frame.points is not None
    np.testing.assert_allclose(frame.points[:, :3], [[-2, 1, 5], [-5, 4, 8]], atol=1e-6)
    np.testing.assert_allclose(frame.cameras[0].extrinsics, invert(lidar_mount @ MOUNT), atol=1e-9)


def test_a_rectified_stereo_camera_sees_from_its_baseline() -> None:
    rig = Rig(cameras=(CameraSettings("front", "/front/image", "/front/info", True, rectified=True),))
    rig.infos = {"front": info("front")}
    rig.images = {"front": image("front")}
    rig.infos["front"].p = np.c_[INTRINSICS, [-30 * 0.12, 0, 0]].reshape(-1)
    frame = rig.build().frame
    assert frame is not None
    np.testing.assert_allclose(
        frame.cameras[0].extrinsics, rigid_transform([-0.12, 0, 0], [0, 0, 0, 1]) @ invert(MOUNT)
    )


@pytest.mark.parametrize(("interval", "expected"), [(0.0, [1, 2, 3, 3, 3, 3]), (0.1, [1, 1, 2, 2, 3, 3])])
def test_past_sweeps_are_decoded_once(interval: float, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    original = sensor_data.points_from_message
    monkeypatch.setattr(
        sensor_data,
        "points_from_message",
        lambda m, *rest: decoded.append(m.header.stamp.nanosec) or original(m, *rest),
    )
    rig = Rig(cameras=(), fixed_frame="odom", max_sweeps=3, sweep_interval=interval)
    rig.images, rig.infos = {}, {}
    counts = []
    for index in range(6):
        stamp_ns = START + index * 50 * MS
        pose = rigid_transform([index, 0, 0], [0, 0, 0, 1])
        rig.buffer.set_transform(transform("odom", "lidar", pose, stamp_ns), "test")
        rig.sweep = sweep([[10 - index, 0, 0, 1]], stamp_ns)
        frame = rig.build().frame
        assert frame is not None
        assert frame.points is not None
        counts.append(len(frame.points))
        np.testing.assert_allclose(frame.points[:, 0], 10 - index, atol=1e-5)
        ages = max(interval, 0.05) * np.arange(counts[-1])
        np.testing.assert_allclose(frame.points[:, 4], ages, atol=1e-6)
    assert counts == expected
    assert decoded == [index * 50 * MS for index in range(6)]


@pytest.fixture(scope="module")
def keyframe() -> dict[str, Any]:
    if not KEYFRAME.exists():
        pytest.skip("the nuScenes keyframe is not here: needs ../shared/reference/nuscenes_keyframe")
    return json.loads((KEYFRAME / "keyframe.json").read_text())


@pytest.fixture(scope="module")
def bag(keyframe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_keyframe_bag(KEYFRAME, tmp_path_factory.mktemp("keyframe") / "bag.mcap", repeats=2)


def topics_of(camera: CameraSettings) -> tuple[str, str]:
    return camera.image_topic, camera.info_topic


def frames_of(bag: Path, names: list[str], fixed_frame: str, image_width: int) -> list[AssembledFrame]:
    """Send a bag's messages in recorded order, and build every frame."""
    cameras = tuple(
        CameraSettings(name, f"/{name}/image_rect_compressed", f"/{name}/camera_info", True, rectified=True)
        for name in names
    )
    chosen = AssemblerSettings(cameras=cameras, lidar_topic="/LIDAR_TOP", fixed_frame=fixed_frame, max_sweeps=2)
    sources = {topic: SimpleFilter() for topic in ["/LIDAR_TOP", *(topic for c in cameras for topic in topics_of(c))]}
    now = 0.0
    assembler = Assembler(chosen, clock=lambda: now)
    assembler.connect_lidar(sources["/LIDAR_TOP"])
    for camera in cameras:
        assembler.connect_camera(camera.name, *(sources[topic] for topic in topics_of(camera)))
    builder, buffer, built = FrameBuilder(), tf2_ros.Buffer(), []
    kinds = {kind.__name__: kind for kind in (CameraInfo, CompressedImage, PointCloud2)}
    for entry in read(bag):
        now = entry.stamp_ns / 1e9
        if entry.topic.startswith("/tf"):
            for stamped in deserialize_message(entry.data, TFMessage).transforms:
                setter = buffer.set_transform_static if entry.topic == "/tf_static" else buffer.set_transform
                setter(stamped, "test")
        else:
            sources[entry.topic].signalMessage(deserialize_message(entry.data, kinds[entry.type.split("/")[-1]]))
        if request := assembler.poll():
            built.append(builder.build(request, FrameTransforms(buffer, fixed_frame), image_width))
    return built


@pytest.mark.parametrize(("fixed_frame", "image_width"), [("map", 800), ("map", 1600), ("", 800)])
def test_the_keyframes_points_project_where_the_keyframe_says(
    bag: Path, keyframe: dict[str, Any], fixed_frame: str, image_width: int
) -> None:
    built = frames_of(bag, list(keyframe["cameras"]), fixed_frame, image_width)
    assert len(built) == 2
    frame = built[0].frame
    assert frame is not None
    assert frame.points is not None
    assert built[0].warnings == []
    raw = np.fromfile(KEYFRAME / "lidar_top.bin", np.float32).reshape(-1, 5)
    np.testing.assert_array_equal(frame.points[:, :4], raw[:, :4])
    assert frame.stamp_ns == round(keyframe["stamp"] * 1e6) * 1000
    for view in frame.cameras:
        described = keyframe["cameras"][view.name]
        to_camera = np.array(described["lidar_to_camera"])
        if not fixed_frame:
            to_camera = invert(np.array(described["camera_to_ego"])) @ np.array(keyframe["lidar"]["lidar_to_ego"])
        scale = image_width / described["width"]
        assert view.image.shape == (round(900 * scale), image_width, 3)
        expected, depths = project(np.array(described["intrinsics"]), transform_points(to_camera, raw))
        found, _ = project(view.intrinsics, transform_points(view.extrinsics, frame.points))
        seen = (depths > 1) & (np.abs(expected - [800, 450]) < [800, 450]).all(axis=1)
        assert seen.sum() > 500
        assert np.abs(found[seen] - expected[seen] * scale).max() < 0.05
        assert view.age == pytest.approx(keyframe["stamp"] - described["stamp"], abs=1e-5)


def test_repeated_keyframes_accumulate_on_top_of_each_other(bag: Path, keyframe: dict[str, Any]) -> None:
    frame = frames_of(bag, list(keyframe["cameras"]), "map", 200)[1].frame
    assert frame is not None
    assert frame.points is not None
    newest, before = np.split(frame.points, 2)
    np.testing.assert_allclose(before[:, :3], newest[:, :3], atol=1e-3)
    np.testing.assert_allclose(before[:, 4], 0.1, atol=1e-6)
    assert not newest[:, 4].any()
    assert {view.image.shape[1] for view in frame.cameras} == {200}


def test_building_waits_a_limited_time_for_late_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(transform_wait=0.5)
    rig.images["front"].header.frame_id = rig.images["back"].header.frame_id = "nowhere"
    clock = iter(np.arange(0, 1000, 0.1))
    naps: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(time, "sleep", naps.append)
    assert len(rig.build().warnings) == 2
    assert 0 < len(naps) <= 5, "both cameras share one wait"


def test_a_frame_has_the_vehicles_pose_only_if_tf_has_its_motion() -> None:
    assert Rig().build().frame.to_fixed is None
    moving = Rig(fixed_frame="map")
    pose = rigid_transform([7.0, -2.0, 0.5], [0.0, 0.0, 0.6, 0.8])
    for stamp_ns in (START - 100 * MS, START + 100 * MS):
        moving.buffer.set_transform(transform("map", "lidar", pose, stamp_ns), "test")
    np.testing.assert_allclose(moving.build().frame.to_fixed, pose, atol=1e-9)
    assert Rig(fixed_frame="nowhere").build().frame is None or Rig(fixed_frame="nowhere").build().frame.to_fixed is None
