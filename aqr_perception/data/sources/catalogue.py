"""The data sets by name, as the command line asks for them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from aqr_perception.data.frames import LabelledFrames, before
from aqr_perception.data.sources.simulated import (
    VALIDATION_SEEDS,
    SyntheticDataset,
    default_cache,
    training_seeds,
)
from aqr_perception.frame import LabelledFrame
from aqr_perception.models.config.presets import Preset

Source = Literal["synthetic", "nuscenes", "bags"]
Part = Literal["train", "val"]

_SYNTHETIC_PICTURE = (352, 128)
_SYNTHETIC_SWEEPS = 2
"""For models that look at no LiDAR: the truth counts points, too, and `aqr_tiny`'s frames, once drawn, serve all."""
_SYNTHETIC_FRAMES = 8000


class DataError(ValueError):
    """A data set cannot be had as asked for; the message names what is missing and the remedy."""


@dataclass(frozen=True)
class Data:
    """A data set, and the labels that each of its frames shows where sampling by class is wanted."""

    frames: LabelledFrames
    label_sets: Sequence[Collection[int]] | None = None


class _Part:
    """The first frames of a data set."""

    def __init__(self, frames: LabelledFrames, count: int) -> None:
        self._frames, self._count = frames, min(count, len(frames))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> LabelledFrame:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._frames[index]

    def before(self, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
        return before(self._frames, index, count, step)


def open_data(
    source: str,
    part: Part,
    preset: Preset,
    root: Path | None = None,
    frames: int | None = None,
    version: str = "v1.0-trainval",
) -> Data:
    """Return a data set.

    Args:
        source: ``synthetic`` (the simulated world; root is its cache), ``nuscenes`` (root holds its tables), ``bags``
            (root is a folder of rosbag2 files with truth).
        part: ``train`` or ``val``; synthetic scenes of the one never occur in the other, nuScenes has its own split,
            and bags are the same set for both.
        preset: of the model that will see it.
        frames: how many at most; None for all (of synthetic ones, 8000 for training and 200 for validation).
        version: of the nuScenes tables.

    Raises:
        DataError: the source is unknown, or needs a root.
    """
    if source not in get_args(Source):
        raise DataError(f"data is {source!r}, but must be one of {', '.join(get_args(Source))}")
    if source == "synthetic":
        seeds = training_seeds(frames or _SYNTHETIC_FRAMES)
        if part == "val":
            seeds = VALIDATION_SEEDS[: frames or len(VALIDATION_SEEDS)]
        picture = _SYNTHETIC_PICTURE if preset.image is None else preset.image.size
        sweeps = _SYNTHETIC_SWEEPS if preset.points is None else preset.sweeps
        return Data(SyntheticDataset(seeds, picture, sweeps, root or default_cache()))
    if root is None:
        raise DataError(f"data {source!r} needs a folder: give --data-root")
    data = _open_recorded(source, part, preset, root, version)
    return Data(_Part(data.frames, frames), data.label_sets and data.label_sets[:frames]) if frames else data


def _open_recorded(source: str, part: Part, preset: Preset, root: Path, version: str) -> Data:
    from aqr_perception.data.sources.bags import BagDataset
    from aqr_perception.data.sources.nuscenes import NuScenesDataset

    if source == "bags":
        return Data(BagDataset(root, sweeps=preset.sweeps))
    split = {"v1.0-mini": "mini_"}.get(version, "") + part
    nuscenes = NuScenesDataset(root, version, split, preset.sweeps)
    return Data(nuscenes, nuscenes.label_sets())
