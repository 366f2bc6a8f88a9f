"""What a model with AQR is held to, and whether a robustness table shows it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from aqr_perception.evaluation.robustness import CLEAN, RobustnessTable

CLEAN_MEAN_AP = 0.50
SHARES_OF_CLEAN: Mapping[str, float] = {
    "LiDAR gone": 0.65,
    "all cameras gone": 0.90,
    "4 beams": 0.86,
    "LiDAR field of view +-60 degrees": 0.79,
    "half the objects without points": 0.95,
    "half of each image occluded": 0.95,
}
"""Shares of clean NDS by scenario, set after what MoME (arXiv:2503.19776) keeps on nuScenes."""
AQR_GAIN = 0.02
"""NDS that AQR adds in the mean over the failures."""
BLACK_CAMERA_RATIO = 0.5
"""The weight of a black camera, by its weight when intact: at most this."""


@dataclass(frozen=True)
class Bar:
    """One figure and what it should be: at least, or at most, a value."""

    name: str
    measured: float
    needed: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.measured <= self.needed if self.at_most else self.measured >= self.needed

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "met": self.met}

    def __str__(self) -> str:
        bound = "at most" if self.at_most else "at least"
        return f"{self.name}: {self.measured:.3f}, {bound} {self.needed:.3f} wanted, {'met' if self.met else 'missed'}"


def bars(table: RobustnessTable) -> tuple[Bar, ...]:
    """Return the bars that a table has figures for; scores are those of its last mode."""
    mode = table.modes[-1]
    found = [Bar("clean mAP", table.row(CLEAN, mode).scores.mean_ap, CLEAN_MEAN_AP)]
    for scenario, share in SHARES_OF_CLEAN.items():
        if scenario in table.scenarios:
            found.append(Bar(f"share of clean NDS, {scenario}", table.row(scenario, mode).share_of_clean, share))
    with_aqr, without = table.mean_failure_nds(mode), table.mean_failure_nds("off")
    if mode != "off" and with_aqr is not None and without is not None:
        found.append(Bar("NDS that AQR adds in the mean over the failures", with_aqr - without, AQR_GAIN))
    if table.blackout is not None:
        found.append(
            Bar("weight of a black camera by its weight intact", table.blackout.ratio, BLACK_CAMERA_RATIO, True)
        )
    return tuple(found)
