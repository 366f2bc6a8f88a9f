"""Worker processes that share the frames of an evaluation."""

import multiprocessing
import pickle
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import torch

from aqr_perception.evaluation.frame_evaluator import FrameEvaluator, FrameResult

_evaluator: FrameEvaluator
"""Set in worker processes only, by `_start_frame_worker`."""


def evaluate_frames(evaluator: FrameEvaluator, workers: int) -> Iterator[FrameResult]:
    """Yield the result of every frame, in order.

    A single worker is this process, with all of PyTorch's threads. Several workers are processes with one thread each.
    Results are the same, apart from rounding, which depends on the number of threads.

    Args:
        workers: number of processes. Several need an evaluator that can be pickled.
    """
    count = len(evaluator.frames)
    if workers == 1:
        yield from map(evaluator, range(count))
        return
    # Plain pickle, because torch's pickling uses shared memory, which may be small in a container.
    content = pickle.dumps(evaluator)
    with ProcessPoolExecutor(min(workers, count), _SPAWN, _start_frame_worker, (content,)) as pool:
        yield from pool.map(_evaluate_frame, range(count))


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of new processes, which end at once on an interrupt."""
    return ProcessPoolExecutor(workers, _SPAWN, end_on_interrupt)


def end_on_interrupt() -> None:
    """Let SIGINT end this worker without a traceback; the parent process reports the interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# A forked process hangs if its parent used several threads or CUDA.
_SPAWN = multiprocessing.get_context("spawn")


def _start_frame_worker(content: bytes) -> None:
    global _evaluator
    end_on_interrupt()
    torch.set_num_threads(1)
    _evaluator = pickle.loads(content)


def _evaluate_frame(index: int) -> FrameResult:
    return _evaluator(index)
