# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion of timm's and DINOv2's Vision Transformer weights."""

import re
from collections.abc import Mapping
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.models.image.vit import PATCH, resample_positions
from aqr_perception.models.weights.checkpoint import CheckpointError

_PATCH_KERNEL = "patch_embed.proj.weight"
_UNUSED = re.compile(r"mask_token$|head\.|pre_logits\.")
"""Keys that only masked training and classification use."""

_CHUNKED = re.compile(r"blocks\.\d+\.(\d+)\.")
"""DINOv2's training checkpoints number each block twice, by chunk and by block."""


def convert_vit_weights(name: str, found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with the keys and shapes of `vit.VisionTransformer`.

    The keys of both libraries agree, except for the registers: ``reg_token`` in timm, ``register_tokens`` in DINOv2.
    Position embeddings of the class and register tokens are added to these tokens. Position embeddings and kernel of
    the patches are interpolated to the model's size (DINOv2's 14 pixels become 16). If the model has layer scale and
    the file has none, all factors become 1. Weights for masked training and classification are ignored.

    Args:
        name: name of the file, for messages.
        found: state dict of timm, DINOv2 or `vit.VisionTransformer`. Its keys do not show whether blocks normalise
            before or after a layer, so the preset's ``image.vit.norm`` must be correct.
        needed: state dict of the model.

    Raises:
        CheckpointError: class token, registers or layer scale do not fit the model, or the position embedding does not
            belong to a square image. Other keys and shapes are not checked.
    """
    weights = {
        _CHUNKED.sub(r"blocks.\1.", key).replace("register_tokens", "reg_token"): tensor
        for key, tensor in found.items()
        if not _UNUSED.match(key)
    }
    _require_options(name, weights, needed)
    scales = {key: torch.ones_like(needed[key]) for key in needed if key.endswith(".gamma")}
    if not any(key.endswith(".gamma") for key in weights):
        weights |= scales
    if "pos_embed" in weights:
        _convert_positions(name, weights, isqrt(needed["pos_embed"].shape[1]))
    if _PATCH_KERNEL in weights:
        weights[_PATCH_KERNEL] = resample_patches(weights[_PATCH_KERNEL], PATCH)
    return weights


def resample_patches(kernel: Tensor, size: int) -> Tensor:
    """Return a (C, 3, size, size) patch kernel that maps resized patches to the tokens of the original ones.

    With the bicubic resizing B of a patch x, <w', B x> = <w, x> for all x if w' = pinv(B)^T w (Beyer et al. 2022,
    https://arxiv.org/abs/2212.08013, section 3.4). Exact for larger patches, least squares for smaller ones.
    """
    side = kernel.shape[-1]
    if kernel.dim() != 4 or kernel.shape[-2:] == (size, size):
        return kernel
    unit_patches = torch.eye(side * side).unflatten(1, (1, side, side))
    resize = F.interpolate(unit_patches, (size, size), mode="bicubic", antialias=True).flatten(1)
    resampled = kernel.float().flatten(2) @ torch.linalg.pinv(resize).T
    converted: Tensor = resampled.unflatten(2, (size, size)).to(kernel.dtype)
    return converted


def _convert_positions(name: str, weights: dict[str, Tensor], side: int) -> None:
    """Add the positions of class and register tokens to these tokens, and resample the patches' to side x side."""
    positions = weights["pos_embed"]
    tokens = [key for key in ("cls_token", "reg_token") if key in weights]
    # The patches' positions follow no position (DeiT III, timm with registers), the class token's, or all tokens'.
    counts = [sum(weights[key].shape[1] for key in tokens[:number]) for number in range(len(tokens) + 1)]
    total = positions.shape[1]
    prefix = next((count for count in counts if 0 < total - count == isqrt(total - count) ** 2), None)
    if prefix is None:
        raise CheckpointError(
            f"{name}: pos_embed has {total} positions, needed a square number plus those of none or some of {tokens}; "
            "export it for a square image size with the library that it comes from",
        )
    first = 0
    for key in tokens:
        last = first + weights[key].shape[1]
        if last <= prefix:
            weights[key] = weights[key] + positions[:, first:last]
        first = last
    patches = positions[:, prefix:]
    native = isqrt(patches.shape[1])
    square = resample_positions(patches.transpose(1, 2).unflatten(2, (native, native)), (side, side))
    weights["pos_embed"] = square.flatten(2).transpose(1, 2)


def _require_options(name: str, weights: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> None:
    """Raise an error that names the preset's option to change if class token, registers or layer scale do not fit."""
    registers = [state["reg_token"].shape[1] if "reg_token" in state else 0 for state in (weights, needed)]
    if registers[0] != registers[1]:
        raise CheckpointError(
            f"{name}: has {registers[0]} register tokens, but the model has {registers[1]}; set image.vit.registers to "
            f"{registers[0]} in the preset",
        )
    class_token = "cls_token" in weights
    if class_token != ("cls_token" in needed):
        in_file, in_model = ("a", "none") if class_token else ("no", "one")
        raise CheckpointError(
            f"{name}: has {in_file} class token, but the model has {in_model}; set image.vit.class_token to "
            f"{str(class_token).lower()} in the preset",
        )
    if any(key.endswith(".gamma") for key in weights) and not any(key.endswith(".gamma") for key in needed):
        raise CheckpointError(
            f"{name}: has layer scales, but the model has none; set image.vit.layer_scale above 0 and "
            "image.vit.norm to pre in the preset",
        )
