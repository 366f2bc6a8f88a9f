# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The shipped model finds nearly all objects of fp32 in bf16, too, and no others."""

import pytest
import torch

from aqr_perception import devices
from aqr_perception.benchmarks.frame_comparison import agreeing_boxes
from aqr_perception.benchmarks.inputs import simulated_frames
from aqr_perception.detector import Detector


@pytest.mark.slow
def test_few_boxes_and_no_features_change_much_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_bf16_is_faster", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    frames = simulated_frames(8)
    precise, *others = (
        [(features := detector.extract(frame), detector.detect_in(features).detections) for frame in frames]
        for detector in (Detector("aqr_tiny", device="cpu", precision=name) for name in ("fp32", "bf16", "auto"))
    )
    for reduced in others:
        boxes = [[found for _, found in results] for results in (precise, reduced)]
        for one, other in (boxes, boxes[::-1]):
            agree, count = agreeing_boxes(one, other)
            assert count > 200
            assert agree >= 0.96 * count
        for (exact, _), (rounded, _) in zip(precise, reduced, strict=True):
            assert exact.maps.image is not None and rounded.maps.image is not None
            # With the backbone's first layers in bf16, 0.09.
            assert (rounded.maps.image - exact.maps.image).std() < 0.04 * exact.maps.image.std()
