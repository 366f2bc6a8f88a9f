"""A model that learns: loss, gradients, optimiser and weight average of one training step."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from aqr_perception.data.batch import Batch
from aqr_perception.devices import choose_precision
from aqr_perception.training.distributed import ModelT, ParallelLoss, Processes, StepLoss
from aqr_perception.training.ema import Ema
from aqr_perception.training.trainable import freeze, parameter_groups, set_mode
from aqr_perception.training.training_options import TrainOptions

_log = logging.getLogger(__name__)

_MOST_SKIPPED = 20
"""Steps in a row without a finite loss and gradient after which the training gives up."""

_BETAS = (0.9, 0.99)


class TrainingError(ValueError):
    """The training cannot go on; the message says why and what to change."""


class StepFigures(NamedTuple):
    """What one step was like: the same in all processes but for the wait.

    Attributes:
        losses: parts by name, means over forward passes and processes.
        gradient_norm: before clipping.
        skipped: whether a figure was not finite, and the model was left as it was.
        waited: seconds for data.
    """

    losses: dict[str, float]
    gradient_norm: float
    skipped: bool
    waited: float

    def curves(self, learning_rate: float, seconds: float, samples: int) -> dict[str, float]:
        """Return the figures by TensorBoard tag, with those of a step that took so long for so many samples."""
        return {
            **{f"loss/{name}": value for name, value in self.losses.items()},
            "loss/total": sum(self.losses.values()),
            "training/learning_rate": learning_rate,
            "training/gradient_norm": self.gradient_norm,
            "training/seconds_per_step": seconds,
            "training/seconds_waiting_for_data": self.waited,
            "training/samples_per_second": samples / seconds,
        }


class Learner(Generic[ModelT]):
    """A model on its device with everything that changes it, but for the data.

    Attributes:
        average: of the model's weights.
    """

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
        freeze(model, options.train)
        set_mode(model, options.train)
        self.loss = ParallelLoss(model, step_loss, processes, device)
        self._optimizer = torch.optim.AdamW(
            parameter_groups(model, options), betas=_BETAS, weight_decay=options.weight_decay, fused=True
        )
        self._trained = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype == torch.float16)
        self.average = Ema(model, options.ema_decay)
        self._skipped_in_row = 0

    def learn(self, batches: Iterator[Batch], step: int, learning_rate: float) -> StepFigures:
        """Do optimiser step number `step`, counted from 1, on the next batches.

        Raises:
            TrainingError: losses stay non-finite, or nothing trained takes part in the loss.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        # A forward pass of broken data breaks the running statistics of batch norm, too.
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        parts, waited = self._gradients(batches, step)
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._trained, self._options.clip_norm)
        losses, gradient_norm = self._means(parts, norm)

        skipped = not all(map(math.isfinite, (*losses.values(), gradient_norm)))
        if not skipped:
            self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if skipped:
            for buffer, before in zip(self._model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            self._report_skipped(step, losses, gradient_norm)
        else:
            self.average.update()
            self._skipped_in_row = 0
        return StepFigures(losses, gradient_norm, skipped, waited)

    def _gradients(self, batches: Iterator[Batch], step: int) -> tuple[dict[str, Tensor], float]:
        """Add up a step's gradients; return the loss's parts and the seconds waited for data."""
        passes, waited = self._options.accumulate, 0.0
        parts: dict[str, Tensor] = {}
        for part in range(passes):
            asked = time.perf_counter()
            batch = next(batches).to(self._device)
            waited += time.perf_counter() - asked
            with self.loss.accumulation(last=part == passes - 1):
                with self._autocast():
                    losses = self.loss(batch, self._generator(step, part))
                total = torch.stack([loss.float() for loss in losses.values()]).sum() / passes
                if not total.requires_grad:
                    raise TrainingError(
                        f"no trained parameter takes part in the loss (train {self._options.train!r}, losses "
                        f"{sorted(losses)}): train all, or switch the router on"
                    )
                self._scaler.scale(total).backward()
            for name, loss in losses.items():
                parts[name] = parts.get(name, 0.0) + loss.detach().float() / passes
        return parts, waited

    def _means(self, parts: dict[str, Tensor], norm: Tensor) -> tuple[dict[str, float], float]:
        """Return losses and gradient norm that all processes go by: one wait for the device a step."""
        names = sorted(parts)
        own = torch.stack([*(parts[name] for name in names), norm.to(self._device, torch.float32)])
        *losses, gradient_norm = (self._processes.sum(own) / self._processes.size).tolist()
        return dict(zip(names, losses, strict=True)), gradient_norm

    def _report_skipped(self, step: int, losses: dict[str, float], norm: float) -> None:
        self._skipped_in_row += 1
        broken = [f"loss {name} {value}" for name, value in losses.items() if not math.isfinite(value)]
        found = ", ".join([*broken, f"gradient norm {norm}"])
        if self._processes.is_main:
            if self._scaler.is_enabled() and not broken:
                _log.info("step %d is skipped: its gradients overflow fp16, whose scale is halved", step)
            else:
                _log.warning("step %d is skipped: %s", step, found)
        if self._skipped_in_row >= _MOST_SKIPPED:
            raise TrainingError(
                f"step {step} was the {_MOST_SKIPPED}th in a row without a finite loss and gradient ({found}): resume "
                "from the last checkpoint with a lower learning rate or in bf16 or fp32, and check the data"
            )

    def _autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self._dtype == torch.float32 else torch.autocast(self._device.type, self._dtype)

    def _generator(self, step: int, part: int) -> torch.Generator:
        """Return the random numbers of one forward pass: a function of the seed, not of what was drawn before."""
        entropy = np.random.SeedSequence((self._options.seed, self._processes.rank, step, part))
        return torch.Generator(self._device).manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))

    def state_dict(self) -> dict[str, Any]:
        """Return weights, average, moments and scale."""
        return {
            "model": dict(self._model.state_dict()),
            "ema": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict()["state"],
            "scaler": self._scaler.state_dict(),
            "skipped_in_row": self._skipped_in_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of the same model."""
        self._model.load_state_dict(state["model"])
        self.average.load_state_dict(**state["ema"])
        # The rates and the decay are the present options'.
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        self._skipped_in_row = state["skipped_in_row"]
