# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Real trainings of a plan, from the drawing of frames to the card, with interruptions."""

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from helpers import stand_in
from helpers.small_plan import with_stage, write_plan
from safetensors.torch import load_file

from aqr_perception.cli import main
from aqr_perception.data.sources.simulated import SimulatedDataset
from aqr_perception.frame import LabelledFrame
from aqr_perception.training.plan import frame_drawing, plan_run, single_training
from aqr_perception.training.plan.frame_drawing import draw_frames, undrawn_frames

PICTURE = (32, 32)


@pytest.fixture(scope="module")
def drawn_frame() -> LabelledFrame:
    return SimulatedDataset([10_001], PICTURE, 1)[0]


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch, drawn_frame: LabelledFrame) -> list[tuple[int, float]]:
    """Draw the same frame for each scene; return the list of the drawn seeds and ages."""
    drawn: list[tuple[int, float]] = []

    def draw(_: SimulatedDataset, seed: int, age: float) -> LabelledFrame:
        drawn.append((seed, age))
        return drawn_frame

    monkeypatch.setattr(SimulatedDataset, "_draw", draw)
    return drawn


def test_interrupted_drawing_continues_with_the_frames_that_are_missing(
    tmp_path: Path, drawings: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SimulatedDataset(range(3), PICTURE, 1, tmp_path)
    whole = SimulatedDataset._draw

    def interrupted(self: SimulatedDataset, seed: int, age: float) -> LabelledFrame:
        if seed == 1:
            raise KeyboardInterrupt
        return whole(self, seed, age)

    monkeypatch.setattr(SimulatedDataset, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_frames(data, 0)
    assert undrawn_frames(data) == [1, 2]
    monkeypatch.setattr(SimulatedDataset, "_draw", whole)
    draw_frames(data, 0)
    assert drawings == [(0, 0.0), (1, 0.0), (2, 0.0)] and undrawn_frames(data) == []
    draw_frames(data, 0, history=1)
    assert drawings[3:] == [(0, 0.5), (1, 0.5), (2, 0.5)]


def test_a_frame_that_a_power_failure_spoilt_is_drawn_again(
    tmp_path: Path, drawings: list[tuple[int, float]], caplog: pytest.LogCaptureFixture
) -> None:
    data = SimulatedDataset([1], PICTURE, 1, tmp_path)
    whole = data[0]
    (path,) = tmp_path.rglob("*.npz")
    content = path.read_bytes()
    for spoilt in (b"", content[: len(content) // 2], bytes(len(content))):
        path.write_bytes(spoilt)
        assert data[0].frame.stamp_ns == whole.frame.stamp_ns
        assert path.read_bytes() == content and "the damaged frame is drawn again" in caplog.text
        caplog.clear()
    assert len(drawings) == 4


def test_a_frame_that_cannot_be_drawn_ends_the_drawing_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> LabelledFrame:
        raise OSError("no space left on device")

    monkeypatch.setattr(SimulatedDataset, "_draw", fail)
    with pytest.raises(ValueError, match=r"^no space left on device$"):
        draw_frames(SimulatedDataset([1], PICTURE, 1, tmp_path), 0)
    assert frame_drawing.undrawn_frames(SimulatedDataset([1], PICTURE, 1, tmp_path)) == [0]


def signal_in_step(monkeypatch: pytest.MonkeyPatch, calls: int, number: int) -> None:
    """Send this process a signal in forward pass number `calls`, counted over all stages."""
    kind = single_training.DetectionLoss
    left = calls

    class Loss(kind):  # type: ignore[misc,valid-type]
        def __call__(self, *arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)
            return super().__call__(*arguments)

    monkeypatch.setattr(single_training, "DetectionLoss", Loss)


def kill_after_first_stage(arguments: list[str]) -> None:
    plan_run.write_card = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # after the stage, before the next
    main(arguments)


@pytest.mark.slow
@pytest.mark.usefixtures("drawings", "one_thread")
def test_a_killed_and_interrupted_plan_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = with_stage("all", **{"validate-every": 2, "validation-frames": 1})
    stages[2] = {**stages[2], "checkpoint": {"stage": "all", "weights": "best"}}
    data = {"frames": 2, "data-root": "drawn", "batch-size": 1, "checkpoint-every": 1, "learning-rate": "1e-3"}
    plan = write_plan(tmp_path, stages=stages, **data)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["train", "--plan", str(plan), "--output", str(whole)]) == 0
    command = ["train", "--plan", str(plan), "--output", str(parts)]
    killed = multiprocessing.get_context("fork").Process(target=kill_after_first_stage, args=(command,))
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    for calls, number in ((2, signal.SIGINT), (1, signal.SIGTERM)):  # steps 2 and 3, its last, of the stage "all"
        with monkeypatch.context() as patch:
            signal_in_step(patch, calls, number)
            assert main(command) == 130
        assert "continue with: aqr_perception train --plan" in capsys.readouterr().out
    assert main(command) == 0
    for name in ("result", "branches/final", "all/best", "all/final", "router/final"):
        one, other = (load_file(run / f"{name}.safetensors") for run in (whole, parts))
        assert stand_in.differences(one, other) == []
    assert len(load_file(whole / "result.safetensors")) > 100
    cards = [json.loads((run / "card.json").read_text()) for run in (whole, parts)]
    assert [stage["sessions"] for stage in cards[0]["stages"]] == [1, 1, 1]
    assert [stage["sessions"] for stage in cards[1]["stages"]] == [1, 2, 1]
    scores = [[stage["validation"] for stage in card["stages"]] for card in cards]
    assert scores[0] == scores[1] and [point["step"] for point in scores[0][1]] == [2, 3]
    assert all(stage["samples_per_second"] > 0 and stage["minutes"] >= 0 for stage in cards[1]["stages"])
    for run in (whole, parts):
        assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--steps", "5", "--model", "petr_tiny"), "--model, --steps cannot be given with --plan"),
        (("--no-corruption",), "--no-corruption cannot"),
        (("--learning-rate-factor", "img_neck=0"), "--learning-rate-factor cannot"),
    ],
)
def test_flags_of_a_single_training_are_refused_beside_a_plan(
    flags: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--plan", str(write_plan(tmp_path)), "--output", str(tmp_path), *flags]) == 1
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("flag", [("--status",), ("--dry-run",), ("--restart", "all")])
def test_flags_of_plans_are_refused_without_one(flag: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *flag]) == 1
    assert "for plans only: give --plan" in capsys.readouterr().err


def test_the_status_of_a_plan_with_changed_settings_shows_them_and_fails(
    tmp_path: Path, stand_ins: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--plan", str(write_plan(tmp_path)), "--output", str(tmp_path / "run")]
    assert main([*command, "--dry-run"]) == 0 and "waiting" in capsys.readouterr().out
    assert main(command) == 0 and "result.safetensors" in capsys.readouterr().out
    write_plan(tmp_path, seed=4)
    assert main([*command, "--status"]) == 1
    captured = capsys.readouterr()
    assert "done: step 2 of 2" in captured.out and "seed 0 -> 4" in captured.err
