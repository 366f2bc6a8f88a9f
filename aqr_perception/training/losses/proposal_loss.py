# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Losses of the proposals' heat maps: object centres, and the box in each centre's cell.

The losses are the focal loss against a Gaussian at every centre (CornerNet, arXiv:1808.01244, equation 1, as in
CenterPoint), and the `box_distance` of the box in the centre's cell.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.data.batch import Batch
from aqr_perception.data.frames import LEAST_VISIBLE
from aqr_perception.models.boxes.coder import SHAPE_CODES, encode
from aqr_perception.models.model_io import ProposalMaps
from aqr_perception.models.proposals.proposal_head import BOX_CHANNELS
from aqr_perception.models.proposals.rays import depth_scale, focal_length, rotate_shape, viewing_azimuth
from aqr_perception.training.losses.set_loss import box_distance

CLASS_WEIGHT, BOX_WEIGHT = 1.0, 0.5
CHANNEL_WEIGHTS = (1.0, 1.0, 4.0, 0.5, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0)
"""Weights of a box's entries, in the order of `ProposalMaps`. The weights balance the units: an error of 1 m/s is less
serious than one of 1 rad; a metre of depth at 20 m is only 0.05 in its logarithm, and a metre of height an eighth of
the range. At an error of 1 m/s, the slope of the velocity distance is a fifth of L1's."""

_MIN_SIGMA, _MAX_SIGMA = 0.8, 2.5
"""Smallest and largest sigma in cells: a narrower Gaussian covers one cell, a wider one the image of a near object."""
_SIGMAS_PER_EDGE = 6.0
_MIN_DEPTH = 1.0  # metres
_MIN_HEALTH = 0.5


class Centres(NamedTuple):
    """Targets on N maps of rows x columns: M centres of objects.

    Attributes:
        map: (M,) int64, index of the map.
        label: (M,) int64.
        cell: (M, 2) float32, column and row, cell centres at half-integers.
        height_or_depth: (M,) float32, height (BEV) or depth (image), as in `ProposalMaps`.
        shape: (M, 7) float32, as in `ProposalMaps`; NaN for unknown velocities.
        sigma: (M,) float32, standard deviation of the Gaussian in cells.
    """

    map: Tensor
    label: Tensor
    cell: Tensor
    height_or_depth: Tensor
    shape: Tensor
    sigma: Tensor


def proposal_losses(
    maps: ProposalMaps,
    batch: Batch,
    has_points: tuple[bool, ...] | None,
    point_range: tuple[float, ...],
    bev_range: tuple[float, float, float, float],
) -> dict[str, Tensor]:
    """Return ``proposal_class`` and ``proposal_box``, weighted, each summed over BEV and images.

    The targets of each sensor are the objects that it detects: for the LiDAR, objects with points and with their centre
    on the BEV map, which may end before the point range; for a camera, objects with their centre and a share of at
    least `LEAST_VISIBLE` in a healthy part of its image. For BEV features from cameras, all objects are targets, as in
    the decoder: memory may contain objects that no camera sees.

    Args:
        maps: heat maps of the batch.
        batch: the objects, and the cameras' projections.
        has_points: whether each sample has points; other samples' maps do not count. None for BEV features from
            cameras.
        point_range: x, y, z minimum and maximum in metres, for heights.
        bev_range: x_min, y_min, x_max, y_max of the BEV maps in metres; see `Preset.bev_range`.
    """
    parts = []
    if maps.bev is not None:
        counts = torch.tensor(has_points or (True,) * len(maps.bev), device=maps.bev.device)
        centres = _bev_centres(batch, has_points, maps.bev.shape[2:], point_range, bev_range)
        parts.append(_map_losses(maps.bev, centres, counts))
    if maps.image is not None and batch.lidar_to_image is not None and batch.images is not None:
        images = maps.image.flatten(0, 1)
        centres = _image_centres(batch, images.shape[2:])
        parts.append(_map_losses(images, centres, torch.ones(len(images), dtype=torch.bool, device=images.device)))
    zero = batch.lidar_health.new_zeros(())
    classes, boxes = zip(*parts, strict=True) if parts else ((zero,), (zero,))
    return {
        "proposal_class": CLASS_WEIGHT * torch.stack(classes).sum(),
        "proposal_box": BOX_WEIGHT * torch.stack(boxes).sum(),
    }


