# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detection options that may change between two frames, validated on construction."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

AqrMode = Literal["auto", "off", "modulation", "bias", "both", "gate"]
ModulationForm = Literal["auto", "interpolating", "residual"]
BiasForm = Literal["auto", "additive", "signed"]
Activation = Literal["auto", "sigmoid", "tanh"]
RouterAttention = Literal["auto", "windowed", "global"]
WeightsSource = Literal["auto", "router", "attention"]
BoxConvention = Literal["mmdet3d_0", "mmdet3d_1"]
"""Convention of box codes: of mmdetection3d before version 1.0, (w, l, h; -yaw - pi/2), or since, (l, w, h; yaw)."""

_BIAS_WINDOWS = ("bev_window", "image_window")
_ROUTER_WINDOWS = ("router_bev_window", "router_image_window")
_OF_MODEL: Mapping[str, Any] = {
    **dict.fromkeys((*_BIAS_WINDOWS, *_ROUTER_WINDOWS), 0),
    "modulation": "auto",
    "bias": "auto",
    "router_attention": "auto",
    "activation": "auto",
    "residual": -1.0,
    "map_limit": -1.0,
}
"""Values of `AqrOptions` that stand for the model's own."""


class OptionError(ValueError):
    """An option is out of range. The message names the option, the value found and the values allowed."""


def require(valid: bool, name: str, value: object, allowed: str) -> None:
    """Raise an `OptionError` unless an option is valid."""
    if not valid:
        raise OptionError(f"{name} is {value!r}, but must be {allowed}")


@dataclass(frozen=True)
class AqrOptions:
    """Use and display of the query weights by adaptive query routing (AQR).

    Attributes:
        mode: ``modulation`` scales the features, ``bias`` shifts the cross-attention logits inside windows around each
            query, ``both`` does both, ``gate`` multiplies the attention by the weights, inside the windows (relative to
            the other sensors that see the query) and for each sensor as a whole, ``off`` does nothing, and ``auto``
            follows the model's preset. Without a trained router every mode is ``off``.
        strength: 0 (no effect) to 4; models are trained with 1. In mode ``gate`` it is the weights' exponent.
        modulation: form of the modulation by a map m: ``interpolating`` (factor 1 + strength (m - 1) where m is
            positive) or ``residual`` (factor m + `residual` everywhere, as in the research code); ``auto`` follows the
            model.
        bias: form of the bias by a weight w: ``additive`` (w) or ``signed`` (2 w - 1, times a learned scale in 0..4);
            ``auto`` follows the model.
        bev_window, image_window: edge length in cells of the windows in which the bias acts, or 0 for the size that the
            model was trained with. Windows of even size extend one cell further to higher rows and columns.
        router_bev_window, router_image_window: edge length in cells of the windows that the router attends to: odd, or
            0 for the size that the model was trained with.
        router_attention: whether the router attends to the tokens in its windows (``windowed``) or to all tokens
            (``global``); ``auto`` follows the model. Only for weights trained with the research code (AQR-CMT), as is
            `activation`.
        activation: ``sigmoid`` for weights in 0..1, ``tanh`` for weights in -1..1; ``auto`` follows the model.
        residual: share of the features that modulation of the form ``residual`` keeps regardless of the weights, 0 to
            2; -1 for the model's own. For this form and AQR-CMT, as is the next option.
        map_limit: largest value of the maps that scale the features, above 0 and at most 1000; -1 for the model's own.
        sigma: standard deviation in cells of the Gaussians in the weight maps.
        min_weight: magnitude below which values of the weight maps become 0.
        reduce: how overlapping Gaussians combine: ``max`` (the largest magnitude, with its sign) or ``sum``.
    """

    mode: AqrMode = "auto"
    strength: float = 1.0
    bev_window: int = 15
    image_window: int = 15
    router_bev_window: int = 5
    router_image_window: int = 15
    modulation: ModulationForm = "interpolating"
    bias: BiasForm = "additive"
    router_attention: RouterAttention = "windowed"
    activation: Activation = "sigmoid"
    residual: float = 0.7
    map_limit: float = 1.5
    sigma: float = 2.0
    min_weight: float = 0.05
    reduce: Literal["max", "sum"] = "max"

    def __post_init__(self) -> None:
        require(self.mode in get_args(AqrMode), "aqr.mode", self.mode, f"one of {', '.join(get_args(AqrMode))}")
        require(0.0 <= self.strength <= 4.0, "aqr.strength", self.strength, "in 0..4")
        for name in _BIAS_WINDOWS:
            require(
                0 <= getattr(self, name) <= 31, f"aqr.{name}", getattr(self, name), "in 1..31, or 0 for the model's own"
            )
        for name in _ROUTER_WINDOWS:
            size = getattr(self, name)
            allowed = size == 0 or (1 <= size <= 31 and size % 2 == 1)
            require(allowed, f"aqr.{name}", size, "odd and in 1..31, or 0 for the model's own")
        for name, kind in (
            ("modulation", ModulationForm),
            ("bias", BiasForm),
            ("router_attention", RouterAttention),
            ("activation", Activation),
        ):
            values = get_args(kind)
            require(getattr(self, name) in values, f"aqr.{name}", getattr(self, name), f"one of {', '.join(values)}")
        own = "or -1 for the model's own"
        require(self.residual == -1 or 0 <= self.residual <= 2, "aqr.residual", self.residual, f"in 0..2, {own}")
        allowed = self.map_limit == -1 or 0 < self.map_limit <= 1000
        require(allowed, "aqr.map_limit", self.map_limit, f"above 0 and at most 1000, {own}")
        require(0.3 <= self.sigma <= 5.0, "aqr.sigma", self.sigma, "in 0.3..5")
        require(0.0 <= self.min_weight < 1.5, "aqr.min_weight", self.min_weight, "in [0, 1.5)")
        require(self.reduce in ("max", "sum"), "aqr.reduce", self.reduce, "max or sum")

    @classmethod
    def of_model(cls, mode: AqrMode = "auto") -> "AqrOptions":
        """Return options that leave all that weights were trained with to the model."""
        return replace(cls(mode), **_OF_MODEL)

    def resolved(self, trained: "AqrOptions") -> "AqrOptions":
        """Return these options with values that stand for the model's own replaced by those used in training."""
        own = {name: getattr(trained, name) for name, value in _OF_MODEL.items() if getattr(self, name) == value}
        return replace(self, mode=trained.mode if self.mode == "auto" else self.mode, **own)

    @property
    def modulates(self) -> bool:
        """Whether query weights scale the features."""
        return self.mode in ("modulation", "both") and self.strength > 0

    @property
    def biases(self) -> bool:
        """Whether query weights shift the cross-attention logits."""
        return self.mode in ("bias", "both") and self.strength > 0

    @property
    def gates(self) -> bool:
        """Whether query weights multiply the attention."""
        return self.mode == "gate" and self.strength > 0

    @property
    def acts(self) -> bool:
        """Whether query weights have any effect on the detections."""
        return self.modulates or self.biases or self.gates


