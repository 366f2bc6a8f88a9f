# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""BEVFormer with memory and with any cameras."""

import logging
import math

import numpy as np
import pytest
import torch
from helpers.camera_ring import pose
from helpers.small_bevformer import SIZE, history, images, projections, small_model

from aqr_perception.detector import Detector
from aqr_perception.frame import CameraView, Frame
from aqr_perception.models import load_checkpoint
from aqr_perception.models.bevformer.ego_motion import ego_motion
from aqr_perception.models.bevformer.model import BEVFormer
from aqr_perception.models.model_io import LAST_LAYER, DecodeOptions, History, ModelOutput, Queries
from aqr_perception.models.proposals.proposal_head import UPSAMPLING
from aqr_perception.options import AqrOptions, DetectionOptions

WITH_WEIGHTS = DecodeOptions(AqrOptions(), attention_weights=True)
START, NOW = pose(3.0, 4.0, 0.3), pose(5.0, 4.5, 0.4)


@pytest.fixture(scope="module")
def model() -> BEVFormer:
    return small_model()


def seen(model: BEVFormer, past: History | None, seed: int = 0, cameras: list[int] | None = None) -> ModelOutput:
    """Return the model's output for a frame of noise in some of the cameras."""
    views = list(range(6)) if cameras is None else cameras
    pictures, matrices = images(seed=seed)[:, views], projections()[:, views]
    with torch.inference_mode():
        return model.decode(model.features(pictures, matrices, None), WITH_WEIGHTS, history=past)


def blind(model: BEVFormer, past: History | None) -> ModelOutput:
    with torch.inference_mode():
        return model.decode(model.features(None, None, None), WITH_WEIGHTS, history=past)


def test_without_history_the_queries_replace_it() -> None:
    model = small_model(encoder_layers=1)
    alone = seen(model, history(None, START, START))
    head = model.pts_bbox_head
    with torch.no_grad():
        vehicle = head.transformer.can_bus_mlp(ego_motion(history(None, START, START), 1, 0.0).can_bus)
        queries = head.bev_embedding.weight + vehicle[:, None]
    with_queries = seen(model, history(queries, START, START))
    torch.testing.assert_close(with_queries.state, alone.state, atol=1e-5, rtol=1e-5)
    with_others = seen(model, history(queries + 1.0, START, START))
    assert not torch.allclose(with_others.state, alone.state, atol=1e-2)


def test_history_and_motion_change_the_predictions(model: BEVFormer) -> None:
    first = seen(model, history(None, START, START))
    assert isinstance(first.state, torch.Tensor) and first.state.shape == (1, 96, 32)
    without = seen(model, history(None, NOW, NOW), seed=1).predictions.boxes
    with_it = seen(model, history(first.state, START, NOW), seed=1).predictions.boxes
    elsewhere = seen(model, history(first.state, pose(-3.0, 4.0, 0.3), NOW), seed=1).predictions.boxes
    assert (with_it - without).abs().max() > 1e-3 and (with_it - elsewhere).abs().max() > 1e-3


def test_history_changes_the_bev_proposals() -> None:
    model = small_model((4, 0))
    first = seen(model, history(None, START, START))
    without = seen(model, history(None, NOW, NOW), seed=1)
    with_it = seen(model, history(first.state, START, NOW), seed=1)
    assert without.proposals.bev.shape == (1, 20, 16, 24) and without.proposals.image is None
    assert (without.proposals.bev - with_it.proposals.bev).abs().max() > 1e-3
    assert not torch.equal(without.queries.reference_points, with_it.queries.reference_points)


def test_the_callers_history_is_not_modified(model: BEVFormer) -> None:
    first = seen(model, history(None, START, START))
    copy = first.state.clone()
    again = [seen(model, history(first.state, START, NOW), seed=1).state for _ in range(2)]
    assert torch.equal(first.state, copy) and torch.equal(*again)


