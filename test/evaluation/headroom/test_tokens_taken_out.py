# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tokens that are taken out: whole sensors, single cells, proposals, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.small_fusion import SMALL, small_aqr_cmt, write_preset
from torch import Tensor

from aqr_perception.detector import Detector
from aqr_perception.frame import LabelledFrame, Result
from aqr_perception.frame_features import FrameFeatures
from aqr_perception.models.cmt.model import CMT
from aqr_perception.models.proposals.proposal_head import UPSAMPLING
from aqr_perception.models.removed_tokens import TokenMask
from aqr_perception.models.transformer import attention
from aqr_perception.options import AqrOptions, DetectionOptions

POOLED = {"image_pooling": 2, "bev_pooling": 2}
OFF = DetectionOptions(score_threshold=0.0, aqr=AqrOptions.of_model("off"), attention=True)


def grids(features: FrameFeatures) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return rows and columns of the LiDAR's and of a camera's features."""
    assert features.maps.bev is not None and features.maps.image is not None
    return features.maps.bev.shape[-2:], features.maps.image.shape[-2:]  # type: ignore[return-value]


def equal(first: Result, second: Result) -> None:
    one, other = first.detections, second.detections
    assert np.array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-4)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    np.testing.assert_allclose(one.lidar_weight, other.lidar_weight, atol=1e-4)


def test_a_camera_without_tokens_is_missing(routed: Detector, small: LabelledFrame) -> None:
    features = routed.extract(small.frame)
    _, cells = grids(features)
    name = small.frame.cameras[0].name
    masked = routed.detect_in(routed.without_tokens(features, TokenMask(None, {name: np.ones(cells, bool)})), OFF)
    missing = routed.detect(dataclasses.replace(small.frame, cameras=small.frame.cameras[1:]), OFF)
    equal(masked, missing)
    assert not masked.detections.camera_weights[:, 0].any(), "the cameras keep their order in the frame as it was given"
    np.testing.assert_allclose(masked.detections.camera_weights[:, 1:], missing.detections.camera_weights, atol=1e-4)
    assert set(masked.weight_maps.cameras) == {view.name for view in small.frame.cameras[1:]}


def test_a_lidar_without_tokens_is_missing(routed: Detector, small: LabelledFrame) -> None:
    features = routed.extract(small.frame)
    cells, _ = grids(features)
    masked = routed.detect_in(routed.without_tokens(features, TokenMask(np.ones(cells, bool))), OFF)
    equal(masked, routed.detect(dataclasses.replace(small.frame, points=None), OFF))
    assert masked.weight_maps.bev is None and masked.queries is not None and masked.queries.attention is not None
    assert not masked.queries.attention[:, 0].any()


def test_without_any_sensor_left_the_queries_decide_alone(routed: Detector, small: LabelledFrame) -> None:
    features = routed.extract(small.frame)
    bev, image = grids(features)
    cameras = {view.name: np.ones(image, bool) for view in small.frame.cameras}
    masked = routed.detect_in(routed.without_tokens(features, TokenMask(np.ones(bev, bool), cameras)), OFF)
    equal(masked, routed.detect(dataclasses.replace(small.frame, points=None, cameras=()), OFF))


def test_a_mask_of_nothing_changes_nothing(routed: Detector, small: LabelledFrame) -> None:
    features = routed.extract(small.frame)
    bev, image = grids(features)
    nothing = TokenMask(np.zeros(bev, bool), {view.name: np.zeros(image, bool) for view in small.frame.cameras})
    assert routed.without_tokens(features, nothing) is features
    assert routed.without_tokens(features, TokenMask()) is features


@pytest.mark.parametrize("architecture", ["cmt", "aqr_cmt", "pooled"])
def test_exactly_the_masked_cells_are_no_keys(
    architecture: str, small: LabelledFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of the cross-attention are those of all cells without the masked ones, in the same order."""
    torch.manual_seed(1)
    entries = SMALL if architecture == "cmt" else small_aqr_cmt()
    if architecture == "pooled":
        entries = {**SMALL, "decoder": {**SMALL["decoder"], **POOLED}}  # type: ignore[dict-item]
    detector = Detector(write_preset(tmp_path, entries), "random", device="cpu", precision="fp32")
    features = detector.extract(small.frame)
    bev, image = grids(features)
    rng = np.random.default_rng(0)
    edge = 2 if architecture == "pooled" else 1
    camera, lidar = (rng.random((cells[0] // edge, cells[1] // edge)) < 0.3 for cells in (image, bev))
    removed_image, removed_bev = (cells.repeat(edge, 0).repeat(edge, 1) for cells in (camera, lidar))
    name = small.frame.cameras[1].name
    keys: list[Tensor] = []
    original = attention.attend

    def watched(query: Tensor, key: Tensor, value: Tensor, **others: object) -> tuple[Tensor, Tensor | None]:
        if others.get("layout") is not None:
            keys.append(key)
        return original(query, key, value, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "attend", watched)
    monkeypatch.setattr(detector.model, "proposals", None)
    detector.detect_in(features, OFF)
    masked = detector.detect_in(detector.without_tokens(features, TokenMask(removed_bev, {name: removed_image})), OFF)
    whole, left = keys[0], keys[len(keys) // 2]
    kept = ~np.concatenate([lidar.ravel(), np.zeros(camera.size, bool), camera.ravel()])
    assert whole.shape[2] == len(kept)
    torch.testing.assert_close(left, whole[:, :, torch.from_numpy(kept)])
    assert masked.queries is not None and masked.queries.attention is not None
    np.testing.assert_allclose(masked.queries.attention.sum(1), 1, atol=1e-5)


def test_attention_without_tokens_is_attention_with_a_mask(routed: Detector) -> None:
    layout_sizes = (12, 6, 6)
    torch.manual_seed(2)
    query, key, value = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 24, 8), torch.randn(1, 2, 24, 8)
    removed = torch.zeros(24, dtype=torch.bool)
    removed[[0, 5, 13, 20, 21]] = True
    counts = tuple(int((~part).sum()) for part in removed.split(layout_sizes))
    layout = attention.TokenLayout((3, 4), 2, (2, 3), counts)
    with torch.no_grad():
        output, mass = attention.attend(
            query, key[:, :, ~removed], value[:, :, ~removed], layout=layout, return_mass=True
        )
    expected = F.scaled_dot_product_attention(query, key, value, ~removed[None])
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    scores = (query @ key.transpose(2, 3) / 8**0.5).masked_fill(removed, float("-inf")).softmax(-1).mean(1)
    shares = torch.stack([part.sum(-1) for part in scores.split(layout_sizes, dim=-1)], dim=-1)
    assert mass is not None
    torch.testing.assert_close(mass, shares, atol=1e-5, rtol=1e-5)


def test_no_proposal_is_in_a_masked_cell(routed: Detector, small: LabelledFrame) -> None:
    features = routed.extract(small.frame)
    bev, image = grids(features)
    lidar = np.zeros(bev, bool)
    lidar[:, : bev[1] // 2] = True  # all of x < 0
    camera = np.ones(image, bool)
    camera[:2, :3] = False  # fewer cells than image proposals
    cameras = {view.name: camera for view in small.frame.cameras}
    model = routed.model
    assert isinstance(model, CMT)

    def places(given: FrameFeatures) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            output = model.decode(given.maps, _decode_options())
        assert output.queries is not None
        return output.queries.reference_points[0], model.pts_bbox_head.reference_points.weight

    proposals = model.preset.decoder.proposals
    before, learned = places(features)
    after, _ = places(routed.without_tokens(features, TokenMask(lidar, cameras)))
    assert (before[: proposals.bev, 0] < 0.5).any() and (after[: proposals.bev, 0] >= 0.5).all()
    of_images = slice(proposals.bev, proposals.bev + proposals.image)
    same_as_learned = (after[of_images] == learned[of_images]).all(1)
    assert int((~same_as_learned).sum()) <= 2 * 6 * UPSAMPLING**2, "queries without a proposal keep their learned place"
    assert torch.equal(after[of_images.stop :], learned[of_images.stop :])


def _decode_options() -> "object":
    from aqr_perception.models.model_io import DecodeOptions

    return DecodeOptions(AqrOptions.of_model("off"))


def test_masks_of_wrong_shapes_bias_and_other_models_are_refused(
    routed: Detector, small: LabelledFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = routed.extract(small.frame)
    bev, image = grids(features)
    with pytest.raises(ValueError, match=rf"mask of the LiDAR: found bool of shape \(2, 3\), needed .*{bev[0]}"):
        routed.without_tokens(features, TokenMask(np.ones((2, 3), bool)))
    name = small.frame.cameras[0].name
    with pytest.raises(ValueError, match=f"mask of {name}: found float64"):
        routed.without_tokens(features, TokenMask(None, {name: np.ones(image)}))  # type: ignore[dict-item]
    some = np.zeros(bev, bool)
    some[0, 0] = True
    left = routed.without_tokens(features, TokenMask(some))
    with pytest.raises(ValueError, match="with a bias, needed one sample without a bias"):
        routed.detect_in(left, DetectionOptions(aqr=AqrOptions.of_model("bias")))
    monkeypatch.setattr(type(routed.model), "removes_tokens", False)
    with pytest.raises(ValueError, match="found a model whose tokens cannot be removed, needed CMT or AQR-CMT"):
        routed.without_tokens(features, TokenMask(some))