def _map_losses(maps: Tensor, centres: Centres, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return focal loss and box distance of maps (N, classes + 10, h, w), divided by the number of objects.

    Maps with a false `counts` (N,) have no focal loss.
    """
    objects = max(1, len(centres.map))
    logits = maps[counts, :-BOX_CHANNELS]
    heat = _heat(centres, maps.shape[0], logits.shape[1], maps.shape[2:])[counts]
    scores = logits.sigmoid()
    loss_at_centres = (1 - scores) ** 2 * F.logsigmoid(logits)
    loss_elsewhere = (1 - heat) ** 4 * scores**2 * F.logsigmoid(-logits)
    focal = -torch.where(heat == 1, loss_at_centres, loss_elsewhere).sum() / objects

    column, row = centres.cell.floor().long().unbind(-1)
    predicted = maps[centres.map, -BOX_CHANNELS:, row, column]
    offset = centres.cell - centres.cell.floor() - 0.5
    truth = torch.cat((offset, centres.height_or_depth[:, None], centres.shape), dim=1)
    weights = truth.new_tensor(CHANNEL_WEIGHTS).expand_as(truth).masked_fill(truth.isnan(), 0.0)
    return focal, (box_distance(predicted, truth.nan_to_num()) * weights).sum() / objects


def _heat(centres: Centres, maps: int, classes: int, size: torch.Size) -> Tensor:
    """Return (N, classes, rows, columns): the highest of the objects' Gaussians, which are 1 in the centres' cells."""
    rows, columns = size
    heat = centres.cell.new_zeros(maps, classes, rows, columns)
    centre = centres.cell.floor()
    x = torch.arange(columns, device=heat.device) - centre[:, :1]
    y = torch.arange(rows, device=heat.device) - centre[:, 1:]
    scale = 2 * centres.sigma[:, None] ** 2
    gaussians = (-(y**2) / scale).exp()[:, :, None] * (-(x**2) / scale).exp()[:, None]
    index = (centres.map * classes + centres.label)[:, None, None].expand_as(gaussians)
    return heat.flatten(0, 1).scatter_reduce(0, index, gaussians, "amax").view_as(heat)


def _bev_centres(
    batch: Batch,
    has_points: tuple[bool, ...] | None,
    size: torch.Size,
    point_range: tuple[float, ...],
    bev_range: tuple[float, float, float, float],
) -> Centres:
    """Return the targets on the BEV maps, one map per sample; arguments as in `proposal_losses`."""
    rows, columns = size
    samples = []
    for sample, (boxes, labels, points) in enumerate(zip(batch.boxes, batch.labels, batch.lidar_points, strict=True)):
        lower, upper = boxes.new_tensor(bev_range[:2]), boxes.new_tensor(bev_range[2:])
        cell = (boxes[:, :2] - lower) / (upper - lower) * boxes.new_tensor([columns, rows])
        on_map = ((cell >= 0) & (cell <= cell.new_tensor([columns, rows]))).all(-1)
        # A centre on the upper border has no cell of its own.
        cell = cell.minimum(cell.new_tensor([columns - 0.01, rows - 0.01]))
        height = (boxes[:, 2] - point_range[2]) / (point_range[5] - point_range[2]) - 0.5
        edge = (boxes[:, 3] * boxes[:, 4]).sqrt() * columns / (upper[0] - lower[0])
        sigma = (edge / _SIGMAS_PER_EDGE).clamp(min=_MIN_SIGMA)
        shown = on_map if has_points is None else on_map & (points > 0) & has_points[sample]
        centres = Centres(torch.full_like(labels, sample), labels, cell, height, _shape(boxes), sigma)
        samples.append(Centres(*(values[shown] for values in centres)))
    return Centres(*map(torch.cat, zip(*samples, strict=True)))


def _image_centres(batch: Batch, size: torch.Size) -> Centres:
    """Return the targets on the image maps, one map per camera, sample after sample."""
    assert batch.images is not None and batch.lidar_to_image is not None
    rows, columns = size
    views, height, width = batch.images.shape[1], *batch.images.shape[-2:]
    samples = []
    for sample, (boxes, labels, visibility) in enumerate(zip(batch.boxes, batch.labels, batch.visibility, strict=True)):
        projections = batch.lidar_to_image[sample]
        projected = torch.einsum("vij,nj->nvi", projections, F.pad(boxes[:, :3], (0, 1), value=1.0))[..., :3]
        depth = projected[..., 2].clamp(min=_MIN_DEPTH)
        cell = projected[..., :2] / depth[..., None] * boxes.new_tensor([columns / width, rows / height])
        inside = ((cell >= 0) & (cell < boxes.new_tensor([columns, rows]))).all(-1) & (projected[..., 2] > _MIN_DEPTH)
        health = _health(batch.camera_health[sample], cell, size)
        shown = inside & (visibility >= LEAST_VISIBLE) & (health >= _MIN_HEALTH)
        edge = boxes[:, 3:6].amax(-1)[:, None] * focal_length(projections) / depth * columns / width
        sigma = (edge / _SIGMAS_PER_EDGE).clamp(_MIN_SIGMA, _MAX_SIGMA)
        maps = sample * views + torch.arange(views, device=boxes.device).expand_as(inside)
        azimuth = viewing_azimuth(projections, boxes[:, None, :3].expand(-1, views, -1))
        shape = rotate_shape(_shape(boxes)[:, None].expand(-1, views, -1), azimuth)
        log_depth = (depth / depth_scale(projections)).log()
        centres = Centres(maps, labels[:, None].expand_as(inside), cell, log_depth, shape, sigma)
        samples.append(Centres(*(values[shown] for values in centres)))
    return Centres(*map(torch.cat, zip(*samples, strict=True)))


def _shape(boxes: Tensor) -> Tensor:
    """Return the shapes (N, 7), as in `ProposalMaps`, of boxes (N, 9)."""
    return encode(boxes)[:, SHAPE_CODES]


def _health(health: Tensor, cell: Tensor, size: torch.Size) -> Tensor:
    """Return the values (N, V) of health maps (V, r, c) at positions (N, V, 2) in cells of a rows x columns map."""
    rows, columns = size
    place = 2 * cell / cell.new_tensor([columns, rows]) - 1
    sampled = F.grid_sample(health[:, None], place.transpose(0, 1)[:, :, None], align_corners=False)
    return sampled[:, 0, :, 0].T
