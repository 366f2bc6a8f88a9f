"""How a backbone goes through a batch of images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def view_by_view(
    backbone: nn.Module, stages: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor
) -> tuple[Tensor, ...]:
    """Return stages(images) for (N, 3, H, W) images: image by image for inference on a CPU, otherwise at once.

    For a backbone's early stages, whose maps are large. One image's are small enough that the allocator hands the same,
    already mapped memory to layer after layer; a batch's are fetched from and returned to the system every time, and
    page faults then cost as much as the arithmetic. Small, deep maps are better computed together: they share weights.
    """
    # A norm in training mode takes its statistics over the whole batch.
    trains = torch.is_grad_enabled() or any(module.training for module in backbone.modules())
    if trains or images.device.type != "cpu" or len(images) < 2:
        return stages(images)
    return tuple(torch.cat(levels) for levels in zip(*map(stages, images.split(1)), strict=True))
