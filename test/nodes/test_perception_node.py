# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node in its own process, over DDS, with failing sensors."""

import array
import importlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.own_classes import write_preset
from helpers.places import ROOT

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.msg import FrameTiming, FusedDetectionArray  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from helpers.keyframe_bag import write_keyframe_bag  # noqa: E402
from helpers.vehicle import CAMERAS, COMPRESSED, RunningNode, Vehicle, configuration  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from nav_msgs.msg import OccupancyGrid  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from sensor_msgs_py import point_cloud2  # noqa: E402
from vision_msgs.msg import Detection3DArray  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from aqr_perception.models.config.presets import load_preset, preset_directory  # noqa: E402
from aqr_perception.nodes.stamps import ns_to_stamp, stamp_to_ns  # noqa: E402


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


EVERY_SENSOR = dict.fromkeys(("lidar", *CAMERAS), True)


try:  # message definitions that not every installation has
    AUTOWARE: Any = importlib.import_module("autoware_perception_msgs.msg")
except ImportError:
    AUTOWARE = None


def used(detections) -> dict[str, bool]:
    return {sensor.name: sensor.used for sensor in detections.sensors}


def test_the_keyframe_bag_played_over_dds_gives_one_array_with_the_sweeps_stamp(
    ros: None, shared_reference: Path, tmp_path: Path
) -> None:
    bag = write_keyframe_bag(shared_reference / "nuscenes_keyframe", tmp_path / "keyframe.mcap")
    config = ROOT / "config" / "nuscenes.yaml"
    # A loaded machine delivers late: late messages must neither miss the frame nor make another one.
    waits = {"camera_wait": 5.0, "lidar_timeout": 30.0, "transform_wait": 5.0, "max_latency": 60.0}
    patient = [argument for name, seconds in waits.items() for argument in ("-p", f"{name}:={seconds}")]
    node = RunningNode(config, "-p", "score_threshold:=0.0", *patient, log=tmp_path / "node.log")
    listener = Vehicle()
    try:
        arrays = listener.listen(FusedDetectionArray, "/aqr_perception/detections")
        raws = {name: listener.listen(Image, f"/aqr_perception/weights/{name}/raw") for name in CAMERAS}
        listener.wait_for(lambda: listener.node.count_subscribers("/LIDAR_TOP") > 0, "the node", 40.0)
        listener.wait_until_known()
        subprocess.run(["bag_player", str(bag), "--wait", "20"], check=True, timeout=60, capture_output=True)
        listener.wait_for(lambda: bool(arrays) and all(raws.values()), "detections and six weight maps")
        assert len(arrays) == 1, [stamp_to_ns(found.header.stamp) for found in arrays]
        assert stamp_to_ns(arrays[0].header.stamp) == 1532402927647951000
        assert 0 < len(arrays[0].detections) <= 300
        assert used(arrays[0]) == EVERY_SENSOR
        for messages in raws.values():
            values = np.frombuffer(array.array("B", messages[-1].data), dtype="<f4")
            assert values.min() >= 0 and values.max() <= 1.5
    finally:
        listener.close()
        assert node.stop(signal.SIGTERM) == 0, node.log.read_text()


def test_a_model_that_cannot_be_loaded_leaves_the_node_alive_and_unconfigured(ros: None, tmp_path: Path) -> None:
    config = configuration(tmp_path, **{"model.preset": "cmt_huge"})
    node = RunningNode(config, log=tmp_path / "node.log")
    listener = Vehicle()
    try:
        listener.wait_for(
            lambda: any("cmt_huge" in warning and "aqr_tiny" in warning for warning in listener.warnings),
            "an error that names the preset and the known ones",
            40.0,
        )
        assert node.process.poll() is None
        assert not listener.change_state(Transition.TRANSITION_ACTIVATE)
    finally:
        listener.close()
        assert node.stop() == 0, node.log.read_text()


@pytest.fixture(scope="module")
def vehicle(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vehicle]:
    folder = tmp_path_factory.mktemp("node")
    node = RunningNode(configuration(folder, autoware_objects=AUTOWARE is not None), log=folder / "node.log")
    vehicle = Vehicle()
    try:
        vehicle.wait_until_connected()
        # Transforms and calibration are discovered a moment after the topics: warm up until everything has come.
        for _ in range(2):
            drive_until(vehicle, EVERY_SENSOR)
        yield vehicle
    finally:
        vehicle.close()
        status = node.stop()
        assert status == 0, node.log.read_text()
        assert "Traceback" not in node.log.read_text()


