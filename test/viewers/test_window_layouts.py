# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Files for RViz and Foxglove: topics, names, and panels that fill the window."""

import itertools
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.places import ROOT

from aqr_perception.cli import main
from aqr_perception.viewers.camera_order import camera_rows
from aqr_perception.viewers.foxglove_layout import foxglove_layout
from aqr_perception.viewers.node_topics import NodeTopics, ViewError, node_topics
from aqr_perception.viewers.rviz_config import rviz_config

CONFIG = ROOT / "config"
RIGS: dict[str, dict[str, Any]] = {
    "six cameras and a LiDAR": {"output_frame": "base_link"},
    "several LiDARs, two cameras, tracks": {
        "lidar_topics": ["/left/points", "/right/points"],
        "cameras": ["near", "far"],
        "model_frame": "vehicle",
        "tracking.enabled": True,
    },
    "LiDAR alone": {"cameras": [""], "fixed_frame": "odom"},
    "one camera alone": {"lidar_topic": "", "cameras": ["front"], "base_frame": "car"},
    "eleven cameras": {"cameras": [f"c{number}" for number in range(11)], "output_frame": "car"},
}


@pytest.fixture(params=RIGS)
def topics(request: pytest.FixtureRequest) -> NodeTopics:
    return node_topics(RIGS[request.param], "/robot/aqr_perception")


class DockReader:
    """Reader of Qt's window state, after the description of QDockAreaLayoutInfo and QToolBarAreaLayout."""

    def __init__(self, state: bytes) -> None:
        self._state, self._at = state, 0
        self.names: list[str] = []

    def take(self, pattern: str) -> tuple[int, ...]:
        values = struct.unpack_from(">" + pattern, self._state, self._at)
        self._at += struct.calcsize(">" + pattern)
        return values

    def text(self) -> str:
        (length,) = self.take("i")
        self._at += length
        return self._state[self._at - length : self._at].decode("utf-16-be")

    def read(self) -> dict[int, tuple[int, int]]:
        """Return the size of each area; check that the parts of each group fill it."""
        assert self.take("iiB") == (0xFF, 0, 0xFD)
        (count,) = self.take("i")
        areas = {}
        for _ in range(count):
            number, width, height = self.take("iii")
            areas[number] = (width, height)
            self.group(width, height)
        self.centre = self.take("ii")
        assert self.take("4i") == (4, 4, 8, 8)
        assert self.take("Bii") == (0xFC, 1, 2) and self.take("i") == (1,)
        assert self.text() == "Tools"
        assert self.take("Biiii") == (1, 0, -1, 0, 0)
        assert self._at == len(self._state)
        return areas

    def group(self, width: int, height: int) -> None:
        marker, orientation, count = self.take("BBi")
        assert marker == 0xFC and orientation in (1, 2)
        extent = width if orientation == 1 else height
        place = 0
        for _ in range(count):
            (kind,) = self.take("B")
            if kind == 0xFB:
                self.names.append(self.text())
                assert self.take("B") == (1,)
            position, size, _low, _high = self.take("iiii")
            assert position == place and size > 0
            place += size
            if kind == 0xFC:
                self.group(*((size, height) if orientation == 1 else (width, size)))
        assert extent - count <= place <= extent


def rviz(topics: NodeTopics) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(rviz_config(topics))
    return content


def displays(topics: NodeTopics) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = rviz(topics)["Visualization Manager"]["Displays"]
    return shown


def test_rviz_shows_every_sensor_and_output_once(topics: NodeTopics) -> None:
    shown = [display["Topic"]["Value"] for display in displays(topics) if "Topic" in display]
    expected = [topics.output("markers"), topics.output("track_markers"), *topics.lidar_topics]
    expected += [topics.output(f"weights/{camera.name}/image") for camera in topics.cameras]
    if topics.lidar_topics:
        expected += [topics.output("weights/bev/image"), topics.output("weights/bev/grid")]
    assert sorted(shown) == sorted(expected)
    names = [display["Name"] for display in displays(topics)]
    assert len(set(names)) == len(names), "docks are found by name"
    (tracks,) = [display for display in displays(topics) if display["Name"].startswith("Tracks")]
    assert tracks["Enabled"] is topics.tracking


