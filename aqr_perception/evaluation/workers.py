"""An examination shared among processes."""

import multiprocessing
import pickle
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import torch

from aqr_perception.evaluation.examination import Answers, Examination

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


def _start(content: bytes) -> None:
    global _examination
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, without a traceback of its own
    torch.set_num_threads(1)
    _examination = pickle.loads(content)


def _answers(index: int) -> Answers:
    return _examination(index)
