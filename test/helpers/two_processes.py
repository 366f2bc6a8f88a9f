"""What each of two processes of a training does."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Generator, Tensor
from torch.distributed.tensor import DTensor

from aqr_perception.data.batch import Batch
from aqr_perception.training.distributed import Processes
from aqr_perception.training.loop import Outcome, train
from aqr_perception.training.sharding import whole
from helpers import stand_in


def train_and_note(folder: Path, shard: bool, loss: Callable, resume: bool = False) -> Outcome:
    """Train, and write what this process's model has become."""
    model = stand_in.model(norm=False)
    options = stand_in.options(batch_size=1, accumulate=2, shard=shard)
    outcome = train(model, stand_in.Data(), stand_in.collate, loss, options, folder, resume=resume)
    assert all(isinstance(parameter, DTensor) == shard for parameter in model.parameters())
    state = {name: whole(tensor) for name, tensor in model.state_dict().items()}
    torch.save(state, folder / f"rank_{dist.get_rank()}.pt")
    return outcome


def interrupted(calls: int) -> Callable:
    """Return a loss in whose forward pass number `calls` the second process alone is asked to stop."""
    count = 0

    def loss(model: stand_in.Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        if count == calls and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return stand_in.loss(model, batch, generator)

    return loss


def main(folder: Path, rank: int, port: int) -> None:
    """Train everything, with the environment that torchrun gives its processes."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in here.items()})
    torch.set_num_threads(1)  # the threads of the process that this is a copy of were not copied
    with Processes.from_environment().joined(torch.device("cpu")):
        for shard in (False, True):
            kind = folder / ("sharded" if shard else "copied")
            train_and_note(kind / "plain", shard, stand_in.plain_loss)
            train_and_note(kind / "whole", shard, stand_in.loss)
            first = train_and_note(kind / "parts", shard, interrupted(6))
            assert not first.finished and first.step == 3, first
            assert train_and_note(kind / "parts", shard, stand_in.loss, resume=True).finished
