"""Pretrained weights of the image backbone alone, to start a training from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from aqr_perception.models.config.presets import Preset
from aqr_perception.models.image.vit import VitBackbone
from aqr_perception.models.image.vit_weights import convert_vit_weights
from aqr_perception.models.weights.checkpoint import CheckpointError, read_weights, require_fit

_PREFIX = "img_backbone."
_CLASSIFIER = ("fc.", "head.")


class _HasPreset(Protocol):
    preset: Preset


def load_backbone(model: _HasPreset, source: str | Path | Mapping[str, Tensor], *, rgb: bool = True) -> int:
    """Load the image backbone's weights, strictly, and nothing else; on an error the model is left as it was.

    A file with keys ``img_backbone.*`` is a detection model of this project or a published one: its backbone is taken
    as it is. Any other is a backbone: timm's or DINOv2's Vision Transformer (the pyramid on top of it stays as it is),
    torchvision's ResNet, or a VoVNet; its classifier is left out.

    Such backbones are trained on RGB pictures, and most models here look at BGR: the colours of the first convolution's
    kernels are turned round. Mean and deviation must be those of the backbone's training: set ``image.mean`` and
    ``image.std`` of the preset, in BGR order. The presets' own are ImageNet's, which DINOv2 and torchvision have; the
    "augreg" Vision Transformers of timm have 127.5 for all.

    Args:
        model: one with cameras.
        source: as in `checkpoint.load_checkpoint`.
        rgb: whether the backbone was trained on RGB; not looked at for a detection model's file.

    Returns:
        How many tensors were loaded.

    Raises:
        CheckpointError: the file cannot be read, keys are missing, surplus or misshapen, or the model has no cameras.
    """
    name, found = read_weights(source)
    backbone = getattr(model, "img_backbone", None)
    if not isinstance(backbone, nn.Module):
        raise CheckpointError(
            f"{name}: the preset {model.preset.name!r} has no image backbone to load it into; choose one with 'image'"
        )
    if any(key.startswith(_PREFIX) for key in found):
        return _load(backbone, name, {k.removeprefix(_PREFIX): v for k, v in found.items() if k.startswith(_PREFIX)})
    network = backbone.vit if isinstance(backbone, VitBackbone) else backbone
    if isinstance(backbone, VitBackbone):
        found = convert_vit_weights(name, found, network.state_dict())
    else:
        found = {key: tensor for key, tensor in found.items() if not key.startswith(_CLASSIFIER)}
    sees_rgb = getattr(model.preset.options, "rgb", False)
    if rgb != sees_rgb:
        first = _first_kernel(network)
        found = {key: tensor.flip(1) if key == first else tensor for key, tensor in found.items()}
    return _load(network, name, found)


def _load(network: nn.Module, name: str, weights: Mapping[str, Tensor]) -> int:
    require_fit(name, weights, network.state_dict())
    network.load_state_dict(weights)
    return len(weights)


def _first_kernel(network: nn.Module) -> str:
    """Return the key of the convolution that looks at the pictures."""
    return next(f"{key}.weight" for key, module in network.named_modules() if isinstance(module, nn.Conv2d))
