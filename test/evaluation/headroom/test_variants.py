# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Variants of AQR: their names, their tables from made-up figures, and runs that continue."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aqr_perception.evaluation.headroom import headroom_report
from aqr_perception.evaluation.headroom.attention_shares import AttentionShares
from aqr_perception.evaluation.headroom.headroom_table import HeadroomRow, HeadroomTable, Score
from aqr_perception.evaluation.headroom.variants import (
    Variant,
    ablation_table,
    failure_table,
    measured_variants,
    parse_variants,
)
from aqr_perception.options import AqrMode


def made_up(on: Mapping[str, float], mode: AqrMode = "auto") -> HeadroomTable:
    base = {"clean": (0.6, 0.6), "fog": (0.4, 0.5), "4 beams": (0.5, 0.3)}
    rows = tuple(
        HeadroomRow(
            name,
            Score(left_in, 0.1),
            Score(taken_out, 0.1),
            {} if mode == "off" else {mode: Score(on[name], 0.1)},
            0.1,
            AttentionShares(),
            AttentionShares(),
            None,
        )
        for name, (left_in, taken_out) in base.items()
    )
    return HeadroomTable("small", "random", 7, 70, 0, 0.5, rows, auto_mode="bias" if mode == "auto" else None)


GATE = made_up({"clean": 0.599, "fog": 0.48, "4 beams": 0.5})
BIAS = made_up({"clean": 0.598, "fog": 0.41, "4 beams": 0.49}, "bias")


def figures(table: HeadroomTable) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(table.as_dict()))
    return read


def test_variants_are_named_by_model_checkpoint_and_mode(tmp_path: Path) -> None:
    timed = tmp_path / "timed.json"
    timed.write_text(json.dumps({"stages": [{"stage": "image", "median_ms": 3}, {"stage": "total", "median_ms": 90}]}))
    found = parse_variants(
        ["off=base.pt:off", "gate=gate.yaml@runs/final.pt", "shipped=", "old=out/headroom.json:bias", "c=c:d.pt"],
        "aqr_tiny",
        ["off=80.5", f"gate={timed}"],
    )
    assert found == (
        Variant("off", "aqr_tiny", "base.pt", "off", 80.5),
        Variant("gate", "gate.yaml", "runs/final.pt", "auto", 90.0),
        Variant("shipped", "aqr_tiny", None, "auto"),
        Variant("old", "aqr_tiny", "out/headroom.json", "bias"),
        Variant("c", "aqr_tiny", "c:d.pt", "auto"),
    )
    assert found[3].figures == Path("out/headroom.json") and found[0].figures is None


@pytest.mark.parametrize(
    ("texts", "costs", "message"),
    [
        (["base.pt"], [], r"--variants base\.pt: needed NAME="),
        (["a=x", "a=y"], [], "found 'a' twice"),
        (["a/b=x"], [], "needed a name that can be a folder's"),
        (["a=x"], ["b=3"], "--cost b: found no such variant, needed one of a"),
        (["a=x"], ["a=fast"], "--cost a=fast: needed NAME=MILLISECONDS"),
        (["a=x"], ["a=none.json"], "--cost a=none"),
    ],
)
def test_other_forms_are_refused(texts: list[str], costs: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_variants(texts, "aqr_tiny", costs)


def test_the_ablation_table_is_exact() -> None:
    table = ablation_table(
        {
            Variant("base", "small", "base.pt", "off", 80.0): figures(GATE),
            Variant("gate", "small", "gate.pt", "auto", 84.0): figures(GATE),
            Variant("bias", "small", "bias.pt", "bias"): figures(BIAS),
        }
    )
    assert [list(row) for row in table.rows] == [
        ["base", "off", "0.600", "0.450", "75%", "80.0", "-", "-", "-"],
        ["gate", "bias", "0.599", "0.490", "82%", "84.0", "80%", "80%", "-0.001"],
        ["bias", "bias", "0.598", "0.450", "75%", "-", "10%", "10%", "-0.010"],
        ["oracle on base", "off", "0.600", "0.400", "67%", "-", "-", "-", "-"],
    ]
    assert "3 variants, 7 frames, 70 objects, 2 failures" in table.text()
    assert table.markdown().count("\n|") == 6 and "NOT comparable" not in table.text()


def test_the_table_by_failure_shows_what_each_variant_wins() -> None:
    table = failure_table(
        {
            Variant("base", "small", "base.pt", "off"): figures(GATE),
            Variant("gate", "small", "gate.pt"): figures(GATE),
            Variant("bias", "small", "bias.pt", "bias"): figures(BIAS),
        }
    )
    assert list(table.header) == ["failure", "left in", "taken out", "headroom", "gate", "bias"]
    assert [list(row) for row in table.rows][1:] == [
        ["fog", "0.400", "0.500", "0.100", "0.480 (+0.080, 80%)", "0.410 (+0.010, 10%)"],
        ["4 beams", "0.500", "0.300", "none", "0.500 (+0.000)", "0.490 (-0.010)"],
    ]


def test_variants_that_were_measured_otherwise_are_named() -> None:
    other = dataclasses.replace(GATE, frames=9, rows=GATE.rows[:2])
    text = ablation_table({Variant("a", "m", "a"): figures(GATE), Variant("b", "m", "b"): figures(other)}).text()
    assert "NOT comparable: b has frames 9, a has 7" in text and "b has other failures than a" in text


def test_an_interrupted_run_continues_with_the_variants_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headroom_report, "plot_headroom", lambda table, path: None)
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"first")
    variants = parse_variants([f"a={weights}:auto", "b=random:bias"], "small")
    calls: list[str] = []

    def measure(variant: Variant) -> HeadroomTable:
        calls.append(variant.name)
        if variant.name == "b" and calls.count("b") == 1:
            raise KeyboardInterrupt
        return GATE if variant.mode == "auto" else BIAS

    with pytest.raises(KeyboardInterrupt):
        measured_variants(variants, tmp_path / "out", {"seed": 0}, measure)
    found = measured_variants(variants, tmp_path / "out", {"seed": 0}, measure)
    assert calls == ["a", "b", "b"]
    assert found[variants[1]]["summary"]["bias"]["clean"] == 0.598
    measured_variants(variants, tmp_path / "out", {"seed": 0}, measure)
    assert calls == ["a", "b", "b"]
    measured_variants(variants, tmp_path / "out", {"seed": 1}, measure)
    assert calls[3:] == ["a", "b"], "other settings are another measurement"
    weights.write_bytes(b"second one")
    measured_variants(variants, tmp_path / "out", {"seed": 1}, measure)
    assert calls[5:] == ["a"], "other weights are another measurement"
    (stored,) = parse_variants([f"c={tmp_path}/out/b/headroom.json:bias"], "small")
    assert measured_variants((stored,), tmp_path, {}, measure)[stored]["frames"] == 7
    assert calls[5:] == ["a"]


def test_figures_without_the_mode_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "headroom.json"
    path.write_text(json.dumps(figures(BIAS)))
    (variant,) = parse_variants([f"a={path}"], "small")
    with pytest.raises(ValueError, match=r"found AQR off, bias, needed auto; name another with :MODE"):
        measured_variants((variant,), tmp_path, {}, lambda _: GATE)
    path.write_text("[]")
    with pytest.raises(ValueError, match="found no figures of a headroom measurement"):
        measured_variants((variant,), tmp_path, {}, lambda _: GATE)
