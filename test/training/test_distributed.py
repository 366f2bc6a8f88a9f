"""Two processes train one model, copied or sharded, as one process would."""

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
KINDS = ("copied", "sharded")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes wrote what `two_processes` says."""
    folder = tmp_path_factory.mktemp("two_processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Copies of this process, which need not import everything again.
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
    return torch.load(folder / f"rank_{rank}.pt", weights_only=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", ["plain", "whole", "parts"])
def test_all_processes_end_with_the_same_weights(folder: Path, kind: str, run: str) -> None:
    assert stand_in.differences(weights(folder / kind / run, 0), weights(folder / kind / run, 1)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_half_the_batch_equal_one_with_the_whole(folder: Path, kind: str, tmp_path: Path) -> None:
    model = stand_in.model(norm=False)
    options = stand_in.options(batch_size=2, accumulate=2)
    outcome = train(model, stand_in.Data(), stand_in.collate, stand_in.plain_loss, options, tmp_path)
    assert outcome.weights is not None
    alone, average = model.state_dict(), load_file(outcome.weights)
    together, together_average = (
        weights(folder / kind / "plain", 0),
        load_file(folder / kind / "plain/final.safetensors"),
    )
    moved = (alone["head.weight"] - stand_in.model(norm=False).head.weight).abs().max()
    assert moved > 1e-2
    for name in alone:
        if not (kind == "sharded" and name.startswith("unused")):
            torch.testing.assert_close(together[name], alone[name], rtol=0, atol=1e-5)
            torch.testing.assert_close(together_average[name], average[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_to_one_process_stops_all_and_they_resume_to_the_same_state(folder: Path, kind: str) -> None:
    whole, parts = (stand_in.newest_state(folder / kind / run) for run in ("whole", "parts"))
    assert whole["step"] == 6 and len(whole["random"]) == 2
    assert stand_in.differences(whole, parts) == []
