# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Outputs of the node recorded during a drive."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import Detections

BEV = "bev"
"""Name of the BEV, next to the cameras' names."""

CAMERA_GRID = ("front_left", "front", "front_right", "back_left", "back", "back_right")
"""Order of the cameras in pictures, in rows of three."""


@dataclass(frozen=True)
class QueryRecord:
    """The queries of a frame's detections, in their order.

    Attributes:
        points: (N, 3) centres of their windows in metres, LiDAR frame.
        attention: (N,) share of the attention on each sensor used, by name (``lidar`` and cameras).
        pixels: (N, 2) centre in each camera's picture, by name; NaN where the picture does not show it.
    """

    points: NDArray[np.float32]
    attention: Mapping[str, NDArray[np.float32]]
    pixels: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class FrameRecord:
    """Outputs of the node for one frame.

    Attributes:
        stamp_ns: the frame's stamp.
        detections: in the LiDAR frame.
        camera_names: the cameras used, in the order of `Detections.camera_weights`.
        unused: reason why a sensor was not used, by sensor name.
        milliseconds: latency from the trigger to the published detections; None if it is unknown.
        pictures: JPEG files of the published pictures, by camera name and `BEV`.
        map_means: mean of the published weight maps, by the same names.
        negative_maps: whether a published weight map has a negative value, as only those of signed weights have.
        map_shapes: rows and columns of the published weight maps, by the same names.
        ages: frame stamp minus data stamp in seconds, by sensor name, of all configured sensors in their order.
        doubts: what /diagnostics found odd about a sensor that the frame uses, by name.
        stages: milliseconds by stage.
        queries: the detections' queries; None if they did not arrive.
    """

    stamp_ns: int
    detections: Detections
    camera_names: tuple[str, ...]
    unused: Mapping[str, str] = field(default_factory=dict)
    milliseconds: float | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    map_means: Mapping[str, float] = field(default_factory=dict)
    negative_maps: bool = False
    map_shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    ages: Mapping[str, float] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    queries: QueryRecord | None = None

    @property
    def signed(self) -> bool:
        """Whether a weight of this frame is negative, as only signed weights are."""
        found = self.detections
        weights = (found.lidar_weight, found.camera_weight, found.camera_weights)
        return self.negative_maps or any(bool((array < 0).any()) for array in weights)

    def picture(self, name: str) -> NDArray[np.uint8] | None:
        """Return a published picture, (H, W, 3) BGR, or None."""
        if name not in self.pictures:
            return None
        picture = cv2.imdecode(np.frombuffer(self.pictures[name], np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None  # the recorder encoded it
        return picture.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Recording:
    """All frames of a drive, in the order of their stamps.

    Attributes:
        model: the node's description of its model.
        trained: whether the model has trained weights; detections of random weights are meaningless.
        frames_dropped: number of frames that the node dropped for newer ones.
        seconds: duration of the playback; NaN if it is unknown.
        seconds_held: part of it in which the playback waited for the node.
    """

    frames: Sequence[FrameRecord]
    model: str
    trained: bool
    frames_dropped: int = 0
    seconds: float = math.nan
    seconds_held: float = 0.0

    @property
    def signed(self) -> bool:
        """Whether the model has signed weights: at least one is negative."""
        return any(frame.signed for frame in self.frames)
