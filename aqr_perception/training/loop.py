# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Training loop for any loss and data, with exact resumption.

All that is specific to detection comes as arguments: the samples, their collation into a batch, and the loss.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch

from aqr_perception.data.batch import Batch
from aqr_perception.data.batch_loader import SampleT, TrainingSamples, load_batches
from aqr_perception.data.sample_order import SampleOrder
from aqr_perception.devices import choose_device
from aqr_perception.models.weights.checkpoint import CLASSES_ENTRY, ClassModel, save_checkpoint
from aqr_perception.training import training_state
from aqr_perception.training.distributed import ModelT, Processes, StepLoss
from aqr_perception.training.interruption import StopRequest
from aqr_perception.training.learner import Learner, TrainingError
from aqr_perception.training.progress import Progress
from aqr_perception.training.progress_report import ProgressReport
from aqr_perception.training.random_state import random_state, restore_random_state, seed_generators
from aqr_perception.training.schedule import learning_rate_factor
from aqr_perception.training.training_options import TrainOptions
from aqr_perception.training.training_state import StateError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Result of a training.

    Attributes:
        step: optimiser steps done, including those before a resume.
        finished: false if the training was stopped early; it can be resumed.
        weights: file of the averaged weights; None unless finished.
        message: message for the user: the file of the weights, or how to resume.
        signal_name: name of a signal to stop that this process received, even if it came in the last step.
    """

    step: int
    finished: bool
    weights: Path | None
    message: str
    signal_name: str | None = None


def train(
    model: ModelT,
    samples: TrainingSamples[SampleT],
    collate: Callable[[Sequence[SampleT]], Batch],
    step_loss: StepLoss[ModelT],
    options: TrainOptions,
    folder: Path,
    *,
    resume: bool = False,
    label_sets: Sequence[Collection[int]] | None = None,
    validate: Callable[[ModelT], float] | None = None,
) -> Outcome:
    """Train a model in place. Under torchrun, every process calls this with the same arguments.

    Writes ``checkpoints/step_*.pt`` (the last two), TensorBoard files, ``final.safetensors`` (the averaged weights)
    and, with validation, ``best.safetensors``. SIGTERM and SIGINT stop the training after its current step.

    Args:
        model: model with its initial weights.
        samples, collate: the data; see `TrainingSamples`. Both run in worker processes.
        step_loss: see `StepLoss`.
        options: see `TrainOptions`.
        folder: folder of all files.
        resume: continue from the newest checkpoint in `folder`; start at step 0 without one.
        label_sets: labels in each sample, for class-balanced sampling; None draws each sample equally often.
        validate: returns a score, higher is better, of a model in eval mode with the averaged weights. Every process
            calls it; the mean score counts.

    Raises:
        OptionError, DeviceError: the model or the machine does not support an option.
        StateError: the folder has a training and `resume` is false, or a file cannot be read or written.
        TrainingError: losses stay non-finite, or no trained parameter takes part in the loss.
    """
    processes = Processes.from_environment()
    device = choose_device(options.device)
    if device.type == "cuda" and processes.size > 1:
        device = torch.device("cuda", processes.local_rank)
    seed_generators(options.seed + processes.rank)
    with processes.group(device), StopRequest() as stop:
        training = _Training(model, samples, collate, step_loss, options, folder, processes, device, label_sets)
        training.start(resume)
        return training.run(stop, validate)


class _Training(Generic[ModelT, SampleT]):
    """A running training: the learner, the order of the data, and the progress in both."""

    def __init__(
        self,
        model: ModelT,
        samples: TrainingSamples[SampleT],
        collate: Callable[[Sequence[SampleT]], Batch],
        step_loss: StepLoss[ModelT],
        options: TrainOptions,
        folder: Path,
        processes: Processes,
        device: torch.device,
        label_sets: Sequence[Collection[int]] | None,
    ) -> None:
        self._model, self._samples, self._collate = model, samples, collate
        self._options, self._folder, self._processes, self._device = options, folder, processes, device
        period = options.batch_size * processes.size if options.overfit else None
        self._order = SampleOrder(len(samples), options.seed, label_sets, period)
        self._progress = Progress(
            steps=options.step_count(self._order.pass_length, processes.size),
            seconds=None if options.minutes is None else 60 * options.minutes,
            samples_per_step=options.batch_size * options.accumulate * processes.size,
        )
        self._learner = Learner(model, step_loss, options, processes, device)
        self._best_score: float | None = None
        self._start_time = 0.0

    def start(self, resume: bool) -> None:
        """Continue from the newest checkpoint.

        Raises:
            StateError: there is a checkpoint and `resume` is false.
        """
        folder = self._folder / "checkpoints"
        files = training_state.state_files(folder)
        newest = self._processes.broadcast(files[-1] if files else None)
        if newest is not None and not resume:
            raise StateError(
                f"{newest} belongs to an earlier training: resume that training (--resume), or choose another folder"
            )
        if newest is not None:
            self._load_state(newest)
        elif resume and self._processes.is_main:
            _log.info("%s holds no checkpoint: the training starts at step 0", folder)

    def run(self, stop: StopRequest, validate: Callable[[ModelT], float] | None) -> Outcome:
        """Train until the end or a signal."""
        options, progress = self._options, self._progress
        self._start_time = time.monotonic() - progress.elapsed
        batches, stopped = self._batches(), False
        with ProgressReport(
            self._folder, progress, log_every=options.log_every, silent=not self._processes.is_main
        ) as report:
            while not (stopped or progress.finished):
                stopped = self._step(batches, stop, report)
                if validate is not None and self._is_due(options.validate_every):
                    report.show_score(self._validate(validate))
                if stopped or self._is_due(options.checkpoint_every):
                    self._save_state()
                    report.flush()
        return self._outcome(stop)

    def _batches(self) -> Iterator[Batch]:
        return load_batches(
            self._samples,
            self._collate,
            self._order,
            start=self._progress.samples,
            batch_size=self._options.batch_size,
            workers=self._options.workers,
            progress=self._progress.fraction_at,
            rank=self._processes.rank,
            processes=self._processes.size,
            pin_memory=self._device.type == "cuda",
        )

    def _step(self, batches: Iterator[Batch], stop: StopRequest, report: ProgressReport) -> bool:
        """Run one optimiser step and show it; return whether any process received a signal to stop."""
        options, progress = self._options, self._progress
        factor = learning_rate_factor(progress.fraction, options.schedule, options.warmup)
        learning_rate = options.learning_rate * factor
        started = time.perf_counter()
        metrics = self._learner.step(batches, progress.step + 1, learning_rate)
        progress.advance()
        stopped = self._synchronize(stop)
        seconds = time.perf_counter() - started
        report.show(metrics.curves(learning_rate, seconds, progress.samples_per_step), metrics.skipped)
        return stopped

    def _synchronize(self, stop: StopRequest) -> bool:
        """Give all processes the elapsed time of the first; return whether any received a signal to stop."""
        elapsed = time.monotonic() - self._start_time if self._processes.is_main else 0.0
        local = torch.tensor([float(stop.signal_name is not None), elapsed], dtype=torch.float64, device=self._device)
        stops, self._progress.elapsed = self._processes.sum(local).tolist()
        return bool(stops > 0)

    def _is_due(self, period: int) -> bool:
        """Return whether an action of every `period` steps and the end is due; never for period 0."""
        return period > 0 and (self._progress.step % period == 0 or self._progress.finished)

    def _validate(self, validate: Callable[[ModelT], float]) -> float:
        """Return the score of the averaged weights, and export them if it is the best so far."""
        local = torch.tensor([float(validate(self._learner.averaged))], device=self._device)
        score = float(self._processes.sum(local)) / self._processes.size
        if self._best_score is None or score > self._best_score:
            self._best_score = score
            self._export("best.safetensors")
        return score

    def _export(self, name: str) -> Path:
        """Write the averaged weights for the detector."""
        path = self._folder / name
        if self._processes.is_main:
            save_checkpoint(self._learner.averaged, path)
        return path

    def _outcome(self, stop: StopRequest) -> Outcome:
        step = self._progress.step
        if self._progress.finished:
            path = self._export("final.safetensors")
            return Outcome(step, True, path, f"{path}: averaged weights after {step} steps", stop.signal_name)
        message = (
            f"stopped after step {step} ({stop.signal_name or 'a signal to another process'}); {self._folder} holds "
            "everything: run the same command with --resume to continue"
        )
        return Outcome(step, False, None, message, stop.signal_name)

    def _save_state(self) -> None:
        state: dict[str, Any] = {
            "step": self._progress.step,
            "samples": self._progress.samples,
            "elapsed": self._progress.elapsed,
            "best": self._best_score,
            "options": self._options.as_dict(),
            "random": self._processes.gather(random_state()),
            **self._learner.state_dict(),
        }
        if isinstance(self._model, ClassModel):
            state[CLASSES_ENTRY] = list(self._model.classes)
        if self._processes.is_main:
            training_state.write_state(state, self._folder / "checkpoints", self._progress.step)

    def _load_state(self, path: Path) -> None:
        state = training_state.read_state(path)
        training_state.require_same_model(path, state, self._model)
        changed = training_state.changed_options(path, state, self._options)
        try:
            self._learner.load_state_dict(state)
        except TrainingError as error:
            raise StateError(f"{path}: {error}") from error
        progress = self._progress
        progress.step, progress.samples, progress.elapsed = state["step"], state["samples"], state["elapsed"]
        self._best_score = state["best"]
        if len(state["random"]) == self._processes.size:
            restore_random_state(state["random"][self._processes.rank])
        if self._processes.is_main:
            if changed:
                _log.warning("%s: resumed with other options: %s", path, ", ".join(changed))
            _log.info("%s: resumed after step %d", path, progress.step)
