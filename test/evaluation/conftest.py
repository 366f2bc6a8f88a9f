# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Small detectors with random weights, and a labelled frame."""

import dataclasses

import numpy as np
import pytest
from helpers.spread_router import spread_router

from aqr_perception.benchmarks.inputs import made_up_frame
from aqr_perception.detector import Detector
from aqr_perception.frame import GroundTruth, LabelledFrame


@pytest.fixture(scope="session")
def tiny() -> Detector:
    return Detector("aqr_tiny_sparse", "random", device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def opinionated() -> Detector:
    """A detector whose router weights differ between queries, unlike those of an untrained router."""
    return spread_router(Detector("aqr_tiny_sparse", "random", device="cpu", precision="fp32"), 0.1)


@pytest.fixture(scope="session")
def small() -> LabelledFrame:
    """The made-up frame with two cameras, a quarter of its points, and six objects in a row."""
    frame = made_up_frame()
    frame = dataclasses.replace(frame, cameras=frame.cameras[:2], points=np.ascontiguousarray(frame.points[::4]))
    boxes = np.zeros((6, 9), np.float32)
    boxes[:, 0] = np.arange(6) * 6 - 15
    boxes[:, 3:6] = 2
    index = np.arange(6)
    return LabelledFrame(frame, GroundTruth(boxes, index % 3, index, np.full(6, 9), np.ones((6, 2), np.float32)))
