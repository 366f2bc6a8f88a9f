"""Labelled frames, made ready for training: objects that nothing shows left out, augmented, corrupted on purpose."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from aqr_perception.frame import LabelledFrame
from aqr_perception.models.presets import Preset
from aqr_perception.training.augmentation import BevAugmentation, ImageAugmentation
from aqr_perception.training.corruption import corrupt
from aqr_perception.training.gridmask import GridMask
from aqr_perception.training.health_motion import follow
from aqr_perception.training.sample import HealthyFrame

LEAST_VISIBLE = 0.15
"""An object without LiDAR points that no camera shows a larger share of is nobody's to find."""


class LabelledFrames(Protocol):
    """A data set of labelled frames."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledFrame: ...


@dataclass(frozen=True)
class TrainingFrames:
    """A data set as `loop.train` wants it.

    Attributes:
        data: what is seen.
        preset: of the model that sees it.
        augment: whether pictures, points and boxes are moved about at random.
        corrupted: whether sensors are made to fail on purpose.
        grid_mask: whether pictures are masked, the more often the further the training is.
    """

    data: LabelledFrames
    preset: Preset
    augment: bool = True
    corrupted: bool = True
    grid_mask: bool = True

    def __len__(self) -> int:
        return len(self.data)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> HealthyFrame:
        """Return a frame as the training sees it; see `stream.Samples`."""
        labelled = seen(self.data[index])
        # Sensors fail in the real scene; what augmentation makes of it comes after.
        frame = corrupt(labelled, rng) if self.corrupted else HealthyFrame(labelled)
        labelled = frame.labelled
        if self.augment:
            if self.preset.image is not None:
                labelled = ImageAugmentation(self.preset.image.size)(labelled, rng)
            labelled = BevAugmentation()(labelled, rng)
        if self.grid_mask and self.preset.image is not None:
            labelled = GridMask()(labelled, progress, rng)
        return follow(frame, labelled)


def each(frames: LabelledFrames) -> Iterator[LabelledFrame]:
    """Yield a data set's frames in order."""
    return (frames[index] for index in range(len(frames)))


def seen(labelled: LabelledFrame) -> LabelledFrame:
    """Return the frame without the objects that none of its sensors shows."""
    truth = labelled.truth
    visible = truth.visibility.max(axis=1, initial=0.0) >= LEAST_VISIBLE
    return replace(labelled, truth=truth.keep((truth.lidar_points > 0) | visible))
