# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Small AQR-CMT models and inputs for them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.sensed_batch import SENSORS, Sensed, sensed_batch

from aqr_perception.models import build_model
from aqr_perception.models.aqr_cmt.model import AqrCMT

PRESETS = {
    "bias": """\
aqr: {mode: bias, activation: tanh, router_attention: global, router_bev_window: 3, router_image_window: 3,
      bev_window: 4, image_window: 4}
""",
    "modulation": """\
aqr: {mode: modulation, activation: sigmoid, router_attention: windowed, router_bev_window: 3, router_image_window: 3,
      bev_window: 4, image_window: 4}
aqr_cmt: {learned_bias: false}
""",
}


@pytest.fixture(scope="session")
def preset_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return the path of a small preset: ``bias``, ``modulation``, or ``plain`` for the CMT without a router."""
    folder = tmp_path_factory.mktemp("presets")

    def write(variant: str) -> str:
        path: Path = folder / f"small_{variant}.yaml"
        architecture = "cmt" if variant == "plain" else "aqr_cmt"
        own = PRESETS.get(variant, 'aqr: {mode: "off"}\n')
        path.write_text(f"description: for tests\narchitecture: {architecture}\n{SENSORS}{own}")
        return str(path)

    return write


@pytest.fixture(scope="session")
def new_model(preset_file: Callable[[str], str]) -> Callable[[str], AqrCMT]:
    """Return a model whose weights differ clearly between the queries."""

    def build(variant: str = "bias") -> AqrCMT:
        model = build_model(preset_file(variant))
        assert isinstance(model, AqrCMT)
        predictor = model.pts_bbox_head.aqr_weight_generator.weight_predictor
        with torch.no_grad():
            random = torch.Generator().manual_seed(1)
            predictor.weight.copy_(torch.randn(predictor.weight.shape, generator=random))
            predictor.bias.zero_()
        return model

    return build


@pytest.fixture(scope="session")
def sensed() -> Sensed:
    return sensed_batch()
