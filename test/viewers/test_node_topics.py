# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Topics of a node from its parameters."""

from pathlib import Path

import pytest
from helpers.places import ROOT

from aqr_perception.viewers.node_topics import NodeTopics, ViewError, node_topics, read_node_topics


def read(tmp_path: Path, text: str, **named: str) -> NodeTopics:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    return read_node_topics(path, **named)


def test_topics_and_frames_are_those_of_the_file() -> None:
    topics = read_node_topics(ROOT / "config" / "nuscenes.yaml")
    assert topics.lidar_topics == ("/LIDAR_TOP",)
    assert [camera.name for camera in topics.cameras][:2] == ["front", "front_right"]
    assert topics.cameras[0].image_topic == "/CAM_FRONT/image_rect_compressed" and topics.cameras[0].compressed
    assert (topics.fixed_frame, topics.vehicle_frame) == ("map", "base_link")
    assert topics.output("weights/bev/image") == "/aqr_perception/weights/bev/image"


def test_relative_and_private_topics_are_in_the_nodes_namespace(tmp_path: Path) -> None:
    text = "/**:\n  ros__parameters:\n    cameras: [c]\n    lidar_topic: points\n    camera.c.image_topic: ~/image\n"
    topics = read(tmp_path, text, namespace="/robot/")
    assert topics.node == "/robot/aqr_perception"
    assert topics.lidar_topics == ("/robot/points",)
    assert topics.cameras[0].image_topic == "/robot/aqr_perception/image"
    assert topics.cameras[0].info_topic == "/c/camera_info"


@pytest.mark.parametrize("section", ["/**", "/*/aqr_perception", "/robot/aqr_perception", "/**/aqr_perception"])
def test_sections_for_the_node_apply_and_others_do_not(tmp_path: Path, section: str) -> None:
    text = f"{section}:\n  ros__parameters: {{lidar_topic: /a}}\n/other:\n  ros__parameters: {{lidar_topic: /b}}\n"
    assert read(tmp_path, text, namespace="robot").lidar_topics == ("/a",)


def test_a_file_for_another_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ViewError, match="found the sections /camera_driver, needed one for /aqr_perception"):
        read(tmp_path, "camera_driver:\n  ros__parameters: {rate: 1}\n")


def test_several_lidars_no_lidar_and_no_cameras() -> None:
    assert node_topics({"lidar_topics": ["/a", "/b"]}).lidar_topics == ("/a", "/b")
    assert node_topics({"lidar_topic": "", "lidar_topics": [""]}).lidar_topics == ()
    for none in ([""], [], None):
        assert node_topics({"cameras": none}).cameras == ()
    assert [camera.name for camera in node_topics({"cameras": "front"}).cameras] == ["front"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"lidar_topic": 3}, "lidar_topic is 3, but must be a text"),
        ({"cameras": [1]}, r"cameras is \[1\], but must be a list of texts"),
        ({"cameras": 5}, "cameras is 5, but must be a list of texts"),
        ({"tracking.enabled": "yes"}, "tracking.enabled is 'yes', but must be true or false"),
    ],
)
def test_values_of_a_wrong_type_are_refused(values: dict[str, object], named: str) -> None:
    with pytest.raises(ViewError, match=named):
        node_topics(values)


def test_missing_parameters_have_the_nodes_defaults() -> None:
    pytest.importorskip("rclpy", reason="the node's parameters are declared with rclpy's types")
    from aqr_perception.nodes.parameters.parameter_table import PARAMETERS, camera_parameters

    values = {parameter.name: parameter.default for parameter in PARAMETERS}
    for camera in values["cameras"]:
        values |= {parameter.name: parameter.default for parameter in camera_parameters(camera)}
    assert node_topics({}) == node_topics(values)
