"""Bags spread over the machines of a Ray cluster."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from aqr_perception.nodes.parameter_files import one_line
from aqr_perception.offline.bag_run import BagJob, BagOutcome
from aqr_perception.offline.fleet import Listener, outcome_of
from aqr_perception.offline.offline_error import OfflineError

LOCAL = "local"
"""Address that starts a Ray of this machine alone."""

_POLL = 0.5
_NEED = "--ray needs Ray, which is not installed; run: pip install 'aqr_perception[ray]'"


def on_ray(jobs: Sequence[BagJob], address: str, cpus: int, gpus: float, listener: Listener) -> Iterator[BagOutcome]:
    """Yield the outcome of each job as it ends. Bags and output must have the same paths on all machines.

    Args:
        address: of the cluster, such as ``auto`` or ``ray://HOST:10001``; `LOCAL` starts one here.
        cpus, gpus: what one bag uses of a machine.

    Raises:
        OfflineError: Ray is not installed, or nothing answers at the address.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise OfflineError(_NEED) from error
    try:
        if address == LOCAL:
            ray.init(address=LOCAL, logging_level=logging.ERROR, include_dashboard=False)
        else:
            ray.init(address=address, logging_level=logging.ERROR)
    except Exception as error:  # Ray's errors have no common type
        raise OfflineError(
            f"--ray {address}: found no Ray cluster ({one_line(error)}), needed one; start it with `ray start --head`, "
            f"or give --ray {LOCAL} for this machine alone"
        ) from error
    try:
        yield from _outcomes(ray, jobs, cpus, gpus, listener)
    finally:
        ray.shutdown()


def _outcomes(ray: Any, jobs: Sequence[BagJob], cpus: int, gpus: float, listener: Listener) -> Iterator[BagOutcome]:
    board = ray.remote(num_cpus=0)(_Board).remote()
    # A task that a machine took down with it is started again elsewhere: its bag goes on where it was.
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(_work)
    tasks = {remote.remote(number, job, cpus, board): number for number, job in enumerate(jobs)}
    pending = list(tasks)
    while pending:
        done, pending = ray.wait(pending, timeout=_POLL)
        for number, (seconds, frames) in ray.get(board.take.remote()).items():
            listener(number, seconds, frames)
        for task in done:
            job = jobs[tasks[task]]
            try:
                yield ray.get(task)
            except Exception as error:  # a lost machine, or a package that a machine lacks
                yield BagOutcome(job.bag, error=f"{job.bag}: Ray lost it: {one_line(error)[:500]}; run again to go on")


class _Board:
    """The newest progress of each job."""

    def __init__(self) -> None:
        self._news: dict[int, tuple[float, int]] = {}

    def put(self, number: int, seconds: float, frames: int) -> None:
        self._news[number] = (seconds, frames)

    def take(self) -> dict[int, tuple[float, int]]:
        news, self._news = self._news, {}
        return news


def _work(number: int, job: BagJob, cpus: int, board: Any) -> BagOutcome:
    import time

    import torch

    torch.set_num_threads(max(1, cpus))
    last = 0.0

    def progress(seconds: float, frames: int) -> None:
        nonlocal last
        if time.monotonic() - last > _POLL:
            last = time.monotonic()
            board.put.remote(number, seconds, frames)

    return outcome_of(job, progress)
