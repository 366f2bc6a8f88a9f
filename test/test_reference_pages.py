# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The generated pages of docs/reference/ agree with the code."""

from pathlib import Path
from types import ModuleType

import pytest
from helpers.documents import script


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return script("scripts/write_reference.py")


@pytest.mark.parametrize("page", ["messages.md", "command_line.md"])
def test_pages_that_need_no_ros_agree_with_the_code(reference: ModuleType, page: str) -> None:
    assert not (found := reference.difference(page)), f"{found}\nrun: python3 scripts/write_reference.py"


@pytest.mark.parametrize("page", ["parameters.md", "topics.md"])
def test_pages_of_the_node_agree_with_the_code(reference: ModuleType, page: str) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
    pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")
    assert not (found := reference.difference(page)), f"{found}\nrun: python3 scripts/write_reference.py"


def test_a_page_that_differs_is_shown_as_a_diff(
    reference: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = reference.messages_page().replace("| `hits` | `uint32` |", "| `hits` | `uint8` |")
    (tmp_path / "messages.md").write_text(changed)
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    lines = reference.difference("messages.md").splitlines()
    assert any(line.startswith("-| `hits` | `uint8` |") for line in lines)
    assert any(line.startswith("+| `hits` | `uint32` |") for line in lines)
    assert "docs/reference/command_line.md" in reference.difference("command_line.md"), "a page that is missing"


def test_a_topic_without_a_description_is_an_error(reference: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {topic: text for topic, text in reference.PUBLISHED.items() if topic != "~/queries"}
    monkeypatch.setattr(reference, "PUBLISHED", described)
    monkeypatch.setattr(reference, "published_types", lambda: dict.fromkeys([*described, "~/queries"], "Type"))
    with pytest.raises(ValueError, match=r"no description of \['~/queries'\]"):
        reference.topics_page()


def test_a_topic_that_only_a_parameter_makes_needs_a_description_too(
    reference: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = dict.fromkeys(reference.PUBLISHED, "Type")
    monkeypatch.setattr(reference, "published_types", lambda: types)
    assert "~/weights/bev/grid" in reference.topics_in_code()
    monkeypatch.setattr(reference, "topics_in_code", lambda: {*types, "~/things"})
    with pytest.raises(ValueError, match=r"on request: no description of .*things"):
        reference.topics_page()
    monkeypatch.setattr(reference, "OPTIONAL", {"~/things": ("some_msgs/Objects", "boxes")})
    assert "| `~/things` | `some_msgs/Objects` | boxes |" in reference.topics_page()


def test_every_option_of_the_command_line_has_a_help_text(reference: ModuleType) -> None:
    rows = [line for line in reference.command_line_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []
