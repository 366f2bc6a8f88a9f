# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Resistance ability: how much of its score a model keeps under corruptions, alone and against a baseline.

By Beemelmanns et al. 2024 (arXiv:2402.11677), with NDS of corruption c at severity s:
RA(c, s) = NDS(c, s) / NDS(clean), RA(c) its mean over the severities, mRA the mean of RA(c) over the corruptions;
RRA(c) = sum over s of NDS(c, s) / sum over s of NDS of the baseline - 1, mRRA its mean over the corruptions.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from aqr_perception.data.sources.simulated import TRAINING_WORLD
from aqr_perception.evaluation.benchmarks.multicorrupt import CORRUPTIONS, SEVERITIES, scenario_name
from aqr_perception.evaluation.metrics import EvaluationError
from aqr_perception.evaluation.robustness import CLEAN, RobustnessTable
from aqr_perception.options import AqrMode

BENCHMARK = "multicorrupt"

_SAME = ("data", "frames", "objects", "seed", "rules")
"""Entries that a result and its baseline must share."""


@dataclass(frozen=True)
class Resistance:
    """Figures of one AQR mode.

    Attributes:
        clean: NDS without corruption.
        nds: NDS at each severity, by corruption.
    """

    clean: float
    nds: Mapping[str, tuple[float, ...]]

    def ra(self, corruption: str) -> tuple[float, ...] | None:
        """Return RA at each severity; None if the clean NDS is 0."""
        return tuple(nds / self.clean for nds in self.nds[corruption]) if self.clean > 0 else None

    def mean_ra(self, corruption: str) -> float | None:
        """Return RA, the mean over the severities."""
        return _mean(self.ra(corruption))

    @property
    def mra(self) -> float | None:
        """The mean of RA over the corruptions."""
        return _mean([self.mean_ra(corruption) for corruption in self.nds])

    def rra(self, corruption: str, baseline: "Resistance") -> float | None:
        """Return RRA against a baseline; None if the baseline's NDS are 0."""
        total = sum(baseline.nds[corruption])
        return sum(self.nds[corruption]) / total - 1 if total > 0 else None

    def mrra(self, baseline: "Resistance") -> float | None:
        """Return the mean of RRA over the corruptions."""
        return _mean([self.rra(corruption, baseline) for corruption in self.nds])


@dataclass(frozen=True)
class Baseline:
    """Results of the model against which RRA compares.

    Attributes:
        path: the file.
        model: name of its preset.
        modes: figures by AQR mode.
    """

    path: str
    model: str
    modes: Mapping[str, Resistance]

    def against(self, mode: AqrMode) -> str:
        """Return the baseline's mode that a mode is compared with: the same one, or else its last."""
        return mode if mode in self.modes else list(self.modes)[-1]


