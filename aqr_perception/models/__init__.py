"""PyTorch models; nothing in here imports ROS."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aqr_perception.models.config.presets import load_preset, preset_names
from aqr_perception.models.weights import checkpoint

if TYPE_CHECKING:
    from aqr_perception.models.config.presets import Preset
    from aqr_perception.models.detection_model import DetectionModel

__all__ = ["build_model", "load_checkpoint", "preset_names"]

_log = logging.getLogger(__name__)


def build_model(preset: str) -> "DetectionModel":
    """Return a preset's model in eval mode, on the CPU, in fp32, with random weights that are the same every time.

    Raises:
        PresetError: the preset is unknown or its file does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _build(load_preset(preset)).eval()


def _build(preset: "Preset") -> "DetectionModel":
    # A model's parts are importable one by one, also before the whole is: import it only where it is built.
    if preset.architecture == "petr":
        from aqr_perception.models.petr.model import PETR

        return PETR(preset)
    if preset.architecture == "mome":
        from aqr_perception.models.mome.model import MoME

        return MoME(preset)
    if preset.architecture == "bevformer":
        from aqr_perception.models.bevformer.model import BEVFormer

        return BEVFormer(preset)
    from aqr_perception.models.cmt.model import CMT

    return CMT(preset)


def load_checkpoint(model: "DetectionModel", source: str | Path | Mapping[str, Tensor]) -> checkpoint.LoadReport:
    """Load our files or the authors' into a model, strictly; see `checkpoint.load_checkpoint`.

    The router of our own (`checkpoint.ROUTER_PREFIX`) is the only part an authors' file may lack: then AQR is off, and
    query weights come from the attention mass. For a model that is built without one nothing changes.

    Raises:
        CheckpointError: the file cannot be read, or keys are missing, surplus or misshapen; all are listed.
    """
    report = checkpoint.load_checkpoint(model, source)
    if not any(name.startswith(checkpoint.ROUTER_PREFIX) for name, _ in model.named_parameters()):
        return report
    model.router_trained = report.has_router
    if not report.has_router:
        _log.warning("the checkpoint has no query router: AQR is off, and query weights come from the attention mass")
    return report
