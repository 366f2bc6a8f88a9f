# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Bags spread over the machines of a Ray cluster."""

import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aqr_perception.nodes.parameters.parameter_files import one_line
from aqr_perception.offline.bag_run import BagJob, BagOutcome
from aqr_perception.offline.fleet import Listener, outcome_of
from aqr_perception.offline.offline_error import OfflineError
from aqr_perception.offline.ray_board import ProgressBoard

LOCAL = "local"
"""Address that starts a Ray of this machine alone."""

_POLL = 0.5
_PATIENCE = 5.0
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
    # Ray lets workers import from the folder of the connection before all others, and starts its own processes there.
    with tempfile.TemporaryDirectory(prefix="aqr_perception_ray.") as empty:
        try:
            _check_reachable(address)
            _connect(ray, address, empty)
        except Exception as error:  # Ray's errors have no common type
            raise OfflineError(
                f"--ray {address}: found no Ray cluster ({one_line(error)}), needed one; start it with `ray start "
                f"--head`, or give --ray {LOCAL} for this machine alone"
            ) from error
        try:
            yield from _outcomes(ray, jobs, cpus, gpus, listener)
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing answers at HOST:PORT: Ray itself would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


def _connect(ray: Any, address: str, folder: str) -> None:
    """Connect with a cluster from a folder."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        options = {"include_dashboard": False} if address == LOCAL else {}
        ray.init(address=address, logging_level=logging.ERROR, **options)
    finally:
        os.chdir(here)


def _outcomes(ray: Any, jobs: Sequence[BagJob], cpus: int, gpus: float, listener: Listener) -> Iterator[BagOutcome]:
    board = ray.remote(num_cpus=0)(ProgressBoard).remote()
    # A task that a machine took down with it is started again elsewhere: its bag goes on where it was.
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(_work)
    tasks = {remote.remote(number, job, str(Path.cwd()), cpus, board): number for number, job in enumerate(jobs)}
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


def _work(number: int, job: BagJob, folder: str, cpus: int, board: Any) -> BagOutcome:
    import time

    import torch

    torch.set_num_threads(max(1, cpus))
    with suppress(OSError):  # relative paths in parameters are those of the command's folder
        os.chdir(folder)
    last = 0.0

    def progress(seconds: float, frames: int) -> None:
        nonlocal last
        if time.monotonic() - last > _POLL:
            last = time.monotonic()
            board.put.remote(number, seconds, frames)

    return outcome_of(job, progress)
