# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameter files are checked before ROS 2 reads them, and those for other nodes are recognised."""

import time
from pathlib import Path

import pytest

from aqr_perception.models.config.yaml_file import YamlFileError
from aqr_perception.nodes.parameters.parameter_files import ParameterFile, one_line, read


def write(folder: Path, *sections: str) -> Path:
    path = folder / "parameters.yaml"
    path.write_text("".join(f"{section}:\n  ros__parameters:\n    a: 1\n" for section in sections))
    return path


@pytest.mark.parametrize(
    ("section", "node", "is_for_it"),
    [
        ("/**", "/aqr_perception", True),
        ("/**", "/fleet/robot1/aqr_perception", True),
        ("aqr_perception", "/aqr_perception", True),
        ("/aqr_perception", "/aqr_perception", True),
        ("aqr_perception", "/robot1/aqr_perception", False),
        ("aqr_perception", "/other_name", False),
        ("/*", "/aqr_perception", True),
        ("/*", "/robot1/aqr_perception", False),
        ("/*/aqr_perception", "/robot1/aqr_perception", True),
        ("/**/aqr_perception", "/fleet/robot1/aqr_perception", True),
        ("/robot1/aqr_perception", "/robot1/aqr_perception", True),
        ("/robot2/aqr_perception", "/robot1/aqr_perception", False),
    ],
)
def test_a_section_is_for_the_nodes_that_ros_gives_it_to(
    tmp_path: Path, section: str, node: str, is_for_it: bool
) -> None:
    (file,) = read(["--ros-args", "--params-file", str(write(tmp_path, section))])
    assert file.addresses(node) is is_for_it


@pytest.mark.parametrize("section", ["/**" * 5000 + "/x", "/**/a" * 5000 + "/x", "/*" * 100_000])
def test_a_section_of_countless_wildcards_is_compared_at_once(section: str) -> None:
    start = time.process_time()
    assert not ParameterFile(Path("a.yaml"), (section,)).addresses("/a" * 60)
    assert time.process_time() - start < 1.0


def test_a_section_may_be_nested_in_its_namespace(tmp_path: Path) -> None:
    path = tmp_path / "nested.yaml"
    path.write_text("robot1:\n  aqr_perception:\n    ros__parameters: {a: 1}\n")
    (file,) = read(["--params-file", str(path)])
    assert file.addresses("/robot1/aqr_perception") and not file.addresses("/aqr_perception")


def test_a_file_for_other_nodes_names_its_sections_and_the_remedy(tmp_path: Path) -> None:
    path = write(tmp_path, "camera_driver", "lidar_driver")
    (file,) = read(["--params-file", str(path)])
    sentence = file.ignored_by("/robot1/aqr_perception")
    assert str(path) in sentence and "/camera_driver, /lidar_driver" in sentence and "/**" in sentence


def test_all_files_are_read_in_order_and_other_arguments_are_not(tmp_path: Path) -> None:
    path = write(tmp_path, "/**")
    arguments = ["--ros-args", "-p", "x:=1", "--params-file", str(path), "-r", "a:=b", "--params-file", str(path)]
    assert [file.path for file in read(arguments)] == [path, path]
    assert read(["--ros-args", "-p", "x:=1"]) == ()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(YamlFileError, match=f"--params-file {tmp_path}/none.yaml: found no such file"):
        read(["--params-file", str(tmp_path / "none.yaml")])


def test_an_error_of_ros_becomes_one_line_without_its_source_locations() -> None:
    text = "Couldn't parse params file: 'a.yaml'. Error: No value at line 3, at /project/src/parse.c:258, at /a/b.c:4\n"
    assert one_line(RuntimeError(text)) == "Couldn't parse params file: 'a.yaml'. Error: No value at line 3"
    assert one_line(RuntimeError()) == "RuntimeError"
