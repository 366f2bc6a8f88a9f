"""Several training processes, started by torchrun: who is who, and how they keep one model.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; without them a training runs alone.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from aqr_perception.data.batch import Batch
from aqr_perception.options import OptionError

ModelT = TypeVar("ModelT", bound=nn.Module)
StepLoss = Callable[[ModelT, Batch, Generator], Mapping[str, Tensor]]
"""Returns the parts of a batch's loss, scalars by name, weighted; the training minimises their sum.

The names must be the same for every batch. Randomness comes from the generator, which lives on the model's device.
"""


@dataclass(frozen=True)
class Processes:
    """This process among those of the training.

    Attributes:
        rank: 0 .. size - 1; process 0 alone writes.
        local_rank: the same among the processes of this machine; its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "Processes":
        """Return what torchrun says; a training of one process without it."""
        if "RANK" not in os.environ:
            return cls()
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))

    @property
    def writes(self) -> bool:
        return self.rank == 0

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Meet the other processes, and part from them at the end. A caller's own process group is used as it is."""
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
        """Return the sum of all processes' tensors."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_first(self, value: object) -> object:
        """Return process 0's value."""
        if self.size == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared)
        return shared[0]

    def gathered(self, value: object) -> list:
        """Return all processes' values, by rank."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value)
        return values


class _LossModule(nn.Module, Generic[ModelT]):
    """The loss as a module around the model, because DDP and FSDP act where a module is called."""

    def __init__(self, model: ModelT, step_loss: StepLoss[ModelT], touch: bool) -> None:
        super().__init__()
        self.model = model
        self.step_loss = step_loss
        self.touch = touch

    def forward(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        losses = dict(self.step_loss(self.model, batch, generator))
        if self.touch:
            # Which parameters take part depends on the sensors in a process's batch, but FSDP lets processes exchange
            # gradients only of the same ones: each gets one, be it zero.
            name = next(iter(losses))
            used = [parameter.sum() for parameter in self.model.parameters() if parameter.requires_grad]
            losses[name] = losses[name] + 0.0 * torch.stack(used).sum()
        return losses


class ParallelLoss(Generic[ModelT]):
    """The loss of one model that all processes train: call it on a batch, then call backward on the sum.

    Copied models (DDP) average their gradients. A sharded one (FSDP2) is one unit, gathered whole for each step: what a
    process runs depends on which sensors its batch has, and smaller units, gathered when they run, would leave
    processes waiting for each other.
    """

    def __init__(
        self, model: ModelT, step_loss: StepLoss[ModelT], processes: Processes, device: torch.device, shard: bool
    ) -> None:
        if shard and processes.size == 1:
            raise OptionError("train shard is True, but there is one process: start several with torchrun, or leave it")
        module = _LossModule(model, step_loss, touch=shard)
        self._module: nn.Module = module
        if shard:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), 0)
            fully_shard(module, mesh=init_device_mesh(device.type, (processes.size,)))
        elif processes.size > 1:
            own = [device] if device.type == "cuda" else None
            # A batch without LiDAR does not use the point branch.
            self._module = DistributedDataParallel(module, device_ids=own, find_unused_parameters=True)

    def __call__(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        return self._module(batch, generator)

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Return the context of a forward and backward pass; gradients are exchanged in the last one of a step."""
        if isinstance(self._module, FSDPModule):
            self._module.set_requires_gradient_sync(last)
        if isinstance(self._module, DistributedDataParallel) and not last:
            return self._module.no_sync()
        return nullcontext()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Make the model's weights whole for a while, for calls of the model itself."""
        if not isinstance(self._module, FSDPModule):
            yield
            return
        self._module.unshard()
        try:
            yield
        finally:
            self._module.reshard()
