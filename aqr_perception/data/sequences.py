"""Frames with what was seen before them, made ready for training models that remember."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aqr_perception.data.batch import Batch, FrameWithHealth, collate
from aqr_perception.data.frames import TrainingFrames, before
from aqr_perception.models.config.presets import Preset

HISTORY_FRAMES = 2
"""Frames before the labelled one that a model that remembers is trained and evaluated with."""
HISTORY_STEP = 0.5
"""Seconds between two of them, nuScenes' own."""

_LASTING = 0.5
"""Share of the sequences in which a fault lasts; in the others it comes and goes from frame to frame."""

SampleSequence = tuple[FrameWithHealth, ...]
"""One drive's frames, oldest first; the last one is the one whose objects are to be found."""


@dataclass(frozen=True)
class TrainingSequences:
    """A data set of short sequences as `loop.train` wants it.

    All frames of a sequence are augmented alike, so that vehicle and objects move on as they did.

    Attributes:
        frames: what is seen, and how it is augmented and corrupted.
        history: most frames before the labelled one; 0 makes sequences of one, the very same as `frames` gives.
        step: seconds between two frames.
    """

    frames: TrainingFrames
    history: int = HISTORY_FRAMES
    step: float = HISTORY_STEP

    def __len__(self) -> int:
        return len(self.frames)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> SampleSequence:
        """Return a sequence, shorter at the start of a drive; see `stream.Samples`."""
        if self.history == 0:
            return (self.frames.sample(index, rng, progress),)
        data = self.frames.data
        drive = (*before(data, index, self.history, self.step), data[index])
        lasting = rng.random() < _LASTING
        changes, *faults = rng.integers(2**63, size=1 + len(drive))
        if lasting:
            faults = faults[:1] * len(drive)
        return tuple(
            self.frames.prepared(
                labelled, np.random.default_rng(fault), np.random.default_rng(changes), progress, earlier
            )
            for labelled, fault, earlier in zip(drive, faults, (None, *drive[:-1]), strict=True)
        )


def collate_sequences(samples: Sequence[SampleSequence], preset: Preset) -> Batch:
    """Return a batch of the sequences' last frames with the frames before them, as many as every sequence has."""
    shortest = min(map(len, samples))
    *earlier, last = (collate([sample[place] for sample in samples], preset) for place in range(-shortest, 0))
    return last._replace(before=tuple(earlier))
