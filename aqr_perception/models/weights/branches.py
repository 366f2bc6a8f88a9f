"""The parts of a model behind each sensor, up to its proposals, and how another model takes them over.

What a branch has learned serves every head: PETR and BEVFormer start from the camera branch of a CMT.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from aqr_perception.models.weights.checkpoint import CheckpointError, misfit_of, read_weights, with_own_kernels

CAMERA_BRANCH = ("img_backbone.", "img_neck.", "proposals.image.")
LIDAR_BRANCH = ("pts_middle_encoder.", "pts_backbone.", "pts_neck.", "proposals.bev.")
BRANCHES = CAMERA_BRANCH + LIDAR_BRANCH

_NECK = re.compile(r"img_neck\.(lateral|fpn)_convs\.(\d+)\.")


def branches_of(model: nn.Module) -> tuple[str, ...]:
    """Return what the keys of a model's branches begin with: its own ``branches``, or both sensors'."""
    return getattr(model, "branches", BRANCHES)


def load_branches(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> int:
    """Load another model's branches as far as this model has the same; the rest of the model stays as it is.

    Pyramids of different height share their coarse levels.

    Args:
        model: gets the weights, cast to its own precision and device.
        source: see `load_checkpoint`.

    Returns:
        How many tensors were loaded.

    Raises:
        CheckpointError: the file cannot be read, has none of the model's branches, or has one of another size.
    """
    name, found = read_weights(source)
    branches = branches_of(model)
    needed = {key: tensor for key, tensor in model.state_dict().items() if key.startswith(branches)}
    higher = _levels(needed) - _levels(found)
    shared = {_moved(key, higher): tensor for key, tensor in found.items()}
    shared, _ = with_own_kernels({key: tensor for key, tensor in shared.items() if key in needed}, needed)
    if not shared:
        raise CheckpointError(
            f"{name}: has none of the model's branches ({', '.join(branches)}); give the weights of a CMT, PETR or "
            "BEVFormer of this package"
        )
    misfits = tuple(
        misfit for key, tensor in shared.items() if (misfit := misfit_of(key, tensor, needed[key])) is not None
    )
    if misfits:
        lines = [f"{name}: its branches are of another size than the model's", *(f"  misfit: {one}" for one in misfits)]
        lines.append("Choose a preset with the same image backbone, width, channels and voxels, or other weights.")
        raise CheckpointError("\n".join(lines), misfits=misfits)
    with torch.no_grad():
        for key, tensor in shared.items():
            needed[key].copy_(tensor)
    return len(shared)


def _levels(weights: Mapping[str, Tensor]) -> int:
    """Return how many of the backbone's levels the image pyramid joins."""
    return len({match[2] for key in weights if (match := _NECK.match(key)) and match[1] == "lateral"})


def _moved(key: str, higher: int) -> str:
    """Return the key of the same level in a pyramid with so many finer levels more."""
    return _NECK.sub(lambda match: f"img_neck.{match[1]}_convs.{int(match[2]) + higher}.", key)
