"""The learning rate as a function of how far the training has come."""

import math

from aqr_perception.training.training_options import Schedule

_WARMUP: dict[Schedule, float] = {"one_cycle": 0.4, "cosine": 0.05, "constant": 0.0}
_START: dict[Schedule, float] = {"one_cycle": 1 / 6, "cosine": 0.001, "constant": 0.001}
_END: dict[Schedule, float] = {"one_cycle": 1e-4 / 6, "cosine": 0.01, "constant": 1.0}


def learning_rate_factor(progress: float, schedule: Schedule, warmup: float | None = None) -> float:
    """Return the factor in (0, 1] of the highest learning rate.

    ``one_cycle`` is the one that CMT was trained with (arXiv:2301.01283): from a sixth to the peak in the first 40 %,
    then down to a ten-thousandth of the start, both along a half cosine. ``cosine`` rises in a straight line for 5 %
    and falls along a half cosine to 1 % (arXiv:1608.03983). ``constant`` stays after its warm-up, where it has one.

    Args:
        progress: 0 at the start, 1 at the end; beyond counts as the end.
        schedule: which.
        warmup: the share in which it rises, instead of the schedule's own.
    """
    rising = _WARMUP[schedule] if warmup is None else warmup
    progress = min(max(progress, 0.0), 1.0)
    if progress < rising:
        risen = progress / rising
        shape = _half_cosine(risen) if schedule == "one_cycle" else risen
        return _START[schedule] + (1.0 - _START[schedule]) * shape
    fallen = (progress - rising) / (1.0 - rising) if rising < 1.0 else 0.0
    return 1.0 + (_END[schedule] - 1.0) * _half_cosine(fallen)


def _half_cosine(share: float) -> float:
    """Return 0 at 0 and 1 at 1, flat at both."""
    return (1.0 - math.cos(math.pi * share)) / 2.0
