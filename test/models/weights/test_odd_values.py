# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Odd values of weights, by kind and key."""

import torch

from aqr_perception.models.weights.odd_values import odd_values


def test_each_kind_of_odd_values_is_listed_by_key() -> None:
    weights = {
        "nan": torch.tensor([1.0, float("nan")]),
        "inf": torch.tensor([1.0, float("-inf")]),
        "both": torch.tensor([float("nan"), float("inf")]),
        "zero": torch.zeros(3),
        "ones": torch.ones(3),
        "empty": torch.zeros(0),
        "norm.running_var": torch.tensor([1.0, 0.0]),
        "norm.num_batches_tracked": torch.tensor(0),
    }
    assert odd_values(weights) == {
        "NaN": ["nan", "both"],
        "infinite": ["inf", "both"],
        "all zero": ["zero"],
        "constant": ["ones"],
        "empty": ["empty"],
        "running_var 0 or less": ["norm.running_var"],
        "num_batches_tracked 0": ["norm.num_batches_tracked"],
    }


def test_usual_values_are_not_odd() -> None:
    weights = {
        "weight": torch.randn(3, 3),
        "scalar": torch.tensor(2.5),
        "indices": torch.zeros(4, dtype=torch.int64),
        "half": torch.randn(5).half(),
        "generator.gaussian_weights": torch.ones(64),
        "norm.running_var": torch.tensor([0.1, 2.0]),
        "norm.num_batches_tracked": torch.tensor(100),
    }
    assert odd_values(weights) == {}
