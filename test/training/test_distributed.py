# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training in two processes."""

import multiprocessing
import socket
from pathlib import Path

import pytest
import torch
from helpers import stand_in, two_processes
from safetensors.torch import load_file
from torch import Tensor

from aqr_perception.training.loop import train

pytestmark = pytest.mark.slow  # every test starts processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the trainings of `two_processes` and return the folder of their results."""
    folder = tmp_path_factory.mktemp("two_processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A fork need not import everything again.
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=two_processes.main, args=(folder, rank, port)) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return folder


def weights(folder: Path, rank: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / f"rank_{rank}.pt", weights_only=True)
    return state


@pytest.mark.parametrize("run", ["mean_loss", "uninterrupted", "resumed"])
def test_all_processes_end_with_the_same_weights(folder: Path, run: str) -> None:
    assert stand_in.differences(weights(folder / run, 0), weights(folder / run, 1)) == []


def test_two_processes_with_half_the_batch_equal_one_with_the_whole_batch(folder: Path, tmp_path: Path) -> None:
    model = stand_in.model(norm=False)
    options = stand_in.options(batch_size=2, accumulate=2)
    outcome = train(model, stand_in.Data(), stand_in.collate, stand_in.mean_loss, options, tmp_path)
    assert outcome.weights is not None
    one_process, average = model.state_dict(), load_file(outcome.weights)
    two_processes = weights(folder / "mean_loss", 0)
    two_processes_average = load_file(folder / "mean_loss/final.safetensors")
    distance = (one_process["head.weight"] - stand_in.model(norm=False).head.weight).abs().max()
    assert distance > 1e-2
    for name in one_process:
        torch.testing.assert_close(two_processes[name], one_process[name], rtol=0, atol=1e-5)
        torch.testing.assert_close(two_processes_average[name], average[name], rtol=0, atol=1e-5)


def test_a_signal_to_one_process_stops_all_and_they_resume_to_the_same_state(folder: Path) -> None:
    uninterrupted, resumed = (stand_in.newest_state(folder / run) for run in ("uninterrupted", "resumed"))
    assert uninterrupted["step"] == 6 and len(uninterrupted["random"]) == 2
    assert stand_in.differences(uninterrupted, resumed) == []
