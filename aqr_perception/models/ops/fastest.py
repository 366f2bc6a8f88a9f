# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice of the fastest of several equivalent implementations, measured on this machine."""

import logging
from collections.abc import Callable, Hashable, Sequence
from statistics import median

import torch
from torch import Tensor

Implementation = Callable[..., Tensor]

_REPEATS = 5
_log = logging.getLogger(__name__)


def cuda_milliseconds(work: Callable[[], Tensor]) -> float:
    """Return the median time in milliseconds of some work on a CUDA device, after a warm-up run, which may compile."""
    work()
    times: list[float] = []
    for _ in range(_REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return median(times)


class Fastest:
    """Calls the fastest of several implementations, measured once for each kind of problem.

    An implementation that fails in its measurement is not used for this kind of problem; the log reports it.

    Args:
        implementations: functions with the same arguments and the same result.
        measure: returns the time of some work, in any unit.
    """

    def __init__(
        self,
        implementations: Sequence[Implementation],
        measure: Callable[[Callable[[], Tensor]], float] = cuda_milliseconds,
    ) -> None:
        self._implementations, self._measure = implementations, measure
        self._chosen: dict[Hashable, Implementation] = {}

    def __call__(self, kind: Hashable, *arguments: object) -> Tensor:
        """Return the result of the implementation chosen for this kind of problem.

        Raises:
            Exception: the last implementation's, if all of them fail.
        """
        if kind not in self._chosen:
            self._chosen[kind] = self._choose(arguments)
        return self._chosen[kind](*arguments)

    def _choose(self, arguments: tuple[object, ...]) -> Implementation:
        times: dict[Implementation, float] = {}
        for implementation in self._implementations:

            def work(implementation: Implementation = implementation) -> Tensor:
                return implementation(*arguments)

            try:
                times[implementation] = self._measure(work)
            except Exception as error:  # a missing compiler, driver or memory rules out this implementation only
                _log.warning("%s cannot be used here; using another implementation: %s", implementation.__name__, error)
        return min(times, key=times.__getitem__) if times else self._implementations[-1]
