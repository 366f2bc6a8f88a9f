# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames in failure scenarios."""

from aqr_perception.evaluation.scenarios import ALL_SCENARIOS, fail
from aqr_perception.frame import LabelledFrame


def apply(name: str, labelled: LabelledFrame) -> LabelledFrame:
    """Return a frame with the failure of one of `ALL_SCENARIOS`, for seed 0."""
    return fail(name, ALL_SCENARIOS[name], labelled, 0)
