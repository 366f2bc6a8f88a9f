# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Headroom table: what taking out the broken tokens wins in every failure, and how much of it AQR wins."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from aqr_perception.evaluation.broken_weights import WeightChange
from aqr_perception.evaluation.headroom.attention_shares import AttentionShares
from aqr_perception.evaluation.headroom.known_failures import CLEAN
from aqr_perception.evaluation.headroom.reliability import Reliability
from aqr_perception.options import AqrMode

POINT = 0.01
"""One point of NDS: failures with less headroom have none."""

TOLERANCE = 0.002
"""NDS that AQR may cost."""

WANTED_SHARE = 0.5
"""Share of each failure's headroom that AQR should win."""


@dataclass(frozen=True)
class Score:
    """Detection scores; see `metrics.DetectionScores`."""

    nds: float
    mean_ap: float


@dataclass(frozen=True)
class HeadroomRow:
    """Scores of one failure.

    Attributes:
        left_in: AQR off, with the broken tokens.
        taken_out: AQR off, without them; as `left_in` where no token is broken.
        by_mode: AQR by mode, without off.
        removed: mean share of the tokens that the oracle takes out, 0..1.
        attention_off, attention_on: mean attention by sensor with AQR off and in the last mode; empty without.
        weights: weight of the broken sensor; None without a router, or where nothing is broken.
    """

    failure: str
    left_in: Score
    taken_out: Score
    by_mode: Mapping[AqrMode, Score]
    removed: float
    attention_off: AttentionShares
    attention_on: AttentionShares
    weights: WeightChange | None

    @property
    def headroom(self) -> float:
        """NDS that taking out the broken tokens wins; 0 where they are better left in."""
        return max(0.0, self.taken_out.nds - self.left_in.nds)

    @property
    def has_headroom(self) -> bool:
        # Rounding must not decide about a point.
        return self.headroom > POINT - 1e-9

    def won(self, mode: AqrMode) -> float:
        """Return the NDS that AQR wins over AQR off; negative if it loses."""
        return self.by_mode[mode].nds - self.left_in.nds

    def share_won(self, mode: AqrMode) -> float | None:
        """Return the share of the headroom that AQR wins; None without headroom."""
        return self.won(mode) / self.headroom if self.has_headroom else None

    def as_dict(self) -> dict[str, object]:
        return {
            "failure": self.failure,
            "left_in": asdict(self.left_in),
            "taken_out": asdict(self.taken_out),
            "by_mode": {mode: asdict(score) for mode, score in self.by_mode.items()},
            "headroom": self.headroom,
            "has_headroom": self.has_headroom,
            "won": {mode: self.won(mode) for mode in self.by_mode},
            "share_won": {mode: self.share_won(mode) for mode in self.by_mode},
            "removed": self.removed,
            "attention_off": self.attention_off.as_dict(),
            "attention_on": self.attention_on.as_dict(),
            "weights": None if self.weights is None else self.weights.as_dict(),
        }


@dataclass(frozen=True)
class Summary:
    """A mode's figures over all failures.

    Attributes:
        clean, failures: NDS without failure, and mean NDS over the failures; None where not measured.
        share_of_clean: their ratio; None without both, or with a clean NDS of 0.
        clean_difference: clean NDS minus that of AQR off; None where not measured.
        worst: the largest loss against AQR off, over all rows, as a negative number; positive if AQR wins everywhere.
        share_won: NDS won over the headroom, both summed over the failures with headroom; None without any.
        least_share: the smallest share won of a failure with headroom; None without any.
    """

    clean: float | None
    failures: float | None
    share_of_clean: float | None
    clean_difference: float | None
    worst: float
    share_won: float | None
    least_share: float | None

    @property
    def verdicts(self) -> Mapping[str, bool]:
        """Whether AQR keeps what it should, by the sentence that says so; without sentences that were not measured."""
        found = {f"loses nowhere more than {100 * TOLERANCE:.1f} points of NDS": self.worst >= -TOLERANCE - 1e-9}
        if self.clean_difference is not None:
            sentence = f"costs at most {100 * TOLERANCE:.1f} points of clean NDS"
            found[sentence] = self.clean_difference >= -TOLERANCE - 1e-9
        if self.least_share is not None:
            sentence = f"wins at least {WANTED_SHARE:.0%} of the headroom of every failure with a point or more"
            found[sentence] = self.least_share >= WANTED_SHARE
        return found


@dataclass(frozen=True)
class HeadroomTable:
    """Scores of every failure.

    Attributes:
        model: name of the preset.
        weights: source of its weights.
        frames: number of frames.
        objects: number of true objects that count.
        seed: random seed of the failures.
        threshold: largest health of a broken place.
        rows: failures in the given order, `CLEAN` among them if it was measured.
        reliability: pairs of weight and health over all rows, in the last mode; None without a router or for signed
            weights.
        signed: whether weights may be negative.
        auto_mode: how the query weights acted in mode ``auto``; None if this mode was not measured.
        left_out, first_frames: see `RobustnessTable`.
    """

    model: str
    weights: str
    frames: int
    objects: int
    seed: int
    threshold: float
    rows: tuple[HeadroomRow, ...]
    reliability: Reliability | None = None
    signed: bool = False
    auto_mode: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    first_frames: int | None = None

    @property
    def modes(self) -> tuple[AqrMode, ...]:
        return tuple(self.rows[0].by_mode)

    @property
    def failures(self) -> tuple[HeadroomRow, ...]:
        """The rows with a failure."""
        return tuple(row for row in self.rows if row.failure != CLEAN)

    @property
    def clean(self) -> HeadroomRow | None:
        return next((row for row in self.rows if row.failure == CLEAN), None)

    def summary(self, mode: AqrMode) -> Summary:
        """Return the figures of a mode; of AQR off, too."""

        def nds(row: HeadroomRow) -> float:
            return row.left_in.nds if mode == "off" else row.by_mode[mode].nds

        clean = None if self.clean is None else nds(self.clean)
        failures = float(np.mean([nds(row) for row in self.failures])) if self.failures else None
        difference = None if clean is None or self.clean is None else clean - self.clean.left_in.nds
        rows = [row for row in self.failures if row.has_headroom]
        won = [nds(row) - row.left_in.nds for row in rows]
        return Summary(
            clean,
            failures,
            failures / clean if failures is not None and clean else None,
            difference,
            min(nds(row) - row.left_in.nds for row in self.rows),
            sum(won) / sum(row.headroom for row in rows) if rows else None,
            min(gain / row.headroom for gain, row in zip(won, rows, strict=True)) if rows else None,
        )

    @property
    def mean_taken_out(self) -> float | None:
        """Mean NDS over the failures with the broken tokens taken out; None without failures."""
        return float(np.mean([row.taken_out.nds for row in self.failures])) if self.failures else None

    def as_dict(self) -> dict[str, object]:
        modes: tuple[AqrMode, ...] = ("off", *self.modes)
        summaries = {mode: self.summary(mode) for mode in modes}
        return {
            "model": self.model,
            "weights": self.weights,
            "frames": self.frames,
            "objects": self.objects,
            "seed": self.seed,
            "threshold": self.threshold,
            "signed": self.signed,
            "auto_mode": self.auto_mode,
            "left_out": dict(self.left_out),
            "first_frames": self.first_frames,
            "rows": [row.as_dict() for row in self.rows],
            "summary": {mode: asdict(summary) for mode, summary in summaries.items()},
            "verdicts": {mode: dict(summaries[mode].verdicts) for mode in self.modes},
            "mean_taken_out": self.mean_taken_out,
            "reliability": None if self.reliability is None else self.reliability.as_dict(),
        }
