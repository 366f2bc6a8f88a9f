"""Labelled frames -> what one training step takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqr_perception.frame import CameraView, LabelledFrame
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.preprocessing import image_to_model, prepare_image

HEALTH_GRID = (16, 28)
"""Rows and columns in which a picture's health is noted."""


@dataclass(frozen=True)
class Health:
    """How far each sensor can be trusted, place by place: 1 as it should be, 0 blind.

    Attributes:
        lidar: (R, R) float32, rows y and columns x ascending, spanning `reach` metres in every direction.
        reach: half the edge length of `lidar`'s square in metres.
        cameras: by name, `HEALTH_GRID` float32 spanning the picture; a camera not named is healthy.
    """

    lidar: NDArray[np.float32] = field(default_factory=lambda: np.ones((1, 1), np.float32))
    reach: float = 60.0
    cameras: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class FrameWithHealth:
    """A labelled frame, and how healthy its sensors are. A sensor that is missing altogether is not in the frame."""

    labelled: LabelledFrame
    health: Health = field(default_factory=Health)


class Batch(NamedTuple):
    """What one training step takes. Tensors of one device.

    Attributes:
        images: (B, V, 3, H, W) float32, normalised; None where no sample has cameras.
        lidar_to_image: (B, V, 4, 4) float32; None without cameras.
        points: B clouds (N, 5); empty where a sample has no LiDAR. None for models without a point branch.
        boxes: B times (N, 9), as `Detections.boxes`.
        labels: B times (N,) int64.
        lidar_points: B times (N,) int64, as `GroundTruth.lidar_points`.
        visibility: B times (N, V) float32 in 0..1, as `GroundTruth.visibility`, of the batch's cameras.
        lidar_health: (B, R, R) float32 in 0..1, spanning the preset's point range; rows y, columns x.
        camera_health: (B, V, r, c) float32 in 0..1, spanning the model's image.
        to_fixed: (B, 4, 4) float64, as `Frame.to_fixed`; None where that of any sample is not known.
        stamps_ns: (B,) int64, as `Frame.stamp_ns`.
        before: the same drives' earlier frames, oldest first, for models that remember.
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
    before: tuple["Batch", ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""

        def moved(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            if isinstance(value, Batch):
                return value.to(device)
            # Pinning memory makes lists of tuples.
            return type(value)(map(moved, value)) if isinstance(value, list | tuple) else value

        return Batch(*map(moved, self))  # type: ignore[arg-type]


def collate(samples: Sequence[FrameWithHealth], preset: Preset) -> Batch:
    """Return a batch of frames as the preset's model sees them.

    A camera that a frame lacks but another of the batch has becomes a black picture of health 0, since a batch's
    samples have one number of cameras. Objects whose centre lies outside the point range are left out.
    """
    names = list(dict.fromkeys(view.name for sample in samples for view in sample.labelled.frame.cameras))
    if preset.image is None:
        names = []
    fallback = _any_view(samples)
    images, projections, camera_health = [], [], []
    for sample in samples:
        views = {view.name: view for view in sample.labelled.frame.cameras}
        prepared = [_view(views.get(name), fallback[name], sample.health, name, preset) for name in names]
        if prepared:
            image, projection, healthy = zip(*prepared, strict=True)
            images.append(torch.stack(image))
            projections.append(np.stack(projection))
            camera_health.append(np.stack(healthy))
    truths = [sample.labelled.truth for sample in samples]
    inside = [_inside(truth.boxes, preset.point_range) for truth in truths]
    frames = [sample.labelled.frame for sample in samples]
    poses = [frame.to_fixed for frame in frames if frame.to_fixed is not None]
    health = camera_health or [np.zeros((0, *HEALTH_GRID), np.float32)] * len(samples)
    return Batch(
        torch.stack(images) if names else None,
        torch.from_numpy(np.stack(projections)).float() if names else None,
        None if preset.points is None else [_points(sample) for sample in samples],
        [torch.from_numpy(truth.boxes[kept]).float() for truth, kept in zip(truths, inside, strict=True)],
        [torch.from_numpy(truth.labels[kept]).long() for truth, kept in zip(truths, inside, strict=True)],
        [torch.from_numpy(truth.lidar_points[kept]).long() for truth, kept in zip(truths, inside, strict=True)],
        [torch.from_numpy(_visibility(sample, names)[kept]) for sample, kept in zip(samples, inside, strict=True)],
        torch.from_numpy(np.stack([_lidar_health(sample.health, preset) for sample in samples])),
        torch.from_numpy(np.stack(health)),
        torch.from_numpy(np.stack(poses)).double() if len(poses) == len(frames) else None,
        torch.tensor([frame.stamp_ns for frame in frames]),
    )


def _visibility(sample: FrameWithHealth, names: Sequence[str]) -> NDArray[np.float32]:
    """Return (N, V): how much of each object each of the named cameras shows; nothing where the frame lacks it."""
    truth = sample.labelled.truth
    columns = {view.name: column for column, view in enumerate(sample.labelled.frame.cameras)}
    shown = np.zeros((len(truth), len(names)), np.float32)
    for place, name in enumerate(names):
        if name in columns:
            shown[:, place] = truth.visibility[:, columns[name]]
    return shown


def _any_view(samples: Sequence[FrameWithHealth]) -> dict[str, CameraView]:
    return {view.name: view for sample in samples for view in sample.labelled.frame.cameras}


def _view(
    view: CameraView | None, fallback: CameraView, health: Health, name: str, preset: Preset
) -> tuple[Tensor, NDArray[np.float64], NDArray[np.float32]]:
    """Return a camera's model image (3, H, W), projection (4, 4) and health on the model image."""
    assert preset.image is not None
    seen = fallback if view is None else view
    picture = np.zeros_like(seen.image) if view is None else view.image
    healthy = health.cameras.get(name, np.ones(HEALTH_GRID, np.float32))
    if view is None:
        healthy = np.zeros(HEALTH_GRID, np.float32)
    height, width = picture.shape[:2]
    affine = image_to_model((width, height), preset.image.size)
    projection = np.eye(4)
    projection[:3, :3] = affine @ seen.intrinsics
    image = prepare_image(picture, preset.image.size, preset.image.mean, preset.image.std, torch.device("cpu"))
    # The health grid spans the picture; the model's image shows a part of it.
    rows, columns = HEALTH_GRID
    to_grid = np.diag([columns / width, rows / height, 1.0])
    cell = np.diag([preset.image.size[0] / columns, preset.image.size[1] / rows, 1.0])
    shift, back = _half_pixel(0.5), _half_pixel(-0.5)
    onto = back @ to_grid @ np.linalg.inv(affine) @ cell @ shift
    warped: NDArray = cv2.warpAffine(
        healthy,
        onto[:2],
        (columns, rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return image, projection @ seen.extrinsics, warped


def _half_pixel(step: float) -> NDArray[np.float64]:
    """OpenCV's pixel centres lie at whole numbers, ours at halves."""
    affine = np.eye(3)
    affine[:2, 2] = step
    return affine


def _lidar_health(health: Health, preset: Preset) -> NDArray[np.float32]:
    """Return health on a square grid that spans the preset's point range."""
    x_min, y_min, _, x_max, y_max, _ = preset.point_range
    cells = 64
    scale = len(health.lidar) / (2 * health.reach)
    x = (np.linspace(x_min, x_max, cells, endpoint=False) + (x_max - x_min) / cells / 2 + health.reach) * scale - 0.5
    y = (np.linspace(y_min, y_max, cells, endpoint=False) + (y_max - y_min) / cells / 2 + health.reach) * scale - 0.5
    columns, rows = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    mapped: NDArray = cv2.remap(health.lidar, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return mapped


def _points(sample: FrameWithHealth) -> Tensor:
    points = sample.labelled.frame.points
    return torch.zeros(0, 5) if points is None else torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32))


def _inside(boxes: NDArray[np.float32], point_range: Sequence[float]) -> NDArray[np.bool_]:
    lower, upper = np.array(point_range[:3]), np.array(point_range[3:])
    return np.all((boxes[:, :3] >= lower) & (boxes[:, :3] <= upper), axis=1)
