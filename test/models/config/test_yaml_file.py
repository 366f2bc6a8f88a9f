# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""YAML files of users are read within limits, whatever they contain."""

import time
from pathlib import Path

import pytest

from aqr_perception.models.config.presets import PresetError, load_preset
from aqr_perception.models.config.yaml_file import YamlFileError, read_yaml, read_yaml_texts

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
HOSTILE = {
    "aliases that stand for 10^12 values": BOMB,
    "an alias to the value in which it stands": "a: &a [*a]\n",
    "nested a thousand deep": "[" * 1000 + "]" * 1000,
    "a file too large": "a: " + "x" * 200_000,
    "many values": "[" + "1," * 50_000 + "]",
    "a date that is none": "a: 2020-13-45",
    "an integer of 5000 digits": "a: " + "9" * 5000,
    "an unclosed list": "[1, 2",
    "an object of Python": "a: !!python/object/apply:os.getcwd []",
    "an alias without an anchor": "a: *nowhere",
    "a list as a key": "{[1]: 2}",
    "a control character": "a: \x01",
}


@pytest.fixture(params=list(HOSTILE))
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "hostile.yaml"
    path.write_text(HOSTILE[request.param])
    return path


def test_a_hostile_file_is_refused_in_one_line_that_names_it_and_at_once(hostile: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(YamlFileError) as caught:
        read_yaml(hostile)
    assert time.perf_counter() - start < 5.0
    assert str(caught.value).startswith(f"{hostile}: found ") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_hostile_preset_is_refused_as_a_preset(hostile: Path) -> None:
    with pytest.raises(PresetError, match=r"hostile\.yaml: found"):
        load_preset(str(hostile))


def test_bytes_of_another_encoding_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: Müller".encode("latin-1"))
    for path, found in ((latin, "invalid YAML"), (tmp_path / "none.yaml", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(YamlFileError, match=f"{path}: found {found}"):
            read_yaml(path)


def test_ordinary_files_are_read_with_their_aliases(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text("base: &base {size: 3, names: [a, b]}\nfirst: *base\nsecond: {<<: *base, size: 4}\n")
    assert read_yaml(path) == {
        "base": {"size": 3, "names": ["a", "b"]},
        "first": {"size": 3, "names": ["a", "b"]},
        "second": {"size": 4, "names": ["a", "b"]},
    }


def test_texts_are_read_without_their_types_and_from_several_documents(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text("a: 2020-13-45\n---\nb: [off, 1]\n")
    assert read_yaml_texts(path) == [{"a": "2020-13-45"}, {"b": ["off", "1"]}]
    with pytest.raises(YamlFileError, match="found 2 YAML documents, needed one"):
        path.write_text("a: 1\n---\nb: 2\n")
        read_yaml(path)


@pytest.mark.parametrize("name", ["../models/aqr_tiny", "./aqr_tiny", "../../config/models/aqr_tiny"])
def test_a_presets_name_is_no_way_out_of_the_folder_of_presets(name: str) -> None:
    with pytest.raises(PresetError, match="does not exist"):
        load_preset(name)
