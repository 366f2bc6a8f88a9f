# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""MoME: experts see only their sensors, and weights are the router's probabilities."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from helpers.fusion_output import predict
from torch import Tensor

from aqr_perception.detector import Detector
from aqr_perception.frame import CameraView, Frame
from aqr_perception.models import load_checkpoint
from aqr_perception.models.config.presets import PresetError, load_preset
from aqr_perception.models.model_io import Queries
from aqr_perception.models.mome.experts import Expert
from aqr_perception.models.mome.model import MoME
from aqr_perception.options import AqrOptions, DetectionOptions

OPTIONS = AqrOptions(mode="off")
QUERIES = 60


@contextmanager
def routed(model: MoME, logits: Tensor) -> Iterator[None]:
    """Make the router return (Q, 3) logits for any input."""
    hook = model.pts_bbox_head.transformer.selected_cls.register_forward_hook(
        lambda _module, _inputs, output: logits.expand_as(output)
    )
    try:
        yield
    finally:
        hook.remove()


def turns() -> Tensor:
    """(Q, 3) logits that send the queries to the three experts in turn."""
    return torch.nn.functional.one_hot(torch.arange(QUERIES) % 3, 3).float()


def queries_of(expert: Expert) -> slice:
    return slice(expert, None, 3)


@torch.inference_mode()
def test_queries_go_to_all_experts(model: MoME, sensed) -> None:
    logits = []
    hook = model.pts_bbox_head.transformer.selected_cls.register_forward_hook(lambda *call: logits.append(call[-1]))
    predict(model, *sensed, OPTIONS)
    hook.remove()
    assert len(logits) == 1 and set(logits[0].argmax(-1).flatten().tolist()) == {0, 1, 2}


@torch.inference_mode()
@pytest.mark.parametrize("views", [3, 2, 1, 0])
@pytest.mark.parametrize("lidar", [True, False])
def test_a_missing_sensor_removes_its_experts_and_the_others_take_over(
    model: MoME, sensed, views: int, lidar: bool
) -> None:
    points = sensed.points if lidar else [torch.zeros(0, 5)] * 3
    output = predict(model, sensed.images[:, :views], sensed.lidar_to_image[:, :views], points, OPTIONS)
    assert output.predictions.class_logits.shape == (3, 3, QUERIES, 10)
    assert all(part.isfinite().all() for part in output.predictions)
    assert output.router is not None
    assert output.router.cameras.shape == (3, QUERIES, views)
    modality = output.router.modality
    if lidar and views:
        assert ((modality > 0) & (modality < 1)).all() and (modality.sum(-1) > 1).all()
    else:
        assert torch.equal(modality, torch.tensor([float(lidar), float(views > 0)]).expand_as(modality))


@torch.inference_mode()
def test_missing_cameras_may_be_passed_in_two_ways(model: MoME, sensed) -> None:
    nothing = model(None, None, sensed.points)
    empty = model(sensed.images[:, :0], sensed.lidar_to_image[:, :0], sensed.points)
    assert torch.equal(nothing.boxes, empty.boxes)


@torch.inference_mode()
def test_a_batch_with_different_routes_and_sensors_equals_each_sample_separately(model: MoME, sensed) -> None:
    points = [sensed.points[0], torch.zeros(0, 5), sensed.points[2]]
    batch = sensed._replace(points=points)
    together = predict(model, *batch, OPTIONS, attention_weights=True)
    for sample in range(3):
        one = slice(sample, sample + 1)
        alone = predict(model, *batch.of(sample), OPTIONS, attention_weights=True)
        for found, expected in zip(together.predictions, alone.predictions, strict=True):
            torch.testing.assert_close(found[:, one], expected, atol=1e-4, rtol=1e-4)
        assert together.router and alone.router and together.attention and alone.attention
        for found, expected in zip(together.router[:2], alone.router[:2], strict=True):
            torch.testing.assert_close(found[one], expected, atol=1e-5, rtol=1e-4)
        for found, expected in zip(together.attention[:2], alone.attention[:2], strict=True):
            torch.testing.assert_close(found[one], expected, atol=1e-5, rtol=1e-4)
    assert together.router is not None and not together.router.bev_map[1].any() and together.router.bev_map[0].any()


@torch.inference_mode()
@pytest.mark.parametrize(("changed", "blind"), [("images", Expert.LIDAR), ("points", Expert.CAMERA)])
def test_an_experts_queries_see_only_its_sensors(model: MoME, sensed, changed: str, blind: Expert) -> None:
    other = {"images": sensed.images.flip(0), "points": sensed.points[::-1]}[changed]
    with routed(model, turns()):
        before = model(*sensed.of(0)).boxes
        after = model(*sensed._replace(**{changed: other}).of(0)).boxes
    for expert in Expert:
        same = torch.allclose(before[:, :, queries_of(expert)], after[:, :, queries_of(expert)], atol=1e-6)
        assert same == (expert is blind), expert.name


