"""The training loop: N steps of any loss on any data, resumable to the same state.

What is specific to detection comes in as functions: the samples, how a batch is made of them, and its loss.
"""

import copy
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
from aqr_perception.models.weights.checkpoint import save_checkpoint
from aqr_perception.training import state as states
from aqr_perception.training.distributed import ModelT, Processes, StepLoss
from aqr_perception.training.interruption import StopRequest
from aqr_perception.training.learner import Learner
from aqr_perception.training.progress import Report
from aqr_perception.training.schedule import learning_rate_factor
from aqr_perception.training.state import StateError
from aqr_perception.training.trainable import set_mode
from aqr_perception.training.training_options import TrainOptions

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        step: optimiser steps done, in all.
        finished: whether it came to its end; otherwise it was asked to stop and can be resumed.
        weights: the averaged weights, once finished.
        best: the highest validation score; None without validation. Its weights are in ``best.safetensors``.
        sentence: for the user: what there is now, or how to go on.
    """

    step: int
    finished: bool
    weights: Path | None
    best: float | None
    sentence: str


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

    Folder, then, holds ``checkpoints/step_*.pt`` (the last two), TensorBoard files, ``final.safetensors`` (the averaged
    weights) and, with validation, ``best.safetensors``. SIGTERM and SIGINT end it after the step under way.

    Args:
        model: with the weights to start from.
        samples, collate: the data; see `TrainingSamples`. Worker processes run both.
        step_loss: see `StepLoss`.
        options: see `TrainOptions`.
        folder: for everything that is written.
        resume: go on from the newest checkpoint in `folder`, or start where there is none.
        label_sets: the labels that each sample shows, for class-balanced sampling; None for each sample as often.
        validate: returns a score, higher is better, of the model with averaged weights in eval mode. Each process is
            asked; the mean counts.

    Raises:
        OptionError, DeviceError: an option cannot be had with this model or machine.
        StateError: the folder holds a training that was not to be resumed, or a file cannot be read or written.
        TrainingError: losses stay non-finite, or nothing trained takes part in the loss.
    """
    processes = Processes.from_environment()
    device = choose_device(options.device)
    if device.type == "cuda" and processes.size > 1:
        device = torch.device("cuda", processes.local_rank)
    states.seed_random_states(options.seed + processes.rank)
    with processes.joined(device), StopRequest() as stop:
        training = _Training(model, samples, collate, step_loss, options, folder, processes, device, label_sets)
        training.start(resume)
        return training.run(stop, validate)


