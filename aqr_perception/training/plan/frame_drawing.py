# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Drawing of simulated frames before they are needed, in several processes."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from aqr_perception.data.sequences import HISTORY_STEP
from aqr_perception.data.sources.simulated import SimulatedDataset
from aqr_perception.data.worker_errors import WorkerFailure, lost_worker


@dataclass(frozen=True)
class _Undrawn(Dataset["WorkerFailure | None"]):
    """The frames to draw; an error becomes a `WorkerFailure`."""

    data: SimulatedDataset
    indices: Sequence[int]
    history: int

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> "WorkerFailure | None":
        index = self.indices[position]
        try:
            _ = self.data[index]
            if self.history:
                self.data.earlier_frames(index, self.history, HISTORY_STEP)
        except Exception as error:
            return WorkerFailure.of(error)
        return None


def undrawn_frames(data: SimulatedDataset, history: int = 0) -> list[int]:
    """Return the indices of the frames that are not in the cache, or whose `history` earlier frames are not."""
    return [index for index in range(len(data)) if not data.is_stored(index, history, HISTORY_STEP)]


def draw_frames(data: SimulatedDataset, workers: int, history: int = 0) -> None:
    """Draw the frames of a data set that are not in its cache, with a progress bar; it may be interrupted and repeated.

    Args:
        data: data set with a cache.
        workers: number of processes; 0 for this one.
        history: number of earlier frames to draw with each, for models with memory.

    Raises:
        WorkerError: a frame cannot be drawn or stored; the message says why.
    """
    indices = undrawn_frames(data, history)
    loader: DataLoader[WorkerFailure | None] = DataLoader(
        _Undrawn(data, indices, history), batch_size=None, num_workers=workers, worker_init_fn=_ignore_interrupts
    )
    with tqdm(total=len(data), initial=len(data) - len(indices), desc="drawing", unit="frame") as bar:
        try:
            for failure in loader:
                if failure is not None:
                    raise failure.error()
                bar.update()
        except RuntimeError as error:
            if workers and "DataLoader worker" in str(error):
                raise lost_worker(error) from None
            raise


def _ignore_interrupts(_: int) -> None:
    """Leave Ctrl-C, which the terminal sends to all processes, to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
