# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Data set of the simulated world: one scene per frame, rendered at the first access and cached on disk."""

import logging
import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CLASSES, CameraView, Frame, GroundTruth, LabelledFrame
from aqr_perception.models.config.presets import Preset
from aqr_perception.simulator.drive import SWEEP_STEP, draw_drive, world_rig

TRAINING_WORLD = 2
"""The world of training and evaluation, in which the shipped weights were trained."""

CACHE_NAMES = {1: "v1", 2: "v2.1"}
"""Beginnings of the cache folders' names, by world; frames of others are ignored. Change one when scenes change."""

VALIDATION_SEEDS = range(0, 200)
"""Seeds of the scenes for evaluation, which training does not use."""
FIRST_TRAINING_SEED = 10_000

_log = logging.getLogger(__name__)

_STEP = 0.005
"""Resolution of stored coordinates in metres."""

_DAMAGED = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile)
"""Errors of reading a file that is cut off or has other content."""


def training_seeds(count: int) -> range:
    """Return the seeds of the scenes for a training with `count` frames."""
    return range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + count)


def accumulated_sweeps(preset: Preset) -> tuple[int, float]:
    """Return number and interval of the sweeps in a model's frames.

    A model without LiDAR gets those of `aqr_tiny`, whose stored frames it shares; the truth counts LiDAR points.
    """
    return (2, 0.4) if preset.points is None else (preset.sweeps, preset.sweep_interval)


def default_cache() -> Path:
    """Return the default cache folder, in $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aqr_perception" / "synthetic"


class SimulatedDataset:
    """Data set with one `LabelledFrame` per seed; the seed determines the scene and the time of the frame.

    Args:
        seeds: seeds of the scenes, in order.
        picture: width and height of the images in pixels, preferably the model's image size.
        sweeps: LiDAR sweeps in a frame.
        cache: folder for rendered frames, about 0.4 MB each, with all ten classes; None for no cache.
        classes: class names of the ground truth; objects of other classes are left out.
        world: 1, with nuScenes' rig in every scene, or 2, with a random rig of one to six cameras in each.
        sweep_interval: seconds between two sweeps, but at least 0.1.

    Raises:
        ValueError: there is no such world.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        picture: tuple[int, int] = (352, 128),
        sweeps: int = 2,
        cache: Path | None = None,
        classes: tuple[str, ...] = CLASSES,
        world: int = 1,
        sweep_interval: float = 0.0,
    ) -> None:
        if world not in CACHE_NAMES:
            raise ValueError(f"world is {world}, but must be one of {', '.join(map(str, CACHE_NAMES))}")
        self._seeds, self._picture, self._sweeps, self._classes = seeds, picture, sweeps, classes
        self._world, self._sweep_interval = world, sweep_interval
        spacing = f"x{sweep_interval:g}s" if sweep_interval > SWEEP_STEP else ""
        name = f"{CACHE_NAMES[world]}_{picture[0]}x{picture[1]}_{sweeps}{spacing}"
        self._folder = None if cache is None else cache / name

    @property
    def folder(self) -> Path | None:
        """Folder of the stored frames; None without a cache."""
        return self._folder

    def is_stored(self, index: int, earlier: int = 0, step: float = 0.5) -> bool:
        """Return whether a frame and its `earlier` frames are in the cache."""
        seed = self._seeds[index]
        return all((path := self._path(seed, number * step)) and path.is_file() for number in range(earlier + 1))

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, index: int) -> LabelledFrame:
        return self._frame(self._seeds[index], 0.0)

    def earlier_frames(self, index: int, count: int, step: float = 0.5) -> tuple[LabelledFrame, ...]:
        """See `frames.LabelledDrives`; there are always `count` frames, and stamps may be negative."""
        return tuple(self._frame(self._seeds[index], number * step) for number in range(count, 0, -1))

    def _frame(self, seed: int, age: float) -> LabelledFrame:
        """Return the frame `age` seconds before a scene's own frame."""
        labelled = self._drawn_or_read(seed, age)
        return replace(labelled, truth=labelled.truth.relabelled(self._classes))

    def _drawn_or_read(self, seed: int, age: float) -> LabelledFrame:
        path = self._path(seed, age)
        if path is None:
            return self._draw(seed, age)
        if path.is_file():
            try:
                return _read(path)
            except _DAMAGED as error:  # by a power failure, for example
                _log.warning("%s: the damaged frame is drawn again: %s", path, error)
        _write(path, self._draw(seed, age))
        return _read(path)

    def _path(self, seed: int, age: float) -> Path | None:
        """Return the file of a frame in the cache."""
        if self._folder is None:
            return None
        name = f"{seed:08d}_{round(1000 * age)}ms_before" if age else f"{seed:08d}"
        return self._folder / f"{seed // 1000:05d}" / f"{name}.npz"

    def _draw(self, seed: int, age: float) -> LabelledFrame:
        rig = world_rig(self._world, seed, self._picture)
        drive = draw_drive(seed, 2.0, rig, self._world, sweeps=self._sweeps, sweep_interval=self._sweep_interval)
        labelled = drive.frame(float(np.random.default_rng([seed, 1]).uniform(0.0, 2.0)) - age)
        return replace(labelled, frame=replace(labelled.frame, to_fixed=labelled.model_to_world))


def _write(path: Path, labelled: LabelledFrame) -> None:
    """Store a frame; safe when several processes store the same frame at the same time."""
    frame, truth = labelled.frame, labelled.truth
    assert frame.points is not None
    pictures = [cv2.imencode(".jpg", view.image, (cv2.IMWRITE_JPEG_QUALITY, 92))[1] for view in frame.cameras]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            stamp_ns=frame.stamp_ns,
            xyz=np.round(frame.points[:, :3] / _STEP).astype(np.int16),
            intensity=np.round(frame.points[:, 3]).astype(np.uint8),
            lag=np.round(frame.points[:, 4] * 100).astype(np.uint8),
            names=np.array([view.name for view in frame.cameras]),
            pictures=np.concatenate(pictures).ravel(),
            picture_sizes=np.array([picture.size for picture in pictures]),
            intrinsics=np.stack([view.intrinsics for view in frame.cameras]),
            extrinsics=np.stack([view.extrinsics for view in frame.cameras]),
            ages=np.array([view.age for view in frame.cameras]),
            boxes=truth.boxes,
            labels=truth.labels,
            tracks=truth.tracks,
            lidar_points=truth.lidar_points,
            visibility=truth.visibility,
            model_to_world=labelled.model_to_world,
        )
    os.replace(unfinished, path)


def _read(path: Path) -> LabelledFrame:
    with np.load(path) as stored:
        entries = {name: stored[name] for name in stored.files}
    points = np.c_[entries["xyz"] * _STEP, entries["intensity"], entries["lag"] / 100].astype(np.float32)
    pictures = np.split(entries["pictures"], np.cumsum(entries["picture_sizes"])[:-1])
    views = tuple(
        CameraView(str(name), _decoded(picture), intrinsics, extrinsics, float(age))
        for name, picture, intrinsics, extrinsics, age in zip(
            entries["names"], pictures, entries["intrinsics"], entries["extrinsics"], entries["ages"], strict=True
        )
    )
    truth = GroundTruth(*(entries[name] for name in ("boxes", "labels", "tracks", "lidar_points", "visibility")))
    to_world = entries["model_to_world"]
    frame = Frame(int(entries["stamp_ns"]), points, views, "lidar", to_world)
    return LabelledFrame(frame, truth, to_world)


def _decoded(jpeg: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert picture is not None  # written by `_write`
    return picture.astype(np.uint8, copy=False)
