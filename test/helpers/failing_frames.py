"""Frames in failure scenarios."""

from aqr_perception.evaluation.scenarios import SCENARIOS, generator
from aqr_perception.frame import LabelledFrame


def apply(name: str, labelled: LabelledFrame) -> LabelledFrame:
    """Return a frame with the failure of one of the `SCENARIOS`, for seed 0."""
    return SCENARIOS[name](labelled, generator(name, labelled, 0))
