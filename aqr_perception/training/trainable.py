"""Which parameters are trained, and how fast."""

from typing import Any

from torch import nn

from aqr_perception.models.checkpoint import ROUTER_PREFIX
from aqr_perception.options import OptionError
from aqr_perception.training.options import Trained, TrainOptions

_BACKBONE_PREFIX = "img_backbone."


def router_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Return what the names of the router's parameters begin with: a model's own ``router_prefixes``, or AQR's."""
    return getattr(model, "router_prefixes", (ROUTER_PREFIX,))


def freeze(model: nn.Module, train: Trained) -> None:
    """Let gradients reach what is trained alone.

    Raises:
        OptionError: the model has no router, which was to be trained.
    """
    router = router_prefixes(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(train == "all" or name.startswith(router))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise OptionError(
            f"train is {train!r}, but the model has no parameter under {' or '.join(map(repr, router)) or 'a router'}: "
            "use train all"
        )


def set_mode(model: nn.Module, train: Trained) -> None:
    """Put what is trained into training mode; what is frozen keeps its batch norm statistics, too."""
    model.train(train == "all")
    if train == "aqr":
        for prefix in router_prefixes(model):
            model.get_submodule(prefix.rstrip(".")).train()


def parameter_groups(model: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Return AdamW's groups of trained parameters; ``factor`` is a group's learning rate relative to the schedule's."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    backbone = [parameter for name, parameter in trained if name.startswith(_BACKBONE_PREFIX)]
    rest = [parameter for name, parameter in trained if not name.startswith(_BACKBONE_PREFIX)]
    groups = [{"params": rest, "factor": 1.0}, {"params": backbone, "factor": options.backbone_factor}]
    return [group for group in groups if group["params"]]
