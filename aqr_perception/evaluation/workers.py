# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Worker processes that share the frames of an evaluation."""

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

import torch

from aqr_perception.data.frames import LabelledFrames
from aqr_perception.data.worker_errors import WorkerFailure, lost_worker

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
FoundT_co = TypeVar("FoundT_co", covariant=True)


class Evaluator(Protocol[FoundT_co]):
    """An evaluation of single, independent frames by their index; can be pickled."""

    @property
    def frames(self) -> LabelledFrames: ...

    def __call__(self, index: int) -> FoundT_co: ...


_evaluator: Evaluator[Any]
"""Set in worker processes only, by `_start_frame_worker`."""


def evaluate_frames(evaluator: Evaluator[ResultT], workers: int) -> Iterator[ResultT]:
    """Yield the result of every frame, in order.

    A single worker is this process, with all of PyTorch's threads. Several workers are processes with one thread each.
    Results are the same, apart from rounding, which depends on the number of threads.

    Args:
        workers: number of processes. Several need an evaluator that can be pickled.

    Raises:
        WorkerError: a worker process failed or ended; the other workers end at once, too.
    """
    count = len(evaluator.frames)
    if workers == 1:
        yield from map(evaluator, range(count))
        return
    # Plain pickle, because torch's pickling uses shared memory, which may be small in a container.
    content = pickle.dumps(evaluator)
    pool = ProcessPoolExecutor(min(workers, count), _SPAWN, _start_frame_worker, (content,))
    yield from _results(pool, _evaluate_frame, range(count))


def in_processes(function: Callable[[ItemT], ResultT], items: Iterable[ItemT], workers: int) -> Iterator[ResultT]:
    """Yield a function's results of all items, in order, from new processes, which end at once on an interrupt.

    Raises:
        WorkerError: as `evaluate_frames`.
    """
    yield from _results(ProcessPoolExecutor(workers, _SPAWN, end_on_interrupt), function, items)


def _results(
    pool: ProcessPoolExecutor, function: Callable[[ItemT], ResultT], items: Iterable[ItemT]
) -> Iterator[ResultT]:
    """Yield the results; on an error, end the processes without waiting for the items that they work on."""
    others = set(multiprocessing.active_children())
    with pool:
        try:
            for result in pool.map(_Caught(function), items):
                if isinstance(result, WorkerFailure):
                    raise result.error()
                yield result
        except BrokenProcessPool as error:
            raise lost_worker(error) from None
        except (ValueError, KeyboardInterrupt, GeneratorExit):
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise


class _Caught:
    """A function whose exceptions become `WorkerFailure`s."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, item: Any) -> Any:
        try:
            return self._function(item)
        except Exception as error:
            return WorkerFailure.of(error)


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


def _evaluate_frame(index: int) -> Any:
    return _evaluator(index)
