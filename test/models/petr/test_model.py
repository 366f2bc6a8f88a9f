# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""PETR and PETRv2 with any cameras and batches, with and without history."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from helpers import camera_ring
from helpers.decided_heads import decide
from torch import Tensor

from aqr_perception.benchmarks.inputs import made_up_frame
from aqr_perception.detector import Detector
from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.model_io import DecodeOptions, History, ModelOutput, Queries
from aqr_perception.models.petr.model import PETR
from aqr_perception.options import AqrOptions, DetectionOptions

EVERYTHING = DetectionOptions(score_threshold=0.0)
VELOCITY = slice(8, 10)


def tiny(name: str) -> PETR:
    model = build_model(name)
    assert isinstance(model, PETR)
    decide(model)
    return model


@pytest.fixture(scope="module")
def petr() -> PETR:
    return tiny("petr_tiny")


@pytest.fixture(scope="module")
def petrv2() -> PETR:
    return tiny("petrv2_tiny")


@pytest.fixture(scope="module", params=["petr_tiny", "petrv2_tiny"])
def model(request: pytest.FixtureRequest) -> PETR:
    return tiny(request.param)


def predict(
    model: PETR,
    images: Tensor | None,
    projections: Tensor | None,
    history: History | None = None,
    aqr: AqrOptions | None = None,
    attention_weights: bool = False,
) -> ModelOutput:
    options = DecodeOptions(aqr or AqrOptions(), attention_weights=attention_weights)
    return model.decode(model.features(images, projections, None), options, history=history)


def standing(state: object, seconds: float = 0.5) -> History:
    return History(state, torch.eye(4), torch.eye(4), seconds)


@torch.inference_mode()
@pytest.mark.parametrize("views", [6, 5, 1, 0])
def test_any_number_of_cameras_gives_finite_predictions(model: PETR, views: int) -> None:
    images, projections = camera_ring.images()[:, :views], camera_ring.projections()[:, :views]
    logits, boxes = model(images, projections)
    layers, queries = model.preset.decoder.layers, model.preset.decoder.queries
    assert logits.shape == (layers, 1, queries, 10) and boxes.shape == (layers, 1, queries, 10)
    assert logits.isfinite().all() and boxes.isfinite().all()


@torch.inference_mode()
def test_missing_cameras_may_be_passed_in_two_ways_and_points_are_ignored(model: PETR) -> None:
    images, projections = camera_ring.images(batch=2), camera_ring.projections(batch=2)
    clouds = [torch.rand(10, 5), torch.zeros(0, 5)]
    nothing, empty = model(None, None, clouds), model(images[:, :0], projections[:, :0])
    assert torch.equal(nothing.class_logits, empty.class_logits)
    torch.testing.assert_close(nothing.boxes[:, 0], nothing.boxes[:, 1])
    assert torch.equal(model(images, projections, clouds).boxes, model(images, projections).boxes)


@torch.inference_mode()
def test_without_evidence_all_weights_are_zero(model: PETR) -> None:
    weights = predict(model, None, None, attention_weights=True).attention
    queries = model.preset.decoder.queries
    assert weights is not None and weights.modality.shape == (1, queries, 2) and not weights.modality.any()
    assert weights.cameras.shape == (1, queries, 0) and weights.camera_maps.numel() == weights.bev_map.numel() == 0


