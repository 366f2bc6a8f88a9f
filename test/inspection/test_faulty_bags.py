# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Faults of a bag are named with what to do, and end in a report or in one sentence."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_bag import (
    HEIGHT,
    PERIOD_NS,
    START_NS,
    Change,
    Entry,
    bag_messages,
    changing,
    cloud_records,
    restamped,
    without,
    write_small_bag,
)  # fmt: skip

from aqr_perception.bags import messages
from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import stamp_to_ns
from aqr_perception.bags.writer import BagWriter
from aqr_perception.cli import main
from aqr_perception.inspection.assessment import Inspection, inspect_observations
from aqr_perception.inspection.bag_reading import read_bag
from aqr_perception.inspection.observations import Observations, Topic
from aqr_perception.inspection.reports.json_report import json_report
from aqr_perception.inspection.reports.report_page import report_page
from aqr_perception.inspection.reports.starting_parameters import StartingParametersError, starting_parameters
from aqr_perception.inspection.reports.text_report import text_report
from aqr_perception.models.config.presets import load_preset

PLACEMENT = load_preset("aqr_tiny").model_frame


def inspected(path: Path, limit: float | None = None) -> Inspection:
    """Inspect a bag; every form of the report is written."""
    read = read_bag(path, limit)
    return reported(inspect_observations(read.observations, path.name, PLACEMENT, read, read.problems))


def reported(found: Inspection) -> Inspection:
    assert list(text_report(found)) and "</html>" in report_page(found)
    json.dumps(json_report(found), allow_nan=False)
    return found


def changed(change: Change) -> Inspection:
    """Inspect the messages of the small bag after a change."""
    recorded = bag_messages(change)
    counts = Counter((message.topic, message.type) for message in recorded)
    heard = Observations(tuple(Topic(*key, count) for key, count in counts.items()))
    for message in recorded:
        heard.add(message)
    return reported(inspect_observations(heard, "bag.mcap", PLACEMENT))


def problems(found: Inspection) -> set[tuple[str, str, str]]:
    return {(one.severity, one.subject, one.problem) for one in found.findings}


def test_a_good_bag_has_no_findings() -> None:
    found = changed(lambda entry: entry)
    assert not found.findings and found.runs
    assert found.frames.height == pytest.approx(HEIGHT, abs=0.05)
    assert (found.frames.fixed, found.frames.output, found.frames.base) == ("odom", "base_link", "base_link")
    assert found.frames.heading == pytest.approx(0, abs=1)


# --- Stamps --------------------------------------------------------------------------------------------------------


def shifted(topic: str, shift: Callable[[int], int]) -> Change:
    """Return a change that shifts the stamps of a topic by nanoseconds that depend on the stamp."""

    def change(entry: Entry) -> Entry:
        recorded, name, message = entry
        if name == topic:
            restamped(message, shift(stamp_to_ns(message.header.stamp)))
        return recorded, name, message

    return change


@pytest.mark.parametrize("topic", ["/back/image_raw", "/lidar/points"])
@pytest.mark.parametrize("seconds", [-1_600_000_000, -5, 40])
def test_a_sensor_of_another_time_is_named(topic: str, seconds: int) -> None:
    found = changed(shifted(topic, lambda stamp: seconds * 10**9))
    (clock,) = [one for one in found.findings if one.subject == topic and one.problem == "clock of another time"]
    assert clock.severity == "loses" and "clock_policy" in clock.remedy
    assert found.offsets[topic].latency == pytest.approx(-seconds, abs=0.1)


def test_missing_and_constant_stamps_are_named() -> None:
    found = changed(shifted("/front/image_raw", lambda stamp: -stamp))
    assert ("loses", "/front/image_raw", "no stamp") in problems(found)
    found = changed(shifted("/front/image_raw", lambda stamp: START_NS - stamp))
    assert ("loses", "/front/image_raw", "constant stamp") in problems(found)


def test_stamps_that_go_back_are_counted() -> None:
    odd = START_NS + 5 * PERIOD_NS
    found = changed(shifted("/back/image_raw", lambda stamp: -150_000_000 if stamp == odd else 0))
    assert ("odd", "/back/image_raw", "stamps go back") in problems(found)
    assert found.offsets["/back/image_raw"].backwards == 1


def test_recording_times_of_another_clock_are_named_once() -> None:
    found = changed(lambda entry: (entry[0] + 3600 * 10**9, *entry[1:]))
    assert problems(found) == {("odd", "recording", "times of recording of another clock")}


