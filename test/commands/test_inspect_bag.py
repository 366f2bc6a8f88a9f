# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``inspect PATH``: what a path is, what is written, and the exit status."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml
from helpers.small_bag import write_small_bag

from aqr_perception.cli import main, with_subjects
from aqr_perception.data.rig_file import read_rig


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bag(tmp_path_factory.mktemp("bag") / "bag.mcap")


@pytest.mark.parametrize(
    ("given", "subject"),
    [
        (["drive.mcap"], "bag"),
        (["folder"], "bag"),
        (["--json", "report.json", "drive.db3"], "bag"),
        (["epoch_20.pth"], "checkpoint"),
        (["--json", "report.json", "weights.safetensors"], "checkpoint"),
        (["--live", "--seconds", "3"], "live"),
        (["--seconds", "3", "--live"], "live"),
        (["calibration", "drive.mcap"], "calibration"),
        (["checkpoint", "drive.mcap"], "checkpoint"),
    ],
)
def test_what_a_path_is_need_not_be_said(given: list[str], subject: str) -> None:
    completed = with_subjects(["inspect", *given])
    assert completed[:2] == ["inspect", subject] and "--live" not in completed
    assert with_subjects(completed) == completed


def test_every_output_is_written(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / f"out.{name}" for name in ("params", "html", "tf", "json")}
    options = [part for name, file in files.items() for part in (f"--{name}", str(file))]
    assert main(["inspect", str(bag), *options]) == 0
    printed = capsys.readouterr().out
    assert "Nothing is in the node's way" in printed and "base_link  moving, 20 Hz" in printed
    drawn = ElementTree.fromstring(files["tf"].read_text())
    words = "".join(drawn.itertext())
    assert drawn.tag.endswith("svg") and all(name in words for name in ("odom", "base_link", "lidar", "/lidar/points"))
    assert files["html"].read_text().count("<svg") == 1
    report = json.loads(files["json"].read_text())
    assert report["runs"] and report["findings"] == [] and report["used_cameras"] == ["back", "front"]
    written = yaml.safe_load(files["params"].read_text())["/**"]["ros__parameters"]
    assert written["lidar_topic"] == "/lidar/points" and written["fixed_frame"] == "odom"
    rig = read_rig(files["params"])
    assert [camera.name for camera in rig.cameras] == ["back", "front"], "the file serves recordings, too"


def test_an_existing_parameter_file_is_not_replaced(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    assert main(["inspect", str(bag), "--params", str(tmp_path / "mine.yaml")]) == 1
    said = capsys.readouterr()
    assert "existing file" in said.err and not said.out and (tmp_path / "mine.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["missing.mcap", "ros1.bag", "empty_folder"])
def test_what_is_no_bag_ends_in_one_sentence(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty_folder").mkdir()
    (tmp_path / "ros1.bag").write_bytes(b"#ROSBAG V2.0\n")
    assert main(["inspect", str(tmp_path / name)]) == 1
    said = capsys.readouterr().err
    assert name in said and "needed" in said and len(said.splitlines()) == 1


def test_without_ros_the_live_inspection_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rclpy", None)
    monkeypatch.delitem(sys.modules, "aqr_perception.inspection.live.listening", raising=False)
    assert main(["inspect", "--live"]) == 1
    said = capsys.readouterr().err
    assert "found no rclpy, needed ROS 2" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("limit", ["0", "-1", "nan"])
def test_a_limit_that_is_no_time_is_refused(bag: Path, limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bag), "--limit", limit]) == 1
    assert "--limit" in capsys.readouterr().err
