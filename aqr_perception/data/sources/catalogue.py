"""Data sets by their command-line names."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from aqr_perception.data.frames import LabelledFrames, earlier_frames
from aqr_perception.data.sources.class_lists import class_problem
from aqr_perception.data.sources.simulated import (
    VALIDATION_SEEDS,
    SimulatedDataset,
    default_cache,
    training_seeds,
)
from aqr_perception.frame import CLASSES, LabelledFrame
from aqr_perception.models.config.presets import Preset

Source = Literal["synthetic", "nuscenes", "bags"]
Split = Literal["train", "val"]

_SIMULATED_PICTURE = (352, 128)
"""Picture size for models without cameras."""
_SIMULATED_SWEEPS = 2
"""Sweeps for models without a LiDAR: the truth counts LiDAR points, and the cached frames of `aqr_tiny` are reused."""
_SIMULATED_FRAMES = 8000


class DataError(ValueError):
    """A data set cannot be opened; the message names what is missing or wrong, and the remedy."""


@dataclass(frozen=True)
class Data:
    """A data set, and the labels in each of its frames if sampling is to be class-balanced."""

    frames: LabelledFrames
    label_sets: Sequence[Collection[int]] | None = None


class _FirstFrames:
    """The first frames of a data set."""

    def __init__(self, frames: LabelledFrames, count: int) -> None:
        self._frames, self._count = frames, min(count, len(frames))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> LabelledFrame:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._frames[index]

    def earlier_frames(self, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
        return earlier_frames(self._frames, index, count, step)


def open_data(
    source: str,
    split: Split,
    preset: Preset,
    root: Path | None = None,
    frames: int | None = None,
    version: str = "v1.0-trainval",
) -> Data:
    """Return a data set whose truth has the preset's classes; objects of other classes are left out.

    Args:
        source: ``synthetic`` (the simulated world; root is its cache), ``nuscenes`` (root holds its tables), ``bags``
            (root is a folder of rosbag2 files with truth).
        split: ``train`` or ``val``; simulated scenes are disjoint, nuScenes has its own splits, and bags are the same
            for both.
        preset: preset of the model.
        frames: maximum number of frames; None for all (simulated: 8000 for training, 200 for validation).
        version: version of the nuScenes tables.

    Raises:
        DataError: the source is unknown, needs a root, or the simulated world has none of the preset's classes.
        BagError, NuScenesError: the root has no such data, or no object of the preset's classes.
    """
    if source not in get_args(Source):
        raise DataError(f"data is {source!r}, but must be one of {', '.join(get_args(Source))}")
    if source == "synthetic":
        problem = class_problem(preset.classes, CLASSES)
        if problem is not None:
            raise DataError(f"data 'synthetic': {problem}")
        seeds = training_seeds(frames or _SIMULATED_FRAMES)
        if split == "val":
            seeds = VALIDATION_SEEDS[: frames or len(VALIDATION_SEEDS)]
        picture = _SIMULATED_PICTURE if preset.image is None else preset.image.size
        sweeps = _SIMULATED_SWEEPS if preset.points is None else preset.sweeps
        return Data(SimulatedDataset(seeds, picture, sweeps, root or default_cache(), preset.classes))
    if root is None:
        raise DataError(f"data {source!r} needs a folder: give --data-root")
    data = _open_recorded(source, split, preset, root, version)
    return Data(_FirstFrames(data.frames, frames), data.label_sets and data.label_sets[:frames]) if frames else data


def _open_recorded(source: str, split: Split, preset: Preset, root: Path, version: str) -> Data:
    from aqr_perception.data.sources.bags import BagDataset
    from aqr_perception.data.sources.nuscenes import NuScenesDataset

    if source == "bags":
        return Data(BagDataset(root, preset.sweeps, preset.classes))
    prefix = {"v1.0-mini": "mini_"}.get(version, "")
    nuscenes = NuScenesDataset(root, version, prefix + split, preset.sweeps, preset.classes)
    return Data(nuscenes, nuscenes.label_sets())
