# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Samples and their augmentation depend on the seed and the sample's number only."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import stand_in
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from aqr_perception.data.batch_loader import load_batches
from aqr_perception.data.sample_order import SampleOrder


def inputs(data: stand_in.Data, count: int, order: SampleOrder | None = None, **changed: int) -> Tensor:
    """Return the inputs of the first batches."""
    arguments = {"start": 0, "batch_size": 2, "workers": 0, **changed}
    order = order or SampleOrder(len(data), seed=5)
    found = load_batches(data, stand_in.collate, order, progress=lambda number: number / 1000, **arguments)
    images = [batch.images for batch in islice(found, count)]
    return torch.cat([image for image in images if image is not None])


def test_workers_do_not_change_the_samples() -> None:
    data = stand_in.Data()
    assert torch.equal(inputs(data, 8), inputs(data, 8, workers=2))


@given(length=st.integers(1, 12), start=st.integers(0, 30), seed=st.integers(0, 2**40))
def test_an_order_can_be_entered_at_any_sample(length: int, start: int, seed: int) -> None:
    whole = [SampleOrder(length, seed).draw(number) for number in range(start + 10)]
    late = SampleOrder(length, seed)
    assert [late.draw(number) for number in range(start, start + 10)] == whole[start:]


@given(length=st.integers(1, 20), seed=st.integers(0, 99))
def test_each_pass_has_every_sample_once(length: int, seed: int) -> None:
    order = SampleOrder(length, seed)
    for epoch in range(3):
        draws = [order.draw(epoch * length + place) for place in range(length)]
        assert sorted(draw.sample for draw in draws) == list(range(length))
        assert {draw.epoch for draw in draws} == {epoch}


def test_passes_differ_in_order_and_augmentation() -> None:
    order = SampleOrder(50, seed=0)
    first, second = ([order.draw(epoch * 50 + place).sample for place in range(50)] for epoch in range(2))
    assert first != second
    one = inputs(stand_in.Data(length=1), 3, batch_size=1)
    assert len({tuple(row) for row in one.tolist()}) == 3


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_load_the_batches_of_one_process(processes: int) -> None:
    data = stand_in.Data()
    alone = inputs(data, 3, batch_size=4)
    shares = [
        inputs(data, 3, batch_size=4 // processes, rank=rank, processes=processes).view(3, 4 // processes, 4)
        for rank in range(processes)
    ]
    assert torch.equal(torch.cat(shares, dim=1).flatten(0, 1), alone)


def test_a_period_repeats_the_same_samples() -> None:
    data = stand_in.Data()
    repeated = inputs(data, 4, SampleOrder(10, seed=5, period=2))
    assert torch.equal(repeated, inputs(data, 1).repeat(4, 1))


def test_balanced_passes_draw_rare_classes_as_often() -> None:
    labels: Sequence[set[int]] = [{0}] * 9 + [{7}]
    order = SampleOrder(10, seed=0, label_sets=labels)
    drawn = [order.draw(number).sample for number in range(10 * order.pass_length)]
    assert np.mean([sample == 9 for sample in drawn]) == pytest.approx(0.5, abs=0.1)


def test_repeats_of_a_sample_in_a_pass_differ_in_augmentation() -> None:
    data = stand_in.Data()
    order = SampleOrder(10, seed=0, label_sets=[{0}] * 9 + [{7}])
    rows = [tuple(row) for row in inputs(data, order.pass_length, order, batch_size=1).tolist()]
    assert len(set(rows)) == len(rows)


def test_an_order_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        SampleOrder(0, seed=0)
    with pytest.raises(ValueError, match="2 label sets were given for 3 samples"):
        SampleOrder(3, seed=0, label_sets=[{1}, {2}])


class FailingData(stand_in.Data):
    def sample(self, index: int, rng: np.random.Generator, progress: float) -> NDArray[np.float32]:
        raise LookupError("sample 3:\nfound no sweep")


_TRAINING = """
import sys
from test_batch_loader import FailingData
from aqr_perception.data.batch_loader import load_batches
from aqr_perception.data.sample_order import SampleOrder
from aqr_perception.data.worker_errors import WorkerError
def main():
    batches = load_batches(
        FailingData(), list, SampleOrder(8, 0), start=0, batch_size=1, workers=2, progress=lambda n: 0.0
    )
    try:
        next(batches)
    except WorkerError as error:
        print(error, flush=True)
        kept.append(error)  # with the traceback, and so with the loader, until the end of the process
        return 1
kept = []
sys.exit(main())
"""


@pytest.mark.slow
def test_an_error_in_a_worker_ends_the_process_with_one_line() -> None:
    folder = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, folder])}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _TRAINING], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("a worker process failed with LookupError: sample 3: found no sweep;")
    assert not done.stderr
    assert time.monotonic() - began < 45
