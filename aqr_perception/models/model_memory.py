"""Memory of models that need the previous frame: their state, and when and where that frame was."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.model_io import History


class Moment(NamedTuple):
    """When and where a frame is.

    Attributes:
        stamp_ns: () or (B,) int64, nanoseconds.
        to_fixed: (4, 4) or (B, 4, 4) float64, the frame's model frame -> a frame that stands still.
    """

    stamp_ns: Tensor
    to_fixed: Tensor


class ModelMemory:
    """A model's state after the previous frame. `Detector` and training own one, and pass it to the model as `History`.

    Attributes:
        state: the `ModelOutput.state` of the previous frame; None at the start of a drive.
    """

    def __init__(self) -> None:
        self.state: object | None = None
        self._moment: Moment | None = None

    def history(self, now: Moment | None, max_gap: float = math.inf) -> History | None:
        """Return the previous frame relative to the current one; None where the vehicle's motion is not known.

        The memory is cleared where time does not advance, or by more than `max_gap` seconds. Samples of a batch share
        their mean time between the frames, because `History` has one.
        """
        if now is None:
            return None
        to_fixed = now.to_fixed.float()
        if self._moment is not None:
            seconds = float((now.stamp_ns - self._moment.stamp_ns).double().mean()) / 1e9
            if 0 < seconds <= max_gap:
                to_current = torch.linalg.inv(now.to_fixed) @ self._moment.to_fixed
                return History(self.state, to_current.float(), to_fixed, seconds)
            self.clear()
        return History(None, torch.eye(4, device=to_fixed.device), to_fixed, 0.0)

    def update(self, now: Moment | None, state: object | None) -> None:
        """Replace the memory by the state after the current frame; without state or motion it is cleared."""
        if now is None or state is None:
            self.clear()
        else:
            self.state, self._moment = state, now

    def clear(self) -> None:
        """Start a new drive."""
        self.state, self._moment = None, None
