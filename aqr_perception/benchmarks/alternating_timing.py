# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Median wall times of several variants of a computation, measured in alternation."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from tqdm import tqdm


def median_milliseconds(variants: Mapping[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Return the median wall time of each variant in milliseconds, without a first round, which may compile."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    with torch.inference_mode():
        for compute in variants.values():
            compute()
        for _ in tqdm(range(repeats), desc="time", leave=False):
            for name, compute in variants.items():
                _synchronize(device)
                start = time.perf_counter()
                compute()
                _synchronize(device)
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
