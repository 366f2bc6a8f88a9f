# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Loading of pretrained image backbones, to start a training."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from aqr_perception.models.config.presets import Preset
from aqr_perception.models.image.vit import VitBackbone
from aqr_perception.models.image.vit_weights import convert_vit_weights
from aqr_perception.models.weights.checkpoint import CheckpointError, read_weights, require_fit
from aqr_perception.models.weights.fitting import with_batch_counters

_PREFIX = "img_backbone."
_PART = "backbone."
_CLASSIFIER = ("fc.", "head.", "_fc.", "_conv_head.", "_bn1.")
_NUMBERED = re.compile(r"(_blocks\.|layer)(\d+)\.")
"""Starts of keys of EfficientNet's blocks and ResNet's stages, shallow to deep."""
_TRANSFORMERS = re.compile(
    r"(\w+\.)?(embeddings\.(cls_token|position_embeddings|patch_embeddings|mask_token)"
    r"|encoder\.layer\.\d+\.|embedder\.embedder\.|encoder\.stages\.\d+\.layers\.)"
)
"""Starts of keys of Vision Transformers and ResNets in Hugging Face's transformers."""


class _HasPreset(Protocol):
    preset: Preset


def load_backbone(model: _HasPreset, source: str | Path | Mapping[str, Tensor]) -> int:
    """Load the weights of the image backbone, strictly; on an error the model stays unchanged.

    From a file with keys ``img_backbone.*``, a detection model of this project or a published one, this function loads
    the backbone unchanged. Other files hold a backbone: timm's or DINOv2's Vision Transformer (its pyramid keeps the
    model's weights), torchvision's ResNet or a VoVNet, also under ``backbone.*``. Its classifier is not used.

    Such backbones are trained on RGB images, but most models of this package use BGR; then the channels of the first
    convolution's kernels are reversed. Set the preset's ``image.mean`` and ``image.std``, in BGR order, to the
    values of the backbone's training. With an ``image.stride`` of 8, the model ends before the file's deepest stage,
    which is not used. The presets have ImageNet's values, which DINOv2 and torchvision use; timm's
    "augreg" Vision Transformers use 127.5 for all, EfficientNet-Lite a mean of 127 and a deviation of 128.

    Args:
        model: a model with cameras.
        source: see `checkpoint.load_checkpoint`.

    Returns:
        Number of loaded tensors.

    Raises:
        CheckpointError: the file cannot be read, keys are missing, surplus or misshapen, or the model has no cameras.
    """
    stored = read_weights(source)
    name, found = stored.name, stored.tensors
    backbone = getattr(model, "img_backbone", None)
    if not isinstance(backbone, nn.Module):
        raise CheckpointError(
            f"{name}: cannot be loaded, because the preset {model.preset.name!r} has no image backbone; choose a "
            "preset with 'image'"
        )
    if any(key.startswith(_PREFIX) for key in found):
        return _load(backbone, name, {k.removeprefix(_PREFIX): v for k, v in found.items() if k.startswith(_PREFIX)})
    found = _backbone_part(found)
    _refuse_other_names(name, found)
    network = backbone.vit if isinstance(backbone, VitBackbone) else backbone
    if isinstance(backbone, VitBackbone):
        found = convert_vit_weights(name, found, network.state_dict())
    else:
        found = {key: tensor for key, tensor in found.items() if not key.startswith(_CLASSIFIER)}
        if model.preset.image is not None and model.preset.image.stride == 8:
            found = _without_deeper_stages(found, network.state_dict())
    model_uses_rgb = getattr(model.preset.options, "rgb", False)
    if not model_uses_rgb:
        first = _first_kernel(network)
        found = {key: tensor.flip(1) if key == first else tensor for key, tensor in found.items()}
    return _load(network, name, found)


def _backbone_part(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the backbone of a detector or classifier of OpenMMLab's libraries, and any other weights unchanged."""
    part = {key.removeprefix(_PART): tensor for key, tensor in found.items() if key.startswith(_PART)}
    return part or dict(found)


def _without_deeper_stages(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights up to the deepest stage of the model, which may end before the file's network."""
    deepest: dict[str, int] = {}
    for key in own:
        if match := _NUMBERED.match(key):
            deepest[match[1]] = max(int(match[2]), deepest.get(match[1], 0))
    matches = {key: _NUMBERED.match(key) for key in found}
    return {
        key: found[key]
        for key, match in matches.items()
        if match is None or match[1] not in deepest or int(match[2]) <= deepest[match[1]]
    }


def _refuse_other_names(name: str, found: Mapping[str, Tensor]) -> None:
    """Raise an error for the names of Hugging Face's transformers, which are another division of the same layers."""
    marked = [key for key in found if _TRANSFORMERS.match(key)]
    if marked:
        raise CheckpointError(
            f"{name}: has the names of transformers ({', '.join(marked[:3])}, ...), needed those of timm, DINOv2 or "
            "torchvision; take the same network from there (dinov2_vits14_pretrain.pth, or timm's safetensors)"
        )


def _load(network: nn.Module, name: str, weights: Mapping[str, Tensor]) -> int:
    weights = with_batch_counters(weights, network.state_dict())
    require_fit(name, weights, network.state_dict())
    network.load_state_dict(weights)
    return len(weights)


def _first_kernel(network: nn.Module) -> str:
    """Return the key of the first convolution's kernel."""
    return next(f"{key}.weight" for key, module in network.named_modules() if isinstance(module, nn.Conv2d))
