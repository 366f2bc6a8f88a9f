# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""PETRv2's memory: past frames' image features with their cameras' geometry relative to the current frame."""

from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.model_io import History

_SPACING = 0.2
"""Smallest time between remembered frames, as a share of the desired gap; more frames help little and cost memory."""


class CameraFrame(NamedTuple):
    """One frame's cameras.

    Attributes:
        image: (B, V, C, h, w) features.
        lidar_to_image: (B, V, 4, 4), *current* model frame -> pixels of this frame's images.
        places: (B, V) int64, the cameras' positions in the ring.
        seconds: age relative to the current frame.
    """

    image: Tensor
    lidar_to_image: Tensor
    places: Tensor
    seconds: float

    def moved(self, to_current: Tensor, seconds: float) -> "CameraFrame":
        """Return the frame relative to one that is `seconds` later.

        Args:
            to_current: (4, 4) or (B, 4, 4), the previous model frame -> the new one.
        """
        with torch.autocast(to_current.device.type, enabled=False):
            # float64, because lifting inverts the product.
            to_past = torch.linalg.inv(to_current.double()).expand(len(self.image), 4, 4)
            projection = (self.lidar_to_image.double() @ to_past[:, None]).float()
        return self._replace(lidar_to_image=projection, seconds=self.seconds + seconds)


def past_frames(history: History | None) -> tuple[CameraFrame, ...]:
    """Return the remembered frames relative to the current one, newest first; none without history.

    Raises:
        TypeError: the history belongs to another model.
    """
    if history is None or history.state is None:
        return ()
    if not isinstance(history.state, tuple) or not all(isinstance(frame, CameraFrame) for frame in history.state):
        raise TypeError(f"history.state is a {type(history.state).__name__}, but must be the state of a PETRv2")
    return tuple(frame.moved(history.to_current, history.seconds) for frame in history.state)


def nearest_frame(past: tuple[CameraFrame, ...], gap: float) -> CameraFrame | None:
    """Return the frame whose age is nearest to `gap` seconds; None without any."""
    return min(past, key=lambda frame: abs(frame.seconds - gap), default=None)


def remembered_frames(
    past: tuple[CameraFrame, ...], current: CameraFrame | None, gap: float
) -> tuple[CameraFrame, ...]:
    """Return the frames to remember, newest first, spaced and old enough for `nearest_frame`.

    Args:
        past: the frames of `past_frames`.
        current: the current frame; None without cameras.
        gap: desired age in seconds of the frame that `nearest_frame` returns.
    """
    kept = tuple(frame for frame in past if frame.seconds <= 2 * gap)
    if current is None or (kept and kept[0].seconds < _SPACING * gap):
        return kept
    return (current, *kept)
