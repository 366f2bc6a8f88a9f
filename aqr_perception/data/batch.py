# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Batches of labelled frames as tensors in the model's input format."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqr_perception.data.health import HEALTH_GRID, FrameWithHealth, SensorHealth
from aqr_perception.data.health_cells import camera_cells, lidar_cells
from aqr_perception.frame import CameraView
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.preprocessing import image_to_model, prepare_image

_LIDAR_GRID = (128, 128)
"""Rows and columns of the LiDAR's health."""


class Batch(NamedTuple):
    """The input of one training step, on one device.

    Attributes:
        images: (B, V, 3, H, W) float32, normalised; None if no sample has cameras.
        lidar_to_image: (B, V, 4, 4) float32, model frame -> pixels; None without cameras.
        points: B point clouds (N, 5); empty for samples without LiDAR. None for models without a point branch.
        boxes: B tensors (N, 9), as `Detections.boxes`.
        labels: B tensors (N,) int64.
        lidar_points: B tensors (N,) int64, as `GroundTruth.lidar_points`.
        visibility: B tensors (N, V) float32 in 0..1, as `GroundTruth.visibility`, for the batch's cameras.
        lidar_health: (B, R, R) float32 in 0..1, LiDAR health over `Preset.bev_range`; rows y, columns x.
        camera_health: (B, V, r, c) float32 in 0..1, camera health over the model's image.
        to_fixed: (B, 4, 4) float64, as `Frame.to_fixed`; None if it is unknown for any sample.
        stamps_ns: (B,) int64, as `Frame.stamp_ns`.
        changed: (B, V) bool, as `FrameWithHealth.changed_pictures`; None if that is unknown.
        history: earlier frames of the same drives, oldest first, for models with memory.
    """

    images: Tensor | None
    lidar_to_image: Tensor | None
    points: list[Tensor] | None
    boxes: list[Tensor]
    labels: list[Tensor]
    lidar_points: list[Tensor]
    visibility: list[Tensor]
    lidar_health: Tensor
    camera_health: Tensor
    to_fixed: Tensor | None = None
    stamps_ns: Tensor | None = None
    changed: Tensor | None = None
    history: tuple["Batch", ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            if isinstance(value, Batch):
                return value.to(device)
            # Pinning memory turns tuples into lists.
            return type(value)(map(moved, value)) if isinstance(value, list | tuple) else value

        return Batch(*map(moved, self))


def collate(samples: Sequence[FrameWithHealth], preset: Preset) -> Batch:
    """Return a batch of frames in the input format of the preset's model.

    All samples of a batch get the same cameras: a camera that only other frames have becomes a black image of health 0.
    Objects with a centre outside the point range are left out.

    Raises:
        ValueError: the ground truth has other classes than the preset.
    """
    some_view = {view.name: view for sample in samples for view in sample.labelled.frame.cameras}
    names = [] if preset.image is None else list(some_view)
    images, projections, camera_health = [], [], []
    for sample in samples:
        views = {view.name: view for view in sample.labelled.frame.cameras}
        prepared = [_prepared_view(views.get(name), some_view[name], sample.health, preset) for name in names]
        if prepared:
            image, projection, health = zip(*prepared, strict=True)
            images.append(torch.stack(image))
            projections.append(np.stack(projection))
            camera_health.append(np.stack(health))
    truths = [sample.labelled.truth for sample in samples]
    for truth in truths:
        if truth.classes != preset.classes:
            raise ValueError(
                f"the data has the classes {', '.join(truth.classes)}, but the preset has {', '.join(preset.classes)}: "
                "open it with the preset's classes, or use GroundTruth.relabelled"
            )
    inside = [_inside(truth.boxes, preset.point_range) for truth in truths]
    frames = [sample.labelled.frame for sample in samples]
    poses = [frame.to_fixed for frame in frames if frame.to_fixed is not None]
    no_cameras = [np.zeros((0, *HEALTH_GRID), np.float32)] * len(samples)
    return Batch(
        torch.stack(images) if names else None,
        torch.from_numpy(np.stack(projections)).float() if names else None,
        None if preset.points is None else [_points(sample) for sample in samples],
        [torch.from_numpy(truth.boxes[kept]).float() for truth, kept in zip(truths, inside, strict=True)],
        [torch.from_numpy(truth.labels[kept]).long() for truth, kept in zip(truths, inside, strict=True)],
        [torch.from_numpy(truth.lidar_points[kept]).long() for truth, kept in zip(truths, inside, strict=True)],
        [torch.from_numpy(_visibility(sample, names)[kept]) for sample, kept in zip(samples, inside, strict=True)],
        torch.from_numpy(np.stack([lidar_cells(sample.health, preset.bev_range, _LIDAR_GRID) for sample in samples])),
        torch.from_numpy(np.stack(camera_health or no_cameras)),
        torch.from_numpy(np.stack(poses)).double() if len(poses) == len(frames) else None,
        torch.tensor([frame.stamp_ns for frame in frames]),
        changed=torch.tensor([[name in sample.changed_pictures for name in names] for sample in samples]),
    )


def _visibility(sample: FrameWithHealth, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the visibility (N, V) of the objects in the named cameras; 0 where the frame lacks the camera."""
    truth = sample.labelled.truth
    columns = {view.name: column for column, view in enumerate(sample.labelled.frame.cameras)}
    visibility = np.zeros((len(truth), len(names)), np.float32)
    for index, name in enumerate(names):
        if name in columns:
            visibility[:, index] = truth.visibility[:, columns[name]]
    return visibility


def _prepared_view(
    view: CameraView | None, some_view: CameraView, health: SensorHealth, preset: Preset
) -> tuple[Tensor, NDArray[np.float64], NDArray[np.float32]]:
    """Return a camera's model image (3, H, W), projection (4, 4) and health on the model image.

    Args:
        view: the camera in this frame; None if the frame lacks it.
        some_view: the camera in any frame of the batch.
    """
    assert preset.image is not None
    if view is None:
        view, picture, grid = some_view, np.zeros_like(some_view.image), np.zeros(HEALTH_GRID, np.float32)
    else:
        picture, grid = view.image, health.cameras.get(view.name, np.ones(HEALTH_GRID, np.float32))
    height, width = picture.shape[:2]
    affine = image_to_model((width, height), preset.image.size)
    projection = np.eye(4)
    projection[:3, :3] = affine @ view.intrinsics
    image = prepare_image(picture, preset.image.size, preset.image.mean, preset.image.std, torch.device("cpu"))
    return image, projection @ view.extrinsics, camera_cells(grid, (width, height), preset.image.size, HEALTH_GRID)


def _points(sample: FrameWithHealth) -> Tensor:
    points = sample.labelled.frame.points
    return torch.zeros(0, 5) if points is None else torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32))


def _inside(boxes: NDArray[np.float32], point_range: Sequence[float]) -> NDArray[np.bool_]:
    lower, upper = np.array(point_range[:3]), np.array(point_range[3:])
    inside: NDArray[np.bool_] = np.all((boxes[:, :3] >= lower) & (boxes[:, :3] <= upper), axis=1)
    return inside
