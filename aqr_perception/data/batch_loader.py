"""Loading of training batches by worker processes.

Sample number n of a training and its augmentation are pure functions of the seed and n. A resumed training therefore
continues with the same samples, with any number of workers, and several processes together load the samples of one.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from aqr_perception.data.batch import Batch
from aqr_perception.data.sample_order import Draw, SampleOrder

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
class _DrawnSamples(Dataset[SampleT]):
    """A data set indexed by draws."""

    samples: TrainingSamples[SampleT]
    seed: int

    def __getitem__(self, draw: Draw) -> SampleT:
        return self.samples.sample(draw.sample, draw.rng(self.seed), draw.progress)


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
    """
    loader = DataLoader(
        _DrawnSamples(samples, order.seed),
        batch_sampler=_BatchSampler(order, start, batch_size, rank, processes, progress),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        # A separate generator, because the loader of a resumed training must not consume the model's random numbers.
        generator=torch.Generator().manual_seed(order.seed),
    )
    return iter(loader)


def _start_worker(_: int) -> None:
    # Signals reach the whole process group. The training process handles them, and its workers end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # OpenCV's threads would compete with the other workers.
    cv2.setNumThreads(0)
