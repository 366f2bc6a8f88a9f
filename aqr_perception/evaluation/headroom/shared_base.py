# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Results without AQR that variants on one frozen detector share, so that they are measured once."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from aqr_perception.detector import Detector
from aqr_perception.evaluation.headroom.attention_shares import AttentionShares
from aqr_perception.evaluation.metrics import DetectionScores
from aqr_perception.frame import Detections
from aqr_perception.options import AqrOptions


class BaseResult(NamedTuple):
    """One frame in one failure, without AQR: see `frame_headroom.FailureResult`."""

    left_in: Detections
    taken_out: Detections | None
    removed: float
    attention_off: AttentionShares


class BaseResults(NamedTuple):
    """All frames in all failures, without AQR.

    Attributes:
        frames: results by failure, of each frame.
        scores: scores by failure and way, left in or taken out.
    """

    frames: Sequence[Mapping[str, BaseResult]]
    scores: Mapping[tuple[str, str], DetectionScores]


class SharedBases:
    """Results by detector, for measurements with the same frames, failures, seed, threshold and rules."""

    def __init__(self) -> None:
        self._found: dict[str, BaseResults] = {}

    def of(self, detector: Detector) -> BaseResults | None:
        """Return the results of a detector that differs in its router only; None if there are none."""
        return self._found.get(_identity(detector))

    def keep(self, detector: Detector, results: BaseResults) -> None:
        """Keep a detector's results."""
        self._found[_identity(detector)] = results


def _identity(detector: Detector) -> str:
    """Return a digest of all that detections without AQR depend on."""
    model = detector.model
    preset = dataclasses.replace(model.preset, name="", description="", aqr=AqrOptions())
    digest = hashlib.sha256(f"{preset} {detector.device} {detector.formats}".encode())
    for name, values in model.state_dict().items():
        if not name.startswith(model.optional_router):
            digest.update(name.encode())
            digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
