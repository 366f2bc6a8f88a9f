# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a backbone's early stages image by image, to save memory traffic on CPUs."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from aqr_perception.models.ops.side_by_side import run_all


def view_by_view(
    backbone: nn.Module, stages: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor
) -> tuple[Tensor, ...]:
    """Return stages(images) for (N, 3, H, W) images, image by image for inference on a CPU, otherwise in one batch.

    Use it for a backbone's early stages, which have large maps. The allocator reuses mapped memory for the maps of one
    image, but returns the maps of a batch to the system after each layer; page faults then cost as much time as the
    arithmetic. Small, deep maps are faster in one batch, because the images share the weights.
    """
    # Norms in training mode need the statistics of the whole batch.
    training = torch.is_grad_enabled() or any(module.training for module in backbone.modules())
    if training or images.device.type != "cpu" or len(images) < 2:
        return stages(images)
    views = run_all([partial(stages, image) for image in images.split(1)])
    return tuple(torch.cat(levels) for levels in zip(*views, strict=True))
