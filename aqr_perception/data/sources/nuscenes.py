# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""nuScenes as labelled frames in the LiDAR's own frame: x right, y forward, z up."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from aqr_perception.data.outlines import outline_shares
from aqr_perception.data.rig_file import Rig
from aqr_perception.data.sources.drives import preceding
from aqr_perception.data.sources.nuscenes_tables import (
    LIDAR,
    CameraCapture,
    Capture,
    NuScenesError,
    read_samples,
)
from aqr_perception.data.sources.record_checks import fitted_intrinsics, read_picture, read_points
from aqr_perception.frame import CLASSES, CameraView, Frame, LabelledFrame
from aqr_perception.geometry import invert, transform_points

_log = logging.getLogger(__name__)


class NuScenesDataset(Dataset[LabelledFrame]):
    """Keyframes of a split, scene by scene in order of time.

    The data set keeps arrays instead of tables, to keep worker processes small. Intensity is in 0..255, the fifth
    column is the age in seconds. All points of all sweeps are kept, those on the vehicle itself, too, as in the
    published models' training. `GroundTruth.lidar_points` are the counts in the keyframe's own sweep. Objects without
    LiDAR and radar points, and objects of other classes, are left out, as in nuScenes' evaluation and the published
    models' training. Unknown velocities are NaN. Visibility is the middle of the object's visibility bin, which covers
    all cameras together, times the outline's share in each image.

    Args:
        root: the folder that holds `version`, ``samples``, ``sweeps`` and ``maps``.
        version: ``v1.0-trainval``, ``v1.0-mini`` or ``v1.0-test``.
        split: see `nuscenes_splits.scenes_of_split`.
        sweeps: LiDAR sweeps per point cloud, including the keyframe's; fewer at the start of a scene.
        classes: class names of the ground truth; see `nuscenes_channels.class_of_category`.
        rig: channels, classes, largest number of sweeps and intensity scale of one's own tables.
        skip_bad: leave out broken records of the tables, with a warning for each, in place of an error. `left_out`
            counts them.

    Raises:
        NuScenesError: nuscenes-devkit, the tables, the split or (at access) a file is missing, or no category has one
            of the classes.
    """

    def __init__(
        self,
        root: str | Path,
        version: str,
        split: str | Sequence[str],
        sweeps: int = 10,
        classes: tuple[str, ...] = CLASSES,
        rig: Rig | None = None,
        skip_bad: bool = False,
        sweep_interval: float = 0.0,
    ) -> None:
        if sweeps < 1:
            raise NuScenesError(f"sweeps is {sweeps}, but must be at least 1, the keyframe's own")
        if rig is not None and rig.max_sweeps is not None:
            sweeps = min(sweeps, rig.max_sweeps)
        self._intensity_scale = 1.0 if rig is None else rig.intensity_scale
        self._skip_bad, self.left_out = skip_bad, 0
        self._samples, self._labelled = read_samples(
            Path(root), version, split, sweeps, classes, rig, self._problem, sweep_interval
        )
        self._lidar = (rig.lidar_channel if rig is not None else "") or LIDAR
        self._moments = [(sample.scene, sample.sweeps[0].stamp_us * 1000) for sample in self._samples]

    def _problem(self, error: NuScenesError) -> None:
        if not self._skip_bad:
            raise error
        self.left_out += 1
        _log.warning("left out: %s", error)

    def __len__(self) -> int:
        return len(self._samples)

    def drive_of(self, index: int) -> str:
        """Return the drive of a frame: the token of its scene."""
        return self._samples[index].scene

    def place_of(self, index: int) -> str:
        """Return where a frame is from: the token of its sample."""
        return f"sample {self._samples[index].token}"

    def __getitem__(self, index: int) -> LabelledFrame:
        sample = self._samples[index]
        key = sample.sweeps[0]
        views = tuple(_view(camera, key) for camera in sample.cameras)
        frame = Frame(
            key.stamp_us * 1000, _cloud(sample.sweeps, self._intensity_scale), views, self._lidar, key.sensor_to_world
        )
        visibility = outline_shares(sample.truth.boxes, views) * sample.visible_share[:, None]
        return LabelledFrame(frame, replace(sample.truth, visibility=visibility), key.sensor_to_world)

    def earlier_frames(self, index: int, count: int, step: float = 0.5) -> tuple[LabelledFrame, ...]:
        """See `frames.LabelledDrives`: earlier keyframes of the scene."""
        return tuple(self[earlier] for earlier in preceding(self._moments, index, count, step))

    @property
    def tokens(self) -> tuple[str, ...]:
        """The samples' tokens, in order, as used in nuScenes' result files."""
        return tuple(sample.token for sample in self._samples)

    @property
    def labelled(self) -> bool:
        """Whether the tables have annotations, which those of nuScenes' test split lack."""
        return self._labelled

    def label_sets(self) -> list[frozenset[int]]:
        """Return the labels in each frame, for class-balanced sampling, without reading a file."""
        return [frozenset(sample.truth.labels.tolist()) for sample in self._samples]


def _view(camera: CameraCapture, key: Capture) -> CameraView:
    capture = camera.capture
    pixels = read_picture(capture.path, NuScenesError)
    return CameraView(
        name=camera.name,
        image=pixels,
        intrinsics=fitted_intrinsics(camera.intrinsics, camera.size, pixels, capture.path, NuScenesError),
        extrinsics=invert(capture.sensor_to_world) @ key.sensor_to_world,
        age=(key.stamp_us - capture.stamp_us) / 1e6,
    )


def _cloud(sweeps: Sequence[Capture], intensity_scale: float) -> NDArray[np.float32]:
    """Return the points (N, 5) of all sweeps in the first one's frame."""
    key = sweeps[0]
    clouds = []
    for sweep in sweeps:
        points = read_points(sweep.path, 5, NuScenesError)  # x, y, z in metres, sensor frame, intensity, ring
        points[:, 3] *= intensity_scale
        if sweep is not key:
            points[:, :3] = transform_points(invert(key.sensor_to_world) @ sweep.sensor_to_world, points)
        points[:, 4] = (key.stamp_us - sweep.stamp_us) / 1e6
        clouds.append(points)
    return np.concatenate(clouds)