@dataclass(frozen=True)
class DetectionOptions:
    """Selection of the reported detections, and source of the sensor weights.

    Attributes:
        score_threshold: lowest score of reported detections.
        class_score_thresholds: class name -> threshold that replaces ``score_threshold`` for the class. `Detector`
            refuses names that its model does not have.
        max_detections: largest number of reported detections, 1 to 300.
        weights_source: ``router`` (AQR), ``attention`` (attention mass by sensor), or ``auto``: the router if the
            checkpoint has one, otherwise the attention mass.
        aqr: see `AqrOptions`.
        max_history_gap: largest time in seconds to the previous frame. After a longer gap, models with memory clear it.
        attention: also return the attention mass by sensor of each detection; see `DetectionQueries.attention`.
    """

    score_threshold: float = 0.3
    class_score_thresholds: Mapping[str, float] = field(default_factory=dict)
    max_detections: int = 300
    weights_source: WeightsSource = "auto"
    aqr: AqrOptions = field(default_factory=AqrOptions.of_model)
    max_history_gap: float = 1.0
    attention: bool = False

    def __post_init__(self) -> None:
        require(0.0 < self.max_history_gap <= 60.0, "max_history_gap", self.max_history_gap, "in (0, 60] s")
        require(0.0 <= self.score_threshold <= 1.0, "score_threshold", self.score_threshold, "in 0..1")
        for name, threshold in self.class_score_thresholds.items():
            require(0.0 <= threshold <= 1.0, f"class_score_thresholds.{name}", threshold, "in 0..1")
        require(1 <= self.max_detections <= 300, "max_detections", self.max_detections, "in 1..300")
        sources = get_args(WeightsSource)
        require(self.weights_source in sources, "weights.source", self.weights_source, f"one of {', '.join(sources)}")

    def check_classes(self, classes: Collection[str]) -> None:
        """Check that all class score thresholds are for classes of a model.

        Raises:
            OptionError: a class is unknown; the message names it and the model's.
        """
        for name in self.class_score_thresholds:
            require(name in classes, "class_score_thresholds", name, f"one of {', '.join(classes)}")

    def least_scores(self, classes: Sequence[str]) -> list[float]:
        """Return the score threshold of each class."""
        return [self.class_score_thresholds.get(name, self.score_threshold) for name in classes]

    def for_classes(self, classes: Collection[str]) -> "DetectionOptions":
        """Return the options without the score thresholds of other classes."""
        thresholds = {name: value for name, value in self.class_score_thresholds.items() if name in classes}
        return replace(self, class_score_thresholds=thresholds)
