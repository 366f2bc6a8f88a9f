# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data sets by their command-line names."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from aqr_perception.data.frames import LabelledFrames, drive_of, earlier_frames
from aqr_perception.data.rig_file import Rig, read_rig
from aqr_perception.data.sources.bad_frames import ChosenFrames, GoodFrames, readable
from aqr_perception.data.sources.class_lists import class_problem
from aqr_perception.data.sources.simulated import (
    TRAINING_WORLD,
    VALIDATION_SEEDS,
    SimulatedDataset,
    accumulated_sweeps,
    default_cache,
    training_seeds,
)
from aqr_perception.frame import CLASSES, LabelledFrame
from aqr_perception.models.config.presets import Preset

Source = Literal["recordings", "synthetic", "nuscenes", "bags"]
Split = Literal["train", "val"]

_MINI_PREFIX = {"v1.0-mini": "mini_"}
_SIMULATED_PICTURE = (352, 128)
"""Image size for models without cameras."""
_SIMULATED_FRAMES = 8000

_log = logging.getLogger(__name__)


class DataError(ValueError):
    """A data set cannot be opened; the message names what is missing or wrong, and the remedy."""


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        label_sets: the labels in each frame for class-balanced sampling; None for uniform sampling.
        labelled: whether the frames have annotations, which nuScenes' test split lacks.
    """

    frames: LabelledFrames
    label_sets: Sequence[Collection[int]] | None = None
    labelled: bool = True


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

    def drive_of(self, index: int) -> str:
        return drive_of(self._frames, index)

    def earlier_frames(self, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
        return earlier_frames(self._frames, index, count, step)


def open_data(
    source: str,
    split: Split,
    preset: Preset,
    root: Path | None = None,
    frames: int | None = None,
    version: str = "v1.0-trainval",
    scenes: Sequence[str] | None = None,
    rig: Path | None = None,
    skip_bad: bool = False,
    world: int | None = None,
) -> Data:
    """Return a data set whose truth has the preset's classes; objects of other classes are left out.

    Args:
        source: ``synthetic`` (the simulated world; root is its cache), ``nuscenes`` (tables in its format),
            ``bags`` (rosbag2 files with labels) or ``recordings`` (KITTI's object benchmark, scenes in the layout of
            DDAD, or other recordings with labels that `recordings.recognition` knows).
        split: ``train`` or ``val``; simulated scenes are disjoint, nuScenes has its own splits, and both splits use the
            same bags and scenes; KITTI has those of ImageSets/SPLIT.txt, if it exists.
        preset: preset of the model.
        frames: maximum number of frames; None for all (simulated: 8000 for training, 200 for validation).
        version: version of the nuScenes tables.
        scenes: scenes of nuScenes in place of `split`; see `nuscenes_splits.scenes_of_split`.
        rig: file of the sensors and classes of recorded data; see `rig_file`.
        skip_bad: leave out records and frames that cannot be used, and count them, in place of an error. For ``val``
            every frame is read once before the first use.
        world: version of the simulated world; None for `TRAINING_WORLD`. See `SimulatedDataset`.

    Raises:
        DataError: the source is unknown, its root is missing, it has no scenes to choose, or the simulated world has
            none of the preset's classes.
        BagError, NuScenesError, RecordingError: the root has no such data, or no object of the preset's classes.
        RigError: the rig file cannot be used.
    """
    if source not in get_args(Source):
        raise DataError(f"data is {source!r}, but must be one of {', '.join(get_args(Source))}")
    if scenes is not None and source != "nuscenes":
        raise DataError(f"data {source!r} has no splits to choose from: leave --split out, or use --data nuscenes")
    if source == "synthetic" and (rig is not None or skip_bad):
        raise DataError("data 'synthetic' has no rig and no bad records: leave --rig and --skip-bad out")
    if source != "synthetic" and world is not None:
        raise DataError(f"data {source!r} has no worlds: leave --world out, or use --data synthetic")
    if source == "synthetic":
        problem = class_problem(preset.classes, CLASSES)
        if problem is not None:
            raise DataError(f"data 'synthetic': {problem}")
        seeds = training_seeds(frames or _SIMULATED_FRAMES)
        if split == "val":
            seeds = VALIDATION_SEEDS[: frames or len(VALIDATION_SEEDS)]
        picture = _SIMULATED_PICTURE if preset.image is None else preset.image.size
        sweeps, interval = accumulated_sweeps(preset)
        cache, world = root or default_cache(), world or TRAINING_WORLD
        return Data(SimulatedDataset(seeds, picture, sweeps, cache, preset.classes, world, interval))
    if root is None:
        raise DataError(f"data {source!r} needs a folder: give --data-root")
    _log.info("reading %s: data %s", root, source)
    data = _open_recorded(source, split, preset, root, version, scenes, read_rig(rig) if rig else None, skip_bad)
    if frames:
        label_sets = data.label_sets and data.label_sets[:frames]
        data = replace(data, frames=_FirstFrames(data.frames, frames), label_sets=label_sets)
    if not skip_bad:
        return data
    if split == "val":
        kept = readable(data.frames)
        label_sets = data.label_sets and [data.label_sets[index] for index in kept]
        return replace(data, frames=ChosenFrames(data.frames, kept), label_sets=label_sets)
    return replace(data, frames=GoodFrames(data.frames))


def _open_recorded(
    source: str,
    split: Split,
    preset: Preset,
    root: Path,
    version: str,
    scenes: Sequence[str] | None,
    rig: Rig | None,
    skip_bad: bool,
) -> Data:
    from aqr_perception.data.sources.bags import BagDataset
    from aqr_perception.data.sources.nuscenes import NuScenesDataset
    from aqr_perception.data.sources.recorded import RecordingDataset, find_recordings

    if source == "bags":
        bags = BagDataset(root, preset.sweeps, preset.classes, rig, skip_bad, preset.sweep_interval)
        return Data(bags, bags.label_sets())
    if source == "recordings":
        readers = find_recordings(root, split, rig)
        recorded = RecordingDataset(root, readers, preset.sweeps, preset.classes, rig, skip_bad, preset.sweep_interval)
        return Data(recorded, recorded.label_sets())
    if scenes is None:
        scenes = [{("val", "v1.0-test"): "test"}.get((split, version), _MINI_PREFIX.get(version, "") + split)]
    nuscenes = NuScenesDataset(
        root, version, scenes, preset.sweeps, preset.classes, rig, skip_bad, preset.sweep_interval
    )
    return Data(nuscenes, nuscenes.label_sets(), nuscenes.labelled)
