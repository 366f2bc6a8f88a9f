# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Derived tensors are recomputed exactly when their sources or their key change."""

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from aqr_perception.models.ops.derived_tensors import DerivedTensors


class Doubled:
    """Twice a linear layer's weight, with the number of computations."""

    def __init__(self) -> None:
        self.module = nn.Linear(2, 2)
        self.cache = DerivedTensors()
        self.computations = 0
        self.seconds = 0.0

    def get(self, key: object = None) -> Tensor:
        def compute() -> tuple[Tensor, ...]:
            self.computations += 1
            time.sleep(self.seconds)
            return (2 * self.module.weight,)

        (result,) = self.cache.get(self.module, (self.module.weight, None), compute, key)
        return result


CHANGES: dict[str, Callable[[nn.Linear], object]] = {
    "load_state_dict": lambda module: module.load_state_dict({"weight": torch.ones(2, 2), "bias": torch.zeros(2)}),
    "another precision": lambda module: module.double(),
    "write in place": lambda module: nn.init.constant_(module.weight, 2.0),
    "another parameter": lambda module: setattr(module, "weight", nn.Parameter(torch.zeros(2, 2))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_source_is_followed_by_one_computation(change: str) -> None:
    doubled = Doubled()
    assert doubled.get() is doubled.get() and doubled.computations == 1
    CHANGES[change](doubled.module)
    for _ in range(2):
        assert torch.equal(doubled.get(), 2 * doubled.module.weight)
        assert doubled.computations == 2


def test_results_carry_no_gradient() -> None:
    assert not Doubled().get().requires_grad


def test_another_key_or_a_dropped_entry_is_computed_again() -> None:
    doubled = Doubled()
    doubled.get(key=1), doubled.get(key=1)
    assert doubled.computations == 1
    doubled.get(key=2)
    assert doubled.computations == 2
    doubled.cache.drop(doubled.module)
    doubled.get(key=2)
    assert doubled.computations == 3


def test_new_weights_at_the_address_of_old_ones_are_not_mistaken_for_them() -> None:
    doubled = Doubled()
    for value in range(20):
        doubled.module.weight = nn.Parameter(torch.full((2, 2), float(value)))
        assert torch.equal(doubled.get(), 2 * doubled.module.weight)


def test_entries_are_freed_with_their_module() -> None:
    doubled = Doubled()
    result = weakref.ref(doubled.get())
    assert result() is not None
    doubled.module = nn.Linear(2, 2)
    gc.collect()
    assert result() is None


def test_modules_created_in_inference_mode_are_cached() -> None:
    with torch.inference_mode():
        doubled = Doubled()
        assert doubled.get() is doubled.get()


def test_threads_that_need_the_same_tensors_at_once_compute_them_once() -> None:
    doubled = Doubled()
    doubled.seconds = 0.05
    barrier = threading.Barrier(4, timeout=20.0)

    def get() -> None:
        barrier.wait()
        doubled.get()

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert doubled.computations == 1
