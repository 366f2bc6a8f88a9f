# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Replay of earlier frames into a detector's memory."""

from collections.abc import Iterable

from aqr_perception.detector import Detector
from aqr_perception.frame import Frame
from aqr_perception.options import DetectionOptions


def replay(detector: Detector, frames: Iterable[Frame], options: DetectionOptions | None = None) -> None:
    """Replace a detector's memory by these frames.

    Args:
        frames: frames of one drive in order of time, with `Frame.to_fixed`; without frames, the memory is empty.
        options: options of the following frame.
    """
    detector.forget()
    for frame in frames:
        detector.detect(frame, options)
