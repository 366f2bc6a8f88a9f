# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A perception node in a process of its own, and what it takes of memory and CPU."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_STOP_SECONDS = 20.0
_GROUPS = {
    "aqr_health": "health",
    "aqr_worker": "worker",
    "aqr_build": "building",
    "aqr_publish": "publishing",
    "aqr_decode": "decoding",
    "aqr_pictures": "pictures",
}
_DDS = "dds."


class NodeProcess:
    """A running node.

    Args:
        log: file of the node's output, named in errors.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process, self._log = process, log
        self._folder = Path("/proc") / str(process.pid)

    def check(self) -> None:
        """Raise a ValueError if the node has ended."""
        if self._process.poll() is not None:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise ValueError(f"the node exited with status {self._process.returncode}: {''.join(last)}")

    def resident_mb(self) -> float:
        """Return the resident memory in MB (10^6 bytes)."""
        pages = int((self._folder / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def threads(self) -> int:
        return sum(1 for _ in (self._folder / "task").iterdir())

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time since the start by group of threads.

        ``callbacks`` is the main thread, which receives messages, and ``dds`` those of the middleware. ``others``
        compute the model together with ``worker``.
        """
        seconds = dict.fromkeys(("callbacks", "dds", *_GROUPS.values(), "others"), 0.0)
        for task in (self._folder / "task").iterdir():
            with suppress(OSError):  # the thread ended
                name = (task / "comm").read_text().strip()
                group = "dds" if name.startswith(_DDS) else _GROUPS.get(name, "others")
                if int(task.name) == self._process.pid:
                    group = "callbacks"
                seconds[group] += int((task / "schedstat").read_text().split()[0]) / 1e9
        return seconds


@contextmanager
def running_node(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[NodeProcess]:
    """Run ``perception_node`` with arguments; end it with SIGINT.

    Raises:
        ValueError: the node is not installed.
    """
    command = "perception_node"
    if shutil.which(command) is None:
        raise ValueError(f"found no {command} on the path; build the package and source its setup file")
    with log.open("wb") as output:
        # A new process session: Ctrl-C reaches only this process, which then stops the node.
        process = subprocess.Popen(
            [command, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        yield NodeProcess(process, log)
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a node with SIGINT, as Ctrl-C does; kill it if it does not end in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
