# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Training loop: learning, stopping, resuming, and steps without a finite loss."""

import logging
import math
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import stand_in
from safetensors.torch import load_file
from torch import Generator, Tensor

from aqr_perception.data.batch import Batch
from aqr_perception.models.weights.checkpoint import load_checkpoint
from aqr_perception.options import OptionError
from aqr_perception.training.learner import TrainingError
from aqr_perception.training.loop import Outcome, train
from aqr_perception.training.training_state import StateError


def run(folder: Path, data: stand_in.Data | None = None, **changed: Any) -> tuple[Outcome, stand_in.Model]:
    arguments = {name: changed.pop(name) for name in ("resume", "validate", "label_sets") if name in changed}
    step_loss = changed.pop("step_loss", stand_in.loss)
    model = changed.pop("model", None) or stand_in.model()
    options = stand_in.options(**changed)
    return train(model, data or stand_in.Data(), stand_in.collate, step_loss, options, folder, **arguments), model


class SignalAfter:
    """A loss that sends this process a signal in forward pass number `calls`."""

    def __init__(self, calls: int, signal_number: int) -> None:
        self.calls_left, self.signal_number = calls, signal_number

    def __call__(self, model: stand_in.Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        self.calls_left -= 1
        if self.calls_left == 0:
            os.kill(os.getpid(), self.signal_number)
        return stand_in.loss(model, batch, generator)


@pytest.mark.slow
def test_overfitting_one_batch_brings_the_loss_to_near_zero(tmp_path: Path) -> None:
    batches: list[Tensor] = []
    losses: list[float] = []

    def recorded(model: stand_in.Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        assert batch.images is not None
        batches.append(batch.images)
        parts = stand_in.mean_loss(model, batch, generator)
        losses.append(parts["square"].item())
        return parts

    run(tmp_path, steps=120, overfit=True, step_loss=recorded, model=stand_in.model(norm=False), learning_rate=0.03)
    assert all(torch.equal(batch, batches[0]) for batch in batches)
    assert losses[-1] < 1e-3 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_stopped_and_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, accumulate: int
) -> None:
    uninterrupted, model = run(tmp_path / "uninterrupted", accumulate=accumulate)
    stop = SignalAfter(3 * accumulate, signal.SIGTERM)
    first, _ = run(tmp_path / "resumed", accumulate=accumulate, step_loss=stop)
    assert not first.finished and first.step == 3
    assert "SIGTERM" in first.message and "--resume" in first.message
    torch.rand(7)  # changes the state of the global generator
    second, resumed = run(tmp_path / "resumed", accumulate=accumulate, resume=True)
    assert second.finished and second.step == uninterrupted.step == 6
    states = (stand_in.newest_state(tmp_path / name) for name in ("uninterrupted", "resumed"))
    assert stand_in.differences(*states) == []
    assert stand_in.differences(dict(model.state_dict()), dict(resumed.state_dict())) == []
    exports = (load_file(tmp_path / name / "final.safetensors") for name in ("uninterrupted", "resumed"))
    assert stand_in.differences(*exports) == []


def run_until_killed(folder: Path) -> None:
    run(folder, checkpoint_every=2, step_loss=SignalAfter(6, signal.SIGKILL))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_training_resumes_from_its_last_checkpoint_to_the_same_state(tmp_path: Path) -> None:
    run(tmp_path / "uninterrupted", workers=0)
    # A fork need not import everything again.
    killed = multiprocessing.get_context("fork").Process(target=run_until_killed, args=(tmp_path / "resumed",))
    killed.start()
    try:
        killed.join(60)
    finally:
        killed.kill()
    assert killed.exitcode == -signal.SIGKILL
    assert stand_in.newest_state(tmp_path / "resumed")["step"] == 4
    run(tmp_path / "resumed", checkpoint_every=500, resume=True)
    states = [stand_in.newest_state(tmp_path / name) for name in ("uninterrupted", "resumed")]
    assert stand_in.differences(*states) == []


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    run(tmp_path, checkpoint_every=1)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_00000005.pt",
        "step_00000006.pt",
    ]


