# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rig files: the node's parameter files, with a part for recordings, read strictly."""

from pathlib import Path

import pytest
import yaml

from aqr_perception.data.rig_file import Rig, RigCamera, RigError, read_rig

EXAMPLE = Path(__file__).parents[2] / "config" / "rig.yaml"


def written(folder: Path, content: object) -> Path:
    path = folder / "rig.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


NODE = {
    "cameras": ["front", "rear"],
    "lidar_topic": "/top",
    "intensity_scale": 255,
    "model.preset": "aqr_tiny",
    "camera": {"front": {"image_topic": "/f", "rectified": True}},
    "camera.rear.offset": 0.01,
}
DATA = {"camera_channels": {"rear": "CAM_BACK"}, "classes": {"Van": "car", "Tram": ""}}


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_nodes_parameter_file_is_a_rig_file(tmp_path: Path, wrapped: bool) -> None:
    content = (
        {"/**": {"ros__parameters": NODE}, "data": {"ros__parameters": DATA}} if wrapped else {**NODE, "data": DATA}
    )
    path = written(tmp_path, content)
    assert read_rig(path) == Rig(
        cameras=(
            RigCamera("front", "/f", "/front/camera_info", rectified=True),
            RigCamera("rear", "/rear/image_raw", "/rear/camera_info", offset=0.01, channel="CAM_BACK"),
        ),
        lidar_topics=("/top",),
        intensity_scale=255.0,
        classes={"Van": "car", "Tram": ""},
        source=str(path),
    )


def test_several_lidars_replace_the_one_topic(tmp_path: Path) -> None:
    rig = read_rig(written(tmp_path, {"lidar_topic": "/a", "lidar_topics": ["/b", "/c"]}))
    assert rig.lidar_topics == ("/b", "/c")


def test_a_name_of_the_data_becomes_a_class_of_the_model(tmp_path: Path) -> None:
    rig = read_rig(written(tmp_path, {"data": {"classes": DATA["classes"]}}))
    names = ("Van", "Tram", "car", "bus", "Car")
    assert [rig.class_of(name, ("car", "bus")) for name in names] == ["car", None, "car", "bus", None]


def test_the_example_is_complete_and_every_file_of_the_node_is_read() -> None:
    rig = read_rig(EXAMPLE)
    assert len(rig.cameras) == 6 and all(camera.channel for camera in rig.cameras) and rig.lidar_topics
    for name in ("nuscenes.yaml", "perception.yaml", "demo.yaml"):
        assert len(read_rig(EXAMPLE.with_name(name)).cameras) == 6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("cameras: [front", "invalid YAML"),
        ("just words", "found 'just words', needed a mapping"),
        ({"camera": {"front": {}}}, "camera: found the entry 'front'"),
        ({"cameras": "front"}, "cameras: found 'front', needed a list"),
        ({"cameras": ["a", "a"]}, "cameras is .*distinct"),
        ({"cameras": ["a"], "camera.a.imagetopic": "/x"}, "'imagetopic'.*did you mean image_topic"),
        ({"cameras": ["a"], "camera.a.rectified": "yes please"}, "rectified: found 'yes please', needed bool"),
        ({"cameras": ["a"], "camera.a.offset": 50}, "camera.a.offset is 50.0, but must be in"),
        ({"lidar_topc": "/x"}, "'lidar_topc'.*did you mean lidar_topic"),
        ({"max_camera_age": -1}, "max_camera_age is -1.0"),
        ({"data": {"classes": ["car"]}}, "data: classes: found .*needed a mapping"),
        ({"data": {"camera_channels": {"side": "X"}}}, "camera_channels: found the entry 'side'"),
        ({"/a": {"ros__parameters": {}}, "/b": {"ros__parameters": {}}}, "found the sections /a, /b"),
    ],
)
def test_a_wrong_entry_is_named_with_the_file(tmp_path: Path, content: object, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(RigError, match=rf"(?s){path}.*{said}"):
        read_rig(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RigError, match=r"rig\.yaml: found no such file"):
        read_rig(tmp_path / "rig.yaml")


@pytest.mark.parametrize(
    ("lidar", "found"),
    [
        ({3: {"enabled": True}}, "lidar: .*3"),
        ({1: {"intensity_scal": 2.0}}, "lidar: 1: .*intensity_scal"),
        ({1: {"intensity_scale": -1.0}}, "lidar.1.intensity_scale is -1.0"),
        ({1: {"intensity_scale": "much"}}, "lidar: 1: intensity_scale"),
        (2.0, "lidar: found 2.0"),
    ],
)
def test_wrong_entries_of_one_of_several_lidars_are_refused(tmp_path: Path, lidar: object, found: str) -> None:
    with pytest.raises(RigError, match=found):
        read_rig(written(tmp_path, {"lidar_topics": ["/a", "/b"], "lidar": lidar}))