def test_stagger_is_measured_against_the_lidar() -> None:
    found = changed(shifted("/back/image_raw", lambda stamp: -30_000_000))
    assert found.offsets["/back/image_raw"].to_lidar == pytest.approx(-0.03, abs=1e-6)
    assert found.offsets["/front/image_raw"].to_lidar == 0


def test_slow_cameras_get_a_longer_age() -> None:
    def every_sixth(entry: Entry) -> Entry | None:
        index = (entry[0] - START_NS) // PERIOD_NS
        return None if entry[1] == "/back/image_raw" and index % 6 else entry

    found = changed(every_sixth)
    assert 0.37 <= found.times["max_camera_age"].seconds <= 0.65
    assert "/back/image_raw" in found.times["max_camera_age"].reason


def test_late_messages_get_longer_waits() -> None:
    def late(entry: Entry) -> Entry:
        recorded, topic, message = entry
        return recorded + {"/back/image_raw": 70_000_000, "/tf": 300_000_000}.get(topic, 0), topic, message

    found = changed(late)
    assert 0.07 <= found.times["camera_wait"].seconds <= 0.1
    assert 0.3 <= found.times["transform_wait"].seconds <= 0.45


# --- Cameras -------------------------------------------------------------------------------------------------------


def zero_k(info: Any) -> None:
    info.k = np.zeros(9)


def unknown_lens(info: Any) -> None:
    info.distortion_model, info.d = "my_lens", np.ones(3)
    info.p = np.zeros(12)


def other_size(info: Any) -> None:
    info.width, info.height = 128, 96


def other_shape(info: Any) -> None:
    info.height = 20


@pytest.mark.parametrize(
    ("edit", "severity", "subject", "problem"),
    [
        (zero_k, "odd", "/front/camera_info", "K and D are not usable"),
        (unknown_lens, "loses", "/front/camera_info", "unknown distortion"),
        (other_size, "odd", "/front/camera_info", "camera_info of another size"),
        (other_shape, "loses", "/front/image_raw", "wrong image size"),
    ],
)
def test_odd_calibrations_are_named(edit: Callable[[Any], None], severity: str, subject: str, problem: str) -> None:
    found = changed(changing("/front/camera_info", edit))
    assert (severity, subject, problem) in problems(found)
    assert [one.name for one in found.cameras] == (["back"] if severity == "loses" else ["back", "front"])
    if edit is zero_k:
        assert found.choice.cameras[1].camera.rectified


def test_a_calibration_that_changes_is_named() -> None:
    def drift(info: Any) -> None:
        info.k = info.k + (stamp_to_ns(info.header.stamp) > START_NS + 6 * PERIOD_NS)

    found = changed(changing("/front/camera_info", drift))
    assert ("odd", "/front/camera_info", "calibration changes") in problems(found)


def test_a_camera_without_calibration_is_left_out_of_the_parameters() -> None:
    found = changed(without("/front/camera_info"))
    assert ("loses", "/front/image_raw", "no camera_info") in problems(found)
    text = starting_parameters(found, "aqr_tiny")
    assert "cameras: [back]" in text and "/front/image_raw is left out" in text


def test_black_and_frozen_pictures_are_named() -> None:
    def black(image: Any) -> None:
        image.data = np.zeros_like(image.data)

    found = changed(changing("/front/image_raw", black))
    assert {("odd", "/front/image_raw", name) for name in ("black picture", "frozen picture")} <= problems(found)


def test_streams_of_one_camera_count_once() -> None:
    def twice(entry: Entry) -> list[Entry]:
        recorded, topic, message = entry
        return [entry, (recorded, "/front/image_color", message)] if topic == "/front/image_raw" else [entry]

    found = changed(twice)
    assert [one.camera.image.name for one in found.cameras] == ["/back/image_raw", "/front/image_raw"]
    assert any("/front/image_color passed over" in note for note in found.choice.notes)


def test_depth_pictures_are_no_cameras() -> None:
    def depth(image: Any) -> None:
        image.encoding, image.data = "32FC1", np.zeros(64 * 48 * 4, np.uint8)
        image.step = 64 * 4

    found = changed(changing("/front/image_raw", depth))
    assert [one.name for one in found.cameras] == ["back"]


# --- Point clouds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top", "scale"), [(1.0, 255.0), (200.0, 1.0), (4000.0, 0.064), (65535.0, 0.0039)])
def test_the_scale_of_intensities_is_found(top: float, scale: float) -> None:
    def other_intensity(entry: Entry) -> Entry:
        recorded, topic, message = entry
        if topic == "/lidar/points":
            message = messages.cloud(stamp_to_ns(message.header.stamp), "lidar", cloud_records(top))
        return recorded, topic, message

    found = changed(other_intensity)
    assert found.clouds["/lidar/points"].scale == pytest.approx(scale, rel=0.02)
    assert not found.findings, "the node has no doubt about the scaled intensities"