class _Training(Generic[ModelT, SampleT]):
    """A training under way: its learner, and where in the data and in time it is."""

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
        self._samples_per_step = options.batch_size * options.accumulate * processes.size
        self._seconds = None if options.minutes is None else 60 * options.minutes
        period = options.batch_size * processes.size if options.overfit else None
        self._stream = SampleOrder(len(samples), options.seed, label_sets, period)
        self._steps = options.step_count(self._stream.pass_length, processes.size)
        # Keys and shapes for exports, without memory; a sharded model cannot be copied any more.
        self._exported = copy.deepcopy(model).to("meta")
        self._learner = Learner(model, step_loss, options, processes, device)
        self._step, self._seen, self._elapsed = 0, 0, 0.0
        self._best: float | None = None

    def start(self, resume: bool) -> None:
        """Go on from the newest checkpoint, or make sure that there is none to be lost."""
        folder = self._folder / "checkpoints"
        found = states.states(folder)
        newest = self._processes.from_first(found[-1] if found else None)
        if newest is None:
            if resume:
                _log.info("%s holds no checkpoint: the training starts at step 0", folder)
            return
        assert isinstance(newest, Path)
        if not resume:
            raise StateError(f"{newest} is of an earlier training: resume it (--resume), or choose another folder")
        self._restore(newest)
        if self._processes.writes:
            _log.info("%s: going on after step %d", newest, self._step)

    def run(self, stop: StopRequest, validate: Callable[[ModelT], float] | None) -> Outcome:
        """Train until the end, or until asked to stop."""
        options = self._options
        self._began = time.monotonic() - self._elapsed
        stream = self._batches()
        stopped = False
        with Report(
            self._folder,
            step=self._step,
            steps=self._steps,
            seconds=self._seconds,
            elapsed=self._elapsed,
            log_every=options.log_every,
            silent=not self._processes.writes,
        ) as report:
            while not (stopped or self._finished()):
                rate = options.learning_rate * learning_rate_factor(self._progress(), options.schedule, options.warmup)
                asked = time.perf_counter()
                figures = self._learner.learn(stream, self._step + 1, rate)
                self._step += 1
                self._seen += self._samples_per_step
                stopped = self._agree(stop)
                curves = figures.curves(rate, time.perf_counter() - asked, self._samples_per_step)
                report.show(self._step, self._elapsed, curves, figures.skipped)
                every = options.validate_every
                if validate is not None and every and (self._step % every == 0 or self._finished()):
                    report.score(self._step, self._validate(validate))
                if self._step % options.checkpoint_every == 0 or stopped or self._finished():
                    self._save()
                    report.flush()
        return self._outcome(stop)

    def _batches(self) -> Iterator[Batch]:
        steps, seconds = self._steps, self._seconds
        step, seen, per_step = self._step, self._seen, self._samples_per_step

        def progress(number: int) -> float:
            """Of the training, when this sample is prepared."""
            if steps is not None:
                return min(1.0, (step + (number - seen) / per_step) / steps)
            return min(1.0, (time.monotonic() - self._began) / (seconds or 1.0))

        return load_batches(
            self._samples,
            self._collate,
            self._stream,
            start=seen,
            batch_size=self._options.batch_size,
            workers=self._options.workers,
            progress=progress,
            rank=self._processes.rank,
            processes=self._processes.size,
            pin_memory=self._device.type == "cuda",
        )

    def _progress(self) -> float:
        if self._steps is not None:
            return self._step / self._steps
        assert self._seconds is not None
        return self._elapsed / self._seconds

    def _finished(self) -> bool:
        return self._progress() >= 1.0

    def _agree(self, stop: StopRequest) -> bool:
        """Set all processes' clocks by the first one's; return whether any was asked to stop."""
        elapsed = time.monotonic() - self._began if self._processes.writes else 0.0
        own = torch.tensor([float(stop.signal_name is not None), elapsed], dtype=torch.float64, device=self._device)
        asked, self._elapsed = self._processes.sum(own).tolist()
        return asked > 0

    def _validate(self, validate: Callable[[ModelT], float]) -> float:
        with self._learner.average.applied(), self._learner.loss.gathered():
            self._model.eval()
            own = torch.tensor([float(validate(self._model))], device=self._device)
            set_mode(self._model, self._options.train)
        score = float(self._processes.sum(own)) / self._processes.size
        if self._best is None or score > self._best:
            self._best = score
            self._export("best.safetensors")
        return score

    def _export(self, name: str) -> Path:
        """Write the averaged weights as the detector reads them."""
        average = self._learner.average.whole()
        path = self._folder / name
        if self._processes.writes:
            self._exported.load_state_dict(average, assign=True)
            save_checkpoint(self._exported, path)
        return path

    def _outcome(self, stop: StopRequest) -> Outcome:
        if self._finished():
            path = self._export("final.safetensors")
            return Outcome(self._step, True, path, self._best, f"{path}: averaged weights after {self._step} steps")
        sentence = (
            f"stopped after step {self._step} ({stop.signal_name or 'another process was asked to'}); everything is in "
            f"{self._folder}: give the same command with --resume to go on"
        )
        return Outcome(self._step, False, None, self._best, sentence)

    def _save(self) -> None:
        captured: dict[str, Any] = {
            "step": self._step,
            "samples": self._seen,
            "elapsed": self._elapsed,
            "best": self._best,
            "options": self._options.as_dict(),
            "random": self._processes.gathered(states.random_states()),
            **self._learner.state_dict(),
        }
        if self._processes.writes:
            states.write(captured, self._folder / "checkpoints", self._step)

    def _restore(self, path: Path) -> None:
        found = states.read(path)
        states.require_same_model(path, found, self._model)
        changed = states.changed_options(path, found, self._options)
        if changed and self._processes.writes:
            _log.warning("%s: resumed with other options: %s", path, ", ".join(changed))
        self._learner.load_state_dict(found)
        self._step, self._seen, self._elapsed = found["step"], found["samples"], found["elapsed"]
        self._best = found["best"]
        if len(found["random"]) == self._processes.size:
            states.set_random_states(found["random"][self._processes.rank])
