# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data sets of labelled frames, and their preparation for training: filtering, corruption and augmentation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.augmentation import BevAugmentation, ImageAugmentation, PointAugmentation, mirror
from aqr_perception.data.corruption.changed_frame import with_points, with_views
from aqr_perception.data.corruption.health_transfer import transfer_health
from aqr_perception.data.corruption.random_corruption import corrupt
from aqr_perception.data.corruption.sensor_failures import without_broken_sensors
from aqr_perception.data.gridmask import GridMask
from aqr_perception.data.health import FrameWithHealth
from aqr_perception.data.pasting import paste_objects
from aqr_perception.frame import LabelledFrame
from aqr_perception.models.config.presets import Preset

LEAST_VISIBLE = 0.15
"""Smallest visible share, in any camera, with which an object without LiDAR points is a training target."""

_MIRRORED = 0.5
"""Probability that a frame is mirrored."""


class LabelledFrames(Protocol):
    """A data set of labelled frames."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledFrame: ...


@runtime_checkable
class LabelledDrives(LabelledFrames, Protocol):
    """A data set of labelled frames that also gives the earlier frames of their drives."""

    def earlier_frames(self, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
        """Return the frames of the same drive 1 .. count steps before a frame, oldest first; fewer at its start.

        Args:
            index: index of the frame.
            count: maximum number of earlier frames.
            step: seconds between two frames.
        """
        ...


@runtime_checkable
class NamedDrives(LabelledFrames, Protocol):
    """A data set of labelled frames whose frames belong to drives."""

    def drive_of(self, index: int) -> str:
        """Return the name of a frame's drive; a drive's frames are contiguous and in order of time."""
        ...


@dataclass(frozen=True)
class TrainingFrames:
    """Labelled frames prepared for the training of a model; see `batch_loader.TrainingSamples`.

    Attributes:
        data: the labelled frames.
        preset: preset of the model.
        augment: augment images, points and boxes randomly.
        keep_pictures: leave out the augmentation of images, except that half of all frames with cameras are mirrored
            as a whole, see `augmentation.mirror`: each picture has two versions, whose feature maps can be stored.
        vary_points: thin out the points and vary their intensities, too; see `augmentation.PointAugmentation`.
        corrupted: simulate random sensor failures.
        removed: share of the frames from which broken sensors are removed; see
            `sensor_failures.without_broken_sensors`.
        grid_mask: mask images, with a probability that grows with the training's progress.
        cameras, lidar: whether the frames keep these sensors, if the model uses them.
        donors: number of other frames whose objects are pasted into each frame, which must have no cameras then; see
            `pasting.paste_objects`.
    """

    data: LabelledFrames
    preset: Preset
    augment: bool = True
    keep_pictures: bool = False
    vary_points: bool = False
    corrupted: bool = True
    removed: float = 0.0
    grid_mask: bool = True
    cameras: bool = True
    lidar: bool = True
    donors: int = 0

    def __len__(self) -> int:
        return len(self.data)

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> FrameWithHealth:
        """Return a prepared frame; see `batch_loader.TrainingSamples`."""
        return self.prepare(self.data[index], rng, rng, progress)

    def prepare(
        self,
        labelled: LabelledFrame,
        fault_rng: np.random.Generator,
        augmentation_rng: np.random.Generator,
        progress: float,
        earlier: LabelledFrame | None = None,
    ) -> FrameWithHealth:
        """Return a frame of the data set, filtered, corrupted and augmented.

        Args:
            progress: progress of the training, 0..1.
            earlier: earlier frame of the same drive, for frozen images.
        """
        original = {view.name: view.image for view in labelled.frame.cameras}
        labelled = without_invisible_objects(self._with_used_sensors(labelled))
        if self.donors:
            others = augmentation_rng.integers(len(self.data), size=self.donors)
            donors = [self._with_used_sensors(self.data[int(index)]) for index in others]
            labelled = paste_objects(labelled, donors, augmentation_rng)
        # Corruption comes first, because sensors fail in the real scene and not in the augmented one.
        frame = corrupt(labelled, fault_rng, earlier) if self.corrupted else FrameWithHealth(labelled)
        if self.removed and fault_rng.random() < self.removed:
            frame = without_broken_sensors(frame)
        labelled = frame.labelled
        kept = self.keep_pictures and self.cameras and self.preset.image is not None
        changed = _changed_pictures(labelled, original)
        if self.augment:
            if kept and augmentation_rng.random() < _MIRRORED:
                labelled = mirror(labelled)
            elif self.preset.image is not None and not self.keep_pictures:
                labelled = ImageAugmentation(self.preset.image.size)(labelled, augmentation_rng)
            flip = 0.0 if kept else _MIRRORED
            labelled = BevAugmentation(flip_x=flip, flip_y=flip)(labelled, augmentation_rng)
            if self.vary_points:
                labelled = PointAugmentation()(labelled, augmentation_rng)
        if self.grid_mask and not self.keep_pictures and self.preset.image is not None:
            labelled = GridMask()(labelled, progress, augmentation_rng)
        if not kept:
            changed = _changed_pictures(labelled, original)
        return replace(transfer_health(frame, labelled), changed_pictures=changed)

    def _with_used_sensors(self, labelled: LabelledFrame) -> LabelledFrame:
        if self.preset.points is None or not self.lidar:
            labelled = with_points(labelled, None)
        if self.preset.image is None or not self.cameras:
            labelled = with_views(labelled, ())
        return labelled


def _changed_pictures(labelled: LabelledFrame, original: Mapping[str, NDArray[np.uint8]]) -> frozenset[str]:
    return frozenset(view.name for view in labelled.frame.cameras if view.image is not original[view.name])


def drive_of(frames: LabelledFrames, index: int) -> str:
    """Return `NamedDrives.drive_of`; for a data set of single frames, every frame is a drive."""
    return frames.drive_of(index) if isinstance(frames, NamedDrives) else str(index)


def earlier_frames(frames: LabelledFrames, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
    """Return `LabelledDrives.earlier_frames`; none for a data set of single frames."""
    return frames.earlier_frames(index, count, step) if isinstance(frames, LabelledDrives) else ()


def without_invisible_objects(labelled: LabelledFrame) -> LabelledFrame:
    """Return the frame without the objects that none of its sensors sees."""
    truth = labelled.truth
    visible = truth.visibility.max(axis=1, initial=0.0) >= LEAST_VISIBLE
    return replace(labelled, truth=truth.keep((truth.lidar_points > 0) | visible))
