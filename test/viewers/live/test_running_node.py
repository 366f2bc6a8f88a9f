# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Views of a running node over DDS: frames for Rerun, and topics of RViz's and Foxglove's files."""

import importlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from helpers.faulty_sensors import JPEG, RAW, TOPICS, FaultySensors, running_sensors

from aqr_perception.cli import main
from aqr_perception.viewers.foxglove_layout import foxglove_layout
from aqr_perception.viewers.live.running_node import live_frames
from aqr_perception.viewers.node_topics import ViewError, node_topics
from aqr_perception.viewers.rviz_config import rviz_config
from aqr_perception.viewers.shown_frame import ShownFrame

KINDS = {
    "Map": "nav_msgs/msg/OccupancyGrid",
    "PointCloud2": "sensor_msgs/msg/PointCloud2",
    "MarkerArray": "visualization_msgs/msg/MarkerArray",
    "Image": "sensor_msgs/msg/Image",
}
"""Message types of RViz's displays."""
NODE = node_topics({"cameras": [RAW, JPEG], "lidar_topic": TOPICS["lidar"], "output_frame": "base_link"})


@pytest.fixture(scope="module")
def sensors() -> Iterator[FaultySensors]:
    with running_sensors() as sensors:
        assert sensors.run(20, sensors.is_healthy)
        yield sensors


def shown(sensors: FaultySensors, **arguments: Any) -> list[ShownFrame]:
    """Return the frames that a viewer in another thread shows while the sensors run."""
    frames: list[ShownFrame] = []
    failures: list[Exception] = []

    def view() -> None:
        try:
            frames.extend(live_frames(**arguments))
        except ViewError as error:
            failures.append(error)

    thread = threading.Thread(target=view, daemon=True)
    thread.start()
    assert sensors.run(30, lambda: not thread.is_alive()), "the viewer ends by itself"
    if failures:
        raise failures[0]
    return frames


def test_a_running_node_is_asked_for_its_topics_and_shown_frame_by_frame(sensors: FaultySensors) -> None:
    frames = shown(sensors, count=6)
    assert len(frames) == 6 and sorted({frame.stamp_ns for frame in frames}) == [frame.stamp_ns for frame in frames]
    last = frames[-1]
    assert last.frame_id == "base_link" and last.unused == {}
    np.testing.assert_allclose(last.detections.boxes[0, :3], [10, 0, 0], atol=0.1)
    assert last.points is not None and len(last.points) == 50
    assert set(last.cameras) == {RAW, JPEG}
    front = last.cameras[RAW]
    assert front.intrinsics is not None and front.intrinsics[0, 0] == 90 and front.to_boxes is not None


def test_the_command_writes_a_recording_of_the_running_node(sensors: FaultySensors, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="needs rerun-sdk: pip install 'aqr_perception[rerun]'")
    from rerun.chunk import RrdReader

    recording, status = tmp_path / "live.rrd", list[int]()
    arguments = ["view", "live", "--rerun", str(recording), "--frames", "3"]
    thread = threading.Thread(target=lambda: status.append(main(arguments)), daemon=True)
    thread.start()
    assert sensors.run(30, lambda: not thread.is_alive()) and status == [0]
    chunks = RrdReader(str(recording)).stream().to_chunks()
    assert sum(chunk.num_rows for chunk in chunks if chunk.entity_path == "/world/vehicle/boxes") == 3


def test_a_node_that_does_not_run_is_named(sensors: FaultySensors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aqr_perception.viewers.live.running_node._DISCOVERY_SECONDS", 0.5)
    with pytest.raises(ViewError, match=r"found .* within .*, needed /nobody/detections; start the node"):
        shown(sensors, node="/nobody")


def test_every_topic_in_rvizs_view_has_the_type_that_its_display_needs(sensors: FaultySensors) -> None:
    running = dict(sensors.node.get_topic_names_and_types())
    shown = yaml.safe_load(rviz_config(NODE))["Visualization Manager"]["Displays"]
    with_topics = [display for display in shown if "Topic" in display]
    assert len(with_topics) == 7
    for display in with_topics:
        kind = KINDS[display["Class"].partition("/")[2]]
        assert running.get(display["Topic"]["Value"]) == [kind], display["Name"]


def message_class(kind: str) -> Any:
    package, _, name = kind.partition("/")
    return getattr(importlib.import_module(f"{package}.msg"), name.removeprefix("msg/"))


def test_every_topic_and_field_in_foxgloves_layout_exists(sensors: FaultySensors) -> None:
    running = dict(sensors.node.get_topic_names_and_types())
    panels = json.loads(foxglove_layout(NODE))["configById"]
    for panel in panels.values():
        for topic in (
            *panel.get("topics", ()),
            panel.get("imageMode", {}).get("imageTopic"),
            panel.get("topicToRender"),
        ):
            assert topic is None or topic in running
    paths = [line["value"] for panel in panels.values() for line in panel.get("paths", ())]
    assert len(paths) == 9
    for path in paths:
        topic, *fields = re.sub(r"\[[^]]*\]|\{[^}]*\}", "", path).split(".")
        (kind,) = running[topic]
        for field in fields:
            types = message_class(kind).get_fields_and_field_types()
            assert field in types, path
            kind = re.sub(r"sequence<(.*)>", r"\1", types[field])


def test_views_need_no_parameters_but_the_nodes_own(sensors: FaultySensors, tmp_path: Path) -> None:
    params = tmp_path / "node.yaml"
    values = {"cameras": [JPEG], "lidar_topic": TOPICS["lidar"], "output_frame": "base_link"}
    params.write_text(yaml.safe_dump({"/aqr_perception": {"ros__parameters": values}}))
    (frame,) = shown(sensors, params=params, count=1)
    assert set(frame.cameras) <= {JPEG}