def drive_until(vehicle: Vehicle, expected: dict[str, bool], **frame) -> FusedDetectionArray:
    """Send frames until one uses exactly the expected sensors: frames do not wait for a camera that was late before."""
    for _ in range(6):
        vehicle.next_frame()
        found = vehicle.drive(**frame)
        if used(found) == expected:
            return found
    raise AssertionError(f"used {used(found)}, expected {expected}; {[sensor.reason for sensor in found.sensors]}")


def test_a_frame_of_all_sensors_gives_detections_in_the_output_frame(vehicle: Vehicle) -> None:
    found = drive_until(vehicle, EVERY_SENSOR)
    assert stamp_to_ns(found.header.stamp) == vehicle.stamp_ns
    assert found.header.frame_id == "base_link"
    assert list(found.camera_names) == list(CAMERAS) and found.weights_source == "router"
    assert 0 < len(found.detections) <= 300
    for detection in found.detections:
        assert 0 <= detection.lidar_weight <= 1 and len(detection.camera_weights) == 6


@pytest.mark.parametrize("dead", [("front",), CAMERAS, ("lidar",), ("lidar", *CAMERAS[1:])])
def test_dead_sensors_keep_detections_coming(vehicle: Vehicle, dead: tuple[str, ...]) -> None:
    found = drive_until(vehicle, {name: name not in dead for name in EVERY_SENSOR}, without=dead)
    assert all(sensor.reason for sensor in found.sensors if not sensor.used)
    vehicle.next_frame()
    assert vehicle.drive(without=dead).detections
    drive_until(vehicle, EVERY_SENSOR)


def wrong_encoding(vehicle: Vehicle) -> dict:
    image = vehicle.image("front")
    image.encoding = "bgr9"
    return {"images": {"front": image}}


def truncated_jpeg(vehicle: Vehicle) -> dict:
    image = vehicle.image(COMPRESSED)
    image.data = image.data[: len(image.data) // 2]
    return {"images": {COMPRESSED: image}}


def missing_transform(vehicle: Vehicle) -> dict:
    image = vehicle.image("back_left")
    image.header.frame_id = "nowhere"
    return {"images": {"back_left": image}}


def zero_intrinsics(vehicle: Vehicle) -> dict:
    info = vehicle.info("front_left")
    info.k = [0.0] * 9
    return {"infos": {"front_left": info}}


def cloud_without_x(vehicle: Vehicle) -> dict:
    cloud = vehicle.cloud()
    cloud.fields = [field for field in cloud.fields if field.name != "x"]
    return {"cloud": cloud}


def empty_cloud(vehicle: Vehicle) -> dict:
    return {"cloud": point_cloud2.create_cloud_xyz32(vehicle.header("lidar"), np.zeros((0, 3), np.float32))}


def field_far_outside(vehicle: Vehicle) -> dict:
    cloud = vehicle.cloud()
    cloud.fields[0].offset = 2**31 - 1
    return {"cloud": cloud}


def decompression_bomb(vehicle: Vehicle) -> dict:
    image = vehicle.image(COMPRESSED)
    data = bytearray(image.data)
    start = data.find(b"\xff\xc0")
    data[start + 5 : start + 9] = (65500).to_bytes(2, "big") * 2
    image.data = array.array("B", bytes(data))
    return {"images": {COMPRESSED: image}}


@pytest.mark.parametrize(
    ("fault", "victim", "named"),
    [
        (wrong_encoding, "front", ("/front/image_raw", "bgr9")),
        (truncated_jpeg, COMPRESSED, (f"/{COMPRESSED}/image_raw", "truncated")),
        (missing_transform, "back_left", ("nowhere",)),
        (zero_intrinsics, "front_left", ("/front_left/camera_info", "fx = 0")),
        (cloud_without_x, "lidar", ("/lidar/points", "x")),
        (empty_cloud, "lidar", ("/lidar/points", "empty point cloud")),
        (field_far_outside, "lidar", ("/lidar/points", "broken point layout", "offset 2147483647")),
        (decompression_bomb, COMPRESSED, (f"/{COMPRESSED}/image_raw", "truncated JPEG", "65500 x 65500")),
    ],
)
def test_bad_input_is_named_and_the_next_good_frame_is_processed(vehicle, fault, victim, named) -> None:
    heard = len(vehicle.warnings)
    expected = {name: name != victim for name in EVERY_SENSOR}
    for _ in range(6):
        vehicle.next_frame()
        if used(vehicle.drive(**fault(vehicle))) == expected:
            break
    else:
        raise AssertionError(f"no frame without just {victim}")

    def warned() -> bool:
        return any(all(part in warning for part in named) for warning in vehicle.warnings[heard:])

    vehicle.wait_for(warned, f"a warning with {named}")
    drive_until(vehicle, EVERY_SENSOR)


def test_a_lidar_an_hour_ahead_is_named_in_diagnostics_and_the_cameras_go_on(vehicle: Vehicle) -> None:
    diagnostics = vehicle.listen(DiagnosticArray, "/diagnostics")
    hour_ns = 3_600_000_000_000
    cameras_only = {name: name != "lidar" for name in EVERY_SENSOR}
    reason = ""
    # A clock is judged after a few sweeps; until then the last good sweep is too old.
    for _ in range(8):
        vehicle.next_frame()
        cloud = vehicle.cloud()
        cloud.header.stamp = ns_to_stamp(vehicle.stamp_ns + hour_ns)
        found = vehicle.drive(cloud=cloud)
        reason = {sensor.name: sensor.reason for sensor in found.sensors}["lidar"]
        if used(found) == cameras_only and reason != "too old":
            break
    assert used(found) == cameras_only, "the others are not shut out"
    assert "ahead of the other sensors" in reason

    def lidar_status() -> str:
        statuses = [status for status in diagnostics[-1].status if status.name.endswith("sensor lidar")]
        return statuses[0].message

    vehicle.wait_for(lambda: bool(diagnostics) and "ahead of" in lidar_status(), "the LiDAR's clock in /diagnostics")
    drive_until(vehicle, EVERY_SENSOR)
    frames = next(status for status in diagnostics[-1].status if status.name.endswith(": frames"))
    assert {"age_p50", "age_p95", "age_max", "too_old"} <= {pair.key for pair in frames.values}


def test_pictures_markers_and_grids_are_published_to_listeners(vehicle: Vehicle) -> None:
    topics = {
        "/aqr_perception/markers": MarkerArray,
        "/aqr_perception/detections_3d": Detection3DArray,
        "/aqr_perception/timing": FrameTiming,
        "/aqr_perception/weights/bev/image": Image,
        "/aqr_perception/weights/bev/raw": Image,
        "/aqr_perception/weights/bev/grid": OccupancyGrid,
        **{f"/aqr_perception/weights/{name}/image": Image for name in CAMERAS},
        **{f"/aqr_perception/weights/{name}/raw": Image for name in CAMERAS},
    }
    heard = {topic: vehicle.listen(kind, topic) for topic, kind in topics.items()}
    # A listener is discovered a moment after it subscribes.
    for _ in range(6):
        vehicle.next_frame()
        found = vehicle.drive()
        if all(heard.values()):
            break
    vehicle.wait_for(lambda: all(heard.values()), f"all of {sorted(topics)}")
    # Markers that no newer frame has replaced are deleted after their lifetime.
    markers = [message.markers for message in heard["/aqr_perception/markers"] if len(message.markers) > 1][-1]
    assert markers[0].action == Marker.DELETEALL and len(markers) == 1 + 3 * len(found.detections)
    assert len(heard["/aqr_perception/detections_3d"][-1].detections) == len(found.detections)
    timing = heard["/aqr_perception/timing"][-1]
    assert {"assemble", "image", "points", "decoder", "publish"} <= set(timing.stages)
    assert 0 < sum(timing.milliseconds) <= timing.total_milliseconds * 1.01
    for topic, messages in heard.items():
        if topic.endswith("/raw"):
            values = np.frombuffer(array.array("B", messages[-1].data), dtype="<f4")
            assert messages[-1].encoding == "32FC1" and values.min() >= 0 and values.max() <= 1.5 and values.any()
    assert {value for value in heard["/aqr_perception/weights/bev/grid"][-1].data} <= set(range(-1, 101))
    picture = heard["/aqr_perception/weights/front/image"][-1]
    assert picture.encoding == "bgr8" and len(picture.data) == picture.step * picture.height


@pytest.mark.skipif(AUTOWARE is None, reason="needs the message package autoware_perception_msgs")
def test_autowares_objects_are_the_detections(vehicle: Vehicle) -> None:
    heard = vehicle.listen(AUTOWARE.DetectedObjects, "/aqr_perception/objects")
    for _ in range(6):
        vehicle.next_frame()
        found = vehicle.drive()
        if heard:
            break
    vehicle.wait_for(lambda: bool(heard) and heard[-1].header == found.header, "objects of the last frame")
    assert heard[-1].header.frame_id == "base_link" and found.detections
    scores = [found.score for found in found.detections]
    assert [found.existence_probability for found in heard[-1].objects] == pytest.approx(scores)
    for one, detection in zip(heard[-1].objects, found.detections, strict=True):
        assert one.kinematics.pose_with_covariance.pose == detection.pose
        twist, velocity = one.kinematics.twist_with_covariance.twist.linear, detection.velocity
        assert np.hypot(twist.x, twist.y) == pytest.approx(np.hypot(velocity.x, velocity.y), abs=1e-4)


def test_run_time_parameters_take_effect_on_the_next_frame(vehicle: Vehicle) -> None:
    assert vehicle.set_parameters(max_detections=7, weights__source="attention").successful
    vehicle.next_frame()
    found = vehicle.drive()
    assert len(found.detections) == 7 and found.weights_source == "attention"
    assert vehicle.set_parameters(use_lidar=False, camera__front__enabled=False).successful
    drive_until(vehicle, {name: name not in ("lidar", "front") for name in EVERY_SENSOR})
    restored = {"use_lidar": True, "camera__front__enabled": True, "max_detections": 300, "weights__source": "auto"}
    assert vehicle.set_parameters(**restored).successful
    drive_until(vehicle, EVERY_SENSOR)


def numbers(found: FusedDetectionArray) -> np.ndarray:
    """Return score, centre, width and weights of each detection."""
    return np.array(
        [
            (one.score, one.pose.position.x, one.pose.position.y, one.size.y, one.lidar_weight, *one.camera_weights)
            for one in found.detections
        ]
    )


def test_pipelining_may_be_turned_on_and_changes_neither_detections_nor_their_order(vehicle: Vehicle) -> None:
    def cloud(index: int):
        points = np.random.default_rng(index).uniform((-40, -40, -2), (40, 40, 1), (4000, 3)).astype(np.float32)
        return point_cloud2.create_cloud_xyz32(vehicle.header("lidar"), points)

    timings = vehicle.listen(FrameTiming, "/aqr_perception/timing")
    expected = []
    for index in range(2):
        vehicle.next_frame()
        found = vehicle.drive(cloud=cloud(index))
        while used(found) != EVERY_SENSOR:
            vehicle.next_frame()
            found = vehicle.drive(cloud=cloud(index))
        expected.append(numbers(found))
    assert not np.array_equal(*expected)

    def burst() -> list[FusedDetectionArray]:
        """Send frames faster than the node is; return what it answers, up to the last frame."""
        before, indices = len(vehicle.arrays), {}
        for index in range(5):
            vehicle.next_frame()
            indices[vehicle.stamp_ns] = index % 2
            vehicle.send(cloud=cloud(index % 2))
            time.sleep(0.1)
        vehicle.drive(cloud=cloud(1))
        found = vehicle.arrays[before:]
        stamps = [stamp_to_ns(one.header.stamp) for one in found]
        assert stamps == sorted(set(stamps)) and len(stamps) >= 2
        complete = [one for one in found if used(one) == EVERY_SENSOR]
        for one in complete:
            index = indices.get(stamp_to_ns(one.header.stamp), 1)
            np.testing.assert_array_equal(numbers(one), expected[index])
        return complete

    try:
        assert vehicle.set_parameters(pipelining="on").successful
        assert burst()
        assert timings and "wait" in timings[-1].stages
        vehicle.stamp_ns -= 600_000_000_000  # a recording starts over
        drive_until(vehicle, EVERY_SENSOR)
        assert burst()
    finally:
        assert vehicle.set_parameters(pipelining="off").successful
    drive_until(vehicle, EVERY_SENSOR)
    vehicle.wait_for(lambda: "wait" not in timings[-1].stages, "a frame without pipelining")
    assert not vehicle.set_parameters(pipelining="both").successful
    assert vehicle.set_parameters(pipelining="auto").successful


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"aqr__router_bev_window": 4}, "odd"),
        ({"score_threshold": 1.5}, "score_threshold"),
        ({"aqr__mode": "loud"}, "aqr.mode"),
        ({"model__preset": "cmt_huge"}, "aqr_tiny"),
        ({"model__checkpoint": "/nowhere.pth"}, "/nowhere.pth"),
        ({"model__device": "cuda:99"}, "cuda:99"),
        ({"lidar_topic": "/other"}, "read-only"),
    ],
)
def test_wrong_values_are_refused_with_a_reason_and_change_nothing(vehicle: Vehicle, wrong: dict, reason: str) -> None:
    result = vehicle.set_parameters(max_detections=3, **wrong)
    assert not result.successful and reason in result.reason
    vehicle.next_frame()
    assert len(vehicle.drive().detections) > 3