@torch.inference_mode()
def test_queries_do_not_depend_on_other_experts_queries(model: MoME, sensed) -> None:
    learned = model.pts_bbox_head.reference_points.weight[None]
    moved = learned.clone()
    moved[:, queries_of(Expert.FUSED)] = 0.5
    one = sensed.of(0)
    with routed(model, turns()):
        before = model(*one, Queries(learned, 0, None)).boxes
        after = model(*one, Queries(moved, 0, None)).boxes
    for expert in (Expert.LIDAR, Expert.CAMERA):
        torch.testing.assert_close(before[:, :, queries_of(expert)], after[:, :, queries_of(expert)])


@torch.inference_mode()
def test_weights_are_sums_of_the_routers_probabilities(model: MoME, sensed) -> None:
    logits = torch.randn(QUERIES, 3, generator=torch.Generator().manual_seed(0))
    with routed(model, logits):
        weights = predict(model, *sensed, AqrOptions(mode="off", reduce="sum")).router
    assert weights is not None
    fused, lidar, camera = logits.softmax(-1).unbind(-1)
    torch.testing.assert_close(weights.modality, torch.stack((fused + lidar, fused + camera), -1).expand(3, -1, -1))
    # A camera has its modality's weight where it sees the query, and 0 elsewhere.
    seen = weights.cameras > 0
    assert seen.any() and not seen.all()
    assert torch.equal(weights.cameras[seen], weights.modality[..., 1:].expand(-1, -1, 3)[seen])
    for maps, grid in ((weights.bev_map, (3, 8, 8)), (weights.camera_maps, (3, 3, 4, 6))):
        assert maps.shape == grid and maps.any() and maps.min() >= 0 and maps.max() <= 1.5


@torch.inference_mode()
def test_the_attention_mass_lies_on_the_experts_sensors(model: MoME, sensed) -> None:
    with routed(model, turns()):
        weights = predict(model, *sensed, OPTIONS, attention_weights=True).attention
    assert weights is not None
    lidar, cameras = weights.modality.unbind(-1)
    torch.testing.assert_close(lidar + cameras, torch.ones(3, QUERIES))
    torch.testing.assert_close(weights.cameras.sum(-1), cameras)
    assert not cameras[:, queries_of(Expert.LIDAR)].any() and not lidar[:, queries_of(Expert.CAMERA)].any()
    fused = lidar[:, queries_of(Expert.FUSED)]
    assert ((fused > 0) & (fused < 1)).all()


@torch.inference_mode()
def test_matching_queries_learn_nothing_from_denoising_ones(model: MoME, sensed) -> None:
    one = sensed.of(0)
    learned = model.pts_bbox_head.reference_points.weight[None]
    alone = model(*one)
    noise = torch.rand(1, 12, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(72, 72, dtype=torch.bool)
    mask[12:, :12] = True
    both = model(*one, Queries(torch.cat((noise, learned), dim=1), 12, mask))
    torch.testing.assert_close(both.boxes[:, :, 12:], alone.boxes, atol=1e-5, rtol=1e-4)


def test_its_router_counts_as_trained_and_no_missing_router_is_reported(
    new_model: Callable[[], MoME], model: MoME, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = new_model()
    with caplog.at_level(logging.WARNING):
        load_checkpoint(fresh, model.state_dict())
    assert fresh.router_trained and not caplog.records
    assert not any(key.startswith("aqr.") for key in fresh.state_dict())


def test_it_runs_in_the_detector_with_any_sensors(preset_file: str, sensed) -> None:
    detector = Detector(preset_file, device="cpu", precision="fp32")
    intrinsics = np.array([[40.0, 0, 48], [0, 40, 32], [0, 0, 1]])
    extrinsics = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    view = CameraView("front", np.full((64, 96, 3), 90, np.uint8), intrinsics, extrinsics)
    options = DetectionOptions(score_threshold=0.0)
    points = sensed.points[0].numpy()
    for frame in (Frame(0, points, (view,)), Frame(0, points), Frame(0, None, (view,)), Frame(0, None)):
        result = detector.detect(frame, options)
        assert len(result.detections) > 0 and result.weight_maps.source == "router"
        assert result.detections.lidar_weight.any() == (frame.points is not None)
        assert result.detections.camera_weight.any() == bool(frame.cameras)
        assert (result.weight_maps.bev is not None) == (frame.points is not None)


def test_a_preset_without_one_of_the_sensors_is_refused(tmp_path, preset_file: str) -> None:
    path = tmp_path / "blind.yaml"
    with open(preset_file) as file:
        path.write_text("".join(line for line in file if not line.startswith("image")))
    with pytest.raises(PresetError, match="both 'image' and 'points'"):
        load_preset(str(path))
