# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Medians of what the stages of the last frames took."""

from collections import deque

import numpy as np

from aqr_perception.stage_clock import PARTS, Spent, StageClock

TIMES_WINDOW = 10.0
"""Seconds over which the medians are taken."""

_MODEL = "detect"
_NAMES = (
    "model_ms",
    "overhead_ms",
    "overhead_cpu_ms",
    *(f"{part}_{kind}" for part in PARTS for kind in ("ms", "cpu_ms")),
)


class FrameTimes:
    """Times of the last frames. `now` is the time in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._frames: deque[tuple[float, list[float]]] = deque()

    def add(self, stages: StageClock, now: float) -> None:
        """Add the finished stages of a frame."""
        parts = [stages.parts.get(part, Spent(0.0, 0.0)) for part in PARTS]
        model = stages.seconds.get(_MODEL, 0.0)
        seconds = [model, sum(stages.seconds.values()) - model, sum(part.cpu for part in parts)]
        self._frames.append((now, seconds + [second for part in parts for second in part]))

    def values(self, now: float) -> dict[str, str]:
        """Return medians in milliseconds by name; ``unknown`` without a frame in the last seconds.

        ``overhead_ms`` is the wall time of all stages but the model. The times of a part, ``decode_ms`` for example,
        are sums over the threads that do it.
        """
        while self._frames and now - self._frames[0][0] > TIMES_WINDOW:
            self._frames.popleft()
        if not self._frames:
            return dict.fromkeys(_NAMES, "unknown")
        medians = np.median([seconds for _, seconds in self._frames], axis=0)
        return {name: f"{1e3 * seconds:.1f}" for name, seconds in zip(_NAMES, medians, strict=True)}
