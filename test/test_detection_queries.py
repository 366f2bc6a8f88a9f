# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The queries behind detections: their places, and their attention by sensor, only if asked."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aqr_perception.detector import Detector
from aqr_perception.frame import CameraView, Frame
from aqr_perception.options import AqrOptions, DetectionOptions

FEW = DetectionOptions(score_threshold=0.0, max_detections=12, attention=True)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector("aqr_tiny", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def frame() -> Frame:
    rng = np.random.default_rng(0)
    points = rng.uniform(-20, 20, (3000, 5)).astype(np.float32)
    points[:, 2], points[:, 4] = rng.uniform(-2, 0, 3000), 0.0
    intrinsics = np.array([[200.0, 0, 176], [0, 200, 64], [0, 0, 1]])
    ahead = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    behind = ahead @ np.diag([-1.0, -1, 1, 1])
    cameras = tuple(
        CameraView(name, rng.integers(0, 256, (128, 352, 3), np.uint8), intrinsics, extrinsics)
        for name, extrinsics in (("front", ahead), ("back", behind))
    )
    return Frame(0, points, cameras)


class DirectAttention:
    """The last layer's cross-attention as one softmax over all tokens, from the layer's own inputs."""

    def __init__(self, detector: Detector) -> None:
        self.mass: Tensor | None = None
        self.asked: list[bool] = []
        layer: Any = detector.model.pts_bbox_head.transformer.decoder.layers[-1]
        self._attention = layer.attentions[1].attn
        self._hook = self._attention.register_forward_pre_hook(self._compute, with_kwargs=True)

    def _compute(self, module: Any, inputs: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        query, key, _ = inputs
        self.asked.append(bool(named["return_mass"]))
        weight_q, weight_k, _ = module.in_proj_weight.double().chunk(3)
        bias_q, bias_k, _ = module.in_proj_bias.double().chunk(3)
        q = (query.double() @ weight_q.T + bias_q).unflatten(-1, (module.heads, -1)).transpose(1, 2)
        k = (key.double() @ weight_k.T + bias_k).unflatten(-1, (module.heads, -1)).transpose(1, 2)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if named["bias"] is not None:
            scores = scores + named["bias"].dense()[:, None].double()
        attention = scores.softmax(-1).mean(1)
        self.mass = torch.stack([attention[..., part].sum(-1) for part in named["layout"].segments], -1)[0]

    def remove(self) -> None:
        self._hook.remove()


@pytest.mark.parametrize("mode", ["off", "bias", "auto"])
def test_the_attention_by_sensor_is_that_of_a_direct_softmax(frame: Frame, mode: Any) -> None:
    # The queries of the trained model all look at the LiDAR alone, and their shares are equal.
    detector = Detector("aqr_tiny", "random", device="cpu", precision="fp32")
    torch.manual_seed(0)
    for parameter in detector.model.get_submodule("aqr").parameters():  # an untrained gate has no bias
        torch.nn.init.normal_(parameter, std=0.1)
    direct = DirectAttention(detector)
    result = detector.detect(frame, dataclasses.replace(FEW, aqr=AqrOptions.of_model(mode)))
    direct.remove()
    assert direct.mass is not None and result.queries is not None and result.queries.attention is not None
    shares = torch.from_numpy(result.queries.attention).double()
    # Each detection's shares are those of one query; the queries' own shares differ.
    distance, nearest = torch.cdist(shares, direct.mass).min(1)
    assert shares.shape == (12, 3) and float(distance.max()) < 1e-5
    assert len(set(nearest.tolist())) > 3
    np.testing.assert_allclose(result.queries.attention.sum(1), 1.0, atol=1e-5)


def test_attention_is_not_computed_unless_asked(detector: Detector, frame: Frame) -> None:
    direct = DirectAttention(detector)
    silent = detector.detect(frame, dataclasses.replace(FEW, attention=False))
    asked = detector.detect(frame, FEW)
    direct.remove()
    assert direct.asked == [False, True]
    assert silent.queries is not None and silent.queries.attention is None
    np.testing.assert_allclose(silent.detections.scores, asked.detections.scores, atol=1e-4)
    np.testing.assert_allclose(silent.detections.lidar_weight, asked.detections.lidar_weight, atol=1e-4)


def test_attention_of_missing_sensors_is_zero(detector: Detector, frame: Frame) -> None:
    without = detector.detect(dataclasses.replace(frame, points=None), FEW).queries
    assert without is not None and without.attention is not None
    assert not without.attention[:, 0].any() and without.attention[:, 1:].sum(1) == pytest.approx(1.0, abs=1e-5)
    broken = dataclasses.replace(frame.cameras[0], intrinsics=np.full((3, 3), np.nan))
    left_out = detector.detect(dataclasses.replace(frame, cameras=(broken, frame.cameras[1])), FEW).queries
    assert left_out is not None and left_out.attention is not None
    assert left_out.attention.shape == (12, 3) and not left_out.attention[:, 1].any()


def test_the_maps_peak_at_the_queries_places(detector: Detector, frame: Frame) -> None:
    result = detector.detect(frame, FEW)
    assert result.queries is not None and result.weight_maps.bev is not None
    x_min, y_min, x_max, y_max = result.weight_maps.bev_range
    rows, columns = result.weight_maps.bev.shape
    for point, weight in zip(result.queries.points, result.detections.lidar_weight, strict=True):
        column, row = (point[0] - x_min) / (x_max - x_min) * columns, (point[1] - y_min) / (y_max - y_min) * rows
        if 0 <= column < columns and 0 <= row < rows and weight > 0.1:
            assert result.weight_maps.bev[int(row), int(column)] >= weight - 0.01


@pytest.mark.parametrize("preset", ["petr_tiny", "bevformer_mini"])
def test_cameras_share_the_attention_of_models_without_lidar(preset: str, frame: Frame) -> None:
    detector = Detector(preset, "random", device="cpu", precision="fp32")
    queries = detector.detect(frame, FEW).queries
    assert queries is not None and queries.attention is not None and queries.attention.shape == (12, 3)
    assert not queries.attention[:, 0].any() and (queries.attention.sum(1) <= 1 + 1e-5).all()
