# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Training with history: models with memory learn from earlier frames, the others ignore them."""

import numpy as np
import pytest
import torch
from helpers.decided_heads import decide

from aqr_perception.data.batch import Batch
from aqr_perception.data.frames import TrainingFrames
from aqr_perception.data.health import FrameWithHealth
from aqr_perception.data.sequences import TrainingSequences, collate_sequences
from aqr_perception.data.sources.simulated import SimulatedDataset
from aqr_perception.detector import Detector
from aqr_perception.frame import LabelledFrame
from aqr_perception.models import build_model
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import DecodeOptions
from aqr_perception.training.history import features_of, history_of
from aqr_perception.training.losses.detection_loss import DetectionLoss
from aqr_perception.training.validation import Validation

REMEMBERING = ("bevformer_mini", "petrv2_tiny")


@pytest.fixture(scope="module")
def data() -> SimulatedDataset:
    class Kept(SimulatedDataset):
        """Draws every frame once."""

        def __init__(self) -> None:
            super().__init__([10_001, 10_007], (176, 64), sweeps=1)
            self._drawn: dict[tuple[int, float], LabelledFrame] = {}

        def _draw(self, seed: int, age: float) -> LabelledFrame:
            if (seed, age) not in self._drawn:
                self._drawn[seed, age] = super()._draw(seed, age)
            return self._drawn[seed, age]

    return Kept()


@pytest.fixture(scope="module", params=REMEMBERING)
def model(request: pytest.FixtureRequest) -> DetectionModel:
    torch.manual_seed(0)
    model = build_model(request.param)
    decide(model)
    return model


def drawn(model: DetectionModel, data: SimulatedDataset, history: int = 1, samples: int = 2) -> Batch:
    frames = TrainingSequences(TrainingFrames(data, model.preset, corrupted=False), history)
    sequences = [frames.sample(index, np.random.default_rng(index), 0.0) for index in range(samples)]
    return collate_sequences(sequences, model.preset)


def total(loss: DetectionLoss, model: DetectionModel, batch: Batch, seed: int = 0) -> torch.Tensor:
    parts = loss(model, batch, torch.Generator().manual_seed(seed))
    assert all(torch.isfinite(value) for value in parts.values())
    return torch.stack(list(parts.values())).sum()


@pytest.mark.slow
def test_history_changes_the_loss_and_gradients_stay_finite(model: DetectionModel, data: SimulatedDataset) -> None:
    batch = drawn(model.train(), data)
    assert len(batch.history) == 1
    remembering, alone = DetectionLoss(forgetting=0.0), DetectionLoss(forgetting=1.0)
    total(remembering, model, batch).backward()
    for name in ("img_backbone", "img_neck", "pts_bbox_head"):
        gradients = [value.grad for value in model.get_submodule(name).parameters() if value.requires_grad]
        assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients), name
        assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients), name
    model.eval()
    batch = drawn(model, data, samples=1)
    with torch.no_grad():
        with_history, without = total(remembering, model, batch), total(alone, model, batch)
        nothing_before = total(remembering, model, batch._replace(history=()))
    assert not torch.isclose(with_history, without, rtol=1e-5)
    torch.testing.assert_close(without, nothing_before)


