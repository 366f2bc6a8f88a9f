# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scores of the shipped weights on six scenes, compared with recorded scores."""

import json
from pathlib import Path

import pytest

from aqr_perception.data.sources.catalogue import open_data
from aqr_perception.detector import Detector
from aqr_perception.evaluation import robustness
from aqr_perception.evaluation.scenarios import SCENARIOS
from aqr_perception.models.config.presets import load_preset
from aqr_perception.models.weights.shipped import choose_weights

FRAMES = 6
TOLERANCE = 0.02
"""In mAP and NDS. Rounding differs between processors; with so few objects, one detection changes a score by 0.01."""
RECORDED = Path(__file__).with_name("shipped_weights.json")


@pytest.mark.slow
def test_the_shipped_weights_score_as_recorded(tmp_path: Path) -> None:
    weights = choose_weights("aqr_tiny", None)
    assert weights.path is not None and weights.path.stat().st_size <= 20_000_000
    frames = open_data("synthetic", "val", load_preset("aqr_tiny"), tmp_path, FRAMES).frames
    scenarios = {name: SCENARIOS[name] for name in (robustness.CLEAN, "LiDAR gone")}
    table = robustness.run(Detector("aqr_tiny"), frames, scenarios, ("auto",), progress=False)
    scores = {row.scenario: {"mAP": row.scores.mean_ap, "NDS": row.scores.nds} for row in table.rows}
    for scenario, recorded in json.loads(RECORDED.read_text()).items():
        assert scores[scenario] == pytest.approx(recorded, abs=TOLERANCE), f"{scenario}: {scores}"