def test_an_earlier_training_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(StateError, match=r"step_00000006\.pt.*--resume"):
        run(tmp_path)


def test_a_finished_training_can_continue_and_changed_options_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path)
    with caplog.at_level(logging.WARNING):
        outcome, _ = run(tmp_path, steps=8, resume=True)
    assert outcome.step == 8 and "steps 6 -> 8" in caplog.text


def test_a_sharded_state_of_an_earlier_version_resumes_to_the_same_state(tmp_path: Path) -> None:
    """Earlier versions could split a model over its processes; their states hold whole tensors all the same."""
    run(tmp_path / "uninterrupted")
    run(tmp_path / "resumed", step_loss=SignalAfter(3, signal.SIGTERM))
    (path,) = (tmp_path / "resumed/checkpoints").iterdir()
    state = torch.load(path, weights_only=True)
    state["options"]["shard"] = True
    torch.save(state, path)
    assert run(tmp_path / "resumed", resume=True)[0].finished
    states = (stand_in.newest_state(tmp_path / name) for name in ("uninterrupted", "resumed"))
    assert stand_in.differences(*states) == []


def test_a_state_of_another_model_or_of_other_trained_parts_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(StateError, match="belongs to another model"):
        run(tmp_path, resume=True, model=stand_in.model(norm=False))
    with pytest.raises(StateError, match=r"'all'.*'aqr'"):
        run(tmp_path, resume=True, train="aqr")


def test_exported_weights_are_the_average_and_fit_the_model(tmp_path: Path) -> None:
    outcome, model = run(tmp_path)
    assert outcome.weights is not None
    average = stand_in.newest_state(tmp_path)["ema"]["average"]
    loaded = stand_in.model()
    load_checkpoint(loaded, outcome.weights)
    assert stand_in.differences(dict(loaded.state_dict()), average) == []
    assert not torch.equal(loaded.head.weight, model.head.weight)


def test_a_step_without_a_finite_loss_is_logged_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {name: tensor.clone() for name, tensor in stand_in.model().state_dict().items()}
    with caplog.at_level(logging.WARNING):
        _, model = run(tmp_path, stand_in.Data(broken=range(10)), steps=2)
    assert "step 1 is skipped: loss size nan, loss square nan" in caplog.text and "step 2 is skipped" in caplog.text
    assert stand_in.differences(before, dict(model.state_dict())) == []


