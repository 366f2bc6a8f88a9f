# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""PyTorch models, independent of ROS."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aqr_perception.models.architectures import ARCHITECTURES
from aqr_perception.models.config.presets import load_preset, preset_names

if TYPE_CHECKING:
    from torch import Tensor

    from aqr_perception.models.detection_model import DetectionModel

__all__ = ["build_model", "load_checkpoint", "preset_names"]

_log = logging.getLogger(__name__)


def build_model(preset: str) -> "DetectionModel":
    """Return a preset's model in eval mode, on the CPU, in fp32, with reproducible random weights.

    Raises:
        PresetError: the preset is unknown or its file is invalid.
    """
    import torch  # takes seconds, which a reader of presets need not wait

    config = load_preset(preset)
    model_class = ARCHITECTURES[config.architecture].model_class()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(config).eval()


def load_checkpoint(model: "DetectionModel", source: str | Path | Mapping[str, "Tensor"], entry: str = "") -> None:
    """Load one of our checkpoints or a published one into a model, strictly; see `checkpoint.load_checkpoint`.

    Only a whole query router (`DetectionModel.optional_router`) may be missing from a file: then AQR is off, and query
    weights come from the attention mass.

    Raises:
        CheckpointError: the file cannot be read, has other classes than the model's preset, has values that are not
            finite, or keys are missing, surplus or misshapen. The message names a shipped preset that the weights fit.
    """
    from aqr_perception.models.weights import checkpoint

    has_router = checkpoint.load_checkpoint(model, source, entry)
    if not any(name.startswith(model.optional_router) for name, _ in model.named_parameters()):
        return
    model.router_trained = has_router
    if not has_router:
        _log.warning("no query router: AQR is off, and query weights come from the attention mass")