def test_every_dock_of_rviz_has_its_place_in_the_window(topics: NodeTopics) -> None:
    window = rviz(topics)["Window Geometry"]
    reader = DockReader(bytes.fromhex(window["QMainWindow State"]))
    areas = reader.read()
    pictures = [entry["Name"] for entry in displays(topics) if entry["Class"].endswith("/Image")]
    assert sorted(reader.names) == sorted([*pictures, "Displays", "Views", "Time"])
    sides = sum(areas.get(side, (0, 0))[0] for side in (0, 1))
    assert sides + reader.centre[0] == window["Width"] and reader.centre[0] >= 600
    assert {name for name, value in window.items() if value == {"collapsed": False}} == set(reader.names)
    assert window["Hide Left Dock"] is window["Hide Right Dock"] is False


def test_rvizs_fixed_frame_is_one_of_the_nodes(topics: NodeTopics) -> None:
    frame = rviz(topics)["Visualization Manager"]["Global Options"]["Fixed Frame"]
    assert frame in (topics.output_frame, topics.base_frame, topics.model_frame, topics.fixed_frame) and frame


def test_rviz_without_a_frame_in_the_parameters_is_refused_unless_one_is_named() -> None:
    topics = node_topics({})
    with pytest.raises(ViewError, match=r"found no output_frame.*--fixed-frame"):
        rviz_config(topics)
    options = yaml.safe_load(rviz_config(topics, "car"))["Visualization Manager"]["Global Options"]
    assert options["Fixed Frame"] == "car"


def panels_in(layout: Any) -> list[str]:
    if isinstance(layout, str):
        return [layout]
    assert layout["direction"] in ("row", "column") and 0 < layout["splitPercentage"] < 100
    return panels_in(layout["first"]) + panels_in(layout["second"])


def test_foxglove_shows_every_panel_once(topics: NodeTopics) -> None:
    content = json.loads(foxglove_layout(topics))
    assert set(content) == {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}
    shown = panels_in(content["layout"])
    assert sorted(shown) == sorted(content["configById"])
    kinds = {name.partition("!")[0] for name in shown}
    assert kinds <= {"3D", "Image", "Plot", "StateTransitions", "DiagnosticSummary"}


def test_foxglove_reads_the_nodes_topics(topics: NodeTopics) -> None:
    panels = json.loads(foxglove_layout(topics))["configById"]
    scene = panels["3D!scene"]
    assert {*topics.lidar_topics, topics.output("markers")} <= set(scene["topics"])
    assert scene["followTf"] == topics.vehicle_frame
    pictures = [panel["imageMode"]["imageTopic"] for name, panel in panels.items() if name.startswith("Image!")]
    cameras = [topics.output(f"weights/{camera.name}/image") for camera in topics.cameras]
    bev = [topics.output("weights/bev/image")] if topics.lidar_topics else []
    assert sorted(pictures) == sorted([*cameras, *bev])
    lines = [line["value"] for panel in panels.values() for line in panel.get("paths", ())]
    assert all(line.startswith(topics.node + "/") for line in lines)
    for field in ("lidar_weight", "camera_weight", "score"):
        assert topics.output(f"detections.detections[:].{field}") in lines
    sensors = [line for line in lines if line.endswith(".used")]
    assert len(sensors) == len(topics.cameras) + len(topics.lidar_topics)


def test_cameras_lie_on_the_screen_as_on_the_vehicle() -> None:
    names = ["front", "front_right", "front_left", "back", "back_left", "back_right"]
    rows = [["front_left", "front", "front_right"], ["back_left", "back", "back_right"]]
    for order in itertools.islice(itertools.permutations(names), 0, None, 97):
        assert camera_rows(order) == rows
    assert camera_rows(["c", "b", "a"]) == [["c", "b", "a"]], "unknown places keep the order"
    assert camera_rows([]) == []
    assert sum(map(len, camera_rows([f"c{number}" for number in range(11)]))) == 11


def test_the_shipped_views_are_those_of_the_shipped_parameters(tmp_path: Path) -> None:
    made = [tmp_path / name for name in ("aqr_perception.rviz", "foxglove.json")]
    arguments = ["layout", "--params", str(CONFIG / "nuscenes.yaml")]
    assert main([*arguments, "--rviz", str(made[0]), "--foxglove", str(made[1])]) == 0
    for path in made:
        assert path.read_text() == (CONFIG / path.name).read_text(), f"write config/{path.name} again with: layout"


def test_layout_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layout", "--params", str(CONFIG / "nuscenes.yaml")]) == 1
    assert "found neither --rviz nor --foxglove" in capsys.readouterr().err
    assert main(["layout", "--params", str(tmp_path / "no.yaml"), "--rviz", str(tmp_path / "a.rviz")]) == 1
    assert "no.yaml: found no such file" in capsys.readouterr().err
