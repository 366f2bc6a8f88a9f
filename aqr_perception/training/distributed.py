# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training in several processes, started by torchrun.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; without them, a training has one process.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aqr_perception.data.batch import Batch

ModelT = TypeVar("ModelT", bound=nn.Module)
ValueT = TypeVar("ValueT")
StepLoss = Callable[[ModelT, Batch, Generator], Mapping[str, Tensor]]
"""Function that returns the parts of a batch's loss, weighted scalars by name; the training minimises their sum.

The names must be the same for every batch. Random numbers come from the generator, which is on the model's device.
"""


@dataclass(frozen=True)
class Processes:
    """Ranks of this process among the processes of the training.

    Attributes:
        rank: 0 .. size - 1.
        size: number of processes.
        local_rank: rank among the processes of this machine, and the index of this process's GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "Processes":
        """Return the ranks set by torchrun; without torchrun, a single process."""
        if "RANK" not in os.environ:
            return cls()
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))

    @property
    def is_main(self) -> bool:
        """Whether this is process 0, the only one that writes files and logs."""
        return self.rank == 0

    @contextmanager
    def group(self, device: torch.device) -> Iterator[None]:
        """Join the process group, and leave it at the end. Uses an initialised group, if there is one."""
        if self.size == 1 or dist.is_initialized():
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=self.rank, world_size=self.size)
        try:
            yield
        finally:
            dist.destroy_process_group()

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of all processes' tensors, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: ValueT) -> ValueT:
        """Return process 0's value."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def gather(self, value: ValueT) -> list[ValueT]:
        """Return all processes' values, by rank."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        dist.all_gather_object(values, value)
        return values


class _LossModule(nn.Module, Generic[ModelT]):
    """Loss as a module around the model, because DistributedDataParallel acts in a module's call."""

    def __init__(self, model: ModelT, step_loss: StepLoss[ModelT]) -> None:
        super().__init__()
        self.model = model
        self.step_loss = step_loss

    def forward(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        return dict(self.step_loss(self.model, batch, generator))


class ParallelLoss(Generic[ModelT]):
    """Loss of a data-parallel model: each process trains a copy.

    Call it on a batch, then call backward on the sum of the parts: backward averages the gradients of all processes.
    """

    def __init__(self, model: ModelT, step_loss: StepLoss[ModelT], processes: Processes, device: torch.device) -> None:
        self._module: _LossModule[ModelT] | DistributedDataParallel = _LossModule(model, step_loss)
        if processes.size > 1:
            device_ids = [device] if device.type == "cuda" else None
            # A batch without LiDAR does not use the point branch.
            self._module = DistributedDataParallel(self._module, device_ids=device_ids, find_unused_parameters=True)

    def __call__(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self._module(batch, generator)
        return losses

    def accumulation(self, last: bool) -> AbstractContextManager[None]:
        """Return the context of a forward and backward pass; only the last pass of a step exchanges gradients."""
        if isinstance(self._module, DistributedDataParallel) and not last:
            return self._module.no_sync()
        return nullcontext()