def test_a_broken_point_layout_is_named() -> None:
    def outside(cloud: Any) -> None:
        cloud.fields[2].offset = 99

    found = changed(changing("/lidar/points", outside))
    assert ("loses", "/lidar/points", "broken point layout") in problems(found)
    assert found.runs and not found.lidars and len(found.cameras) == 2
    text = starting_parameters(found, "aqr_tiny")
    assert "lidar_topic: ''" in text and "model_frame: base_link" in text


def test_several_lidars_are_joined_and_derived_clouds_passed_over() -> None:
    def more(entry: Entry) -> list[Entry]:
        recorded, topic, message = entry
        if topic == "/tf_static":
            twin = messages.transform(START_NS, "base_link", "lidar_rear", np.eye(4))
            return [(recorded, topic, messages.tf([*message.transforms, twin]))]
        if topic != "/lidar/points":
            return [entry]
        stamp = stamp_to_ns(message.header.stamp)
        rear = cloud_records()
        rear["x"] = -abs(rear["x"])
        filtered = messages.cloud(stamp, "lidar", cloud_records()[:1000])
        second = messages.cloud(stamp, "lidar_rear", rear)
        return [entry, (recorded, "/rear/points", second), (recorded, "/lidar/points_filtered", filtered)]

    found = changed(more)
    assert [topic.name for topic in found.lidars] == ["/lidar/points", "/rear/points"]
    text = starting_parameters(found, "aqr_tiny")
    assert "lidar_topics: [/lidar/points, /rear/points]" in text and "/lidar/points_filtered passed over" in text


def test_a_lidar_without_frame_is_left_out() -> None:
    def unframed(cloud: Any) -> None:
        cloud.header.frame_id = ""

    found = changed(changing("/lidar/points", unframed))
    assert ("loses", "/lidar/points", "empty frame_id") in problems(found)
    assert found.runs and not found.lidars and len(found.cameras) == 2


def test_radars_are_no_lidars() -> None:
    def as_radar(entry: Entry) -> Entry:
        recorded, topic, message = entry
        if topic != "/lidar/points":
            return entry
        names = {"names": ["x", "y", "z", "rcs"], "formats": ["<f4"] * 4}
        records = cloud_records().view(np.dtype(names))
        return recorded, "/radar_front/scan", messages.cloud(stamp_to_ns(message.header.stamp), "lidar", records)

    found = changed(as_radar)
    assert not found.choice.lidars and any("'rcs'" in note for note in found.choice.notes)


# --- TF ------------------------------------------------------------------------------------------------------------


def test_without_tf_the_node_runs_the_lidar_alone() -> None:
    found = changed(without("/tf", "/tf_static"))
    assert ("loses", "/front/image_raw", "no transform") in problems(found)
    assert [topic.name for topic in found.lidars] == ["/lidar/points"] and not found.cameras
    assert "cameras: ['']" in starting_parameters(found, "aqr_tiny")


def test_cameras_without_any_tf_cannot_run() -> None:
    found = changed(without("/tf", "/tf_static", "/lidar/points"))
    assert ("stops", "/tf", "no model frame") in problems(found) and not found.runs
    with pytest.raises(StartingParametersError, match="no model frame"):
        starting_parameters(found, "aqr_tiny")


def test_trees_that_are_not_connected_are_named_and_drawn() -> None:
    def elsewhere(tf: Any) -> None:
        tf.transforms[1].header.frame_id = "another_base"

    found = changed(changing("/tf_static", elsewhere))
    (apart,) = [one for one in found.findings if one.problem == "no transform"]
    assert apart.subject == "/front/image_raw" and "'another_base'" in apart.found and "'odom'" in apart.found
    assert "2 trees that are not connected" in report_page(found)


def test_broken_transforms_and_loops_end_in_a_report() -> None:
    def break_some(tf: Any) -> None:
        tf.transforms[2].transform.translation.x = float("nan")
        tf.transforms.append(messages.transform(START_NS, "a", "b", np.eye(4)))
        tf.transforms.append(messages.transform(START_NS, "b", "a", np.eye(4)))

    found = changed(changing("/tf_static", break_some))
    assert {"broken transforms of 'back'", "loop of transforms"} <= {one.problem for one in found.findings}


