# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Training state files: complete or absent, and read without running code."""

import pickle
from pathlib import Path

import pytest
import torch

from aqr_perception.training.training_state import StateError, read_state, state_files, write_state


def test_a_state_survives_writing_and_reading(tmp_path: Path) -> None:
    path = write_state({"step": 3, "values": [torch.arange(3), None, "text"]}, tmp_path / "new", 3)
    state = read_state(path)
    assert state["step"] == 3 and state["values"][1:] == [None, "text"]
    assert torch.equal(state["values"][0], torch.arange(3))


def test_a_failed_write_leaves_the_states_before_it(tmp_path: Path) -> None:
    write_state({"step": 1}, tmp_path, 1)
    with pytest.raises(TypeError):
        write_state({"step": (part for part in ()), "values": torch.rand(3)}, tmp_path, 2)
    assert [path.name for path in state_files(tmp_path)] == ["step_00000001.pt"]
    write_state({"step": 3}, tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000001.pt", "step_00000003.pt"]


def test_the_newest_two_are_kept_in_order_of_steps(tmp_path: Path) -> None:
    for step in (9, 10, 99_999_999, 100_000_000):
        write_state({"step": step}, tmp_path, step)
    assert [read_state(path)["step"] for path in state_files(tmp_path)] == [99_999_999, 100_000_000]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"file.*writable folder"):
        write_state({}, tmp_path / "file", 1)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = write_state({"step": 1, "values": torch.rand(1000)}, tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(StateError, match=r"step_00000001\.pt.*delete it"):
        read_state(path)


def test_a_file_of_code_or_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step_00000001.pt"
    path.write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(StateError, match="damaged or not a training state"):
        read_state(path)
    torch.save({"format": 99}, path)
    with pytest.raises(StateError, match="format 99, needed 1"):
        read_state(path)
    with pytest.raises(StateError, match="cannot be read"):
        read_state(tmp_path / "nowhere.pt")
