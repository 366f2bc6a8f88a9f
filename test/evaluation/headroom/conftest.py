# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A small detector whose router has opinions, and a frame with small pictures."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from helpers.small_fusion import SMALL, write_preset
from helpers.spread_router import spread_router

from aqr_perception.detector import Detector
from aqr_perception.frame import LabelledFrame


@pytest.fixture(scope="session")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """A small CMT with random weights, whose router weights differ between queries."""
    torch.manual_seed(0)
    preset = write_preset(tmp_path_factory.mktemp("preset"), SMALL)
    return spread_router(Detector(preset, "random", device="cpu", precision="fp32"), 0.2)


@pytest.fixture(scope="session")
def small(small: LabelledFrame) -> LabelledFrame:
    """The made-up frame with pictures of a tenth of the width."""
    views = []
    for view in small.frame.cameras:
        height, width = view.image.shape[:2]
        size = (width // 10, height // 10)
        scale = np.diag([size[0] / width, size[1] / height, 1.0])
        image = cv2.resize(view.image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        views.append(dataclasses.replace(view, image=image, intrinsics=scale @ view.intrinsics))
    return dataclasses.replace(small, frame=dataclasses.replace(small.frame, cameras=tuple(views)))