def test_a_gap_in_the_motion_is_named() -> None:
    def gap(entry: Entry) -> Entry | None:
        index = (entry[0] - START_NS) / PERIOD_NS
        return None if entry[1] == "/tf" and 2 < index < 9 else entry

    found = changed(gap)
    assert ("odd", "/tf", "gap in the motion of 'base_link'") in problems(found)


def test_a_model_frame_of_other_axes_gets_a_command() -> None:
    def turned(tf: Any) -> None:
        rotation = tf.transforms[0].transform.rotation
        rotation.z, rotation.w = -np.sqrt(0.5), np.sqrt(0.5)  # the LiDAR's y axis points forward

    found = changed(changing("/tf_static", turned))
    assert found.frames.heading == pytest.approx(90, abs=1)
    assert "static_transform_publisher" in found.frames.static_transform
    assert ("odd", "lidar", "model frame unlike the training's") in problems(found)


@pytest.mark.parametrize(("name", "known"), [("front", True), ("front_left", False)])
def test_a_standing_vehicle_looks_ahead_by_its_front_camera_only(name: str, known: bool) -> None:
    def standing(entry: Entry) -> Entry | None:
        recorded, topic, message = entry
        return None if topic == "/tf" else (recorded, topic.replace("/front/", f"/{name}/"), message)

    found = changed(standing)
    assert found.frames.fixed == "" and np.isfinite(found.frames.heading) == known
    assert not known or found.frames.heading == pytest.approx(0, abs=1)


# --- Files ---------------------------------------------------------------------------------------------------------


def test_a_bag_without_sensors_is_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_small_bag(tmp_path / "bag.mcap", without("/lidar/points", "/front/image_raw", "/back/image_raw"))
    assert main(["inspect", str(bag)]) == 2
    assert "The node cannot run it" in capsys.readouterr().out
    assert main(["inspect", str(bag), "--params", str(tmp_path / "node.yaml")]) == 1
    assert "no usable sensor" in capsys.readouterr().err and not (tmp_path / "node.yaml").exists()


def test_empty_topics_and_unknown_types_end_in_a_report(tmp_path: Path) -> None:
    path = tmp_path / "bag.mcap"
    with BagWriter(path) as writer:
        writer.write("/chatter", messages.make("std_msgs/msg/String", data="hello"), START_NS)
    found = inspected(path)
    assert not found.runs and found.heard.topics["/chatter"].count == 1


@pytest.mark.parametrize("name", ["bag.mcap", "bag.db3", "folder"])
@pytest.mark.parametrize("share", [0.0, 0.7])
def test_truncated_files_end_in_one_sentence_or_a_report(
    tmp_path: Path, name: str, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_small_bag(tmp_path / name)
    file = path if path.is_file() else next(path.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert main(["inspect", "bag", str(path)]) in (0, 1, 2)
    said = capsys.readouterr()
    assert name in said.err or "broken bag" in said.out
    assert len(said.err.splitlines()) <= 1


def test_a_folder_without_metadata_is_read_and_named(tmp_path: Path) -> None:
    path = write_small_bag(tmp_path / "folder")
    (path / "metadata.yaml").unlink()
    found = inspected(path)
    assert ("odd", str(path), "no metadata.yaml") in problems(found) and len(found.cameras) == 2


@pytest.mark.parametrize("seed", range(5))
def test_random_damage_ends_in_one_sentence_or_a_report(tmp_path: Path, seed: int) -> None:
    path = write_small_bag(tmp_path / "bag.mcap")
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(content), 1 if seed < 3 else 40):
        content[place] = int(rng.integers(256))
    path.write_bytes(bytes(content))
    try:
        inspected(path)
    except BagError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("seed", range(5))
def test_random_damage_of_messages_ends_in_a_report(seed: int) -> None:
    """Damage inside messages reaches the decoders."""
    rng = np.random.default_rng(seed)
    heard = Observations()
    for message in bag_messages():
        data = bytearray(message.data)
        for place in rng.integers(4, min(len(data), 400), 3):
            data[place] = int(rng.integers(256))
        heard.add(replace(message, data=bytes(data)))
    reported(inspect_observations(heard, "bag.mcap", PLACEMENT))


@pytest.mark.parametrize("name", ["bag.mcap", "bag.db3", "folder"])
def test_a_part_of_a_bag_is_sampled_and_said(tmp_path: Path, name: str) -> None:
    found = inspected(write_small_bag(tmp_path / name), limit=0.5)
    assert found.rates["/lidar/points"].messages == 12, "the index has the times of all messages"
    assert "0.5 s" in found.sampling and found.heard.topics["/lidar/points"].count == 12
    assert 4 <= len(found.heard.topics["/lidar/points"].recorded) <= 5 and not found.findings