def test_some_batches_are_treated_as_the_start_of_a_drive(
    model: DetectionModel, data: SimulatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def noted(model: DetectionModel, batch: Batch) -> None:
        kept.append(len(batch.history))
        raise InterruptedError

    monkeypatch.setattr("aqr_perception.training.losses.detection_loss.history_of", noted)
    batch = drawn(model, data, samples=1)
    for seed in range(60):
        with pytest.raises(InterruptedError):
            DetectionLoss()(model, batch, torch.Generator().manual_seed(seed))
    assert set(kept) == {0, 1} and 0.05 < kept.count(0) / len(kept) < 0.4


@pytest.mark.slow
def test_history_equals_the_detectors_memory(model: DetectionModel, data: SimulatedDataset) -> None:
    detector = Detector(model.preset.name, device="cpu", precision="fp32")
    detector.model.load_state_dict(model.state_dict())
    detector.model.eval()
    frames = (*data.earlier_frames(0, 2), data[0])
    results = [detector.detect(frame.frame).detections for frame in frames]
    batch = collate_sequences([tuple(map(FrameWithHealth, frames))], model.preset)
    with torch.inference_mode():
        history = history_of(detector.model, batch)
        assert history is not None and history.seconds == pytest.approx(0.5)
        options = DecodeOptions(model.aqr_options)
        output = detector.model.decode(features_of(detector.model, batch), options, history=history)
    best = output.predictions.class_logits[-1].sigmoid().max()
    assert len(results[-1]) == 0 or results[-1].scores[0] == pytest.approx(float(best), abs=1e-4)
    for ours, theirs in zip(tensors(output.state), tensors(detector._memory.state), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_each_sample_of_a_batch_has_its_own_history(model: DetectionModel, data: SimulatedDataset) -> None:
    """One sample's motion must not affect another's."""
    model.eval()
    sequences = [tuple(map(FrameWithHealth, (*data.earlier_frames(index, 1), data[index]))) for index in range(2)]

    def boxes(samples: list[tuple[FrameWithHealth, ...]]) -> torch.Tensor:
        batch = collate_sequences(samples, model.preset)
        with torch.inference_mode():
            options = DecodeOptions(model.aqr_options)
            return model.decode(features_of(model, batch), options, history=history_of(model, batch)).predictions.boxes

    together = boxes(sequences)
    for index, sequence in enumerate(sequences):
        torch.testing.assert_close(together[:, index : index + 1], boxes([sequence]), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_start_of_a_drive_differs_from_unknown_motion(model: DetectionModel, data: SimulatedDataset) -> None:
    batch = drawn(model.eval(), data)
    start = history_of(model, batch._replace(history=()))
    assert start is not None and start.state is None and start.seconds == 0
    assert history_of(model, batch._replace(to_fixed=None)) is None


def test_validation_shows_earlier_frames_only_to_models_with_memory(
    data: SimulatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def earlier_frames(self: SimulatedDataset, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
        asked.append(count)
        return (self._frame(10_001, step),)

    monkeypatch.setattr(type(data), "earlier_frames", earlier_frames)
    for preset in ("petr_tiny", "petrv2_tiny"):
        score = Validation(data, history=1)(build_model(preset).eval())
        assert 0.0 <= score <= 1.0
    assert asked == [1, 1]


def test_models_without_memory_get_no_history_and_draw_the_same_random_numbers(data: SimulatedDataset) -> None:
    model = build_model("petr_tiny").eval()
    batch = drawn(model, data)._replace(history=())
    assert history_of(model, batch) is None
    with torch.no_grad():
        torch.testing.assert_close(
            total(DetectionLoss(forgetting=0.0), model, batch), total(DetectionLoss(forgetting=1.0), model, batch)
        )


def tensors(state: object) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    return [part for entry in state for part in tensors(entry)] if isinstance(state, tuple) else []


@pytest.mark.slow
def test_the_encoder_learns_from_proposals_when_only_the_head_is_trained(data: SimulatedDataset) -> None:
    for name, learns in (("bevformer_mini", True), ("petrv2_tiny", False)):
        model = build_model(name)
        losses = DetectionLoss(denoising=0, train="head")(model, drawn(model, data), torch.Generator().manual_seed(0))
        assert ("proposal_box" in losses) == learns
        if learns:
            losses["proposal_box"].backward()
            temporal = model.get_parameter("pts_bbox_head.transformer.encoder.layers.0.attentions.0.value_proj.weight")
            assert temporal.grad is not None and temporal.grad.any(), "the encoder learns from its proposals"
