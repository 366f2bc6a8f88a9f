# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The fused kernel on a CUDA device, or in Triton's interpreter without one."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernel is made
pytest.importorskip("triton", reason="needs Triton, which comes with PyTorch's CUDA builds: pip install triton")

from helpers.deformable_attention_inputs import SHAPES, attend_by_loops, random_inputs

from aqr_perception.models.bevformer.deformable_attention import level_table
from aqr_perception.models.bevformer.fused_attention import attend_fused

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_it_equals_a_plain_loop_where_queries_do_not_fill_a_block() -> None:
    values, places, weights = random_inputs(queries=37)
    found = attend_fused(*(tensor.to(DEVICE) for tensor in (values, level_table(SHAPES, "cpu"), places, weights)))
    torch.testing.assert_close(found.cpu(), attend_by_loops(values, places, weights), atol=1e-5, rtol=1e-5)


def test_places_outside_the_map_give_zeros_at_any_distance() -> None:
    values, places, weights = (tensor.to(DEVICE) for tensor in random_inputs())
    for far in (3.0, -1e6, 1e30):
        assert not attend_fused(values, level_table(SHAPES, DEVICE), torch.full_like(places, far), weights).any()


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_all_implementations_on_cuda_agree() -> None:
    from aqr_perception.models.bevformer.deformable_attention import attend

    values, places, weights = random_inputs()
    found = attend(values.cuda(), SHAPES, places.cuda(), weights.cuda())
    torch.testing.assert_close(found.cpu(), attend(values, SHAPES, places, weights), atol=1e-5, rtol=1e-5)
