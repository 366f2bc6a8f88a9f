# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Benchmark of deformable attention."""

import json
from pathlib import Path

import pytest

from aqr_perception.benchmarks.deformable_time import DeformableCase
from aqr_perception.cli import main


def test_levels_have_strides_8_to_64() -> None:
    assert DeformableCase(image=(900, 1600)).levels == [(113, 200), (57, 100), (29, 50), (15, 25)]


def test_every_variant_is_compared_with_grid_sampling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    small = ["--queries", "20", "--image", "64", "96", "--device", "cpu", "--repeats", "1", "--json", str(file)]
    assert main(["benchmark", "deformable", *small]) == 0
    rows = {row["variant"]: row for row in json.loads(file.read_text())}
    assert set(rows) == {"grid sampling", "gathering"}
    assert rows["grid sampling"]["time_ratio"] == 1.0
    assert rows["gathering"]["time_ratio"] == pytest.approx(
        rows["gathering"]["median_ms"] / rows["grid sampling"]["median_ms"]
    )
    assert "gathering" in capsys.readouterr().out
