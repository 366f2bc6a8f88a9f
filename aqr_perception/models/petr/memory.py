"""What PETRv2 remembers: past frames' image features and where their cameras were, seen from the current frame."""

from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.detection_model import History

_SPACING = 0.2
"""Remembered frames lie this share of the wanted gap apart, or further: more would help little and cost memory."""


class PastFrame(NamedTuple):
    """One frame's cameras.

    Attributes:
        image: (B, V, C, h, w) features.
        lidar_to_image: (B, V, 4, 4), *current* model frame -> pixels of the past images.
        places: (B, V) int64, the cameras' places in the ring.
        seconds: before the current frame.
    """

    image: Tensor
    lidar_to_image: Tensor
    places: Tensor
    seconds: float

    def moved(self, to_current: Tensor, seconds: float) -> "PastFrame":
        """Return it as seen from a frame that much later.

        Args:
            to_current: (4, 4) or (B, 4, 4), the model frame until now -> the new one.
        """
        with torch.autocast(to_current.device.type, enabled=False):
            # float64: lifting inverts the product again.
            to_past = torch.linalg.inv(to_current.double()).expand(len(self.image), 4, 4)
            projection = (self.lidar_to_image.double() @ to_past[:, None]).float()
        return self._replace(lidar_to_image=projection, seconds=self.seconds + seconds)


def recall(history: History | None) -> tuple[PastFrame, ...]:
    """Return the remembered frames as seen from the current one, newest first; none without history.

    Raises:
        TypeError: the history is another model's.
    """
    if history is None or history.state is None:
        return ()
    if not isinstance(history.state, tuple) or not all(isinstance(frame, PastFrame) for frame in history.state):
        raise TypeError(f"history.state is a {type(history.state).__name__}, but must be what PETRv2 gave")
    return tuple(frame.moved(history.to_current, history.seconds) for frame in history.state)


def choose(past: tuple[PastFrame, ...], gap: float) -> PastFrame | None:
    """Return the frame that lies most nearly so many seconds back; None without any."""
    return min(past, key=lambda frame: abs(frame.seconds - gap), default=None)


def remember(past: tuple[PastFrame, ...], current: PastFrame | None, gap: float) -> tuple[PastFrame, ...]:
    """Return what the next frame needs: newest first, so far apart and so far back as serves `choose`.

    Args:
        past: from `recall`.
        current: this frame; None where no camera took part.
        gap: seconds that the chosen frame should lie back.
    """
    kept = tuple(frame for frame in past if frame.seconds <= 2 * gap)
    if current is None or (kept and kept[0].seconds < _SPACING * gap):
        return kept
    return (current, *kept)
