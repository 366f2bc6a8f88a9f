# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detection of a sensor that sends the same data under new stamps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST_REPEATS = 3
_LEAST_SECONDS = 0.4
_SAMPLES = 512


class Repetition:
    """Comparison of a sensor's data with the data before.

    Real sensors have noise, so equal data means that a driver or an encoder repeats old data. Noise-free simulators
    repeat themselves, too, while nothing moves.
    """

    def __init__(self) -> None:
        self._last: NDArray[Any] = np.empty(0, np.uint8)
        self._stamp_ns: int | None = None
        self._since = 0.0
        self._repeats = 0

    def add(self, data: NDArray[Any], stamp_ns: int, now: float) -> None:
        """Compare data with the data before. Two data of one stamp are one measurement, sent or used twice."""
        if stamp_ns == self._stamp_ns:
            return
        same = data.size > 0 and _equal(data, self._last)
        if not same:
            self._since = now
        self._repeats = self._repeats + 1 if same else 0
        self._last, self._stamp_ns = data, stamp_ns

    def seconds(self, now: float) -> float:
        """Return for how long the data has not changed; 0 if that is too short to tell."""
        unchanged = now - self._since
        return unchanged if self._repeats >= _LEAST_REPEATS and unchanged >= _LEAST_SECONDS else 0.0


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape:
        return False
    # Data that differs is found in a small sample, without reading all of it.
    leap = max(1, one.size // _SAMPLES)
    flat, before = one.reshape(-1), other.reshape(-1)
    return bool((flat[::leap] == before[::leap]).all()) and np.array_equal(one, other)
