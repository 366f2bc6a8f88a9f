# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Weights with the keys and shapes of shipped presets, without memory for their values."""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from aqr_perception.models.aqr_cmt.bias_generator import window_constants
from aqr_perception.models.architectures import ARCHITECTURES
from aqr_perception.models.config.presets import load_preset
from aqr_perception.models.detection_model import DetectionModel

GENERATOR = "pts_bbox_head.attention_bias_generator."
PLAIN, BIAS = "cmt_voxel0100_r50_800x320", "aqr_cmt_voxel0100_r50_800x320"
MODULATION = "aqr_cmt_modulation_voxel0100_r50_800x320"


@functools.cache
def empty_model(preset: str) -> DetectionModel:
    """Return a preset's model on the meta device: it can refuse weights, but not take them."""
    config = load_preset(preset)
    with torch.device("meta"):
        return ARCHITECTURES[config.architecture].model_class()(config)


def weights_of(preset: str, value: float = 0.25) -> dict[str, Tensor]:
    """Return one value in every tensor of a preset's model, and the constants of AQR-CMT."""
    weights = {
        key: torch.full((), value, dtype=tensor.dtype).expand(tensor.shape)
        for key, tensor in empty_model(preset).state_dict().items()
    }
    if f"{GENERATOR}y_offsets" in weights:
        weights |= bias_constants(15 if "vov" in preset else 8, (180, 100) if "vov" in preset else (128, 50))
    return weights


def published(preset: str) -> dict[str, Tensor]:
    """Return weights of a preset as its authors publish them: without this project's query router."""
    return {key: tensor for key, tensor in weights_of(preset).items() if not key.startswith("aqr.")}


def bias_constants(window: int, columns: tuple[int, int] = (128, 50), scale: float = 3.7) -> dict[str, Tensor]:
    """Return the bias generator's tensors of a window size, under their keys."""
    constants = {f"{GENERATOR}{name}": tensor for name, tensor in window_constants(window, columns).items()}
    return {f"{GENERATOR}bias_scale": torch.tensor([scale]), **constants}


def intermediate(weights: Mapping[str, Tensor], window: int = 9) -> dict[str, Tensor]:
    """Return weights of the bias preset as the research code's intermediate version stores them."""
    changed = {**weights, **bias_constants(window)}
    changed[f"{GENERATOR}bias_scale"] = torch.tensor(3.7)
    del changed[f"{GENERATOR}gaussian_weights"]
    return changed
