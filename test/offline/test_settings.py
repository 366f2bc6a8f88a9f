# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameters of a processed bag: from a file, from arguments, or from the topics of the bag."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.processed_drive import FRAMES, Drive

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader import BagReader
from aqr_perception.bags.writer import BagWriter
from aqr_perception.cli import main
from aqr_perception.models.config.yaml_file import YamlFileError
from aqr_perception.nodes.parameters.parameter_files import values_for
from aqr_perception.offline.offline_error import OfflineError
from aqr_perception.offline.ros_packages import require_ros
from aqr_perception.offline.settings import GivenParameters, settings_for, shown_parameters
from aqr_perception.options import OptionError


def written(folder: Path, content: object) -> Path:
    path = folder / "parameters.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_sections_for_the_node_are_joined_and_others_ignored(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {
            "/**": {"ros__parameters": {"score_threshold": 0.1, "camera": {"front": {"offset": 0.02}}}},
            "robot": {"aqr_perception": {"ros__parameters": {"camera.front.offset": 0.03}}},
            "other": {"ros__parameters": {"score_threshold": 0.9}},
        },
    )
    assert values_for(file, "/aqr_perception") == {"score_threshold": 0.1, "camera.front.offset": 0.02}
    assert values_for(file, "/robot/aqr_perception")["camera.front.offset"] == 0.03


def test_a_file_for_other_nodes_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, {"other": {"ros__parameters": {"score_threshold": 0.9}}})
    with pytest.raises(YamlFileError, match="found sections /other, needed one for /aqr_perception"):
        GivenParameters(file).from_file()


def test_wrong_values_are_refused_and_unknown_names_said() -> None:
    with pytest.raises(OptionError, match="score_threshold is 7"):
        settings_for(GivenParameters(None, {"score_threshold": 7}), None)
    remarks = settings_for(GivenParameters(None, {"score_treshold": 0.5}), None).remarks
    assert any("did you mean score_threshold?" in remark for remark in remarks)


def test_another_model_takes_its_own_weights_and_an_exponent_is_a_number(tmp_path: Path) -> None:
    file = written(tmp_path, {"/**": {"ros__parameters": {"model.checkpoint": "/of/another.pth"}}})
    file.write_text(file.read_text() + "    score_threshold: 1e-3\n")
    chosen = settings_for(GivenParameters(file, {"model.preset": "aqr_tiny"}), None).settings
    assert (chosen.model.preset, chosen.model.checkpoint) == ("aqr_tiny", "")
    assert chosen.detection.score_threshold == 0.001


def test_relative_topics_lie_in_the_namespace() -> None:
    given = GivenParameters(None, {"lidar_topic": "points", "cameras": [""]}, "robot")
    assert settings_for(given, None).settings.assembler.lidar_topic == "/robot/points"
    assert given.node == "/robot/aqr_perception"


def test_without_a_file_the_topics_of_the_bag_are_used(drive: Drive, tmp_path: Path) -> None:
    with BagReader(drive.bag) as bag:
        shown = shown_parameters(bag)
    assert shown["lidar_topic"] == "/lidar/points" and shown["fixed_frame"] == "odom"
    assert len(shown["cameras"]) == 6 and shown["camera.front.compressed"] is True
    values = yaml.safe_load(drive.parameters.read_text())["/**"]["ros__parameters"]["model"]
    arguments = ["process", str(drive.bag), "--output", str(tmp_path), "--model", values["preset"]]
    assert main([*arguments, "--checkpoint", values["checkpoint"], "--device", "cpu"]) == 0
    lines = (tmp_path / "drive" / "detections.jsonl").read_text().splitlines()
    assert len(lines) == FRAMES and json.loads(lines[0])["frame_id"] == "lidar"


def test_topics_that_leave_a_choice_name_the_command_that_helps(drive: Drive, tmp_path: Path) -> None:
    path = tmp_path / "two.mcap"
    with BagReader(drive.bag) as bag, BagWriter(path) as writer:
        for message in bag.messages(["/lidar/points"]):
            for topic in ("/left/points", "/right/points"):
                writer.write_raw(topic, message.type, message.data, message.stamp_ns)
    with BagReader(path) as bag, pytest.raises(BagError, match=r"/left/points, /right/points.*inspect BAG"):
        settings_for(GivenParameters(), bag)


def test_a_missing_ros_package_is_named_in_one_sentence() -> None:
    with pytest.raises(OfflineError, match="found no Python package no_such_ros") as caught:
        require_ros(["rclpy", "no_such_ros"])
    assert "\n" not in str(caught.value)
    require_ros()
