# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of a model's weights, which detects better than the trained weights."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """Return an average that starts with the model's current weights; its `module` is in eval mode.

    Parameters are averaged, buffers such as batch norm statistics are copied. In update n = 0, 1, ... the decay is at
    most (1 + n) / (10 + n), which quickly removes the random first weights; it reaches `decay` after about
    9 / (1 - decay) updates.
    """
    average = AveragedModel(model, multi_avg_fn=_increasing_decay(decay))
    # The first call only copies. With this call, the first training step already averages.
    average.update_parameters(model)
    average.module.requires_grad_(False).eval()
    return average


def average_state(average: AveragedModel) -> dict[str, Any]:
    """Return the number of updates, and the averaged weights under the model's own keys."""
    return {"updates": int(average.n_averaged) - 1, "average": dict(average.module.state_dict())}


def load_average_state(average: AveragedModel, state: Mapping[str, Any]) -> None:
    """Continue from an `average_state`."""
    average.module.load_state_dict(state["average"])
    average.n_averaged.fill_(state["updates"] + 1)


def _increasing_decay(highest: float) -> Callable[[PARAM_LIST, PARAM_LIST, Tensor | int], None]:
    """Return the averaging function of `AveragedModel`, used after its first call."""

    def update(averages: PARAM_LIST, weights: PARAM_LIST, calls: Tensor | int) -> None:
        count = int(calls)
        decay = min(highest, count / (9 + count))  # (1 + n) / (10 + n), because the count is n + 1
        get_ema_multi_avg_fn(decay)(averages, weights, calls)

    return update
