# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Set prediction loss: its parts, its invariances, and a model that learns from it."""

import dataclasses
import math

import pytest
import torch
import torch.distributed as dist
from helpers.quick_first import quick_first
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models.boxes.coder import encode
from aqr_perception.models.cmt.model import CMT
from aqr_perception.models.config.presets import Decoder, ImageBranch, PointBranch, Preset
from aqr_perception.models.model_io import Predictions
from aqr_perception.options import AqrOptions
from aqr_perception.training.losses.denoising import denoising_queries
from aqr_perception.training.losses.set_loss import focal_loss, set_loss, velocity_distance

RANGE = (-12.8, -12.8, -5.0, 12.8, 12.8, 3.0)


def objects(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return boxes (N, 9) inside the range, and labels (N,)."""
    centre = (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor([20.0, 20.0, 2.0])
    size = torch.rand(count, 3, generator=generator) * 3 + 0.5
    rest = (torch.rand(count, 3, generator=generator) - 0.5) * 6
    return torch.cat((centre, size, rest), dim=1), torch.randint(0, 10, (count,), generator=generator)


def batch(counts: list[int], seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    boxes, labels = zip(*(objects(count, generator) for count in counts), strict=True)
    return list(boxes), list(labels)


def guesses(samples: int, queries: int, seed: int = 0, layers: int = 2) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    shape = (layers, samples, queries, 10)
    return Predictions(*(torch.randn(shape, generator=generator).requires_grad_() for _ in range(2)))


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(0, 99))
def test_any_batch_gives_finite_losses_and_gradients(counts: list[int], seed: int) -> None:
    boxes, labels = batch(counts, seed)
    queries, targets = denoising_queries(torch.rand(6, 3), boxes, labels, RANGE, max_groups=2)
    predictions = guesses(len(counts), queries.denoising + 6, seed)
    losses = set_loss(predictions, boxes, labels, targets)
    total(losses).backward()
    assert all(loss.dtype == torch.float32 and loss.isfinite() and loss >= 0 for loss in losses.values())
    for values in predictions:
        assert values.grad is not None and values.grad.isfinite().all()
    # A frame without objects also lowers the scores of its queries.
    assert predictions.class_logits.grad[:, :, queries.denoising :].abs().amin() > 0


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(5)), st.integers(0, 99))
def test_the_order_of_the_objects_does_not_matter(order: list[int], seed: int) -> None:
    boxes, labels = batch([5, 2], seed)
    predictions = guesses(2, 8, seed)
    first = set_loss(predictions, boxes, labels)
    second = set_loss(predictions, [boxes[0][order], boxes[1]], [labels[0][order], labels[1]])
    torch.testing.assert_close(first, second)


def test_correct_predictions_have_almost_no_loss() -> None:
    boxes, labels = batch([4])
    _, targets = denoising_queries(torch.rand(4, 3), boxes, labels, RANGE, max_groups=2, background_distance=2.0)
    right = torch.full((3, 1, 12, 10), -12.0)
    right[:, :, torch.arange(12), labels[0].repeat(3)] = 12.0
    losses = set_loss(Predictions(right, encode(boxes[0]).repeat(3, 1).expand(3, 1, 12, 10)), boxes, labels, targets)
    assert all(loss < 1e-4 for loss in losses.values())


@settings(deadline=None, max_examples=30)
@given(st.floats(-20, 20), st.booleans())
def test_the_focal_loss_is_its_equation(logit: float, positive: bool) -> None:
    score = 1 / (1 + math.exp(-logit))
    right, balance = (score, 0.25) if positive else (1 - score, 0.75)
    expected = -balance * (1 - right) ** 2 * math.log(right) if right > 1e-12 else balance * abs(logit)
    found = focal_loss(torch.tensor(logit), torch.tensor(float(positive))).item()
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_the_box_loss_is_the_weighted_distance_over_the_number_of_objects() -> None:
    boxes, labels = batch([2])
    codes = encode(boxes[0])
    codes[0, 0] += 0.3  # cx counts twice
    codes[0, 3] -= 0.2
    codes[0, 8] += 1.0  # the velocity distance is quadratic up to 5 m/s
    codes[1, 9] -= 8.0
    logits = torch.full((1, 1, 2, 10), -5.0)
    logits[0, 0, torch.arange(2), labels[0]] = 5.0
    losses = set_loss(Predictions(logits, codes[None, None]), boxes, labels)
    assert losses["box"].item() == pytest.approx(0.25 * (2 * 0.3 + 0.2 + 0.1 + 5.5) / 2, rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-4.5, 4.5), min_size=1, max_size=9), st.integers(0, 9))
def test_the_mean_of_the_possible_velocities_has_the_least_loss(moving: list[float], standing: int) -> None:
    truth = torch.tensor([*moving, *[0.0] * standing], dtype=torch.float64)
    assume((truth - truth.mean()).abs().max() < 5)
    predicted = truth.mean().requires_grad_()
    velocity_distance(predicted.expand_as(truth), truth).sum().backward()
    assert predicted.grad is not None and abs(predicted.grad.item()) < 1e-9


def test_one_moving_object_among_many_that_stand_changes_the_predicted_velocity() -> None:
    predicted = torch.zeros((), requires_grad=True)
    velocity_distance(predicted.expand(10), torch.tensor([9.0] + [0.0] * 9)).sum().backward()
    assert predicted.grad is not None and predicted.grad < 0


def test_an_unknown_velocity_does_not_count() -> None:
    boxes, labels = batch([3])
    known = set_loss(guesses(1, 3), boxes, labels)
    boxes[0][1, 7:] = float("nan")
    _, targets = denoising_queries(torch.rand(3, 3), boxes, labels, RANGE, max_groups=1)
    predictions = guesses(1, 6)
    losses = set_loss(predictions, boxes, labels, targets)
    total(losses).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert predictions.boxes.grad is not None
    assert not predictions.boxes.grad[:, 0, 1, 8:].any() and predictions.boxes.grad[:, 0, 0, 8:].all()
    assert set_loss(guesses(1, 3), boxes, labels)["box"] < known["box"]


def test_other_invalid_numbers_of_the_truth_are_not_ignored() -> None:
    boxes, labels = batch([2])
    boxes[0][0, 0] = float("nan")
    assert set_loss(guesses(1, 3), boxes, labels)["box"].isnan()
    boxes[0][0, 4] = 0.0
    with pytest.raises(ValueError, match="must be positive"):
        set_loss(guesses(1, 3), boxes, labels)


def test_padding_among_the_denoising_queries_has_no_gradient() -> None:
    boxes, labels = batch([3, 1])
    queries, targets = denoising_queries(torch.rand(2, 3), boxes, labels, RANGE, max_groups=2)
    predictions = guesses(2, queries.denoising + 2)
    total(set_loss(predictions, boxes, labels, targets)).backward()
    for values in predictions:
        assert values.grad is not None
        empty = values.grad[:, :, : queries.denoising][:, ~targets.real]
        assert empty.numel() and not empty.any()


def test_the_loss_of_half_precision_predictions_is_computed_in_fp32() -> None:
    boxes, labels = batch([3])
    predictions = Predictions(*(values.detach().bfloat16() for values in guesses(1, 5)))
    full = set_loss(Predictions(*(values.float() for values in predictions)), boxes, labels)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(set_loss(predictions, boxes, labels), full, rtol=0, atol=0)


def test_the_number_of_objects_is_the_mean_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, labels = batch([4])
    one_process = set_loss(guesses(1, 8), boxes, labels)
    # As in the first of two processes, where the second has 8 objects.
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts.add_(torch.tensor([8.0, 8.0, 0.0, 0.0])))
    two_processes = set_loss(guesses(1, 8), boxes, labels)
    torch.testing.assert_close(two_processes["class"] * (4 + 8) / 2, one_process["class"] * 4)
    torch.testing.assert_close(two_processes["box"] * (4 + 8) / 2, one_process["box"] * 4)


def small_preset() -> Preset:
    return Preset(
        "small",
        "for tests",
        RANGE,
        image=ImageBranch((128, 64), "resnet18"),
        points=PointBranch(
            (0.4, 0.4, 0.25),
            (64, 64, 32),
            encoder_channels=(8, 8, 16, 16),
            encoder_output=16,
            backbone_channels=(16, 32),
            backbone_layers=(1, 1),
            neck_channels=16,
        ),
        decoder=Decoder(channels=32, queries=40, layers=2, heads=2, feedforward=64, depths=8),
        aqr=AqrOptions(mode="both"),
    )


def small_inputs(batch_size: int = 1) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the images of two opposite cameras, their projections, and points."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 2, 3, 64, 128, generator=generator)
    intrinsics = torch.tensor([[60.0, 0, 64], [0, 60, 32], [0, 0, 1]])
    forwards = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    backwards = torch.tensor([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])
    projections = torch.eye(4).repeat(batch_size, 2, 1, 1)
    projections[:, 0, :3, :3], projections[:, 1, :3, :3] = intrinsics @ forwards, intrinsics @ backwards
    scale = torch.tensor([24.0, 24, 4, 255, 0])
    points = [torch.rand(800, 5, generator=generator) * scale - scale / 2 for _ in range(batch_size)]
    return images, projections, points


@pytest.mark.slow
def test_a_small_model_overfits_one_sample() -> None:
    torch.manual_seed(0)
    model = CMT(small_preset()).train()
    inputs, (boxes, labels) = small_inputs(), batch([2])
    learned, noise = model.pts_bbox_head.reference_points.weight, torch.Generator()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    history = []
    for _ in range(26):
        queries, targets = denoising_queries(learned, boxes, labels, RANGE, noise.manual_seed(0), max_groups=3)
        loss = total(set_loss(model(*inputs, queries), boxes, labels, targets))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35.0)
        optimiser.step()
        history.append(loss.item())
    assert sum(history[-3:]) / 3 < history[0] / 2


@pytest.mark.parametrize(
    ("mode", "precision"),
    quick_first([*((mode, torch.float32) for mode in ("both", "off", "modulation", "bias")), ("both", torch.bfloat16)]),
)
def test_every_parameter_that_takes_part_gets_a_finite_gradient(mode: str, precision: torch.dtype) -> None:
    torch.manual_seed(0)
    preset = small_preset()
    model = CMT(dataclasses.replace(preset, aqr=AqrOptions(mode=mode))).train()
    boxes, labels = batch([3, 0])
    queries, targets = denoising_queries(
        model.pts_bbox_head.reference_points.weight, boxes, labels, RANGE, torch.Generator().manual_seed(0)
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        predictions = model(*small_inputs(2), queries)
    total(set_loss(predictions, boxes, labels, targets)).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    silent = {name for name, gradient in gradients.items() if gradient is None or not gradient.any()}
    assert all(gradient.isfinite().all() for gradient in gradients.values() if gradient is not None)
    if mode == "off":
        silent = {name for name in silent if not name.startswith("aqr.")}
    # In the first layer the queries have no content, so their self-attention returns zero until the bias of the values
    # has left zero. The bias of the keys changes all scores of a query equally, which the softmax cancels.
    first = "pts_bbox_head.transformer.decoder.layers.0"
    initially_without = {"attentions.0.attn.in_proj_weight", "attentions.0.attn.out_proj.weight", "norms.0.weight"}
    assert silent <= {f"{first}.{name}" for name in initially_without} | {"aqr.key.bias"}