def listen_to_model_status(vehicle: Vehicle) -> Callable[[], str]:
    """Return a function that gives the latest message of the model's status in /diagnostics."""
    diagnostics = vehicle.listen(DiagnosticArray, "/diagnostics")

    def latest() -> str:
        statuses = diagnostics[-1].status if diagnostics else []
        return next((status.message for status in statuses if status.name.endswith(": model")), "")

    return latest


def test_a_model_is_replaced_while_frames_continue_and_a_broken_one_changes_nothing(vehicle: Vehicle, tmp_path) -> None:
    model_status = listen_to_model_status(vehicle)
    own = tmp_path / "my_model.yaml"
    values = yaml.safe_load((preset_directory() / "aqr_tiny.yaml").read_text())
    values["decoder"] |= {"queries": 40, "proposals": {"bev": 20, "image": 10}}
    own.write_text(yaml.safe_dump(values))
    assert load_preset(str(own)).decoder.queries == 40
    assert vehicle.set_parameters(model__preset=str(own)).successful
    vehicle.next_frame()
    vehicle.drive()
    vehicle.wait_for(lambda: "my_model" in model_status(), "the new model in /diagnostics")
    drive_until(vehicle, EVERY_SENSOR)

    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no checkpoint")
    assert vehicle.set_parameters(model__checkpoint=str(broken)).successful
    vehicle.wait_for(lambda: "could not be loaded" in model_status(), "the failure in /diagnostics")
    vehicle.wait_for(lambda: any("keeps running" in warning for warning in vehicle.warnings), "the failure in the log")
    drive_until(vehicle, EVERY_SENSOR)
    assert vehicle.set_parameters(model__preset="aqr_tiny").successful
    vehicle.wait_for(lambda: model_status().startswith("aqr_tiny"), "the first model in /diagnostics")


