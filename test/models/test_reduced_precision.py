# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The shipped model finds the same objects in bf16 as in fp32."""

import numpy as np
import pytest

from aqr_perception.detector import Detector
from aqr_perception.simulator.drive import draw_drive


@pytest.mark.slow
def test_bf16_gives_the_same_confident_boxes() -> None:
    frame = draw_drive(7).frame(2.0).frame
    precise, reduced = (Detector("aqr_tiny", device="cpu", precision=name).detect(frame) for name in ("fp32", "bf16"))
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
