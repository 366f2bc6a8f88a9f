# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Trainings of plans without training."""

import os

import pytest
from helpers.small_plan import StandInTrainings, unchecked

from aqr_perception.training.plan import plan_run, single_training


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> StandInTrainings:
    """Trainings, checks and pictures of plans in milliseconds."""
    trainings = StandInTrainings()
    monkeypatch.setattr(os, "fsync", lambda _: None)  # it takes most of the time
    monkeypatch.setattr(single_training, "run_training", trainings.run)
    monkeypatch.setattr(plan_run, "check_plan", unchecked)
    monkeypatch.setattr("aqr_perception.training.plan.plan_card.write_picture", lambda *_: None)
    return trainings