@torch.inference_mode()
def test_the_order_of_the_cameras_does_not_matter(model: PETR) -> None:
    images, projections, order = camera_ring.images(), camera_ring.projections(), torch.tensor([3, 1, 5, 0, 2, 4])
    first, second = model(images, projections), model(images[:, order], projections[:, order])
    # Proposals of almost the same score may change places.
    same = torch.cdist(first.boxes[-1], second.boxes[-1], compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(same.amin(2), torch.zeros_like(same[..., 0]), atol=1e-2, rtol=0)


@torch.inference_mode()
def test_every_camera_matters(model: PETR) -> None:
    images, projections = camera_ring.images(), camera_ring.projections()
    features = model.features(images, projections, None)
    assert features.image is not None

    def logits(views: list[int]) -> Tensor:
        seen = features._replace(image=features.image[:, views], lidar_to_image=projections[:, views])
        return model.decode(seen, DecodeOptions(AqrOptions())).predictions.class_logits

    whole = logits(list(range(6)))
    for view in range(6):
        assert (logits([other for other in range(6) if other != view]) - whole).abs().max() > 1e-5


@torch.inference_mode()
def test_a_batch_of_two_equals_two_of_one(model: PETR) -> None:
    then, now = camera_ring.images(2, seed=1), camera_ring.images(2, seed=2)
    projections = camera_ring.projections(2)
    projections[1] = (projections[1].double() @ camera_ring.pose(0.3, 0.1, 0.05)).float()

    def two_frames(samples: slice) -> ModelOutput:
        before = predict(model, then[samples], projections[samples])
        history = History(before.state, camera_ring.pose(-2.0, 0.1, 0.05).float(), torch.eye(4), 0.5)
        return predict(model, now[samples], projections[samples], history, attention_weights=True)

    together = two_frames(slice(0, 2))
    assert together.attention is not None
    for sample in (slice(0, 1), slice(1, 2)):
        alone = two_frames(sample)
        assert alone.attention is not None
        torch.testing.assert_close(together.predictions.boxes[:, sample], alone.predictions.boxes, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(together.attention.cameras[sample], alone.attention.cameras, atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_weights_lie_only_on_the_cameras_and_maps_in_their_range(model: PETR) -> None:
    output = predict(model, camera_ring.images(), camera_ring.projections(), attention_weights=True)
    weights = output.attention
    assert weights is not None and output.router is None and not model.router_trained
    assert not weights.modality[..., 0].any() and weights.bev_map.numel() == 0
    torch.testing.assert_close(weights.modality[..., 1], torch.ones(1, model.preset.decoder.queries), atol=1e-4, rtol=0)
    torch.testing.assert_close(weights.cameras.sum(-1), torch.ones(1, model.preset.decoder.queries), atol=1e-4, rtol=0)
    assert weights.camera_maps.shape == (1, 6, 4, 11)
    assert weights.camera_maps.min() >= 0 and 0 < weights.camera_maps.max() <= 1.5


@torch.inference_mode()
@pytest.mark.parametrize("mode", ["modulation", "bias", "both"])
def test_aqr_modes_have_no_effect(petr: PETR, mode: str) -> None:
    images, projections = camera_ring.images(), camera_ring.projections()
    asked = predict(petr, images, projections, aqr=AqrOptions(mode=mode, strength=4.0)).predictions
    assert torch.equal(asked.boxes, petr(images, projections).boxes)


@torch.inference_mode()
def test_petr_has_no_memory_and_ignores_history(petr: PETR) -> None:
    images, projections = camera_ring.images(), camera_ring.projections()
    assert not petr.remembers and predict(petr, images, projections).state is None
    assert torch.equal(petr(images, projections, history=standing(("old",))).boxes, petr(images, projections).boxes)


@torch.inference_mode()
def test_without_history_the_current_frame_replaces_a_past_one_with_the_age_of_the_gap(petrv2: PETR) -> None:
    images, projections = camera_ring.images(), camera_ring.projections()
    first = predict(petrv2, images, projections)
    again = predict(petrv2, images, projections, standing(first.state, petrv2.options.frame_gap))
    torch.testing.assert_close(again.predictions.boxes, first.predictions.boxes, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_history_changes_petrv2s_predictions_and_time_divides_its_motion(petrv2: PETR) -> None:
    then, now, projections = camera_ring.images(seed=1), camera_ring.images(seed=2), camera_ring.projections()
    state = predict(petrv2, then, projections).state
    alone = predict(petrv2, now, projections).predictions
    half, whole = (predict(petrv2, now, projections, standing(state, each)) for each in (0.5, 1.0))
    assert (half.predictions.class_logits - alone.class_logits).abs().max() > 1e-4
    assert half.queries is not None and half.queries.codes is not None
    proposed = half.queries.codes[..., VELOCITY]  # already in m/s
    seen_in_half, seen_in_whole = (output.predictions.boxes[..., VELOCITY] - proposed for output in (half, whole))
    torch.testing.assert_close(seen_in_half, 2 * seen_in_whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(half.predictions.boxes[..., :8], whole.predictions.boxes[..., :8])


@torch.inference_mode()
def test_the_vehicles_motion_changes_petrv2s_predictions(petrv2: PETR) -> None:
    then, now, projections = camera_ring.images(seed=1), camera_ring.images(seed=2), camera_ring.projections()
    state = predict(petrv2, then, projections).state
    still = predict(petrv2, now, projections, standing(state)).predictions
    driven = History(state, camera_ring.pose(-6.0, 0.0, 0.1).float(), torch.eye(4), 0.5)
    moved = predict(petrv2, now, projections, driven).predictions
    assert (moved.class_logits - still.class_logits).abs().max() > 1e-5


@torch.inference_mode()
def test_a_frame_without_cameras_does_not_erase_the_memory(petrv2: PETR) -> None:
    images, projections = camera_ring.images(seed=1), camera_ring.projections()
    state = predict(petrv2, images, projections).state
    blind = predict(petrv2, None, None, standing(state, 0.25))
    now = camera_ring.images(seed=2)
    direct = predict(petrv2, now, projections, standing(state, 0.5)).predictions
    over_the_gap = predict(petrv2, now, projections, standing(blind.state, 0.25)).predictions
    torch.testing.assert_close(over_the_gap.boxes, direct.boxes, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_past_images_of_a_failed_camera_count_for_the_camera_modality(petrv2: PETR) -> None:
    images, projections = camera_ring.images(), camera_ring.projections()
    state = predict(petrv2, images, projections).state
    weights = predict(petrv2, images[:, :5], projections[:, :5], standing(state), attention_weights=True).attention
    assert weights is not None and weights.cameras.shape == (1, petrv2.preset.decoder.queries, 5)
    torch.testing.assert_close(
        weights.modality[..., 1], torch.ones(1, petrv2.preset.decoder.queries), atol=1e-4, rtol=0
    )
    assert (weights.cameras.sum(-1) < 1).all()


@torch.inference_mode()
def test_matching_queries_learn_nothing_from_denoising_ones(model: PETR) -> None:
    images, projections = camera_ring.images(), camera_ring.projections()
    learned = model.pts_bbox_head.reference_points.weight[None]
    noise = torch.rand(1, 40, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(2 * [40 + learned.shape[1]], dtype=torch.bool)
    mask[40:, :40] = True
    both = model(images, projections, queries=Queries(torch.cat((noise, learned), dim=1), 40, mask))
    torch.testing.assert_close(both.boxes[:, :, 40:], model(images, projections).boxes, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["petr_tiny", "petrv2_tiny"])
def test_gradients_reach_every_part(name: str) -> None:
    model = tiny(name).train()
    logits, boxes = model(camera_ring.images()[:, :2], camera_ring.projections()[:, :2])
    (logits.square().mean() + boxes.square().mean()).backward()
    silent = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    # Heat maps learn from their own loss; the first layer's queries attend to each other while they are still zero.
    assert not [name for name in silent if "decoder.layers.0." not in name and not name.startswith("proposals.")]


@pytest.mark.parametrize("name", ["petr_tiny", "petrv2_tiny"])
def test_weights_load_without_a_warning_about_a_missing_router(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny(name)
    changed = {key: value + 1 for key, value in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        load_checkpoint(model, changed)
    assert not caplog.records and not model.router_trained
    assert all(torch.equal(value, changed[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["petr_tiny", "petrv2_tiny"])
def test_the_detector_runs_it_with_any_cameras(name: str) -> None:
    detector = Detector(name, device="cpu", precision="fp32")
    assert detector.uses_cameras and not detector.uses_lidar and not detector.has_router
    frame = made_up_frame()
    whole = detector.detect(frame, EVERYTHING)
    assert whole.weight_maps.source == "attention" and whole.weight_maps.bev is None
    assert set(whole.weight_maps.cameras) == {view.name for view in frame.cameras}
    assert not whole.detections.lidar_weight.any()
    np.testing.assert_allclose(whole.detections.camera_weight, 1.0, atol=1e-4)
    for cameras in (frame.cameras[:1], ()):
        result = detector.detect(dataclasses.replace(frame, cameras=cameras), EVERYTHING)
        assert len(result.detections) > 0 and set(result.weight_maps.cameras) == {view.name for view in cameras}
    assert not result.detections.camera_weight.any()


def test_the_detector_passes_petrv2_its_history_where_the_vehicles_motion_is_known() -> None:
    detector = Detector("petrv2_tiny", device="cpu", precision="fp32")
    first = dataclasses.replace(made_up_frame(0), points=None, stamp_ns=0, to_fixed=np.eye(4))
    second = dataclasses.replace(made_up_frame(1), points=None, stamp_ns=500_000_000, to_fixed=np.eye(4))
    detector.detect(first, EVERYTHING)
    with_past = detector.detect(second, EVERYTHING).detections
    detector.forget()
    without = detector.detect(second, EVERYTHING).detections
    assert not np.array_equal(with_past.boxes, without.boxes)
    detector.detect(dataclasses.replace(first, to_fixed=None), EVERYTHING)
    np.testing.assert_array_equal(detector.detect(second, EVERYTHING).detections.boxes, without.boxes)
