# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tasks side by side on a CPU, each in one thread: small operations gain little from being shared among threads."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TypeVar, cast

import torch

from aqr_perception.models.ops.threads import one_thread

ResultT = TypeVar("ResultT")
OtherT = TypeVar("OtherT")

_MOST = 4
"""Most threads: tasks of a frame are few, and the longest one alone takes a third of the time of all."""

_helpers: ContextVar[int] = ContextVar("threads besides the caller's", default=0)


@contextmanager
def side_by_side(enabled: bool) -> Iterator[None]:
    """Let `run_all` inside run tasks side by side; everything else inside runs in the calling thread.

    There are as many threads as PyTorch has, but at most four.

    Args:
        enabled: false changes nothing: tasks run one after another, in all threads.
    """
    helpers = min(torch.get_num_threads(), _MOST) - 1
    if not enabled or helpers < 1 or torch.is_grad_enabled():
        yield
        return
    before = _helpers.set(helpers)
    try:
        with one_thread(True):
            yield
    finally:
        _helpers.reset(before)


def run_all(tasks: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
    """Return the results of tasks in their order; inside `side_by_side`, several tasks run at once.

    The calling thread takes tasks, too, and so does every helper that has nothing to do. Tasks may therefore call this
    function themselves: their tasks run in the same threads.

    Raises:
        Exception: the first one of a task in their order, after all tasks have ended.
    """
    helpers = min(_helpers.get(), len(tasks) - 1)
    if helpers < 1:
        return [task() for task in tasks]
    futures: list[Future[ResultT]] = [Future() for _ in tasks]
    left = deque(zip(futures, tasks, strict=True))

    def work() -> None:
        while True:
            try:
                future, task = left.popleft()
            except IndexError:
                return
            try:
                future.set_result(task())
            except BaseException as error:  # the caller raises it
                future.set_exception(error)

    helping = _as_here(work)
    for _ in range(helpers):
        _threads(_helpers.get()).submit(copy_context().run, helping)  # one context cannot be entered twice at once
    work()
    wait(futures)
    return [future.result() for future in futures]


def run_both(first: Callable[[], ResultT], second: Callable[[], OtherT]) -> tuple[ResultT, OtherT]:
    """Return the results of two tasks; see `run_all`."""
    tasks: list[Callable[[], object]] = [first, second]
    results = run_all(tasks)
    return cast(tuple[ResultT, OtherT], tuple(results))


def _as_here(work: Callable[[], None]) -> Callable[[], None]:
    """Return a function that does the work in another thread, with this thread's modes of torch."""
    inference = torch.is_inference_mode_enabled()
    casts, number_format = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def run() -> None:
        autocast = torch.autocast("cpu", number_format, enabled=casts)
        with torch.inference_mode(inference), autocast, one_thread(True):
            work()

    return run


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="side_by_side")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a child process has no threads but its first
