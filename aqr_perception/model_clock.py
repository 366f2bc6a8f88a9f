# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Wall time of a model's stages."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

from aqr_perception.models.ops.side_by_side import run_all

ResultT = TypeVar("ResultT")


class ModelClock:
    """Wall time by stage; waits for the device at the end of each stage, whose time includes the device's work.

    Attributes:
        seconds: stage -> wall time; their sum is the time of all.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def stages(self, work: Mapping[str, Callable[[], ResultT]]) -> list[ResultT]:
        """Run stages by name, and return their results; `side_by_side` says whether several run at once.

        Stages at once share their wall time in proportion to what each took.
        """
        own, start = ModelClock(self._device), time.perf_counter()

        def measured(name: str) -> ResultT:
            with own.stage(name):
                return work[name]()

        results = run_all([partial(measured, name) for name in work])
        share = (time.perf_counter() - start) / max(sum(own.seconds.values()), 1e-9)
        self.seconds |= {name: share * own.seconds[name] for name in work}
        return results
