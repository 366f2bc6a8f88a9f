# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Progress of a training: a bar on a terminal, lines in a log."""

import io
import logging
import sys
from pathlib import Path

import pytest

from aqr_perception.training import progress_report
from aqr_perception.training.progress import Progress
from aqr_perception.training.progress_report import ProgressReport


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show_three_steps(folder: Path, *, steps: int | None, seconds: float | None) -> None:
    """Show three steps of two seconds each, after one step before a resume."""
    progress = Progress(steps, seconds, samples_per_step=4, step=1, elapsed=2.0)
    with ProgressReport(folder, progress, log_every=1, silent=False) as report:
        for _ in range(3):
            progress.advance()
            progress.elapsed += 2.0
            report.show({"loss/total": 7.25, "training/seconds_per_step": 0.5}, skipped=False)


@pytest.mark.parametrize(
    ("steps", "seconds", "done"), [(10, None, "4/10"), (None, 40.0, "8/40")], ids=["steps", "clock"]
)
def test_a_terminal_gets_a_bar_with_time_left_loss_and_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int | None, seconds: float | None, done: str
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show_three_steps(tmp_path, steps=steps, seconds=seconds)
    bar = terminal.getvalue().split("\r")[-1]
    assert done in bar and "<" in bar and "loss=7.25, samples/s=8" in bar


@pytest.mark.parametrize(("steps", "seconds"), [(124, None), (None, 248.0)], ids=["steps", "clock"])
def test_a_log_gets_lines_with_time_left_and_speed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    steps: int | None,
    seconds: float | None,
) -> None:
    monkeypatch.setattr(progress_report, "_LINE_PERIOD", 0.0)
    with caplog.at_level(logging.INFO):
        show_three_steps(tmp_path, steps=steps, seconds=seconds)
    assert caplog.messages[-1] == "step 4, loss 7.25, 8 samples/s, about 4 min left"  # 120 steps of 2 s


def test_only_the_first_process_reports(tmp_path: Path) -> None:
    progress = Progress(1, None, samples_per_step=1)
    with ProgressReport(tmp_path / "new", progress, log_every=1, silent=True) as report:
        progress.advance()
        report.show({"loss/total": 1.0, "training/seconds_per_step": 1.0}, skipped=False)
        report.show_score(0.5)
        report.flush()
    assert not (tmp_path / "new").exists()
