# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Loading of training batches by worker processes.

Sample number n of a training and its augmentation are pure functions of the seed and n. A resumed training therefore
continues with the same samples, with any number of workers, and several processes together load the samples of one.
"""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from aqr_perception.data.batch import Batch
from aqr_perception.data.sample_order import Draw, SampleOrder
from aqr_perception.data.worker_errors import WorkerFailure, lost_worker

SampleT = TypeVar("SampleT")
SampleT_co = TypeVar("SampleT_co", covariant=True)


class TrainingSamples(Protocol[SampleT_co]):
    """A data set whose samples are prepared for training."""

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> SampleT_co:
        """Return a sample, augmented and corrupted with the random numbers of `rng` only.

        Args:
            index: 0 <= index < len.
            rng: seeded for this sample of this epoch; the same in every run of the same training.
            progress: progress of the training in 0..1, for augmentation that grows with it.
        """
        ...


@dataclass(frozen=True)
class _BatchSampler(Sampler[list[Draw]]):
    """Endless sampler of one process's share of every batch, from a sample number on."""

    order: SampleOrder
    start: int
    batch_size: int
    rank: int
    processes: int
    progress: Callable[[int], float]

    def __iter__(self) -> Iterator[list[Draw]]:
        number = self.start
        while True:
            first = number + self.rank * self.batch_size
            progress = self.progress(number)
            yield [self.order.draw(first + i, progress) for i in range(self.batch_size)]
            number += self.batch_size * self.processes


@dataclass(frozen=True)
class _DrawnSamples(Dataset["SampleT | WorkerFailure"], Generic[SampleT]):
    """A data set indexed by draws. In a worker process, an error becomes a `WorkerFailure`."""

    samples: TrainingSamples[SampleT]
    seed: int
    in_worker: bool

    def __getitem__(self, draw: Draw) -> "SampleT | WorkerFailure":
        try:
            return self.samples.sample(draw.sample, draw.rng(self.seed), draw.progress)
        except Exception as error:
            if not self.in_worker:
                raise
            return WorkerFailure.of(error)


@dataclass(frozen=True)
class _Collation(Generic[SampleT]):
    """Collation of samples; a failure takes the place of its batch."""

    collate: Callable[[Sequence[SampleT]], Batch]
    in_worker: bool

    def __call__(self, samples: "Sequence[SampleT | WorkerFailure]") -> "Batch | WorkerFailure":
        good: list[SampleT] = []
        for sample in samples:
            if isinstance(sample, WorkerFailure):
                return sample
            good.append(sample)
        try:
            return self.collate(good)
        except Exception as error:
            if not self.in_worker:
                raise
            return WorkerFailure.of(error)


def load_batches(
    samples: TrainingSamples[SampleT],
    collate: Callable[[Sequence[SampleT]], Batch],
    order: SampleOrder,
    *,
    start: int,
    batch_size: int,
    workers: int,
    progress: Callable[[int], float],
    rank: int = 0,
    processes: int = 1,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Return one process's batches, endlessly.

    Args:
        samples: the data.
        collate: returns a batch of samples. With `workers`, worker processes call it.
        order: the order of the samples.
        start: number of the first sample, counted over all processes.
        batch_size: number of samples in this process's share of a batch.
        workers: number of processes that prepare batches ahead; 0 for none.
        progress: maps a sample number to the progress of the training.
        rank, processes: this process's share of each batch.
        pin_memory: pin tensors for a fast copy to a GPU.

    Raises (when a batch is taken):
        WorkerError: a worker process failed or ended; the message is one line. Without `workers`, errors come as they
            are.
    """
    loader = DataLoader(
        _DrawnSamples(samples, order.seed, workers > 0),
        batch_sampler=_BatchSampler(order, start, batch_size, rank, processes, progress),
        collate_fn=_Collation(collate, workers > 0),
        num_workers=workers,
        worker_init_fn=_WorkerStart(_process_ends, os.getpid()),
        pin_memory=pin_memory,
        # A separate generator, because the loader of a resumed training must not consume the model's random numbers.
        generator=torch.Generator().manual_seed(order.seed),
    )
    return _checked(iter(loader), workers)


def _checked(batches: "Iterator[Batch | WorkerFailure]", workers: int) -> Iterator[Batch]:
    while True:
        try:
            batch = next(batches)
        except RuntimeError as error:
            if workers and "DataLoader worker" in str(error):
                raise lost_worker(error) from None
            raise
        if isinstance(batch, WorkerFailure):
            raise batch.error()
        yield batch


_process_ends: Event = multiprocessing.Event()
"""Set when this process ends; its workers then obey SIGTERM."""
# Registered after multiprocessing's own function, so it is called before it: that one waits for the workers.
atexit.register(_process_ends.set)


@dataclass(frozen=True)
class _WorkerStart:
    """Preparation of a worker process.

    Signals reach the whole process group. The training process handles them, and its workers end with it.
    """

    process_ends: Event
    parent: int

    def __call__(self, _: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        # OpenCV's threads would compete with the other workers.
        cv2.setNumThreads(0)

    def _on_sigterm(self, *_: "int | FrameType | None") -> None:
        if self.process_ends.is_set() or os.getppid() != self.parent:
            os._exit(0)
