# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""RViz beside the demo shows the topics of the demo's node."""

import time
from pathlib import Path

import pytest
import yaml
from helpers.places import ROOT

from aqr_perception.demo.rviz import open_rviz, unavailable_reason


def test_rviz_gets_a_view_of_the_demos_parameters_and_ends_with_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, copied, pid = tmp_path / "rviz2", tmp_path / "copied.rviz", tmp_path / "pid"
    program.write_text(f'#!/bin/sh\ncp "$2" {copied}\necho $$ > {pid}\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DISPLAY", ":0")
    assert unavailable_reason() == ""
    with open_rviz(ROOT / "config" / "demo.yaml"):
        deadline = time.monotonic() + 10
        while not (pid.exists() and pid.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.02)
        view = yaml.safe_load(copied.read_text())["Visualization Manager"]
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    topics = {display["Topic"]["Value"] for display in view["Displays"] if "Topic" in display}
    assert {"/lidar/points", "/aqr_perception/weights/back_left/image", "/aqr_perception/weights/bev/grid"} <= topics
    assert view["Global Options"]["Fixed Frame"] == "base_link"


def test_without_rviz_or_a_display_the_demo_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "found no rviz2" in unavailable_reason()
    (tmp_path / "rviz2").write_text("#!/bin/sh\n")
    (tmp_path / "rviz2").chmod(0o755)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "found no display" in unavailable_reason()
