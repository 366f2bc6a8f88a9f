# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The shipped model finds the same objects in bf16 as in fp32."""

import numpy as np
import pytest
import torch

from aqr_perception import devices
from aqr_perception.benchmarks.frame_comparison import agreeing_boxes
from aqr_perception.benchmarks.inputs import simulated_frames
from aqr_perception.detector import Detector
from aqr_perception.simulator.drive import draw_drive


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_bf16_gives_the_same_confident_boxes(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_bf16_is_faster", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    frame = draw_drive(7).frame(2.0).frame
    precise, reduced = (
        Detector("aqr_tiny", device="cpu", precision=name).detect(frame) for name in ("fp32", precision)
    )
    confident = 0
    # Slightly above the limit on one side and below on the other: a score of 0.3 may round to either.
    for one, other in ((precise.detections, reduced.detections), (reduced.detections, precise.detections)):
        for index in np.flatnonzero(one.scores > 0.3):
            same = np.flatnonzero(other.labels == one.labels[index])
            distance = np.linalg.norm(other.boxes[same, :3] - one.boxes[index, :3], axis=1)
            match = same[distance.argmin()]
            assert distance.min() < 0.2
            assert abs(other.scores[match] - one.scores[index]) < 0.02
            confident += 1
    assert confident >= 4


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
        agree, count = agreeing_boxes(*([boxes for _, boxes in results] for results in (precise, reduced)))
        assert count > 200
        assert agree >= 0.96 * count
        for (exact, _), (rounded, _) in zip(precise, reduced, strict=True):
            assert exact.maps.image is not None and rounded.maps.image is not None
            # With the backbone's first layers in bf16, 0.09.
            assert (rounded.maps.image - exact.maps.image).std() < 0.04 * exact.maps.image.std()
