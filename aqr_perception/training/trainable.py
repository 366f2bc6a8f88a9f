"""Trained and frozen parameters, and the learning rates of parameter groups."""

from typing import Any

from torch import nn

from aqr_perception.models.weights.branches import BRANCHES, CAMERA_BRANCH, LIDAR_BRANCH, branches_of
from aqr_perception.models.weights.checkpoint import ROUTER_PREFIX
from aqr_perception.options import OptionError
from aqr_perception.training.training_options import Trained, TrainOptions

_BACKBONE_PREFIX = "img_backbone."
_BRANCHES = {"camera-branch": CAMERA_BRANCH, "lidar-branch": LIDAR_BRANCH, "branches": BRANCHES}


def router_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Return the prefixes of the router's parameters: the model's ``router_prefixes``, AQR's by default."""
    return getattr(model, "router_prefixes", (ROUTER_PREFIX,))


def freeze(model: nn.Module, train: Trained) -> None:
    """Disable the gradients of all parameters that are not trained.

    Raises:
        OptionError: the model has no such parameter.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_trained(model, name, train))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        prefixes = router_prefixes(model) if train == "aqr" else _BRANCHES.get(train, ())
        raise OptionError(
            f"train is {train!r}, but the model has no parameter that begins with "
            f"{' or '.join(map(repr, prefixes))}: use train all"
        )


def set_mode(model: nn.Module, train: Trained) -> None:
    """Put trained modules into training mode and frozen ones into eval mode, which freezes batch norm statistics."""
    for name, module in model.named_modules():
        module.training = train == "all" or _is_trained(model, f"{name}.", train)


def trains_branches(train: Trained) -> bool:
    """Return whether the image branch or the point branch is trained."""
    return train == "all" or trains_only_branches(train)


def trains_only_branches(train: Trained) -> bool:
    """Return whether only branches are trained, so the decoder need not run."""
    return train in _BRANCHES


def parameter_groups(model: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Return AdamW's groups of trained parameters; ``factor`` is a group's learning rate relative to the schedule."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    backbone = [parameter for name, parameter in trained if name.startswith(_BACKBONE_PREFIX)]
    rest = [parameter for name, parameter in trained if not name.startswith(_BACKBONE_PREFIX)]
    groups = [{"params": rest, "factor": 1.0}, {"params": backbone, "factor": options.backbone_factor}]
    return [group for group in groups if group["params"]]


def _is_trained(model: nn.Module, name: str, train: Trained) -> bool:
    if train == "all":
        return True
    if train == "aqr":
        return name.startswith(router_prefixes(model))
    branches = branches_of(model)
    if train == "head":
        return not name.startswith(branches)
    return name.startswith(tuple(set(_BRANCHES[train]) & set(branches)))
