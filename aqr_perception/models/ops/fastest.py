"""Of several ways to compute the same, the one that is the fastest on this machine."""

import logging
from collections.abc import Callable, Hashable, Sequence
from statistics import median

import torch
from torch import Tensor

Way = Callable[..., Tensor]

_REPEATS = 5
_log = logging.getLogger(__name__)


def cuda_milliseconds(work: Callable[[], Tensor]) -> float:
    """Return how long a CUDA device works, in the median of some turns; the first, which may compile, is left out."""
    work()
    turns = []
    for _ in range(_REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        turns.append(start.elapsed_time(end))
    return median(turns)


class Fastest:
    """Measures all ways the first time that a kind of problem comes up, and takes the fastest from then on.

    A way that fails then is not tried again for this kind, and the log says so.

    Args:
        ways: functions of the same arguments with the same result.
        measure: returns how long some work takes, in any unit.
    """

    def __init__(
        self, ways: Sequence[Way], measure: Callable[[Callable[[], Tensor]], float] = cuda_milliseconds
    ) -> None:
        self._ways, self._measure = ways, measure
        self._chosen: dict[Hashable, Way] = {}

    def __call__(self, kind: Hashable, *arguments: object) -> Tensor:
        """Return the result of the way chosen for this kind of problem.

        Raises:
            Exception: of the last way, where all of them fail.
        """
        if kind not in self._chosen:
            self._chosen[kind] = self._fastest(arguments)
        return self._chosen[kind](*arguments)

    def _fastest(self, arguments: tuple[object, ...]) -> Way:
        taken: dict[Way, float] = {}
        for way in self._ways:
            try:
                taken[way] = self._measure(lambda way=way: way(*arguments))  # type: ignore[misc]
            except Exception as error:  # a compiler, a driver or memory may be missing: any other way will do
                _log.warning("%s cannot be used here, another way is taken: %s", way.__name__, error)
        return min(taken, key=taken.__getitem__) if taken else self._ways[-1]
