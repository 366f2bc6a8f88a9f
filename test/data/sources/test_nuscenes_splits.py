# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Splits by name, by file and by scene."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from aqr_perception.data.sources.nuscenes_splits import SplitError, scenes_of_split

MINI = ("scene-0061", "scene-0103", "scene-0553", "scene-0916", "own-1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "v1.0-mini"
    folder.mkdir()
    (folder / "splits.json").write_text(json.dumps({"rainy": ["scene-0061", "own-1"], "lost": ["scene-9999"]}))
    (tmp_path / "list.json").write_text(json.dumps(["scene-0103"]))
    (tmp_path / "several.json").write_text(json.dumps({"a": ["scene-0103"], "b": ["scene-0553", "own-1"]}))
    (tmp_path / "list.txt").write_text("# held out\nscene-0916\n\nown-1  # ours\n")
    return folder


def files_in(folder: Path, parts: Sequence[str]) -> list[str]:
    return [part.replace("FILES", str(folder.parent)) for part in parts]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["mini_val"], {"scene-0103", "scene-0916"}),
        (["rainy"], {"scene-0061", "own-1"}),
        (["FILES/list.json"], {"scene-0103"}),
        (["FILES/several.json:b"], {"scene-0553", "own-1"}),
        (["FILES/list.txt"], {"scene-0916", "own-1"}),
        (["own-1"], {"own-1"}),
        (["scene-0061", "scene-0103", "rainy"], {"scene-0061", "scene-0103", "own-1"}),
    ],
)
def test_a_split_is_a_name_a_file_or_a_list_of_scenes(folder: Path, parts: list[str], expected: set[str]) -> None:
    assert scenes_of_split(files_in(folder, parts), folder, MINI) == expected
    if len(parts) == 1:
        assert scenes_of_split(files_in(folder, parts)[0], folder, MINI) == expected


def test_a_version_with_a_part_of_a_split_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert scenes_of_split("mini_val", folder, MINI[:2]) == {"scene-0103"}
    assert "has 1 of the 2 scenes of split 'mini_val'" in caplog.text


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            ["val"],
            r"found 3 scenes of split 'val', which belongs to v1\.0-trainval.*choose one of mini_train,",
        ),
        (["test"], r"found no scene of split 'test', which belongs to v1\.0-test"),
        (["lost"], r"'lost' of .*splits\.json: found scenes that the tables do not have: scene-9999"),
        (["mini_vall"], r"'mini_vall'.*must be one of train, val.*rainy, lost, a \.json or \.txt file, or a scene in"),
        (["FILES/none.txt"], r"none\.txt: no such file"),
        (["FILES/several.json"], r"has the splits a, b; give one of them as .*several\.json:NAME"),
        (["FILES/several.json:c"], r"has the splits a, b"),
        (["scene-0061", "scene-0062"], r"split is 'scene-0062'"),
    ],
)
def test_a_split_that_does_not_exist_is_named_with_those_that_do(folder: Path, parts: list[str], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        scenes_of_split(files_in(folder, parts), folder, MINI)


@pytest.mark.parametrize("text", ["", "[1, 2]", "[]", '"scene-0061"', '{"a": "scene-0061"}'])
def test_a_file_without_a_list_of_scenes_is_refused(folder: Path, text: str) -> None:
    file = folder.parent / "bad.json"
    file.write_text(text)
    with pytest.raises(SplitError, match="needed"):
        scenes_of_split(str(file), folder, MINI)