def test_a_finite_loss_with_an_infinite_gradient_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def steep(model: stand_in.Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        return {"root": (model.head.weight * 0.0).sum().sqrt()}

    with caplog.at_level(logging.WARNING):
        _, model = run(tmp_path, steps=1, step_loss=steep)
    assert "step 1 is skipped: gradient norm" in caplog.text
    assert torch.equal(model.head.weight, stand_in.model().head.weight)


def test_the_training_gives_up_after_twenty_skipped_steps_in_a_row(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step 20 was the 20th in a row"):
        run(tmp_path, stand_in.Data(broken=range(10)), steps=30)


def test_a_finite_step_resets_the_count_of_skipped_steps(tmp_path: Path) -> None:
    outcome, model = run(
        tmp_path, stand_in.Data(length=19, broken=range(18)), steps=40, batch_size=1, model=stand_in.model(norm=False)
    )
    assert outcome.finished
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_training_the_router_changes_nothing_else(tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in stand_in.model().state_dict().items()}
    _, model = run(tmp_path, train="aqr")
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("aqr.")}


def test_a_loss_without_trained_parameters_is_an_error(tmp_path: Path) -> None:
    def loss_of_the_head(model: stand_in.Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        return {"head": model.head.weight.sum()}

    with pytest.raises(TrainingError, match="train 'aqr'"):
        run(tmp_path, train="aqr", step_loss=loss_of_the_head)


def test_accumulated_passes_equal_one_pass_over_a_larger_batch(tmp_path: Path) -> None:
    models = [stand_in.model(norm=False) for _ in range(2)]
    data = stand_in.Data(shift=0.0)
    _, small = run(tmp_path / "small", data, step_loss=stand_in.mean_loss, model=models[0], batch_size=1, accumulate=4)
    _, large = run(tmp_path / "large", data, step_loss=stand_in.mean_loss, model=models[1], batch_size=4)
    for name, tensor in small.state_dict().items():
        torch.testing.assert_close(tensor, large.state_dict()[name], rtol=0, atol=1e-5)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    def steep(model: stand_in.Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        return {"steep": 1e6 * model.head.bias.sum() + 1e6 * model.head.weight.sum()}

    run(tmp_path, steps=1, step_loss=steep, clip_norm=2.0)
    # Adam's first moment after one step is (1 - 0.9) times the clipped gradient.
    moments = [entry["exp_avg"] for entry in stand_in.newest_state(tmp_path)["optimizer"].values()]
    norm = math.sqrt(sum(float(moment.square().sum()) for moment in moments)) / 0.1
    assert norm == pytest.approx(2.0, rel=1e-4)


def test_the_backbone_learns_at_its_own_rate(tmp_path: Path) -> None:
    _, model = run(tmp_path, backbone_factor=0.0)
    assert torch.equal(model.img_backbone.weight, stand_in.model().img_backbone.weight)
    assert not torch.equal(model.head.weight, stand_in.model().head.weight)


def test_a_part_with_factor_0_stays_unchanged_with_its_statistics(tmp_path: Path) -> None:
    _, model = run(tmp_path, learning_rate_factors={"norm": 0.0, "aqr": 0.0})
    before, after = dict(stand_in.model().state_dict()), dict(model.state_dict())
    frozen = {name for name in before if name.startswith(("norm.", "aqr."))}
    for name in before:
        same = name in frozen or name.startswith("unused.")
        assert torch.equal(before[name], after[name]) == same, name


def test_the_first_step_is_as_long_as_a_parts_factor(tmp_path: Path) -> None:
    """Adam's first step has the length of the learning rate."""
    start = stand_in.model().state_dict()
    factors = {"img_backbone": 0.1, "head": 0.5}
    _, model = run(tmp_path, steps=1, schedule="constant", learning_rate_factors=factors, weight_decay=0.0)
    steps = {name: (value - start[name]).abs().max().item() for name, value in model.state_dict().items()}
    assert steps["img_backbone.weight"] == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert steps["head.weight"] == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert steps["norm.weight"] == pytest.approx(0.01, rel=1e-3)


def moments(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the optimiser's first moments by name of the parameter."""
    indexed = state["optimizer"]
    return {name: indexed[index]["exp_avg"] for index, name in enumerate(state["trained"]) if index in indexed}


def test_other_factors_keep_each_parameters_moments_on_resuming(tmp_path: Path) -> None:
    def flat(model: stand_in.Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        """Return a loss whose gradient is 0 everywhere."""
        return {"zero": torch.stack([0.0 * parameter.sum() for parameter in model.parameters()]).sum()}

    run(tmp_path, learning_rate_factors={"head": 0.5})
    before = stand_in.newest_state(tmp_path)
    run(tmp_path, steps=7, resume=True, learning_rate_factors={"aqr.0": 0.25}, step_loss=flat)
    after = stand_in.newest_state(tmp_path)
    assert before["trained"] != after["trained"], "other groups change the order"
    old, new = moments(before), moments(after)
    assert {"norm.weight", "aqr.0.weight", "head.weight", "img_backbone.weight"} <= old.keys() <= new.keys()
    for name, moment in old.items():
        assert moment.abs().max() > 0 and torch.allclose(new[name], 0.9 * moment), name


def test_a_state_from_before_the_factors_resumes_to_the_same_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "uninterrupted")
    run(tmp_path / "resumed", step_loss=SignalAfter(3, signal.SIGTERM))
    (path,) = (tmp_path / "resumed/checkpoints").iterdir()
    state = torch.load(path, weights_only=True)
    del state["trained"], state["options"]["learning_rate_factors"]
    torch.save(state, path)
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path / "resumed", resume=True)[0].finished
    assert "other options" not in caplog.text
    states = (stand_in.newest_state(tmp_path / name) for name in ("uninterrupted", "resumed"))
    assert stand_in.differences(*states) == []


@pytest.mark.parametrize("earlier", [True, False])
def test_a_state_with_other_frozen_parts_is_refused(tmp_path: Path, earlier: bool) -> None:
    run(tmp_path)
    if earlier:
        path = sorted((tmp_path / "checkpoints").iterdir())[-1]
        state = torch.load(path, weights_only=True)
        del state["trained"]
        torch.save(state, path)
    with pytest.raises(StateError, match=r"step_00000006\.pt.*norm\.bias.*learning-rate factors"):
        run(tmp_path, steps=8, resume=True, learning_rate_factors={"norm": 0.0})


def test_bf16_keeps_weights_in_fp32_and_learns(tmp_path: Path) -> None:
    formats = set()

    def recorded(model: stand_in.Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        formats.add(model.head(model.img_backbone(batch.images)).dtype)
        return stand_in.loss(model, batch, generator)

    _, model = run(tmp_path, precision="bf16", step_loss=recorded)
    assert formats == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_the_best_validated_weights_are_kept(tmp_path: Path) -> None:
    heads: list[Tensor] = []
    scores = iter([0.2, 0.7, 0.4])

    def validate(model: stand_in.Model) -> float:
        assert not model.training
        heads.append(model.head.weight.detach().clone())
        return next(scores)

    outcome, model = run(tmp_path, validate_every=2, validate=validate)
    assert outcome.finished and model.training
    assert stand_in.newest_state(tmp_path)["best"] == pytest.approx(0.7)
    assert torch.equal(load_file(tmp_path / "best.safetensors")["head.weight"], heads[1])


def test_the_clock_can_end_the_training(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, steps=None, minutes=0.2 / 60)
    assert outcome.finished and outcome.step >= 1
    assert stand_in.newest_state(tmp_path)["elapsed"] >= 0.2


def test_epochs_are_counted_in_samples(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, steps=None, epochs=1.5)
    assert outcome.step == 5  # 1.5 passes of 10 samples, 3 samples a step


def test_curves_hold_losses_rate_and_norm(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, steps=4, log_every=2)
    curves = EventAccumulator(str(tmp_path)).Reload()
    tags = {"loss/square", "loss/size", "loss/total", "training/learning_rate", "training/gradient_norm"}
    tags |= {"training/seconds_per_step", "training/samples_per_second", "training/seconds_waiting_for_data"}
    assert set(curves.Tags()["scalars"]) == tags
    assert [point.step for point in curves.Scalars("loss/total")] == [2, 4]
    for total, *parts in zip(*(curves.Scalars(f"loss/{name}") for name in ("total", "square", "size")), strict=True):
        assert total.value == pytest.approx(sum(part.value for part in parts), rel=1e-5)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"steps": None}, "length"),
        ({"steps": 5, "minutes": 1.0}, "length"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"schedule": "steps"}, "schedule"),
        ({"train": "router"}, "train"),
        ({"learning_rate_factors": {"head": -1.0}}, "learning_rate_factors: 'head' is -1.0"),
        ({"learning_rate_factors": {"head": math.nan}}, "learning_rate_factors: 'head' is nan"),
    ],
)
def test_an_invalid_option_is_refused_by_name(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        stand_in.options(**changed)
