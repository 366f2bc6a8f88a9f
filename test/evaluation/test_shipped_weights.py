"""The shipped weights do what the model card says: a fixed tiny evaluation, against figures recorded when they came."""

import json
from pathlib import Path

import pytest

from aqr_perception.data.sources.simulated import VALIDATION_SEEDS, SimulatedDataset
from aqr_perception.detector import Detector
from aqr_perception.evaluation import robustness
from aqr_perception.evaluation.scenarios import SCENARIOS
from aqr_perception.models.weights.shipped import choose_weights

FRAMES = 6
TOLERANCE = 0.02
"""Of mAP and NDS: processors round differently, and with so few objects one more or less found is a point."""
RECORDED = Path(__file__).with_name("shipped_weights.json")


@pytest.mark.slow
def test_the_shipped_weights_score_as_recorded() -> None:
    weights = choose_weights("aqr_tiny", None)
    assert weights.path is not None and weights.path.stat().st_size <= 20_000_000
    frames = SimulatedDataset(VALIDATION_SEEDS[:FRAMES])
    scenarios = {name: SCENARIOS[name] for name in (robustness.CLEAN, "LiDAR gone")}
    table = robustness.run(Detector("aqr_tiny"), frames, scenarios, ("auto",), progress=False)
    found = {row.scenario: {"mAP": row.scores.mean_ap, "NDS": row.scores.nds} for row in table.rows}
    for scenario, scores in json.loads(RECORDED.read_text()).items():
        assert found[scenario] == pytest.approx(scores, abs=TOLERANCE), f"{scenario}: {found}"
