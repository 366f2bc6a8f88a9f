# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Training of AQR-CMT as the research code meant it: frozen branches, rates by part, no supervision of the weights."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import stand_in
from helpers.quick_first import quick_first
from helpers.small_fusion import small_aqr_cmt, write_preset
from torch import Tensor, nn

from aqr_perception.data.batch import Batch, collate
from aqr_perception.data.frames import TrainingFrames
from aqr_perception.data.sequences import TrainingSequences, collate_sequences
from aqr_perception.frame import LabelledFrame
from aqr_perception.models import build_model
from aqr_perception.models.aqr_cmt.model import AqrCMT
from aqr_perception.models.config.presets import load_preset
from aqr_perception.models.model_io import DecodeOptions
from aqr_perception.simulator.drive import draw_drive
from aqr_perception.training.loop import train
from aqr_perception.training.losses.denoising import denoising_queries
from aqr_perception.training.losses.detection_loss import DetectionLoss
from aqr_perception.training.part_factors import PartFactors, part_factors
from aqr_perception.training.trainable import freeze, parameter_groups, set_mode
from aqr_perception.training.training_options import Trained

PRESETS = (
    "aqr_cmt_voxel0100_r50_800x320",
    "aqr_cmt_voxel0075_vov_1600x640",
    "aqr_cmt_modulation_voxel0100_r50_800x320",
)
HEAD = "pts_bbox_head."
RATES = {
    "img_backbone.": 0.0,
    "pts_backbone.": 0.0,
    "pts_middle_encoder.": 0.0,
    "img_neck.": 0.05,
    "pts_neck.": 0.05,
    f"{HEAD}transformer.": 0.5,
    f"{HEAD}reference_points.": 0.3,
    f"{HEAD}task_heads.": 0.8,
    f"{HEAD}shared_conv.": 0.5,
    f"{HEAD}aqr_weight_generator.": 1.0,
    f"{HEAD}attention_bias_generator.": 0.5,  # its only parameter is the scale
    f"{HEAD}bev_embedding.": 1.0,
    f"{HEAD}rv_embedding.": 1.0,
}
"""Rates of the research code's r50 configurations, by prefix of the names."""
ROUTER = (f"{HEAD}aqr_weight_generator.", f"{HEAD}attention_bias_generator.")
BRANCHES = ("img_backbone.", "img_neck.", "pts_backbone.", "pts_middle_encoder.", "pts_neck.")
NO_GRADIENT_YET = tuple(
    f"{HEAD}transformer.decoder.layers.0.{name}"
    for name in ("attentions.0.attn.in_proj_weight", "attentions.0.attn.out_proj.weight", "norms.0.weight")
)
"""The first self-attention and its norm: the queries have no content and the biases are 0 at first, as all values."""
LEARNING_RATE = 1e-3

SmallModel = Callable[..., AqrCMT]


@pytest.fixture
def small(tmp_path: Path) -> SmallModel:
    def build(mode: Any = "bias", **changed: object) -> AqrCMT:
        model = build_model(write_preset(tmp_path, small_aqr_cmt(mode, **changed)))
        assert isinstance(model, AqrCMT)
        return model

    return build


@pytest.fixture(scope="module")
def labelled() -> LabelledFrame:
    return draw_drive(1, 1.0).frame(0.5)


def frames_of(labelled: LabelledFrame, model: AqrCMT) -> TrainingFrames:
    return TrainingFrames([labelled], model.preset, augment=False, corrupted=False, grid_mask=False)


def batch_of(labelled: LabelledFrame, model: AqrCMT) -> Batch:
    return collate([frames_of(labelled, model).sample(0, np.random.default_rng(0), 0.0)], model.preset)


def rate(name: str) -> float:
    """Return the rate of a parameter in the research code's r50 configurations."""
    (found,) = (value for prefix, value in RATES.items() if name.startswith(prefix))
    return found


def is_trained(name: str, train: Trained) -> bool:
    if train == "aqr":
        return name.startswith(ROUTER)
    return rate(name) > 0 and not (train == "head" and name.startswith(BRANCHES))


