# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The compiled attention inside windows equals that on gathered tokens."""

import pytest
import torch
from torch import Tensor

from aqr_perception.models.aqr import native_windows
from aqr_perception.models.aqr.gathered_windows import GatheredWindows
from aqr_perception.models.aqr.router import _attend_windows

HEADS, CHANNELS, QUERIES, TOKENS = 4, 24, 9, 60


def random_case(windows: int, width: int) -> tuple[Tensor, Tensor, Tensor, GatheredWindows]:
    random = torch.Generator().manual_seed(windows + width)
    projected = torch.randn(QUERIES, HEADS, CHANNELS, generator=random)
    keys, values = (torch.randn(TOKENS, CHANNELS, generator=random) for _ in range(2))
    inside = torch.rand(windows, width, generator=random) < 0.7
    inside[:, width // 2] = True  # a query's own cell
    near = torch.randint(TOKENS, (windows, width), generator=random)
    return projected, keys, values, GatheredWindows(torch.randint(QUERIES, (windows,), generator=random), near, inside)


@pytest.mark.parametrize(("windows", "width"), [(0, 9), (1, 1), (70, 9), (33, 25)])
def test_the_kernel_and_gathered_tokens_agree(windows: int, width: int) -> None:
    case = random_case(windows, width)
    if not native_windows.supports(*case[:3]):
        pytest.skip("needs a C++ compiler")
    for found, expected in zip(native_windows.attend(*case), _attend_windows(*case), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_large_scores_stay_finite() -> None:
    projected, keys, values, windows = random_case(8, 9)
    if not native_windows.supports(projected, keys, values):
        pytest.skip("needs a C++ compiler")
    sums, log_sum_exp = native_windows.attend(1e4 * projected, keys, values, windows)
    assert sums.isfinite().all() and log_sum_exp.isfinite().all()


def test_tensors_that_need_gradients_or_are_not_float32_are_left_to_torch() -> None:
    projected, keys, values, _ = random_case(1, 1)
    assert not native_windows.supports(projected.requires_grad_(), keys, values)
    assert not native_windows.supports(projected.detach().bfloat16(), keys, values)
    with torch.no_grad():
        assert native_windows.supports(projected, keys, values) == native_windows.supports(keys, values)
