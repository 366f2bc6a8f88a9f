# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Trained and frozen parameters, and the learning rates of parameter groups."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from aqr_perception.models.weights.branches import BRANCHES, CAMERA_BRANCH, LIDAR_BRANCH, branches_of
from aqr_perception.models.weights.checkpoint import ROUTER_PREFIX
from aqr_perception.options import OptionError
from aqr_perception.training.part_factors import PartFactors, part_factors
from aqr_perception.training.training_options import Trained, TrainOptions

_BACKBONE_PREFIX = "img_backbone."
_BRANCHES = {"camera-branch": CAMERA_BRANCH, "lidar-branch": LIDAR_BRANCH, "branches": BRANCHES}


def router_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Return the prefixes of the router's parameters: the model's ``router_prefixes``, AQR's by default."""
    return getattr(model, "router_prefixes", (ROUTER_PREFIX,))


def freeze(model: nn.Module, train: Trained, replaced_factors: Mapping[str, float] | None = None) -> None:
    """Disable the gradients of all parameters that are not trained, or whose learning-rate factor is 0.

    Args:
        model: model whose preset may have learning-rate factors.
        train: the trained parts.
        replaced_factors: factors in place of the preset's; see `part_factors`.

    Raises:
        OptionError: the model has no such parameter, or a factor's part has none.
    """
    factors = part_factors(model, replaced_factors)
    chosen = {name for name, _ in model.named_parameters() if _is_trained(model, name, train)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen and factors.of(name) > 0)
    if not chosen:
        prefixes = router_prefixes(model) if train == "aqr" else _BRANCHES.get(train, ())
        raise OptionError(
            f"train is {train!r}, but the model has no parameter that begins with "
            f"{' or '.join(map(repr, prefixes))}: use train all"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise OptionError(
            f"train is {train!r}, but learning_rate_factors are 0 for all of its parameters: give one of its parts a "
            "factor above 0"
        )


def set_mode(model: nn.Module, train: Trained, replaced_factors: Mapping[str, float] | None = None) -> None:
    """Put trained modules into training mode and frozen ones into eval mode, which freezes batch norm statistics.

    See `freeze` for the arguments.
    """
    factors = part_factors(model, replaced_factors)
    for name, module in model.named_modules():
        is_trained = train == "all" or _is_trained(model, f"{name}.", train)
        module.training = is_trained and not factors.freezes(name, module)


def trains_branches(train: Trained) -> bool:
    """Return whether the image branch or the point branch is trained."""
    return train == "all" or trains_only_branches(train)


def trains_only_branches(train: Trained) -> bool:
    """Return whether only branches are trained, so the decoder need not run."""
    return train in _BRANCHES


def parameter_groups(model: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Return AdamW's groups of trained parameters; ``factor`` is a group's learning rate relative to the schedule.

    Parameters with the same factor are in one group; the image backbone has groups of its own, after all others. Its
    factors are multiplied by `TrainOptions.backbone_factor`.

    Raises:
        OptionError: a factor's part has no parameter, or the backbone is frozen but has another factor in the options.
    """
    factors = part_factors(model, options.learning_rate_factors)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_backbone = name.startswith(_BACKBONE_PREFIX)
            factor = factors.of(name) * (options.backbone_factor if is_backbone else 1.0)
            groups.setdefault((is_backbone, factor), []).append(parameter)
    if options.backbone_factor != 1.0 and _freezes_backbone(model, factors):
        raise OptionError(
            f"train backbone_factor is {options.backbone_factor}, but multiplies learning_rate_factors, which are 0 "
            "(frozen) for the image backbone: give img_backbone a factor there (--learning-rate-factor "
            f"img_backbone={options.backbone_factor})"
        )
    # The order of the parameters decides the bits of the gradient's norm; without factors, the backbone comes last.
    return [{"params": groups[key], "factor": key[1]} for key in sorted(groups, key=lambda key: key[0])]


def trained_names(model: nn.Module, groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the parameters in AdamW's groups, in the order of the groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in groups for parameter in group["params"]]


def trained_names_without_factors(model: nn.Module, train: Trained) -> list[str]:
    """Return the names as in `trained_names` of a training by a version without learning-rate factors."""
    names = [name for name, _ in model.named_parameters() if _is_trained(model, name, train)]
    return sorted(names, key=lambda name: name.startswith(_BACKBONE_PREFIX))


def _freezes_backbone(model: nn.Module, factors: PartFactors) -> bool:
    names = [name for name, _ in model.named_parameters() if name.startswith(_BACKBONE_PREFIX)]
    return bool(names) and all(factors.of(name) == 0 for name in names)


def _is_trained(model: nn.Module, name: str, train: Trained) -> bool:
    if train == "all":
        return True
    if train == "aqr":
        return name.startswith(router_prefixes(model))
    branches = branches_of(model)
    if train == "head":
        return not name.startswith(branches)
    return name.startswith(tuple(set(_BRANCHES[train]) & set(branches)))
