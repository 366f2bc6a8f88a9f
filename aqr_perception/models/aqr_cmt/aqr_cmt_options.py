# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Preset entries of AQR-CMT, under ``aqr_cmt``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from aqr_perception.models.config.presets import Preset


Modulation = Literal["element_wise", "channel_wise", "adaptive"]


Method = Literal["gaussian", "bilinear", "direct", "distance_weighted"]
"""Methods to render weights into maps; see `weight_maps`."""


@dataclass(frozen=True)
class AqrCmtOptions:
    """Options of the research code that `AqrOptions` lacks; the defaults are its own.

    Attributes:
        learned_bias: whether the weights have an attention bias with a learned scale; those of the modulation era have
            none, and their bias, if it is switched on, has the fixed `bias_scale`.
        bias_scale: initial scale of the bias.
        render_method: how maps are rendered from weights: ``gaussian``, ``bilinear``, ``direct`` or
            ``distance_weighted``. The code has camera maps for ``gaussian`` and ``direct`` only.
        sigma: standard deviation in cells of the Gaussians in the maps that scale the features.
        min_weight: threshold below which values of these maps become 0.
        limit_camera_maps: whether threshold and limit also hold for the cameras' maps; in the first logged run they did
            not.
        modulation: how maps scale features: ``element_wise``, ``channel_wise`` or ``adaptive``.
    """

    learned_bias: bool = True
    bias_scale: float = 2.5
    render_method: Method = "gaussian"
    sigma: float = 1.0
    min_weight: float = 0.01
    limit_camera_maps: bool = True
    modulation: Modulation = "element_wise"


def check_aqr_cmt(preset: "Preset") -> str | None:
    """Return the error of a preset of AQR-CMT; None without an error."""
    options, aqr = preset.architecture_options(AqrCmtOptions), preset.aqr
    for name in ("mode", "router_attention", "activation"):
        if getattr(aqr, name) == "auto":
            return f"aqr.{name} is 'auto'; say what the weights were trained with, since their keys cannot tell"
    for name in ("residual", "map_limit"):
        if getattr(aqr, name) < 0:
            return f"aqr.{name} is {getattr(aqr, name)}; say what the weights were trained with"
    for name in ("bev_window", "image_window", "router_bev_window", "router_image_window"):
        if getattr(aqr, name) == 0:
            return f"aqr.{name} is 0; say what the weights were trained with"
    if options.render_method in ("bilinear", "distance_weighted"):
        return f"aqr_cmt.render_method is {options.render_method!r}, which has no camera maps; use gaussian or direct"
    if not 0.1 <= options.sigma <= 10:
        return f"aqr_cmt.sigma is {options.sigma}, but must be in 0.1..10 cells"
    if not 0 <= options.min_weight < aqr.map_limit:
        return f"aqr_cmt.min_weight is {options.min_weight}, but must be in 0..aqr.map_limit ({aqr.map_limit})"
    if not options.bias_scale > 0:
        return f"aqr_cmt.bias_scale is {options.bias_scale}, but must be positive"
    if options.learned_bias and aqr.bev_window != aqr.image_window:
        return (
            f"aqr.bev_window is {aqr.bev_window} and aqr.image_window {aqr.image_window}, but weights with a learned "
            "bias have one window size for both"
        )
    return None
