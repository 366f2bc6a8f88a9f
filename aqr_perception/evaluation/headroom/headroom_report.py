# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Headroom table as text, Markdown, JSON and pictures."""

import json
from collections.abc import Mapping
from pathlib import Path

from aqr_perception.evaluation.broken_weights import MOST_KEPT, WeightChange
from aqr_perception.evaluation.headroom.attention_shares import AttentionShares
from aqr_perception.evaluation.headroom.headroom_plot import plot_headroom, plot_reliability
from aqr_perception.evaluation.headroom.headroom_table import POINT, HeadroomRow, HeadroomTable
from aqr_perception.evaluation.headroom.reliability import CONFIDENT, WeightBins
from aqr_perception.evaluation.plain_table import PlainTable
from aqr_perception.evaluation.report import missing_notes, mode_name
from aqr_perception.options import AqrMode

FILE_NAME = "headroom.json"


def write(table: HeadroomTable, folder: Path, extra: Mapping[str, object] | None = None) -> tuple[Path, ...]:
    """Write ``headroom.json``, ``.md`` and ``.png`` and ``reliability.png`` to a folder, made if missing; return paths.

    There is no ``reliability.png`` without reliability.

    Args:
        extra: further entries of the JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures, page, picture = (folder / name for name in (FILE_NAME, "headroom.md", "headroom.png"))
    figures.write_text(json.dumps({**table.as_dict(), **(extra or {})}, indent=2) + "\n")
    page.write_text(markdown(table))
    plot_headroom(table, picture)
    if table.reliability is None:
        return figures, page, picture
    diagram = folder / "reliability.png"
    plot_reliability(table.reliability, f"{table.model}: {table.frames} frames", diagram)
    return figures, page, picture, diagram


def text(table: HeadroomTable) -> str:
    """Return the tables of scores and of sensors for a terminal."""
    return "\n\n".join(part.text() for part in (scores(table), sensors(table)))


def markdown(table: HeadroomTable) -> str:
    """Return the tables of scores and of sensors as Markdown."""
    return "\n".join(part.markdown() for part in (scores(table), sensors(table)))


def scores(table: HeadroomTable) -> PlainTable:
    """Return the NDS of every failure: left in, taken out, headroom, and with AQR."""
    header = ["failure", "taken out", "NDS left in", "NDS taken out", "headroom"]
    for mode in table.modes:
        name = mode_name(mode)
        header += [f"NDS {name}", "won"]
    return PlainTable(
        f"{table.model}: {table.frames} frames, {table.objects} objects",
        header,
        [_score_cells(row, table) for row in table.rows],
        _score_notes(table),
    )


def _score_cells(row: HeadroomRow, table: HeadroomTable) -> list[str]:
    headroom = f"{row.headroom:.3f}" if row.has_headroom else "none"
    cells = [row.failure, f"{row.removed:.0%}", f"{row.left_in.nds:.3f}", f"{row.taken_out.nds:.3f}", headroom]
    for mode in table.modes:
        share = row.share_won(mode)
        cells += [
            f"{row.by_mode[mode].nds:.3f}",
            f"{row.won(mode):+.3f}" + ("" if share is None else f" ({share:.0%})"),
        ]
    return cells


def _score_notes(table: HeadroomTable) -> list[str]:
    notes = [
        "Taken out: share of the tokens that the oracle removes from the decoder and the proposals, all those of "
        f"places with a health of at most {table.threshold:g}. Missing sensors have no tokens: nothing can be won",
        "Left in, taken out: NDS with AQR off with these tokens and without. Headroom: what taking out wins, none "
        f"below {100 * POINT:.0f} point. Won: NDS with AQR minus NDS left in (share of the headroom)",
    ]
    off = table.summary("off")
    if off.failures is not None:
        means = [f"{off.failures:.3f} left in", f"{table.mean_taken_out:.3f} taken out"]
        means += [f"{table.summary(mode).failures:.3f} with {mode_name(mode)}" for mode in table.modes]
        notes.append(f"Mean NDS over the failures: {', '.join(means)}")
    for mode in table.modes:
        summary = table.summary(mode)
        if summary.share_won is not None and summary.least_share is not None:
            notes.append(
                f"{mode_name(mode)} wins {summary.share_won:.0%} of the headroom of the failures that have any, "
                f"at least {summary.least_share:.0%} of each"
            )
        notes += [_verdict(mode, sentence, kept) for sentence, kept in summary.verdicts.items()]
    notes += missing_notes(table)
    if table.auto_mode is not None:
        notes.append(f"AQR on: mode {table.auto_mode}, as in the preset")
    return notes


def _verdict(mode: AqrMode, sentence: str, kept: bool) -> str:
    return f"{mode_name(mode)} {sentence}: {'yes' if kept else 'NO'}"


def sensors(table: HeadroomTable) -> PlainTable:
    """Return attention and weights of every failure: before and after AQR, with the sensor intact and broken."""
    header = ["failure", "attention to broken", "to LiDAR", "to cameras", "weight intact", "broken", "kept"]
    return PlainTable(
        f"{table.model}: attention and weights",
        header,
        [_sensor_cells(row) for row in table.rows],
        _sensor_notes(table),
    )


def _sensor_cells(row: HeadroomRow) -> list[str]:
    before, after = row.attention_off.means, row.attention_on.means

    def change(first: float, second: float) -> str:
        return f"{first:.2f} -> {second:.2f}" if row.by_mode else f"{first:.2f}"

    cells = [row.failure]
    if before is None or after is None:
        cells += ["-"] * 3
    else:
        broken = change(before.broken, after.broken) if row.removed else "-"
        cells += [broken, change(before.lidar, after.lidar), change(_on_cameras(before), _on_cameras(after))]
    return [*cells, *_weight_cells(row.weights)]


def _on_cameras(shares: AttentionShares) -> float:
    return sum(shares.cameras.values())


def _weight_cells(change: WeightChange | None) -> list[str]:
    if change is None:
        return ["-"] * 3
    if change.ratio is None:
        return [f"{change.intact:+.2f}", f"{change.broken:+.2f}", f"{change.difference:+.2f}"]
    return [f"{change.intact:.2f}", f"{change.broken:.2f}", f"{change.ratio:.0%} {'ok' if change.passed else 'HIGH'}"]


def _sensor_notes(table: HeadroomTable) -> list[str]:
    on = mode_name(table.modes[-1]) if table.modes else "AQR off"
    notes = [
        "Attention: share of the last decoder layer's cross-attention on sensors that are broken somewhere, on the "
        f"LiDAR and on the cameras, a score-weighted mean over the detections, with AQR off -> {on}",
    ]
    if not table.modes:
        return notes
    if table.signed:
        notes.append(
            "Weights of the broken sensor at its broken places, intact and broken, and their difference. They are in "
            "-1..1: no share of them is kept, and they are no probabilities, so there is no reliability"
        )
        return notes
    notes.append(
        "Weights of the broken sensor at its broken places, for the same queries with the sensor intact and broken; at "
        f"most {MOST_KEPT:.0%} should be kept"
    )
    if table.reliability is not None:
        found = table.reliability
        notes += [
            *_reliability_note("LiDAR, all detections", found.lidar),
            *_reliability_note("Cameras, all detections", found.cameras),
            *_reliability_note(f"LiDAR, scores of {CONFIDENT:g} and more", found.confident_lidar),
            *_reliability_note(f"Cameras, scores of {CONFIDENT:g} and more", found.confident_cameras),
        ]
    return notes


def _reliability_note(name: str, bins: WeightBins) -> list[str]:
    if bins.calibration_error is None or bins.brier is None:
        return []
    return [
        f"Reliability of the weights. {name}: {bins.total} pairs of weight and health, expected calibration error "
        f"{bins.calibration_error:.3f}, Brier score {bins.brier:.3f}"
    ]
