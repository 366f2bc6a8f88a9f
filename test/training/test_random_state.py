# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Global random number generators: seeding, saving and restoring."""

import random

import numpy as np
import torch

from aqr_perception.training.random_state import random_state, restore_random_state, seed_generators


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_all_generators_continue_from_a_restored_state() -> None:
    seed_generators(3)
    # NumPy and Python keep the second of two normal numbers for later.
    np.random.randn()
    random.gauss(0, 1)
    state = random_state()
    expected = draw()
    restore_random_state(state)
    assert draw() == expected


def test_the_same_seed_gives_the_same_numbers() -> None:
    drawn = []
    for seed in (3, 3, 4):
        seed_generators(seed)
        drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))
