"""Command ``aqr_perception train``: from its options to the call of the training loop."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aqr_perception.cli import main
from aqr_perception.models.cmt.model import CMT
from aqr_perception.training.loop import Outcome


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs the command without training, and returns the loop's arguments."""
    recorded: list[tuple[Any, ...]] = []

    def record(*arguments: Any, **_: Any) -> Outcome:
        recorded.append(arguments)
        return Outcome(1, True, None, "trained")

    def run(*options: str) -> SimpleNamespace:
        monkeypatch.setattr("aqr_perception.training.loop.train", record)
        command = ["train", "--data-root", str(tmp_path), "--frames", "2", "--steps", "1", "--output", str(tmp_path)]
        assert main([*command, *options]) == 0
        model, _, _, loss, train_options, _ = recorded[-1]
        return SimpleNamespace(model=model, loss=loss, options=train_options)

    return run


def test_learning_rate_factors_reach_the_training(asked: Any) -> None:
    factors = ("--learning-rate-factor", "img_backbone=0", "--learning-rate-factor", "pts_bbox_head.transformer=0.5")
    assert asked(*factors).options.learning_rate_factors == {"img_backbone": 0.0, "pts_bbox_head.transformer": 0.5}
    assert asked().options.learning_rate_factors == {}


@pytest.mark.parametrize("factor", ["img_backbone", "=0.5", "img_backbone=", "img_backbone=slow"])
def test_a_factor_that_cannot_be_read_is_refused(factor: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--learning-rate-factor", factor])
    assert f"found '{factor}', needed PART=F" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("factors", "named"),
    [
        (("img_neck=0.5", "img_neck=0.1"), "gives img_neck the factors 0.5 and 0.1"),
        (("img_neck=-1",), "'img_neck' is -1.0"),
        (("img_nek=0.5",), "has the part 'img_nek'.*did you mean 'img_neck'"),
    ],
)
def test_a_wrong_factor_is_named(
    factors: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for factor in factors for word in ("--learning-rate-factor", factor)]
    assert main(["train", "--data-root", str(tmp_path), "--output", str(tmp_path), "--steps", "1", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert re.search(named, line)


def test_training_our_router_uses_the_weights_in_both_ways_with_its_own_loss(asked: Any) -> None:
    call = asked("--preset", "cmt_vit_small", "--train", "aqr")
    assert call.model.aqr_options.mode == "both" and call.model.router_trained
    assert call.loss.router_weight == 1.0
    assert asked("--router-weight", "0.3").loss.router_weight == 0.3


def test_a_router_without_supervision_keeps_its_presets_mode_and_has_no_loss(
    asked: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(CMT, "router_supervised", False)
    with caplog.at_level(logging.WARNING):
        call = asked("--train", "aqr")
        assert "--router-weight" not in caplog.text
        assert call.model.aqr_options.mode == "both" == call.model.preset.aqr.mode
        assert asked("--train", "aqr", "--aqr", "bias").model.aqr_options.mode == "bias"
        assert call.loss.router_weight == 0.0
        assert asked("--train", "aqr", "--router-weight", "0").loss.router_weight == 0.0
        assert "--router-weight" not in caplog.text
        assert asked("--train", "aqr", "--router-weight", "2").loss.router_weight == 0.0
    assert caplog.text.count("--router-weight 2 has no effect: the query weights of aqr_tiny") == 1
