# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Progress bar, log lines and TensorBoard curves of a training."""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from aqr_perception.training.progress import Progress

_log = logging.getLogger(__name__)

_LINE_PERIOD = 60.0
"""Seconds between two log lines without a terminal for a progress bar."""

_RATE_STEPS = 50
"""Number of steps of which the mean samples per second are shown."""


class ProgressReport:
    """Progress display of a training; a silent report (in all processes but the first) does nothing.

    Each point of a curve is the mean over `log_every` steps, at the last one.
    """

    def __init__(self, folder: Path, progress: Progress, *, log_every: int, silent: bool) -> None:
        """Open the progress bar and the curves.

        Args:
            folder: folder of the TensorBoard files. Removes points of later steps, left by a training that was killed
                after its last checkpoint.
            progress: progress of the training; each `show` reads its current values.
            log_every: number of steps per point of a curve.
            silent: whether to do nothing.
        """
        self._silent = silent
        if silent:
            return
        # The import takes a second; the other processes do not need it.
        from torch.utils.tensorboard.writer import SummaryWriter

        self._progress, self._log_every = progress, log_every
        self._writer: Any = SummaryWriter(str(folder), purge_step=progress.step + 1 if progress.step else None)
        self._bar: Any = _bar(progress)
        self._values: dict[str, list[float]] = defaultdict(list)
        self._first_step, self._first_elapsed = progress.step, progress.elapsed
        self._last_line = time.monotonic()
        self._step_seconds: deque[float] = deque(maxlen=_RATE_STEPS)

    def show(self, values: Mapping[str, float], skipped: bool) -> None:
        """Show the latest step of `progress`.

        Args:
            values: values by TensorBoard tag; the progress bar also shows ``loss/total``, and samples per second by
                ``training/seconds_per_step``.
            skipped: whether to omit the values from the curves, because they are not finite.
        """
        if self._silent:
            return
        self._add_to_curves(values, skipped)
        loss, done = values["loss/total"], self._progress
        self._step_seconds.append(values["training/seconds_per_step"])
        rate = len(self._step_seconds) * done.samples_per_step / sum(self._step_seconds)
        self._bar.set_postfix({"loss": f"{loss:.4g}", "samples/s": f"{rate:.3g}"}, refresh=False)
        self._bar.update((round(done.elapsed) if done.steps is None else done.step) - self._bar.n)
        if self._bar.disable and time.monotonic() - self._last_line >= _LINE_PERIOD:
            self._last_line = time.monotonic()
            _log.info(
                "step %d, loss %.4g, %.3g samples/s, about %.0f min left",
                *(done.step, loss, rate, self._seconds_left() / 60),
            )

    def _add_to_curves(self, values: Mapping[str, float], skipped: bool) -> None:
        if not skipped:
            for tag, value in values.items():
                self._values[tag].append(value)
        if self._progress.step % self._log_every == 0:
            for tag, period in self._values.items():
                self._writer.add_scalar(tag, sum(period) / len(period), self._progress.step)
            self._values.clear()

    def _seconds_left(self) -> float:
        done = self._progress
        if done.steps is None:
            return (done.seconds or 0.0) - done.elapsed
        per_step = (done.elapsed - self._first_elapsed) / (done.step - self._first_step)
        return per_step * (done.steps - done.step)

    def show_score(self, score: float) -> None:
        """Show the score of a validation."""
        if self._silent:
            return
        self._writer.add_scalar("validation/score", score, self._progress.step)
        self._bar.write(f"step {self._progress.step}: validation score {score:.4f}")

    def flush(self) -> None:
        """Write the curves to disk."""
        if not self._silent:
            self._writer.flush()

    def __enter__(self) -> "ProgressReport":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._silent:
            self._bar.close()
            self._writer.close()


def _bar(progress: Progress) -> Any:
    """Return a progress bar in steps or seconds."""
    if progress.steps is None:
        total, done, unit = round(progress.seconds or 0), round(progress.elapsed), "s"
    else:
        total, done, unit = progress.steps, progress.step, "step"
    # disable=None: no bar without a terminal.
    return tqdm(total=total, initial=done, unit=unit, desc="training", disable=None, dynamic_ncols=True)
