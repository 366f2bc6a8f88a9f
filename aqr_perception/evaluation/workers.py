"""An examination, or other work, shared among processes."""

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

from aqr_perception.evaluation.examination import Answers, Examination

AskedT = TypeVar("AskedT")
ResultT = TypeVar("ResultT")

_examination: Examination
"""The worker process's own."""


def each_answers(examination: Examination, workers: int) -> Iterator[Answers]:
    """Yield the answers to every frame, in order.

    They do not depend on how many workers there are, but for what the last bits of sums owe to the number of threads:
    a single one works in this process with the threads that PyTorch has, of several each has one.

    Args:
        workers: processes. Several need an examination that can be pickled.
    """
    count = len(examination.frames)
    if workers == 1:
        yield from map(examination, range(count))
        return
    # Not torch's own way of pickling: it shares memory, of which a container may have little.
    content = pickle.dumps(examination)
    # A fork would hang where this process has used several threads, or CUDA.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, count), context, _start, (content,)) as pool:
        yield from pool.map(_answers, range(count))


def each_result(function: Callable[[AskedT], ResultT], asked: Iterable[AskedT], workers: int) -> Iterator[ResultT]:
    """Yield a function's results, in order; of several workers each has a share. All that is handed on is pickled."""
    if workers == 1:
        yield from map(function, asked)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_on_interrupt) as pool:
        yield from pool.map(function, asked)


def _start(content: bytes) -> None:
    global _examination
    _end_on_interrupt()
    torch.set_num_threads(1)
    _examination = pickle.loads(content)


def _end_on_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, without a traceback of its own


def _answers(index: int) -> Answers:
    return _examination(index)
