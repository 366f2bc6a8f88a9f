# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Trainings that each of two processes runs."""

import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from aqr_perception.data.batch import Batch
from aqr_perception.training.distributed import Processes, StepLoss
from aqr_perception.training.loop import Outcome, train
from helpers import stand_in


def train_and_save(folder: Path, loss: StepLoss[stand_in.Model], resume: bool = False) -> Outcome:
    """Train, and write this process's weights."""
    model = stand_in.model(norm=False)
    options = stand_in.options(batch_size=1, accumulate=2)
    outcome = train(model, stand_in.Data(), stand_in.collate, loss, options, folder, resume=resume)
    torch.save(model.state_dict(), folder / f"rank_{dist.get_rank()}.pt")
    return outcome


def interrupted(calls: int) -> StepLoss[stand_in.Model]:
    """Return a loss that sends the second process a SIGTERM in forward pass number `calls`."""
    count = 0

    def loss(model: stand_in.Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        if count == calls and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return stand_in.loss(model, batch, generator)

    return loss


def main(folder: Path, rank: int, port: int) -> None:
    """Run all trainings, in the environment that torchrun gives its processes."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)  # a fork does not copy the parent's threads
    with Processes.from_environment().group(torch.device("cpu")):
        train_and_save(folder / "mean_loss", stand_in.mean_loss)
        train_and_save(folder / "uninterrupted", stand_in.loss)
        first = train_and_save(folder / "resumed", interrupted(6))
        assert not first.finished and first.step == 3, first
        assert train_and_save(folder / "resumed", stand_in.loss, resume=True).finished