@dataclass(frozen=True)
class ResistanceTable:
    """Results of a model in the benchmark.

    Attributes:
        table: scores in every scenario.
        data: the data, by the options that choose it.
        left_out: corruptions that the data does not allow, with the reason.
        baseline: results of the model to compare with.
    """

    table: RobustnessTable
    data: Mapping[str, object]
    left_out: Mapping[str, str] = field(default_factory=dict)
    baseline: Baseline | None = None

    def with_auto_mode(self, mode: AqrMode) -> "ResistanceTable":
        """Return the table with the mode that ``auto`` stands for; see `RobustnessTable`."""
        return replace(self, table=replace(self.table, auto_mode=mode))

    @property
    def corruptions(self) -> tuple[str, ...]:
        """Names of the measured corruptions."""
        measured = set(self.table.scenarios)
        return tuple(name for name in CORRUPTIONS if scenario_name(name, SEVERITIES[0]) in measured)

    @property
    def modes(self) -> Mapping[AqrMode, Resistance]:
        """Figures by AQR mode."""
        return {mode: self._resistance(mode) for mode in self.table.modes}

    def _resistance(self, mode: AqrMode) -> Resistance:
        nds = {
            name: tuple(self.table.row(scenario_name(name, severity), mode).scores.nds for severity in SEVERITIES)
            for name in self.corruptions
        }
        return Resistance(self.table.row(CLEAN, mode).scores.nds, nds)

    def as_dict(self) -> dict[str, Any]:
        scores = self.table.rows[0].scores
        modes = {
            mode: {
                "clean": one.clean,
                "nds": {name: list(nds) for name, nds in one.nds.items()},
                "ra": {name: one.ra(name) for name in one.nds},
                "mean_ra": {name: one.mean_ra(name) for name in one.nds},
                "mra": one.mra,
                **self._relative(mode, one),
            }
            for mode, one in self.modes.items()
        }
        return {
            "benchmark": BENCHMARK,
            "model": self.table.model,
            "data": dict(self.data),
            "frames": self.table.frames,
            "objects": scores.objects,
            "seed": self.table.seed,
            "rules": scores.rules,
            "corruptions": list(self.corruptions),
            "left_out": dict(self.left_out),
            "first_frames": self.table.first_frames,
            "auto_mode": self.table.auto_mode,
            "modes": modes,
            "baseline": None if self.baseline is None else {"path": self.baseline.path, "model": self.baseline.model},
            "rows": [asdict(row) for row in self.table.rows],
        }

    def _relative(self, mode: AqrMode, one: Resistance) -> dict[str, object]:
        if self.baseline is None:
            return {}
        against = self.baseline.against(mode)
        other = self.baseline.modes[against]
        return {
            "baseline_mode": against,
            "rra": {name: one.rra(name, other) for name in one.nds},
            "mrra": one.mrra(other),
        }


def data_of(source: str, world: int | None, version: str, split: Sequence[str] | None) -> dict[str, object]:
    """Return what tells data from other data, by the options that choose it; folders may differ between machines."""
    if source == "synthetic":
        return {"source": source, "world": world or TRAINING_WORLD}
    if source == "nuscenes":
        return {"source": source, "version": version, "split": None if split is None else list(split)}
    return {"source": source}


def read_baseline(path: Path) -> dict[str, Any]:
    """Return a result file of the benchmark, as `ResistanceTable.as_dict`.

    Raises:
        EvaluationError: it cannot be read, or is no such file.
    """
    needed = f"needed multicorrupt.json of an 'evaluate --benchmark {BENCHMARK}' run"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise EvaluationError(f"--baseline {path}: found no such file, {needed}") from None
    except (OSError, ValueError) as error:
        raise EvaluationError(f"--baseline {path}: cannot be read ({error}), {needed}") from None
    if not isinstance(found, dict) or found.get("benchmark") != BENCHMARK or not found.get("modes"):
        raise EvaluationError(f"--baseline {path}: found another kind of JSON, {needed}")
    return found


def check_baseline(
    path: Path, content: Mapping[str, Any], needed: Mapping[str, object], corruptions: Sequence[str]
) -> None:
    """Compare a baseline with entries of another result and its corruptions.

    Raises:
        EvaluationError: the baseline measured something else.
    """
    for name, value in needed.items():
        if content.get(name) != value:
            raise EvaluationError(
                f"--baseline {path}: found {name} {content.get(name)!r}, needed {value!r} as in this run; evaluate the "
                "baseline with the same options"
            )
    missing = [name for name in corruptions if any(name not in one["nds"] for one in content["modes"].values())]
    if missing:
        raise EvaluationError(
            f"--baseline {path}: found no {', '.join(missing)}, needed all corruptions of this run; evaluate the "
            "baseline with the same --scenarios"
        )


def with_baseline(result: ResistanceTable, path: Path, content: Mapping[str, Any]) -> ResistanceTable:
    """Return a result compared with a baseline.

    Raises:
        EvaluationError: see `check_baseline`.
    """
    own = result.as_dict()
    check_baseline(path, content, {name: own[name] for name in _SAME}, result.corruptions)
    modes = {
        mode: Resistance(one["clean"], {name: tuple(one["nds"][name]) for name in result.corruptions})
        for mode, one in content["modes"].items()
    }
    return replace(result, baseline=Baseline(str(path), str(content["model"]), modes))


def _mean(values: Sequence[float | None] | None) -> float | None:
    """Return the mean; None without values, or if one is unknown."""
    known = [value for value in values or () if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values or ()) else None
