# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Learning rate as a function of the training's progress."""

import math

from aqr_perception.training.training_options import Schedule

_WARMUP: dict[Schedule, float] = {"one_cycle": 0.4, "cosine": 0.05, "constant": 0.0}
_START: dict[Schedule, float] = {"one_cycle": 1 / 6, "cosine": 0.001, "constant": 0.001}
_END: dict[Schedule, float] = {"one_cycle": 1e-4 / 6, "cosine": 0.01, "constant": 1.0}


def learning_rate_factor(progress: float, schedule: Schedule, warmup: float | None = None) -> float:
    """Return the learning rate relative to the highest, in (0, 1].

    ``one_cycle`` is CMT's (arXiv:2301.01283): it rises from a sixth to the peak in the first 40 %, then falls to a
    ten-thousandth of the start, both along a half cosine. ``cosine`` rises linearly for 5 % and falls along a half
    cosine to 1 % (arXiv:1608.03983). ``constant`` stays at the peak after an optional warm-up.

    Args:
        progress: 0 at the start, 1 at the end; larger values count as the end.
        schedule: name of the schedule.
        warmup: share of the training in which the rate rises; None for the schedule's default.
    """
    warmup = _WARMUP[schedule] if warmup is None else warmup
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        rise = progress / warmup
        return _START[schedule] + (1.0 - _START[schedule]) * (_half_cosine(rise) if schedule == "one_cycle" else rise)
    fall = (progress - warmup) / (1.0 - warmup) if warmup < 1.0 else 0.0
    return 1.0 + (_END[schedule] - 1.0) * _half_cosine(fall)


def _half_cosine(share: float) -> float:
    """Return the value at `share` of a curve from (0, 0) to (1, 1) that is flat at both ends."""
    return (1.0 - math.cos(math.pi * share)) / 2.0
