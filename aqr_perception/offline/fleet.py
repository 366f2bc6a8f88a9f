# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bags one after the other, or side by side in worker processes."""

import multiprocessing
import os
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import SimpleQueue
from typing import Protocol

from aqr_perception.nodes.parameters.parameter_files import one_line
from aqr_perception.offline.bag_run import BagJob, BagOutcome, Progress, process_bag

_POLL = 0.2
_SPAWN = multiprocessing.get_context("spawn")
"""A forked process hangs if its parent used several threads or CUDA."""

_LOST = (
    "the worker process ended without a word; a process without memory is killed like this: give fewer --workers, and "
    "run again to go on"
)

ProgressEvent = tuple[int, float, int]
"""Number of a job, seconds of its bag that are done, and number of answered frames."""


class Listener(Protocol):
    """Takes the progress of the jobs."""

    def __call__(self, job: int, seconds: float, frames: int) -> object: ...


def outcome_of(job: BagJob, progress: Progress) -> BagOutcome:
    """Process a bag; an error becomes part of the outcome, so that other bags go on."""
    try:
        return process_bag(job, progress)
    except (ValueError, OSError) as error:
        return BagOutcome(job.bag, error=one_line(error))
    except Exception as error:  # whatever a bag does, the others go on
        place = traceback.extract_tb(error.__traceback__)[-1]
        found = f"unexpected {type(error).__name__} in {os.path.basename(place.filename)}:{place.lineno}"
        return BagOutcome(job.bag, error=f"{job.bag}: {found}: {one_line(error)}; report this as a bug")


def in_turn(jobs: Sequence[BagJob], listener: Listener) -> Iterator[BagOutcome]:
    """Yield the outcome of each job, processed in this process."""
    for number, job in enumerate(jobs):
        yield outcome_of(job, lambda seconds, frames, number=number: listener(number, seconds, frames))  # type: ignore[misc]


def side_by_side(jobs: Sequence[BagJob], workers: int, listener: Listener) -> Iterator[BagOutcome]:
    """Yield the outcome of each job as it ends, from several processes, which share the cores.

    A worker that is killed costs the bags in progress; the others are processed by new workers.
    """
    waiting = dict(enumerate(jobs))
    while waiting:
        events: SimpleQueue[ProgressEvent] = _SPAWN.SimpleQueue()
        threads = max(1, len(os.sched_getaffinity(0)) // workers)
        pool = ProcessPoolExecutor(min(workers, len(waiting)), _SPAWN, _start_worker, (events, threads))
        begun: set[int] = set()
        try:
            futures = {pool.submit(_work, number, job): number for number, job in waiting.items()}
            yield from _outcomes(futures, waiting, begun, events, listener)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        lost = begun & waiting.keys() or set(list(waiting)[:1])
        for number in sorted(lost) if waiting else ():
            job = waiting.pop(number)
            yield BagOutcome(job.bag, error=f"{job.bag}: {_LOST}")


def _outcomes(
    futures: "dict[Future[BagOutcome], int]",
    waiting: dict[int, BagJob],
    begun: set[int],
    events: "SimpleQueue[ProgressEvent]",
    listener: Listener,
) -> Iterator[BagOutcome]:
    """Yield outcomes until all are there or the pool breaks; remove their jobs from `waiting`."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, _POLL, FIRST_COMPLETED)
        while not events.empty():
            number, seconds, frames = events.get()
            begun.add(number)
            listener(number, seconds, frames)
        for future in done:
            try:
                outcome = future.result()
            except BrokenProcessPool:
                continue
            del waiting[futures[future]]
            yield outcome


_events: "SimpleQueue[ProgressEvent]"
"""Set in worker processes only, by `_start_worker`."""


def _start_worker(events: "SimpleQueue[ProgressEvent]", threads: int) -> None:
    global _events
    import logging
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent process reports the interrupt
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    torch.set_num_threads(threads)
    _events = events


def _work(number: int, job: BagJob) -> BagOutcome:
    _events.put((number, 0.0, 0))
    return outcome_of(job, lambda seconds, frames: _events.put((number, seconds, frames)))
