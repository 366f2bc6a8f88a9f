"""What the node published while a drive was played."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import Detections

BEV = "bev"
"""The bird's-eye view's name beside the cameras'."""

RING = ("front_left", "front", "front_right", "back_left", "back", "back_right")
"""Cameras as they are laid out for people, in rows of three."""


@dataclass(frozen=True)
class Answer:
    """What the node said of one frame.

    Attributes:
        stamp_ns: the frame's.
        detections: in the LiDAR's frame.
        camera_names: of the cameras used, in the order of `Detections.camera_weights`.
        left_out: why a sensor took no part, by the names of those that did not.
        source: of the weights, ``router`` or ``attention``.
        milliseconds: from the trigger to the published detections; None where the node did not tell.
        pictures: JPEG files of the published pictures, by camera name and `BEV`.
        map_means: mean of the published weight maps, by the same names.
    """

    stamp_ns: int
    detections: Detections
    camera_names: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    source: str = "router"
    milliseconds: float | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    map_means: Mapping[str, float] = field(default_factory=dict)

    def picture(self, name: str) -> NDArray[np.uint8] | None:
        """Return a published picture (H, W, 3) BGR; None where there was none."""
        if name not in self.pictures:
            return None
        picture = cv2.imdecode(np.frombuffer(self.pictures[name], np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None  # we encoded it
        return picture.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Recording:
    """All answers to a drive, in order of their stamps.

    Attributes:
        model: what the node ran, in its own words.
        trained: whether with weights; otherwise its detections mean nothing.
        frames_dropped: frames that the node left out because a newer one was there.
    """

    answers: Sequence[Answer]
    model: str
    trained: bool
    frames_dropped: int = 0
