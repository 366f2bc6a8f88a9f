# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Memory of models that use earlier frames: the previous frame's state, time and pose."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.model_io import History


class Moment(NamedTuple):
    """Time and pose of a frame.

    Attributes:
        stamp_ns: () or (B,) int64, nanoseconds.
        to_fixed: (4, 4) or (B, 4, 4) float64, the frame's model frame -> a fixed frame.
    """

    stamp_ns: Tensor
    to_fixed: Tensor


class ModelMemory:
    """A model's state after the previous frame, owned by `Detector` or training and passed to the model as `History`.

    Attributes:
        state: the `ModelOutput.state` of the previous frame; None at the start of a drive.
    """

    def __init__(self) -> None:
        self.state: object | None = None
        self._moment: Moment | None = None

    def history(self, now: Moment | None, max_gap: float = math.inf) -> History | None:
        """Return the previous frame relative to the current one; None if the vehicle's motion is unknown.

        Clears the memory if time does not advance, or advances by more than `max_gap` seconds. The samples of a batch
        share the mean time between their frames, because `History` has one time.
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
        """Replace the memory by the state after the current frame; clear it without state or motion."""
        if now is None or state is None:
            self.clear()
        else:
            self.state, self._moment = state, now

    def clear(self) -> None:
        """Clear the memory, for a new drive."""
        self.state, self._moment = None, None
