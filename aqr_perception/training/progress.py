"""What a training says while it runs: a progress bar and TensorBoard curves."""

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

_log = logging.getLogger(__name__)

_LINE_PERIOD = 60.0
"""Seconds between two lines of a log that is no terminal, where a bar would only be noise."""


class Report:
    """Shows each step's figures; a silent one does nothing (all processes but the first).

    Each point of a curve is the mean of `log_every` steps, at the last of them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int,
        steps: int | None,
        seconds: float | None,
        elapsed: float,
        log_every: int,
        silent: bool,
    ) -> None:
        """Open the bar and the curves.

        Args:
            folder: of the TensorBoard files.
            step: already done; curves of a training that was killed later than this are cut here.
            steps: of the whole training; None where a clock ends it.
            seconds: of the whole training, where a clock ends it.
            elapsed: seconds trained before.
            log_every: steps of one point.
            silent: whether to do nothing.
        """
        self._silent = silent
        if silent:
            return
        # Takes a second to import, and only here is it needed.
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        self._steps, self._seconds, self._log_every = steps, seconds, log_every
        total, done, unit = (steps, step, "step") if steps is not None else (round(seconds or 0), round(elapsed), "s")
        # disable=None: no bar where nobody sees it.
        self._bar: Any = tqdm(total=total, initial=done, unit=unit, desc="training", disable=None, dynamic_ncols=True)
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._first = (step, elapsed)
        self._last_line = time.monotonic()

    def show(self, step: int, elapsed: float, figures: Mapping[str, float], skipped: bool) -> None:
        """Show one step.

        Args:
            step: now done.
            elapsed: seconds trained so far.
            figures: by tag; ``loss/total`` is shown in the bar.
            skipped: whether its figures are no numbers, and would hide the others in a mean.
        """
        if self._silent:
            return
        if not skipped:
            for tag, value in figures.items():
                self._sums[tag].append(value)
        if step % self._log_every == 0:
            for tag, values in self._sums.items():
                self._writer.add_scalar(tag, sum(values) / len(values), step)
            self._sums.clear()
        self._bar.set_postfix(loss=f"{figures['loss/total']:.4g}", refresh=False)
        self._bar.update((step if self._steps is not None else round(elapsed)) - self._bar.n)
        if self._bar.disable:
            self._line(step, elapsed, figures)

    def _line(self, step: int, elapsed: float, figures: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._last_line < _LINE_PERIOD:
            return
        self._last_line = now
        if self._steps is not None:
            left = (elapsed - self._first[1]) / (step - self._first[0]) * (self._steps - step)
        else:
            left = (self._seconds or 0.0) - elapsed
        _log.info("step %d, loss %.4g, about %.0f min left", step, figures["loss/total"], left / 60)

    def score(self, step: int, value: float) -> None:
        """Show a validation's score."""
        if self._silent:
            return
        self._writer.add_scalar("validation/score", value, step)
        self._bar.write(f"step {step}: validation score {value:.4f}")

    def flush(self) -> None:
        """Put the curves on disk, as a checkpoint is."""
        if not self._silent:
            self._writer.flush()

    def __enter__(self) -> "Report":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._silent:
            self._bar.close()
            self._writer.close()