def run(
    model: AqrCMT, labelled: LabelledFrame, folder: Path, step_loss: DetectionLoss | None = None, **changed: Any
) -> list[float]:
    """Train on one frame and return the losses of the steps."""
    losses: list[float] = []
    options = stand_in.options(**{"batch_size": 1, "learning_rate": LEARNING_RATE, **changed})
    step_loss = step_loss or DetectionLoss(train=options.train)

    def recorded(model: AqrCMT, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        parts = step_loss(model, batch, generator)
        losses.append(sum(part.item() for part in parts.values()))
        return parts

    samples = TrainingSequences(frames_of(labelled, model), 0)
    train(model, samples, partial(collate_sequences, preset=model.preset), recorded, options, folder / "run")
    return losses


def total(model: AqrCMT, batch: Batch, loss: DetectionLoss) -> Tensor:
    return torch.stack(list(loss(model, batch, torch.Generator().manual_seed(0)).values())).sum()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_shipped_presets_have_the_research_codes_rates(preset: str) -> None:
    values = load_preset(preset).learning_rate_factors
    expected = {part: value for part, value in RATES.items() if "attention_bias" not in part}
    scales = {PRESETS[0]: 0.5, PRESETS[1]: 2.0}
    names = [f"{prefix}any.weight" for prefix in expected]
    assert {name: PartFactors(values).of(name) for name in names} == {
        f"{prefix}any.weight": value for prefix, value in expected.items()
    }
    if preset in scales:
        assert PartFactors(values).of(f"{HEAD}attention_bias_generator.bias_scale") == scales[preset]


@pytest.mark.parametrize("preset", [PRESETS[0], pytest.param(PRESETS[1], marks=pytest.mark.slow), PRESETS[2]])
def test_every_part_of_the_shipped_presets_has_parameters(preset: str) -> None:
    with torch.device("meta"):
        model = build_model(preset)
    part_factors(model)


@pytest.mark.parametrize("train", ["aqr", "head", "all"])
@pytest.mark.parametrize("mode", ["bias", "modulation"])
def test_the_groups_have_the_research_codes_rates(small: SmallModel, mode: str, train: Trained) -> None:
    model = small(mode)
    freeze(model, train)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, stand_in.options(train=train))
    found = {names[id(parameter)]: group["factor"] for group in groups for parameter in group["params"]}
    assert found == {name: rate(name) for name in names.values() if is_trained(name, train)}
    assert len(groups) == len(set(found.values()))


@pytest.mark.parametrize(
    ("mode", "train_part"),
    quick_first([(mode, part) for part in ("aqr", "all", "head") for mode in ("bias", "modulation")], quick=2),
)
def test_the_first_step_changes_the_trained_parameters_by_their_rates_and_nothing_else(
    small: SmallModel, labelled: LabelledFrame, tmp_path: Path, mode: str, train_part: Trained
) -> None:
    """Adam's first step has the length of the learning rate in every entry with a gradient."""
    model = small(mode)
    # Adam's step is shorter where the gradient is near its epsilon, as behind the nearly zero initial layer.
    model.pts_bbox_head.aqr_weight_generator.weight_predictor.weight.data *= 30
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, labelled, tmp_path, steps=1, train=train_part, schedule="constant", weight_decay=0.0)
    for name, parameter in model.named_parameters():
        step = (parameter - before[name]).abs().max().item()
        trained = is_trained(name, train_part) and name not in NO_GRADIENT_YET
        assert step == pytest.approx(LEARNING_RATE * rate(name) if trained else 0.0, rel=0.02, abs=0.0), name
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            assert torch.equal(value, before[name]) != is_trained(name, train_part), name


@pytest.mark.parametrize("train", ["aqr", "head", "all"])
def test_norms_of_frozen_parts_keep_their_statistics(small: SmallModel, train: Trained) -> None:
    model = small()
    freeze(model, train)
    set_mode(model, train)
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    assert {name.partition(".")[0] for name in norms} >= {"img_backbone", "pts_backbone", "pts_neck"}
    for name, norm in norms.items():
        assert norm.training == is_trained(f"{name}.weight", train), name


