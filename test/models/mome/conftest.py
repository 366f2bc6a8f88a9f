# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A small MoME and inputs for it."""

from collections.abc import Callable

import pytest
import torch
from helpers.sensed_batch import SENSORS, Sensed, sensed_batch
from torch import Tensor

from aqr_perception.models import build_model
from aqr_perception.models.mome.model import MoME

_PRESET = f"""\
description: for tests
architecture: mome
{SENSORS}aqr: {{mode: "off"}}
"""


@pytest.fixture(scope="session")
def preset_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("presets") / "small_mome.yaml"
    path.write_text(_PRESET)
    return str(path)


@pytest.fixture(scope="session")
def new_model(preset_file: str) -> Callable[[], MoME]:
    def build() -> MoME:
        model = build_model(preset_file)
        assert isinstance(model, MoME)
        return model

    return build


@pytest.fixture(scope="session")
def model(new_model: Callable[[], MoME], sensed: Sensed) -> MoME:
    """A model whose router uses all experts: an untrained router gives all queries nearly the same logits."""
    model = new_model()
    last = model.pts_bbox_head.transformer.selected_cls
    said: list[Tensor] = []
    hook = last.register_forward_hook(lambda *call: said.append(call[-1].flatten(0, 1)))
    with torch.no_grad():
        model(*sensed)
        deviation, mean = torch.std_mean(said[0], dim=0)
        last.weight.div_(deviation[:, None])
        last.bias.sub_(mean).div_(deviation)
    hook.remove()
    return model


@pytest.fixture(scope="session")
def sensed() -> Sensed:
    return sensed_batch()
