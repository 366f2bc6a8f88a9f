"""Ways to compute the same, timed by turns, so that all of them see the same machine."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from tqdm import tqdm


def median_milliseconds(ways: Mapping[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Return the median wall time of each way; one turn before them, which may compile, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for way in ways.values():
            way()
        for _ in tqdm(range(repeats), desc="time", leave=False):
            for name, way in ways.items():
                _wait(device)
                start = time.perf_counter()
                way()
                _wait(device)
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(spent) for name, spent in seconds.items()}


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