@pytest.mark.parametrize("mode", ["bias", "modulation"])
def test_the_set_loss_reaches_the_router_and_the_scale(small: SmallModel, labelled: LabelledFrame, mode: str) -> None:
    model = small(mode).train()
    parts = DetectionLoss(router_weight=1.0)(model, batch_of(labelled, model), torch.Generator().manual_seed(0))
    assert "router" not in parts, "the health of the sensors does not supervise these weights"
    sum(parts.values()).backward()
    generator = model.pts_bbox_head.aqr_weight_generator
    for parameter in generator.parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0
    assert (generator.weight_predictor.weight.grad.abs().amax(-1) > 0).all(), "LiDAR and camera weight both learn"
    if mode == "bias":
        assert model.pts_bbox_head.attention_bias_generator.bias_scale.grad.abs() > 0


@pytest.mark.parametrize("scale", [0.3, 7.0])
def test_a_scale_outside_its_limits_gets_no_gradient(small: SmallModel, labelled: LabelledFrame, scale: float) -> None:
    model = small().train()
    learned = model.pts_bbox_head.attention_bias_generator.bias_scale
    learned.data.fill_(scale)
    total(model, batch_of(labelled, model), DetectionLoss()).backward()
    assert learned.grad is not None and learned.grad.abs().max() == 0


def test_denoising_queries_have_weights_and_a_bias_of_their_own(small: SmallModel, labelled: LabelledFrame) -> None:
    model = small()
    batch = batch_of(labelled, model)
    with torch.no_grad():
        features = model.features(batch.images, batch.lidar_to_image, batch.points)
        queries = with_denoising(model, batch)
        biased = model.decode(features, DecodeOptions(model.aqr_options, router_weights=True), queries)
        plain = model.decode(features, DecodeOptions(dataclasses.replace(model.aqr_options, mode="off")), queries)
    count = queries.denoising
    assert count > 0 and biased.router is not None
    moved = (biased.predictions.class_logits - plain.predictions.class_logits)[-1, :, :count].abs().amax(-1)
    assert (moved > 0).all()


def with_denoising(model: AqrCMT, batch: Batch) -> Any:
    points = model.pts_bbox_head.reference_points.weight
    generator = torch.Generator().manual_seed(0)
    return denoising_queries(points, batch.boxes, batch.labels, model.preset.point_range, generator)[0]


def test_maps_that_scale_the_features_do_not_show_the_denoising_queries(
    small: SmallModel, labelled: LabelledFrame
) -> None:
    model = small("modulation")
    batch = batch_of(labelled, model)
    with torch.no_grad():
        features = model.features(batch.images, batch.lidar_to_image, batch.points)
        alone = model.decode(features, DecodeOptions(model.aqr_options)).router
        denoised = model.decode(features, DecodeOptions(model.aqr_options), with_denoising(model, batch)).router
    assert alone is not None and denoised is not None
    assert denoised.modality.shape[1] > alone.modality.shape[1]
    assert alone.bev_map.abs().max() > 0 and alone.camera_maps.abs().max() > 0
    torch.testing.assert_close(denoised.bev_map, alone.bev_map, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(denoised.camera_maps, alone.camera_maps, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["bias", "modulation"])
def test_the_loss_falls_on_one_batch(small: SmallModel, labelled: LabelledFrame, tmp_path: Path, mode: str) -> None:
    model = small(mode, learning_rate_factors={})
    losses = run(model, labelled, tmp_path, steps=40, learning_rate=3e-3, schedule="cosine", overfit=True)
    assert np.mean(losses[-5:]) < 0.65 * np.mean(losses[:5])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["bias", "modulation"])
def test_the_router_alone_lowers_the_loss(
    small: SmallModel, labelled: LabelledFrame, tmp_path: Path, mode: str
) -> None:
    """Without denoising queries and dropout, the loss depends on the weights alone."""
    model = small(mode)
    length = {"steps": 20, "learning_rate": 1e-2, "schedule": "cosine", "overfit": True}
    losses = run(model, labelled, tmp_path, DetectionLoss(0.0, 0, "aqr"), train="aqr", **length)
    assert losses[-1] < losses[0] - 3e-3
