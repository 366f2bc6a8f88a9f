# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Model, optimiser and weight average of a training, with the optimiser step."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from aqr_perception.data.batch import Batch
from aqr_perception.devices import autocast, choose_precision
from aqr_perception.training.distributed import ModelT, ParallelLoss, Processes, StepLoss
from aqr_perception.training.ema import average_state, averaged_model, load_average_state
from aqr_perception.training.trainable import (
    freeze,
    parameter_groups,
    set_mode,
    trained_names,
    trained_names_without_factors,
)
from aqr_perception.training.training_options import TrainOptions

_log = logging.getLogger(__name__)

_MAX_SKIPPED = 20
"""Number of consecutive steps without a finite loss and gradient after which the training stops."""

_BETAS = (0.9, 0.99)


class TrainingError(ValueError):
    """The training cannot continue; the message gives the reason and the remedy."""


class StepMetrics(NamedTuple):
    """Losses and gradient of one optimiser step.

    Attributes:
        losses: parts of the loss by name, means over forward passes and processes.
        gradient_norm: norm of the gradient before clipping, mean over processes.
        skipped: whether the step left the model unchanged, because a loss or the gradient was not finite.
        data_seconds: time that this process waited for data.
    """

    losses: dict[str, float]
    gradient_norm: float
    skipped: bool
    data_seconds: float

    def curves(self, learning_rate: float, seconds: float, samples: int) -> dict[str, float]:
        """Return the values by TensorBoard tag, given the step's duration and number of samples."""
        return {
            **{f"loss/{name}": value for name, value in self.losses.items()},
            "loss/total": sum(self.losses.values()),
            "training/learning_rate": learning_rate,
            "training/gradient_norm": self.gradient_norm,
            "training/seconds_per_step": seconds,
            "training/seconds_waiting_for_data": self.data_seconds,
            "training/samples_per_second": samples / seconds,
        }


