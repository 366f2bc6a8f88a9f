# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Messages on weights that do not fit: single keys while they are few, groups of keys when they are many."""

import pytest
import torch
from helpers.preset_weights import published
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.models.weights.fitting import differences, grouped


def test_few_keys_are_listed_one_by_one() -> None:
    keys = [f"pts_bbox_head.layer.{number}" for number in range(10)]
    assert grouped(keys) == keys


def test_many_keys_of_one_part_are_one_line() -> None:
    keys = [f"pts_bbox_head.router.{name}.{kind}" for name in "abcdefghi" for kind in ("weight", "bias")]
    assert grouped(keys) == ["18 keys under pts_bbox_head.router.* (a.weight, a.bias, ...)"]


def test_groups_follow_the_parts_of_a_model() -> None:
    keys = list(published("cmt_voxel0100_r50_800x320"))
    lines = grouped(keys)
    parts = ("img_backbone", "img_neck", "pts_middle_encoder", "pts_backbone", "pts_neck", "pts_bbox_head")
    assert all(any(f"under {part}." in line for line in lines) for part in parts)
    assert len(lines) == len(parts) and sum(int(line.split()[0]) for line in lines) == len(keys)


def test_a_single_key_beside_a_group_is_named_whole() -> None:
    keys = [f"a.b.{number}.weight" for number in range(20)] + ["c.kernel"]
    assert grouped(keys)[-1] == "c.kernel"


@given(st.lists(st.text("ab.", min_size=1, max_size=6), unique=True, min_size=11, max_size=40))
def test_every_key_is_counted_once_and_lines_stay_few(keys: list[str]) -> None:
    lines = grouped(keys)
    counts = [int(line.split()[0]) if " keys" in line else 1 for line in lines]
    assert sum(counts) == len(keys) and len(lines) <= 9


def test_many_misfits_are_groups_with_an_example() -> None:
    expected = {f"head.layer{number}.weight": torch.zeros(2, 3) for number in range(30)}
    lines = differences({key: torch.zeros(4, 3) for key in expected}, expected).lines()
    assert lines == ["misfit: 30 keys under head.*, for example head.layer0.weight has shape [4, 3], needed [2, 3]"]


@pytest.mark.parametrize("count", [10, 11, 5000])
def test_keys_without_parts_are_still_few_lines(count: int) -> None:
    assert len(grouped([f"weight{number}" for number in range(count)])) <= 10
