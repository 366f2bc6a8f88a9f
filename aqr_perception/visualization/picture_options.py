# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Options and captions of the pictures."""

from dataclasses import dataclass
from typing import Literal, get_args

from aqr_perception.options import require

PictureView = Literal["weights", "trust"]


@dataclass(frozen=True)
class PictureOptions:
    """What the pictures of weights show.

    Attributes:
        view: ``weights``, the weight of the LiDAR or of the camera; or ``trust``, the LiDAR against the cameras.
        by_score: whether a query is as visible as its score, at the place of its box. Otherwise, and for results
            without queries, the published map is shown: every query alike, at the place where it looks.
    """

    view: PictureView = "weights"
    by_score: bool = True

    def __post_init__(self) -> None:
        require(
            self.view in get_args(PictureView), "weights.view", self.view, f"one of {', '.join(get_args(PictureView))}"
        )


DEFAULT = PictureOptions()


@dataclass(frozen=True)
class Caption:
    """What a picture says of its frame.

    Attributes:
        stamp_ns: stamp of the picture's data in nanoseconds; None leaves it out.
        missing: names of the sensors that the frame does not have.
    """

    stamp_ns: int | None = None
    missing: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the texts, in order of importance."""
        lines = ["missing: " + ", ".join(self.missing)] if self.missing else []
        if self.stamp_ns is not None:
            lines.append(f"{self.stamp_ns / 1e9:.3f} s")
        return lines
