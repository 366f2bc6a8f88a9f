# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Short sequences of labelled frames, for models with memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aqr_perception.data.batch import Batch, collate
from aqr_perception.data.frames import TrainingFrames, earlier_frames
from aqr_perception.data.health import FrameWithHealth
from aqr_perception.models.config.presets import Preset

HISTORY_FRAMES = 2
"""Number of earlier frames in training and evaluation of models with memory."""
HISTORY_STEP = 0.5
"""Seconds between two frames of a sequence, as between nuScenes' keyframes."""

_LASTING_SHARE = 0.5
"""Share of the sequences with a lasting fault; in the others, each frame draws its own faults."""

SampleSequence = tuple[FrameWithHealth, ...]
"""Frames of one drive, oldest first; the objects of the last one are the training targets."""


@dataclass(frozen=True)
class TrainingSequences:
    """Short sequences prepared for the training of a model; see `batch_loader.TrainingSamples`.

    All frames of a sequence get the same augmentation, which keeps the motion of vehicle and objects consistent.

    Attributes:
        frames: the single frames, with their augmentation and corruption.
        history: maximum number of frames before the labelled one; 0 makes sequences of one, equal to `frames`' samples.
    """

    frames: TrainingFrames
    history: int = HISTORY_FRAMES

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> SampleSequence:
        """Return a sequence, shorter at the start of a drive; see `batch_loader.TrainingSamples`."""
        if self.history == 0:
            return (self.frames.sample(index, rng, progress),)
        data = self.frames.data
        drive = (*earlier_frames(data, index, self.history, HISTORY_STEP), data[index])
        lasting = rng.random() < _LASTING_SHARE
        augmentation_seed, *fault_seeds = rng.integers(2**63, size=1 + len(drive))
        if lasting:
            fault_seeds = fault_seeds[:1] * len(drive)
        return tuple(
            self.frames.prepare(
                labelled, np.random.default_rng(fault_seed), np.random.default_rng(augmentation_seed), progress, earlier
            )
            for labelled, fault_seed, earlier in zip(drive, fault_seeds, (None, *drive[:-1]), strict=True)
        )


def collate_sequences(samples: Sequence[SampleSequence], preset: Preset) -> Batch:
    """Return a batch of the sequences' last frames; its history is as long as the shortest sequence allows."""
    shortest = min(map(len, samples))
    *earlier, last = (collate([sample[index] for sample in samples], preset) for index in range(-shortest, 0))
    return last._replace(history=tuple(earlier))
