# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data sets without their bad frames (``--skip-bad``): each is named once, and counted."""

import logging
from collections.abc import Sequence

from tqdm import tqdm

from aqr_perception.data.frames import LabelledFrames, drive_of, earlier_frames
from aqr_perception.frame import LabelledFrame

_log = logging.getLogger(__name__)


class ChosenFrames:
    """Some frames of a data set, by index."""

    def __init__(self, frames: LabelledFrames, indices: Sequence[int]) -> None:
        self._frames, self._indices = frames, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> LabelledFrame:
        return self._frames[self._indices[index]]

    def drive_of(self, index: int) -> str:
        return drive_of(self._frames, self._indices[index])

    def earlier_frames(self, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
        return earlier_frames(self._frames, self._indices[index], count, step)


class GoodFrames:
    """A data set that gives the next readable frame in place of a bad one, for training.

    Raises (at access):
        ValueError, OSError: no frame at all is readable.
    """

    def __init__(self, frames: LabelledFrames) -> None:
        self._frames = frames
        self._bad: set[int] = set()

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> LabelledFrame:
        if not 0 <= index < len(self):
            raise IndexError(index)
        count = len(self)
        for step in range(count):
            place = (index + step) % count
            if place in self._bad:
                continue
            try:
                return self._frames[place]
            except (ValueError, OSError) as error:
                self._bad.add(place)
                _log.warning("left out, %d so far in this process: %s", len(self._bad), error)
        raise ValueError(f"found no readable frame among {count}, needed one; the warnings above name the first faults")

    def earlier_frames(self, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
        try:
            return earlier_frames(self._frames, index, count, step)
        except (ValueError, OSError) as error:
            _log.warning("the history of a frame is left out: %s", error)
            return ()


def readable(frames: LabelledFrames) -> list[int]:
    """Return the indices of the frames that can be read, and warn of the others.

    Raises:
        ValueError: no frame can be read.
    """
    kept = []
    for index in tqdm(range(len(frames)), desc="checking frames", unit="frame", leave=False):
        try:
            frames[index]
        except (ValueError, OSError) as error:
            _log.warning("left out: %s", error)
        else:
            kept.append(index)
    if not kept:
        raise ValueError(f"found no readable frame among {len(frames)}, needed one; the warnings above name the faults")
    if len(kept) < len(frames):
        _log.warning("%d of %d frames are left out", len(frames) - len(kept), len(frames))
    return kept
