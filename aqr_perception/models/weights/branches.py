# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensor branches of a model, up to the proposals, and their transfer to another model.

A trained branch suits every head: PETR and BEVFormer can start from the camera branch of a CMT.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from aqr_perception.models.weights.checkpoint import (
    CheckpointError,
    ClassModel,
    StoredWeights,
    describe_misfit,
    read_weights,
    to_model_layout,
)
from aqr_perception.models.weights.fitting import in_other_order

CAMERA_BRANCH = ("img_backbone.", "img_neck.", "proposals.image.")
LIDAR_BRANCH = ("pts_middle_encoder.", "pts_backbone.", "pts_neck.", "proposals.bev.")
BRANCHES = CAMERA_BRANCH + LIDAR_BRANCH
CLASS_OUTPUTS = ("proposals.image.2.", "proposals.bev.2.")
"""The branches' layers with class outputs: the heat maps' last convolutions."""

_log = logging.getLogger(__name__)

_NECK = re.compile(r"img_neck\.(lateral|fpn)_convs\.(\d+)\.")


def branches_of(model: nn.Module) -> tuple[str, ...]:
    """Return the key prefixes of a model's branches: its attribute ``branches``, or those of both sensors."""
    branches: tuple[str, ...] = getattr(model, "branches", BRANCHES)
    return branches


def load_branches(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> int:
    """Load the branches that another model shares with this one; this model's other weights stay unchanged.

    Image pyramids of different heights share their coarse levels. Heat maps of other classes than the model's are left
    out; the other layers do not depend on the classes.

    Args:
        model: model that receives the weights, cast to its precision and device.
        source: see `load_checkpoint`.

    Returns:
        Number of loaded tensors.

    Raises:
        CheckpointError: the file cannot be read, has none of the model's branches, or has a branch of another size.
    """
    stored = read_weights(source)
    name, found = stored.name, stored.tensors
    branches = branches_of(model)
    needed = {key: tensor for key, tensor in model.state_dict().items() if key.startswith(branches)}
    if isinstance(model, ClassModel) and _has_other_classes(stored, model, needed):
        left_out = sorted(key for key in needed if key.startswith(CLASS_OUTPUTS) and key in found)
        needed = {key: tensor for key, tensor in needed.items() if not key.startswith(CLASS_OUTPUTS)}
        _log.warning(
            "%s: the heat maps are left out, because their classes are not the model's (%s): %s",
            name,
            ", ".join(model.classes),
            ", ".join(left_out),
        )
    offset = _pyramid_levels(needed) - _pyramid_levels(found)
    shared = {_shift_level(key, offset): tensor for key, tensor in found.items()}
    shared = to_model_layout({key: tensor for key, tensor in shared.items() if key in needed}, needed)
    if not shared:
        raise CheckpointError(
            f"{name}: has none of the model's branches ({', '.join(branches)}); give the weights of a CMT, PETR or "
            "BEVFormer of this package"
        )
    misfits = tuple(
        misfit for key, tensor in shared.items() if (misfit := describe_misfit(key, tensor, needed[key])) is not None
    )
    if misfits:
        lines = [f"{name}: branches have another size than the model's", *(f"  misfit: {misfit}" for misfit in misfits)]
        lines.append("Choose a preset with the same image backbone, width, channels and voxels, or other weights.")
        raise CheckpointError("\n".join(lines))
    with torch.no_grad():
        for key, tensor in shared.items():
            needed[key].copy_(tensor)
    return len(shared)


def _has_other_classes(stored: StoredWeights, model: ClassModel, needed: Mapping[str, Tensor]) -> bool:
    """Return whether weights have heat maps of other classes; without class names, their number decides."""
    outputs = [key for key in needed if key.startswith(CLASS_OUTPUTS) and key in stored.tensors]
    if stored.classes is not None:
        return bool(outputs) and stored.classes != model.classes
    if stored.described_classes is not None and in_other_order(stored.described_classes, model.classes):
        return bool(outputs)
    return any(len(stored.tensors[key]) != len(needed[key]) for key in outputs)


def _pyramid_levels(weights: Mapping[str, Tensor]) -> int:
    """Return the number of backbone levels that the image pyramid uses."""
    return len({match[2] for key in weights if (match := _NECK.match(key)) and match[1] == "lateral"})


def _shift_level(key: str, offset: int) -> str:
    """Return the key of the same level in a pyramid with ``offset`` more fine levels."""
    return _NECK.sub(lambda match: f"img_neck.{match[1]}_convs.{int(match[2]) + offset}.", key)