def test_a_model_of_own_classes_brings_its_score_thresholds(vehicle: Vehicle, tmp_path: Path) -> None:
    def drive_until_classes(expected: Callable[[set[str]], bool]) -> None:
        for _ in range(100):
            vehicle.next_frame()
            names = {detection.class_name for detection in vehicle.drive().detections}
            if expected(names):
                return
        raise AssertionError(f"found {names}; warnings: {vehicle.warnings[-3:]}")

    own = write_preset(tmp_path, classes=("car", "forklift"))
    assert not vehicle.set_parameters(class_score_thresholds__forklift=1.0).successful
    assert vehicle.set_parameters(model__preset=own, class_score_thresholds__bus=0.9).successful
    drive_until_classes(lambda names: names == {"car", "forklift"})
    assert vehicle.set_parameters(class_score_thresholds__forklift=1.0).successful
    drive_until_classes(lambda names: names == {"car"})
    restored = {"class_score_thresholds__forklift": -1.0, "class_score_thresholds__bus": -1.0}
    assert vehicle.set_parameters(model__preset="aqr_tiny", **restored).successful
    drive_until_classes(lambda names: len(names) > 2 and "forklift" not in names)


def test_fusion_and_camera_only_models_replace_each_other_while_frames_continue(vehicle: Vehicle) -> None:
    raw, model_status = vehicle.listen(Image, "/aqr_perception/weights/front/raw"), listen_to_model_status(vehicle)
    for preset in ("petr_tiny", "bevformer_mini", "aqr_tiny"):
        fused = preset == "aqr_tiny"
        assert vehicle.set_parameters(model__preset=preset).successful
        for _ in range(100):
            vehicle.next_frame()
            found = vehicle.drive()
            source = "router" if fused else "attention"
            # Two presets have the same sensors and source.
            if (used(found)["lidar"], found.weights_source) == (fused, source) and model_status().startswith(preset):
                break
        else:
            raise AssertionError(f"{preset} never ran; warnings: {vehicle.warnings[-3:]}")
        reason = {sensor.name: sensor.reason for sensor in found.sensors}["lidar"]
        assert reason == ("" if fused else "not used by the model")
        assert found.detections and set(found.camera_names) == set(CAMERAS)
        vehicle.wait_for(
            lambda stamp_ns=vehicle.stamp_ns: any(stamp_to_ns(image.header.stamp) == stamp_ns for image in raw),
            f"the front camera's weight map by {preset}",
        )
        values = np.frombuffer(array.array("B", raw[-1].data), dtype="<f4")
        assert values.min() >= 0 and values.max() <= 1.5


def test_a_deactivated_node_is_silent_until_it_is_activated_again(vehicle: Vehicle) -> None:
    assert vehicle.change_state(Transition.TRANSITION_DEACTIVATE)
    before = len(vehicle.arrays)
    vehicle.next_frame()
    vehicle.send()
    assert vehicle.change_state(Transition.TRANSITION_ACTIVATE)
    assert len(vehicle.arrays) == before
    drive_until(vehicle, EVERY_SENSOR)
