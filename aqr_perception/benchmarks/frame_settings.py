# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Settings of a frame's measurement, and their variants as users write them: ``precision=fp32,bf16``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch

from aqr_perception.detector import Detector
from aqr_perception.frame import Frame
from aqr_perception.frame_features import ImageBackend
from aqr_perception.options import AqrMode, AqrOptions, DetectionOptions

_NUMBERS = ("threads", "cameras", "points", "queries")
_WORDS: Mapping[str, tuple[str, ...] | None] = {
    "model": None,
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "image_backend": get_args(ImageBackend),
    "aqr": ("on", *get_args(AqrMode)),
    "cuda_graphs": ("off", "on"),
}
"""Setting -> its values; None for any."""


class SettingError(ValueError):
    """A setting or value of a comparison is unknown; the message names it and the valid ones."""


@dataclass(frozen=True)
class FrameSettings:
    """Settings of the measurement of a frame.

    Attributes:
        model, checkpoint, device, precision, image_backend: of the `Detector`.
        cuda_graphs: ``on`` or ``off``.
        aqr: mode of AQR; ``on`` is the model's own.
        threads: of PyTorch; 0 for the current number.
        cameras, points: size of the frame; -1 for the made-up frame's own.
        queries: number of learned queries; -1 for the model's own.
    """

    model: str
    checkpoint: str | None = None
    device: str = "auto"
    precision: str = "auto"
    image_backend: ImageBackend = "torch"
    aqr: str = "auto"
    cuda_graphs: str = "off"
    threads: int = 0
    cameras: int = -1
    points: int = -1
    queries: int = -1

    def detector(self) -> Detector:
        """Return the detector."""
        detector = Detector(
            self.model,
            self.checkpoint,
            self.device,
            self.precision,
            image_backend=self.image_backend,
            cuda_graphs=self.cuda_graphs == "on",
        )
        if self.queries >= 0:
            _set_queries(detector, self.queries)
        detector.check_aqr(self.options().aqr)
        return detector

    def options(self) -> DetectionOptions:
        """Return the detection options."""
        return DetectionOptions(aqr=AqrOptions.of_model("auto" if self.aqr == "on" else self.aqr))  # type: ignore[arg-type]

    def frame(self, whole: Frame) -> Frame:
        """Return a frame with the settings' numbers of cameras and points.

        Raises:
            SettingError: the frame has fewer cameras.
        """
        if self.cameras > len(whole.cameras):
            raise SettingError(f"cameras is {self.cameras}, but the made-up frame has {len(whole.cameras)}")
        if self.cameras >= 0:
            whole = replace(whole, cameras=whole.cameras[: self.cameras])
        if self.points >= 0 and whole.points is not None:
            random = np.random.default_rng(0)
            chosen = whole.points[random.choice(len(whole.points), self.points, self.points > len(whole.points))]
            # Points drawn twice would share a voxel.
            chosen[:, :3] += random.normal(0, 0.05, (len(chosen), 3)).astype(np.float32)
            whole = replace(whole, points=chosen)
        return whole


def parse(text: str, base: FrameSettings, least: int = 2) -> dict[str, FrameSettings]:
    """Return the variants of settings that a text like ``precision=fp32,bf16`` describes, by value.

    Raises:
        SettingError: the setting or a value is unknown, or there are fewer values than `least`.
    """
    name, _, listed = text.partition("=")
    values = [value for value in listed.split(",") if value]
    known = (*_WORDS, *_NUMBERS)
    if name not in known:
        raise SettingError(f"{text!r}: found the setting {name!r}, needed one of {', '.join(known)}")
    if len(dict.fromkeys(values)) < least or len(dict.fromkeys(values)) != len(values):
        raise SettingError(f"{text!r}: needed at least {least} different values, as in {name}=A,B")
    return {value: replace(base, **{name: _value(text, name, value)}) for value in values}


def _value(text: str, name: str, value: str) -> Any:
    if name in _NUMBERS:
        least = 0 if name in ("cameras", "points") else 1
        if not value.isdigit() or int(value) < least:
            raise SettingError(f"{text!r}: found {value!r}, needed whole numbers of at least {least}")
        return int(value)
    allowed: Sequence[str] | None = _WORDS[name]
    if allowed is not None and value not in allowed:
        raise SettingError(f"{text!r}: found {value!r}, needed one of {', '.join(allowed)}")
    return value


def _set_queries(detector: Detector, count: int) -> None:
    """Change the number of a model's learned queries by leaving out or repeating some, which changes its results."""
    head, proposed = detector.model.pts_bbox_head, detector.model.preset.decoder.proposals.count
    if count < proposed:
        raise SettingError(f"queries is {count}, but {detector.preset_name} proposes {proposed}; give at least these")
    for name in ("reference_points", "query_embedding"):
        embedding = getattr(head, name, None)
        if isinstance(embedding, torch.nn.Embedding):
            index = torch.arange(count, device=embedding.weight.device) % len(embedding.weight)
            embedding.weight = torch.nn.Parameter(embedding.weight.detach()[index])
