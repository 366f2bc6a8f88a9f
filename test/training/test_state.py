"""Checkpoints are whole or absent, and are read without running code."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from aqr_perception.training import state as states
from aqr_perception.training.state import StateError


def test_a_state_survives_writing_and_reading(tmp_path: Path) -> None:
    path = states.write({"step": 3, "values": [torch.arange(3), None, "text"]}, tmp_path / "new", 3)
    found = states.read(path)
    assert found["step"] == 3 and found["values"][1:] == [None, "text"]
    assert torch.equal(found["values"][0], torch.arange(3))


def test_a_failed_write_leaves_the_states_before_it(tmp_path: Path) -> None:
    states.write({"step": 1}, tmp_path, 1)
    with pytest.raises(TypeError):
        states.write({"step": (part for part in ()), "values": torch.rand(3)}, tmp_path, 2)
    assert [path.name for path in states.states(tmp_path)] == ["step_00000001.pt"]
    states.write({"step": 3}, tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000001.pt", "step_00000003.pt"]


def test_only_the_newest_are_kept_in_order_of_steps(tmp_path: Path) -> None:
    for step in (9, 10, 99_999_999, 100_000_000):
        states.write({"step": step}, tmp_path, step)
    assert [states.read(path)["step"] for path in states.states(tmp_path)] == [99_999_999, 100_000_000]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"file.*writable folder"):
        states.write({}, tmp_path / "file", 1)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = states.write({"step": 1, "values": torch.rand(1000)}, tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(StateError, match=r"step_00000001\.pt.*delete it"):
        states.read(path)


def test_a_file_of_code_or_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step_00000001.pt"
    path.write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(StateError, match="damaged or no state"):
        states.read(path)
    torch.save({"format": 99}, path)
    with pytest.raises(StateError, match="format 99, needed 1"):
        states.read(path)
    with pytest.raises(StateError, match="cannot be read"):
        states.read(tmp_path / "nowhere.pt")


def test_all_global_random_numbers_are_restored(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]

    states.seed_random_states(3)
    np.random.randn()  # NumPy keeps the second of two normal numbers for later
    random.gauss(0, 1)
    path = states.write({"random": states.random_states()}, tmp_path, 1)
    first = draw()
    states.set_random_states(states.read(path)["random"])
    assert draw() == first
    states.seed_random_states(3)
    again = draw()
    states.seed_random_states(3)
    assert draw() == again
