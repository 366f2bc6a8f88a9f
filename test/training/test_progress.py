"""A training says how far it is: with a bar on a terminal, with lines in a log."""

import io
import logging
import sys
from pathlib import Path

import pytest

from aqr_perception.training import progress as report
from aqr_perception.training.progress import Report


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(folder: Path, *, steps: int | None, seconds: float | None) -> None:
    """Show three steps of two seconds each, after one of an earlier session."""
    with Report(folder, step=1, steps=steps, seconds=seconds, elapsed=2.0, log_every=1, silent=False) as training:
        for step in (2, 3, 4):
            training.show(step, 2.0 * step, {"loss/total": 7.25}, skipped=False)


@pytest.mark.parametrize(
    ("steps", "seconds", "done"), [(10, None, "4/10"), (None, 40.0, "8/40")], ids=["steps", "clock"]
)
def test_a_terminal_gets_a_bar_with_time_left_and_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int | None, seconds: float | None, done: str
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown(tmp_path, steps=steps, seconds=seconds)
    bar = terminal.getvalue().split("\r")[-1]
    assert done in bar and "<" in bar and "loss=7.25" in bar


@pytest.mark.parametrize(("steps", "seconds"), [(124, None), (None, 248.0)], ids=["steps", "clock"])
def test_a_log_gets_lines_with_time_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    steps: int | None,
    seconds: float | None,
) -> None:
    monkeypatch.setattr(report, "_LINE_PERIOD", 0.0)
    with caplog.at_level(logging.INFO):
        shown(tmp_path, steps=steps, seconds=seconds)
    assert caplog.messages[-1] == "step 4, loss 7.25, about 4 min left"  # 120 steps of 2 s


def test_all_processes_but_the_first_are_silent(tmp_path: Path) -> None:
    with Report(tmp_path / "new", step=0, steps=1, seconds=None, elapsed=0.0, log_every=1, silent=True) as training:
        training.show(1, 1.0, {"loss/total": 1.0}, skipped=False)
        training.score(1, 0.5)
        training.flush()
    assert not (tmp_path / "new").exists()