@pytest.mark.parametrize("remembers", [False, True])
def test_a_batch_of_two_is_two_of_one(model: BEVFormer, remembers: bool) -> None:
    poses = (pose(3.0, 4.0, 0.3), pose(0.0, 9.0, -1.0))
    state = torch.randn(2, 96, 32, generator=torch.Generator().manual_seed(3)) if remembers else None
    alone = [history(None if state is None else state[[i]], poses[i], NOW) for i in range(2)]
    stacked = (torch.stack([getattr(each, name) for each in alone]) for name in ("to_current", "to_fixed"))
    pictures, matrices = images(2), projections(2)
    matrices[1] = matrices[1, [3, 4, 5, 0, 1, 2]]  # the second sample's cameras see other cells than the first one's
    with torch.inference_mode():
        found = []
        for samples, past in (([0, 1], History(state, *stacked, 0.5)), ([0], alone[0]), ([1], alone[1])):
            features = model.features(pictures[samples], matrices[samples], None)
            found.append(model.decode(features, WITH_WEIGHTS, history=past))
    together, *apart = found
    for sample, single in enumerate(apart):
        one = slice(sample, sample + 1)
        torch.testing.assert_close(together.state[one], single.state, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.predictions.boxes[:, one], single.predictions.boxes, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(together.attention.cameras[one], single.attention.cameras, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cameras", [[0, 1, 2, 3, 4, 5], [0, 3], [4], []])
def test_any_cameras_give_finite_predictions(model: BEVFormer, cameras: list[int]) -> None:
    output = seen(model, None, cameras=cameras)
    assert output.predictions.class_logits.shape == (2, 1, 40, 10) and output.predictions.boxes.shape == (2, 1, 40, 10)
    assert all(values.isfinite().all() for values in output.predictions)
    assert output.attention.cameras.shape == (1, 40, len(cameras))
    assert output.attention.camera_maps.shape[:2] == (1, len(cameras)) and output.router is None


def test_the_order_of_the_cameras_does_not_matter(model: BEVFormer) -> None:
    order = [3, 1, 5, 0, 2, 4]
    first, second = seen(model, None), seen(model, None, cameras=order)
    torch.testing.assert_close(first.predictions.boxes, second.predictions.boxes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first.attention.cameras[:, :, order], second.attention.cameras, atol=1e-4, rtol=1e-4)


def test_without_cameras_predictions_depend_only_on_the_history(model: BEVFormer) -> None:
    first = seen(model, history(None, START, START))
    nothing, remembered = blind(model, history(None, NOW, NOW)), blind(model, history(first.state, START, NOW))
    assert (nothing.predictions.boxes - remembered.predictions.boxes).abs().max() > 1e-3
    assert torch.equal(nothing.predictions.boxes, blind(model, history(None, NOW, NOW)).predictions.boxes)
    for output in (nothing, remembered):
        assert output.predictions.boxes.isfinite().all() and not output.attention.modality.any()
        assert output.attention.cameras.shape == (1, 40, 0) and output.state is not None
    torch.testing.assert_close(
        nothing.predictions.boxes, seen(model, history(None, NOW, NOW), cameras=[]).predictions.boxes
    )


def test_the_weights_are_the_cameras_shares_and_the_maps_show_them(model: BEVFormer) -> None:
    weights = seen(model, None).attention
    assert weights.bev_map.shape == (1, 0, 0) and weights.camera_maps.shape == (1, 6, 8, 12)
    assert weights.cameras.min() >= 0 and weights.cameras.sum(-1).max() <= 1 + 1e-5
    assert not weights.modality[..., 0].any()
    torch.testing.assert_close(weights.modality[..., 1], weights.cameras.sum(-1))
    assert weights.camera_maps.any() and weights.camera_maps.max() <= 1.5
    front_only = seen(model, None, cameras=[0]).attention
    assert front_only.modality[..., 1].max() > 0 and front_only.modality[..., 1].min() < 0.5


def test_only_the_chosen_layers_are_predicted(model: BEVFormer) -> None:
    pictures = images()
    with torch.inference_mode():
        last = model.decode(
            model.features(pictures, projections(), None), DecodeOptions(AqrOptions(), layers=LAST_LAYER)
        )
    assert last.attention is None
    assert torch.equal(last.predictions.boxes[0], seen(model, None).predictions.boxes[-1])


@pytest.mark.parametrize(("levels", "stride"), [(1, 32), (2, 16), (4, 16)])
def test_proposals_come_from_stride_16_where_there_is_such_a_level(levels: int, stride: int) -> None:
    model = small_model((0, 8), levels=levels)
    pictures = images()
    with torch.inference_mode():
        features = model.features(pictures, projections(), None)
        assert features.image.shape[2] == sum(math.prod(shape) for shape in model._shapes(SIZE))
        maps = model.propose(features)
    assert maps.image.shape[-2:] == tuple(UPSAMPLING * edge // stride for edge in SIZE)


@pytest.mark.parametrize("proposals", [(0, 0), (4, 8)])
def test_it_trains_and_gradients_reach_every_parameter(proposals: tuple[int, int]) -> None:
    trained = small_model(proposals).train()
    state = torch.randn(1, 96, 32)
    predictions = trained(images(), projections(), history=history(state, START, NOW))
    (predictions.class_logits.square().sum() + predictions.boxes.square().sum()).backward()
    heat_maps = ("proposals.bev.", "proposals.image.")  # which learn from their own loss
    named = [(name, parameter) for name, parameter in trained.named_parameters() if not name.startswith(heat_maps)]
    idle = [name for name, parameter in named if parameter.grad is None]
    assert idle == []


def test_another_models_history_and_denoising_queries_are_refused(model: BEVFormer) -> None:
    with pytest.raises(TypeError, match=r"history\.state is a tuple"):
        seen(model, History((1, 2), torch.eye(4), torch.eye(4), 0.5))
    with pytest.raises(ValueError, match=r"\(1, 7, 32\), needed \(1, 96, 32\)"):
        seen(model, History(torch.zeros(1, 7, 32), torch.eye(4), torch.eye(4), 0.5))
    with pytest.raises(ValueError, match="4 denoising queries"):
        model(images(), projections(), queries=Queries(torch.rand(1, 44, 3), 4, None))


def test_its_checkpoint_loads_without_a_router_warning(model: BEVFormer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_checkpoint(small_model(), model.state_dict())
    assert not caplog.records and not model.router_trained


def test_half_precision_gives_about_the_same_bev_features(model: BEVFormer) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        half = seen(model, None)
    full = seen(model, None)
    assert half.state.dtype == half.predictions.boxes.dtype == torch.float32
    assert (half.state - full.state).abs().mean() < 0.1 * full.state.abs().mean()


def test_a_detector_remembers_from_frame_to_frame() -> None:
    detector = Detector("bevformer_mini", device="cpu", precision="fp32", options=DetectionOptions(score_threshold=0.0))
    assert isinstance(detector.model, BEVFormer) and detector.model.options.forward == 0.0
    picture = np.random.default_rng(0).integers(0, 255, (128, 352, 3), np.uint8)
    intrinsics = np.array([[278.0, 0, 176], [0, 278, 64], [0, 0, 1]])
    extrinsics = np.eye(4)
    extrinsics[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    views = (CameraView("front", picture, intrinsics, extrinsics),)

    def detect(seconds: float, x: float, cameras: tuple[CameraView, ...] = views) -> np.ndarray:
        frame = Frame(round(seconds * 1e9), None, cameras, to_fixed=pose(x, 0.0, 0.0).numpy())
        result = detector.detect(frame)
        assert set(result.weight_maps.cameras) == {view.name for view in cameras}
        return result.detections.boxes

    first, second = detect(1.0, 0.0), detect(1.5, 2.0)
    assert np.abs(first - second).max() > 1e-4
    detector.forget()
    np.testing.assert_allclose(detect(9.0, 0.0), first, atol=1e-5)
    assert len(detect(9.5, 1.0, ())) > 0