class Learner(Generic[ModelT]):
    """A model on its device with its optimiser, gradient scaler and weight average."""

    def __init__(
        self,
        model: ModelT,
        step_loss: StepLoss[ModelT],
        options: TrainOptions,
        processes: Processes,
        device: torch.device,
    ) -> None:
        self._model, self._options, self._processes, self._device = model, options, processes, device
        self._dtype = choose_precision(options.precision, device)
        model.to(device)
        freeze(model, options.train, options.learning_rate_factors)
        set_mode(model, options.train, options.learning_rate_factors)
        self._loss = ParallelLoss(model, step_loss, processes, device)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(model, options), betas=_BETAS, weight_decay=options.weight_decay, fused=True
        )
        self._trained_names = trained_names(model, self._optimizer.param_groups)
        self._trained = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype == torch.float16)
        self._average = averaged_model(model, options.ema_decay)
        self._skipped_in_row = 0

    @property
    def averaged(self) -> ModelT:
        """The model with averaged weights, in eval mode."""
        return cast(ModelT, self._average.module)

    def step(self, batches: Iterator[Batch], number: int, learning_rate: float) -> StepMetrics:
        """Run optimiser step `number`, counted from 1, on the next batches.

        Raises:
            TrainingError: losses stay non-finite, or no trained parameter takes part in the loss.
        """
        self._set_learning_rate(learning_rate)
        # Broken data also breaks the running statistics of batch norm in the forward pass.
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        local_losses, data_seconds = self._accumulate_gradients(batches, number)
        self._scaler.unscale_(self._optimizer)
        local_norm = nn.utils.clip_grad_norm_(self._trained, self._options.clip_norm)
        losses, gradient_norm = self._means_over_processes(local_losses, local_norm)
        finite = all(map(math.isfinite, (*losses.values(), gradient_norm)))
        if finite:
            self._scaler.step(self._optimizer)
            self._average.update_parameters(self._model)
        else:
            self._restore_buffers(buffers)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._skipped_in_row = 0 if finite else self._skipped_in_row + 1
        if not finite:
            self._report_skipped(number, losses, gradient_norm)
        return StepMetrics(losses, gradient_norm, not finite, data_seconds)

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]

    def _accumulate_gradients(self, batches: Iterator[Batch], step: int) -> tuple[dict[str, Tensor], float]:
        """Run the forward and backward passes of a step; return the mean losses and the seconds spent on data."""
        passes, data_seconds = self._options.accumulate, 0.0
        means: dict[str, Tensor] = {}
        for index in range(passes):
            started = time.perf_counter()
            batch = next(batches).to(self._device)
            data_seconds += time.perf_counter() - started
            with self._loss.accumulation(last=index == passes - 1):
                losses = self._forward(batch, step, index)
                self._backward(losses)
            for name, loss in losses.items():
                means[name] = means.get(name, 0.0) + loss.detach().float() / passes
        return means, data_seconds

    def _forward(self, batch: Batch, step: int, index: int) -> dict[str, Tensor]:
        """Return the losses of forward pass number `index` of a step."""
        with autocast(self._device, self._dtype):
            return self._loss(batch, self._generator(step, index))

    def _backward(self, losses: dict[str, Tensor]) -> None:
        """Add the gradients of one forward pass."""
        total = torch.stack([loss.float() for loss in losses.values()]).sum() / self._options.accumulate
        if not total.requires_grad:
            raise TrainingError(
                f"no trained parameter takes part in the loss (train {self._options.train!r}, losses "
                f"{sorted(losses)}): use train all, or switch the router on"
            )
        torch.autograd.backward(self._scaler.scale(total))

    def _generator(self, step: int, index: int) -> torch.Generator:
        """Return the random generator of one forward pass, independent of earlier passes."""
        entropy = np.random.SeedSequence((self._options.seed, self._processes.rank, step, index))
        return torch.Generator(self._device).manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))

    def _means_over_processes(self, losses: dict[str, Tensor], norm: Tensor) -> tuple[dict[str, float], float]:
        """Return the mean losses and gradient norm over all processes; waits for the device once."""
        names = sorted(losses)
        local = torch.stack([*(losses[name] for name in names), norm.to(self._device, torch.float32)])
        *means, gradient_norm = (self._processes.sum(local) / self._processes.size).tolist()
        return dict(zip(names, means, strict=True)), gradient_norm

    def _restore_buffers(self, buffers: Sequence[Tensor]) -> None:
        for buffer, before in zip(self._model.buffers(), buffers, strict=True):
            buffer.copy_(before)

    def _report_skipped(self, step: int, losses: dict[str, float], norm: float) -> None:
        broken = [f"loss {name} {value}" for name, value in losses.items() if not math.isfinite(value)]
        values = ", ".join([*broken, f"gradient norm {norm}"])
        if self._processes.is_main:
            if self._scaler.is_enabled() and not broken:
                _log.info("step %d is skipped: its gradients overflow fp16; the loss scale is halved", step)
            else:
                _log.warning("step %d is skipped: %s", step, values)
        if self._skipped_in_row >= _MAX_SKIPPED:
            raise TrainingError(
                f"step {step} was the {_MAX_SKIPPED}th in a row without a finite loss and gradient ({values}): resume "
                "from the last checkpoint with a lower learning rate or in bf16 or fp32, and check the data"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return weights, average, optimiser moments and loss scale."""
        return {
            "model": dict(self._model.state_dict()),
            "ema": average_state(self._average),
            "optimizer": self._optimizer.state_dict()["state"],
            "trained": self._trained_names,
            "scaler": self._scaler.state_dict(),
            "skipped_in_row": self._skipped_in_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict` of the same model, with the current learning rates and weight decay.

        Raises:
            TrainingError: the state trained other parameters.
        """
        moments = self._moments_in_order(state)
        self._model.load_state_dict(state["model"])
        load_average_state(self._average, state["ema"])
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        self._skipped_in_row = state["skipped_in_row"]

    def _moments_in_order(self, state: dict[str, Any]) -> dict[int, Any]:
        """Return a state's optimiser moments by index of the parameter; other factors change the parameters' order."""
        train = self._options.train
        before: list[str] = state.get("trained") or trained_names_without_factors(self._model, train)
        now = self._trained_names
        different = sorted(set(before) ^ set(now))
        if different:
            verb = "trained" if different[0] in before else "frozen"
            raise TrainingError(
                f"other parameters were trained before ({len(different)} differ, such as {different[0]}, which was "
                f"{verb}): resume with the learning-rate factors of this training, or start a new training from its "
                "weights in another folder"
            )
        index = {name: number for number, name in enumerate(now)}
        return {index[before[number]]: moments for number, moments in state["optimizer"].items()}
