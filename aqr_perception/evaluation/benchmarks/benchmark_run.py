# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A model's run of MultiCorrupt."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aqr_perception.data.frames import LabelledFrames
from aqr_perception.data.sequences import HISTORY_FRAMES
from aqr_perception.detector import Detector
from aqr_perception.evaluation import robustness
from aqr_perception.evaluation.benchmarks.multicorrupt import CORRUPTIONS, SCENARIOS, SEVERITIES, scenario_name
from aqr_perception.evaluation.benchmarks.resistance import ResistanceTable
from aqr_perception.evaluation.metrics import EvaluationError, Rules
from aqr_perception.evaluation.robustness import CLEAN, RobustnessTable
from aqr_perception.evaluation.scenarios import Scenario, usable
from aqr_perception.options import AqrMode

_MOST_RESULTS = 120_000
"""Frames times rows of one pass; its detections take about 3 GB."""

_log = logging.getLogger(__name__)


def chosen_corruptions(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return corruptions by their names, in the published order; None for all.

    Raises:
        ValueError: there is no such corruption.
    """
    asked = set(names or CORRUPTIONS) - {CLEAN}
    unknown = sorted(asked - set(CORRUPTIONS))
    if unknown:
        raise ValueError(
            f"corruptions {', '.join(map(repr, unknown))} do not exist in multicorrupt; choose from "
            f"{', '.join(CORRUPTIONS)}"
        )
    return tuple(name for name in CORRUPTIONS if name in asked)


def run_multicorrupt(
    detector: Detector,
    frames: LabelledFrames,
    data: Mapping[str, object],
    modes: Sequence[AqrMode] = ("off", "auto"),
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    *,
    seed: int = 0,
    history: int = HISTORY_FRAMES,
    workers: int = 1,
    progress: bool = True,
    rules: Rules | None = None,
) -> ResistanceTable:
    """Return the scores of a detector without corruption and in every corruption, severity and mode.

    Corruptions that the data does not allow are left out by name: those of a sensor that its first frame lacks, and
    old data where no frame has an earlier one.

    Args:
        data: the data, by the options that choose it; see `ResistanceTable`.
        corruptions: names of `CORRUPTIONS`.
        seed, history, workers, progress, rules: see `robustness.run`.

    Raises:
        EvaluationError: see `robustness.run`; the data allows none of the corruptions.
    """
    if not len(frames):
        raise EvaluationError("found no frames to evaluate, needed at least one; check --data-root and --frames")
    left_out = _impossible(frames, corruptions)
    for name, reason in left_out.items():
        _log.warning("%s is left out: %s", name, reason)
    measured = [name for name in corruptions if name not in left_out]
    if not measured:
        raise EvaluationError(f"the data allows none of the corruptions {', '.join(corruptions)}: {left_out}")
    tables = [
        robustness.run(
            detector,
            frames,
            _scenarios(names),
            modes,
            seed=seed,
            history=history,
            workers=workers,
            progress=progress,
            rules=rules,
        )
        for names in _passes(measured, len(frames), len(modes))
    ]
    return ResistanceTable(_merged(tables), data, left_out)


def _impossible(frames: LabelledFrames, corruptions: Sequence[str]) -> dict[str, str]:
    first = frames[0].frame
    left_out = {}
    for name in corruptions:
        corruption = CORRUPTIONS[name]
        if not ((corruption.lidar and first.points is not None) or (corruption.cameras and first.cameras)):
            left_out[name] = f"the data has no {'LiDAR' if corruption.lidar else 'cameras'}"
    _, without_earlier = usable(_scenarios([name for name in corruptions if name not in left_out]), frames)
    for name in corruptions:
        if scenario_name(name, SEVERITIES[0]) in without_earlier:
            left_out[name] = without_earlier[scenario_name(name, SEVERITIES[0])]
    return left_out


def _scenarios(corruptions: Sequence[str]) -> dict[str, Scenario]:
    names = [CLEAN, *(scenario_name(name, severity) for name in corruptions for severity in SEVERITIES)]
    return {name: SCENARIOS[name] for name in names}


def _passes(corruptions: Sequence[str], frames: int, modes: int) -> list[Sequence[str]]:
    """Return the corruptions of each pass over the frames, so that a pass's detections fit in memory."""
    count = max(1, _MOST_RESULTS // (frames * modes * len(SEVERITIES)))
    return [corruptions[first : first + count] for first in range(0, len(corruptions), count)]


def _merged(tables: Sequence[RobustnessTable]) -> RobustnessTable:
    """Return the rows of all passes, with the clean ones of the first."""
    rows = [*tables[0].rows, *(row for table in tables[1:] for row in table.rows if row.scenario != CLEAN)]
    first_frames = next((table.first_frames for table in tables if table.first_frames is not None), None)
    return replace(tables[0], rows=tuple(rows), first_frames=first_frames)
