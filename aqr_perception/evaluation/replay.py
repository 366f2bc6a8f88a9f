"""Replay of earlier frames into a detector's memory."""

from collections.abc import Iterable

from aqr_perception.detector import Detector
from aqr_perception.frame import Frame
from aqr_perception.options import DetectionOptions


def replay(detector: Detector, frames: Iterable[Frame], options: DetectionOptions | None = None) -> None:
    """Make a detector remember only these frames.

    Args:
        frames: of one drive in order of time, with `Frame.to_fixed`; none leaves the memory empty.
        options: as for the frame that follows.
    """
    detector.forget()
    for frame in frames:
        detector.detect(frame, options)
