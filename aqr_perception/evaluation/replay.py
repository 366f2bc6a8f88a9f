"""Frames that a detector with a memory must have seen before the one that it is judged by."""

from collections.abc import Iterable

from aqr_perception.detector import Detector
from aqr_perception.frame import Frame
from aqr_perception.options import DetectionOptions


def replay(detector: Detector, frames: Iterable[Frame], options: DetectionOptions | None = None) -> None:
    """Make a detector remember these frames, and nothing else.

    Args:
        frames: of one drive in order of time, with `Frame.to_fixed`; none for a detector that shall remember nothing.
        options: as for the frame that follows.
    """
    detector.forget()
    for frame in frames:
        detector.detect(frame, options)
