"""Labelled frames, made ready for training: objects that nothing shows left out, augmented, corrupted on purpose."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from aqr_perception.data.augmentation import BevAugmentation, ImageAugmentation
from aqr_perception.data.batch import FrameWithHealth
from aqr_perception.data.corruption.health_motion import follow
from aqr_perception.data.corruption.random_corruption import corrupt, with_points, with_views
from aqr_perception.data.gridmask import GridMask
from aqr_perception.frame import LabelledFrame
from aqr_perception.models.config.presets import Preset

LEAST_VISIBLE = 0.15
"""An object without LiDAR points that no camera shows a larger share of is nobody's to find."""


class LabelledFrames(Protocol):
    """A data set of labelled frames."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledFrame: ...


@runtime_checkable
class LabelledDrives(LabelledFrames, Protocol):
    """A data set of labelled frames that also has what was seen before them."""

    def before(self, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
        """Return frames of the same drive, oldest first: those 1 .. count steps before a frame.

        There are fewer at the start of a drive.

        Args:
            index: of the frame.
            count: how many at most.
            step: seconds between two of them.
        """
        ...


@dataclass(frozen=True)
class TrainingFrames:
    """A data set as `loop.train` wants it.

    Attributes:
        data: what is seen.
        preset: of the model that sees it.
        augment: whether pictures, points and boxes are moved about at random.
        corrupted: whether sensors are made to fail on purpose.
        grid_mask: whether pictures are masked, the more often the further the training is.
        cameras, lidar: whether those of the model are shown to it.
    """

    data: LabelledFrames
    preset: Preset
    augment: bool = True
    corrupted: bool = True
    grid_mask: bool = True
    cameras: bool = True
    lidar: bool = True

    def __len__(self) -> int:
        return len(self.data)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> FrameWithHealth:
        """Return a frame as the training sees it; see `stream.Samples`."""
        return self.prepared(self.data[index], rng, rng, progress)

    def prepared(
        self,
        labelled: LabelledFrame,
        faults: np.random.Generator,
        changes: np.random.Generator,
        progress: float,
        earlier: LabelledFrame | None = None,
    ) -> FrameWithHealth:
        """Return a frame as the training sees it.

        Args:
            labelled: as the data set has it.
            faults: draws what fails.
            changes: draws the augmentation.
            progress: of the training, 0..1.
            earlier: a frame of the same drive from which frozen pictures come.
        """
        labelled = seen(self._sensed(labelled))
        # Sensors fail in the real scene; what augmentation makes of it comes after.
        frame = corrupt(labelled, faults, earlier) if self.corrupted else FrameWithHealth(labelled)
        labelled = frame.labelled
        if self.augment:
            if self.preset.image is not None:
                labelled = ImageAugmentation(self.preset.image.size)(labelled, changes)
            labelled = BevAugmentation()(labelled, changes)
        if self.grid_mask and self.preset.image is not None:
            labelled = GridMask()(labelled, progress, changes)
        return follow(frame, labelled)

    def _sensed(self, labelled: LabelledFrame) -> LabelledFrame:
        """Return the frame with the sensors that are shown to the model alone: at least one of those is left to see."""
        if self.preset.points is None or not self.lidar:
            labelled = with_points(labelled, None)
        if self.preset.image is None or not self.cameras:
            labelled = with_views(labelled, ())
        return labelled


def before(frames: LabelledFrames, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
    """Return `LabelledDrives.before`; nothing for a data set of single frames."""
    return frames.before(index, count, step) if isinstance(frames, LabelledDrives) else ()


def seen(labelled: LabelledFrame) -> LabelledFrame:
    """Return the frame without the objects that none of its sensors shows."""
    truth = labelled.truth
    visible = truth.visibility.max(axis=1, initial=0.0) >= LEAST_VISIBLE
    return replace(labelled, truth=truth.keep((truth.lidar_points > 0) | visible))
