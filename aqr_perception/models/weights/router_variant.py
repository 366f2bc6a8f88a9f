# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Variant of adaptive query routing (AQR) in a checkpoint, as far as its keys and constants tell.

The research code's router is stored under ``aqr_weight_generator``. Its weights scale feature maps, drawn with
``weight_renderer``, or become a bias on attention, made by ``attention_bias_generator``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from aqr_perception.models.weights.router_kinds import ROUTER_PREFIX, own_router_kind

Kind = Literal["none", "own router", "research bias", "intermediate bias", "modulation", "incomplete"]

_ROUTER = ".aqr_weight_generator."
_BIAS = ".attention_bias_generator."
_KERNEL = ".weight_renderer.gaussian_kernel"

LOWEST_SCALE, HIGHEST_SCALE = 0.5, 5.0
"""Range to which the research code clamps its learned `bias_scale`; the bias itself is clamped to +-5."""

_UNTOLD_BIAS = (
    "aqr.activation: tanh in all code with a bias",
    "aqr.router_attention: global or windowed; and the windows of the router",
)
_UNTOLD_MODULATION = (
    "aqr.activation: sigmoid in the logged runs, tanh later",
    "aqr.router_attention: windowed in the logged runs, global later; and the windows of the router",
    "aqr.residual, aqr.map_limit: 0.7 and 1.5, or 0.6 and 2.5 in the logged runs",
)
"""Preset entries that files do not tell."""


@dataclass(frozen=True)
class RouterVariant:
    """Variant of AQR in a checkpoint.

    Attributes:
        kind: which implementation wrote it; ``none`` without a router.
        description: one line each about its parts.
        bias_scale: stored factor of the bias; None without a finite one.
        used_scale: the factor after clamping.
        untold: preset entries that the file does not tell, with the values of the research code.
    """

    kind: Kind
    description: tuple[str, ...]
    bias_scale: float | None = None
    used_scale: float | None = None
    untold: tuple[str, ...] = ()


def router_variant(weights: Mapping[str, Tensor]) -> RouterVariant:
    """Return the variant of AQR in weights."""
    own = [key for key in weights if key.startswith(ROUTER_PREFIX)]
    if own:
        kind = own_router_kind(own)
        described = "query router of this project" + (f" of the kind {kind!r}" if kind != "plain" else "")
        return RouterVariant("own router", (f"{described}, {len(own)} tensors ({ROUTER_PREFIX}*)",))
    router = any(_ROUTER in f".{key}" for key in weights)
    bias = {f".{key}".split(_BIAS)[1]: tensor for key, tensor in weights.items() if _BIAS in f".{key}"}
    kernel = next((tensor for key, tensor in weights.items() if f".{key}".endswith(_KERNEL)), None)
    if not router and not bias and kernel is None:
        return RouterVariant("none", ("no query router",))
    if not router:
        return RouterVariant("incomplete", (f"keys of the research code without its router (*{_ROUTER}*)",))
    if bias:
        return _bias_variant(bias, kernel)
    if kernel is None:
        line = "router of the research code, without maps (weight_renderer) and bias (attention_bias_generator)"
        return RouterVariant("incomplete", (line,), untold=_UNTOLD_MODULATION)
    lines = ("research code, modulation of features by rendered maps: no bias generator", _kernel_line(kernel))
    return RouterVariant("modulation", lines, untold=_UNTOLD_MODULATION)


def _bias_variant(bias: Mapping[str, Tensor], kernel: Tensor | None) -> RouterVariant:
    stored = bias.get("bias_scale")
    scale = float(stored) if stored is not None and stored.numel() == 1 else None
    intermediate = stored is not None and stored.dim() == 0
    lines = [
        "research code, attention bias, intermediate version: bias_scale has shape ()"
        if intermediate
        else "research code, attention bias"
    ]
    lines.append(_window_line(bias))
    used = None
    if scale is None:
        lines.append("no learned bias_scale")
    elif not math.isfinite(scale):
        lines.append(f"bias_scale {scale}: not usable")
        scale = None
    else:
        used = min(max(scale, LOWEST_SCALE), HIGHEST_SCALE)
        change = "used as it is" if used == scale else f"used as {used:g}"
        limits = f"limited to {LOWEST_SCALE}..{HIGHEST_SCALE}"
        lines.append(f"bias_scale {scale:.4g}, {limits}: {change}; the bias is limited to -5..5")
    if kernel is not None:
        lines.append(f"{_kernel_line(kernel)}, not used by the bias")
    return RouterVariant(
        "intermediate bias" if intermediate else "research bias", tuple(lines), scale, used, _UNTOLD_BIAS
    )


def _window_line(bias: Mapping[str, Tensor]) -> str:
    """Describe the windows by the number and the values of their offsets."""
    offsets = bias.get("y_offsets", bias.get("x_offsets"))
    if offsets is None or not offsets.numel():
        return "windows unknown: no offsets in the file"
    size = math.isqrt(offsets.numel())
    if size * size != offsets.numel():
        return f"windows unknown: {offsets.numel()} offsets are no square"
    parity = "even, off centre" if size % 2 == 0 else "odd, centred"
    reach = f"{int(offsets.min()):+d} to {int(offsets.max()):+d} cells"
    return f"windows of {size} x {size} cells ({parity}: {reach}), {_window_shape(bias.get('gaussian_weights'))}"


def _window_shape(weights: Tensor | None) -> str:
    if weights is None:
        return "equal in all cells (the file has no gaussian_weights)"
    if not bool((weights == 1).all()):
        return "Gaussian"
    return "equal in all cells"


def _kernel_line(kernel: Tensor) -> str:
    """Describe the maps' Gaussian; its size is int(6 sigma + 1), made odd."""
    return f"Gaussian of the maps {' x '.join(map(str, kernel.shape))} cells: sigma {(kernel.shape[-1] - 1) / 6:.3g}"
