"""Tensors that are split over processes (FSDP2's DTensors), and those that are not, handled alike."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """Return this process's part; the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor on the CPU. A split one is gathered, in which every process must take part."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()


def share(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor split, and placed, as another is."""
    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return tensor.to(like.device)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """Return the moments by parameter, whole and on the CPU. Every process must ask for them."""
    return {
        index: {name: whole(value) if isinstance(value, Tensor) else value for name, value in moments.items()}
        for index, moments in optimizer.state_dict()["state"].items()
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Any]]) -> None:
    """Load what `optimizer_state` returned, split as the parameters are; rates and decay stay as they are now."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shares = {
        index: {
            # A count of steps belongs to no shard.
            name: share(value, parameters[index]) if isinstance(value, Tensor) and value.dim() else value
            for name, value in moments.items()
        }
        for index, moments in state.items()
    }
    optimizer.load_state_dict({"state": shares, "param_groups": optimizer.state_dict()["param_groups"]})
