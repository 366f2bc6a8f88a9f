"""The loss of the branches' heat maps: where the centres of objects lie, and at what height or depth.

Focal loss against a Gaussian about every centre (CornerNet, arXiv:1808.01244, equation 1, as CenterPoint uses it), and
the distance of the box in the centre's cell: L1, but for velocities (see `losses.box_distance`).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.data.batch import Batch
from aqr_perception.data.frames import LEAST_VISIBLE
from aqr_perception.models.boxes.coder import SHAPE_CODES, encode
from aqr_perception.models.proposals.head import BOX_CHANNELS, ProposalMaps
from aqr_perception.models.proposals.rays import depth_scale, focal_length, rotate_shape, viewing_azimuth
from aqr_perception.training.losses.set_loss import box_distance

CLASS_WEIGHT, BOX_WEIGHT = 1.0, 0.5
CHANNEL_WEIGHTS = (1.0, 1.0, 4.0, 0.5, 0.5, 0.5, 1.0, 1.0, 0.5, 0.5)
"""Of a box's numbers, in the order of `ProposalMaps`: a metre a second is less wrong than a radian, but at 20 m a metre
of depth is 0.05 of its logarithm, and of height an eighth of the range. Where 1 m/s is missing, a velocity's distance
is a fifth as steep as its weight says."""

_LEAST_SIGMA, _MOST_SIGMA = 0.8, 2.5
"""In cells: a Gaussian narrower than a cell is a single one; an object close to a camera must not fill the picture."""
_SIGMAS_PER_EDGE = 6.0
_LEAST_DEPTH = 1.0  # metres
_LEAST_HEALTH = 0.5


class Centres(NamedTuple):
    """Objects on N maps of rows x columns: where they should be found.

    Attributes:
        on: (M,) int64, the map.
        label: (M,) int64.
        cell: (M, 2) float32, column and row, cell centres at half-integers.
        third: (M,) float32, height or depth, as the map should say it.
        shape: (M, 7) float32, likewise; NaN for velocities that are not known.
        sigma: (M,) float32, of the Gaussian, in cells.
    """

    on: Tensor
    label: Tensor
    cell: Tensor
    third: Tensor
    shape: Tensor
    sigma: Tensor


def proposal_losses(
    maps: ProposalMaps, batch: Batch, has_points: tuple[bool, ...] | None, point_range: tuple[float, ...]
) -> dict[str, Tensor]:
    """Return ``proposal_class`` and ``proposal_box``, weighted, summed over bird's-eye view and pictures.

    Each sensor answers for the objects that it shows: the LiDAR for those with points, a camera for those of which it
    sees the centre, and `LEAST_VISIBLE` at least, in a healthy part of its picture. A bird's-eye view of the cameras
    answers for all, as the decoder does: it may remember what no camera shows just now.

    Args:
        maps: of the batch.
        batch: its objects, and the cameras' projections.
        has_points: for each sample; maps of an empty cloud do not count. None where the BEV is of the cameras.
        point_range: x, y, z minimum and maximum in metres.
    """
    parts = []
    if maps.bev is not None:
        seen = torch.tensor(has_points or (True,) * len(maps.bev), device=maps.bev.device)
        centres = _bev_centres(batch, has_points, maps.bev.shape[2:], point_range)
        parts.append(_map_losses(maps.bev, centres, seen))
    if maps.image is not None and batch.lidar_to_image is not None and batch.images is not None:
        flat = maps.image.flatten(0, 1)
        centres = _image_centres(batch, flat.shape[2:])
        parts.append(_map_losses(flat, centres, torch.ones(len(flat), dtype=torch.bool, device=flat.device)))
    zero = batch.lidar_health.new_zeros(())
    classes, boxes = zip(*parts, strict=True) if parts else ((zero,), (zero,))
    return {
        "proposal_class": CLASS_WEIGHT * torch.stack(classes).sum(),
        "proposal_box": BOX_WEIGHT * torch.stack(boxes).sum(),
    }


def _map_losses(maps: Tensor, centres: Centres, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the focal loss of maps (N, classes + 10, h, w) where they count (N,), and the distance, each by object."""
    logits = maps[counts, :-BOX_CHANNELS]
    heat = _heat(centres, maps.shape[0], logits.shape[1], maps.shape[2:])[counts]
    scores = logits.sigmoid()
    found = (1 - scores) ** 2 * F.logsigmoid(logits)
    spurious = (1 - heat) ** 4 * scores**2 * F.logsigmoid(-logits)
    objects = max(1, len(centres.on))
    focal = -torch.where(heat == 1, found, spurious).sum() / objects

    column, row = centres.cell.floor().long().unbind(-1)
    said = maps[centres.on, -BOX_CHANNELS:, row, column]
    truth = torch.cat((centres.cell - centres.cell.floor() - 0.5, centres.third[:, None], centres.shape), dim=1)
    weights = truth.new_tensor(CHANNEL_WEIGHTS).expand_as(truth).masked_fill(truth.isnan(), 0.0)
    return focal, (box_distance(said, truth.nan_to_num()) * weights).sum() / objects


def _heat(centres: Centres, maps: int, classes: int, size: torch.Size) -> Tensor:
    """Return (N, classes, rows, columns): 1 in the centres' cells, falling off around them; the highest counts."""
    rows, columns = size
    heat = centres.cell.new_zeros(maps, classes, rows, columns)
    middle = centres.cell.floor()
    x = torch.arange(columns, device=heat.device) - middle[:, :1]
    y = torch.arange(rows, device=heat.device) - middle[:, 1:]
    scale = 2 * centres.sigma[:, None] ** 2
    blobs = (-(y**2) / scale).exp()[:, :, None] * (-(x**2) / scale).exp()[:, None]
    index = (centres.on * classes + centres.label)[:, None, None].expand_as(blobs)
    return heat.flatten(0, 1).scatter_reduce(0, index, blobs, "amax").view_as(heat)


def _bev_centres(
    batch: Batch, has_points: tuple[bool, ...] | None, size: torch.Size, point_range: tuple[float, ...]
) -> Centres:
    rows, columns = size
    found = []
    for sample, (boxes, labels, points) in enumerate(zip(batch.boxes, batch.labels, batch.lidar_points, strict=True)):
        lower, upper = boxes.new_tensor(point_range[:3]), boxes.new_tensor(point_range[3:])
        place = (boxes[:, :3] - lower) / (upper - lower)
        cell = place[:, :2] * boxes.new_tensor([columns, rows])
        cell = cell.clamp(min=0).minimum(cell.new_tensor([columns - 0.01, rows - 0.01]))
        edge = (boxes[:, 3] * boxes[:, 4]).sqrt() * columns / (upper[0] - lower[0])
        shown = torch.ones_like(points, dtype=torch.bool) if has_points is None else (points > 0) & has_points[sample]
        on = torch.full_like(labels, sample)
        sigma = (edge / _SIGMAS_PER_EDGE).clamp(min=_LEAST_SIGMA)
        centres = Centres(on, labels, cell, place[:, 2] - 0.5, _shape(boxes), sigma)
        found.append(Centres(*(values[shown] for values in centres)))
    return Centres(*map(torch.cat, zip(*found, strict=True)))


def _image_centres(batch: Batch, size: torch.Size) -> Centres:
    assert batch.images is not None and batch.lidar_to_image is not None
    rows, columns = size
    views, height, width = batch.images.shape[1], *batch.images.shape[-2:]
    found = []
    for sample, (boxes, labels, visibility) in enumerate(zip(batch.boxes, batch.labels, batch.visibility, strict=True)):
        projections = batch.lidar_to_image[sample]
        projected = torch.einsum("vij,nj->nvi", projections, F.pad(boxes[:, :3], (0, 1), value=1.0))[..., :3]
        depth = projected[..., 2].clamp(min=_LEAST_DEPTH)
        cell = projected[..., :2] / depth[..., None] * boxes.new_tensor([columns / width, rows / height])
        inside = ((cell >= 0) & (cell < boxes.new_tensor([columns, rows]))).all(-1) & (projected[..., 2] > _LEAST_DEPTH)
        health = _health(batch.camera_health[sample], cell, size)
        shown = inside & (visibility >= LEAST_VISIBLE) & (health >= _LEAST_HEALTH)
        edge = boxes[:, 3:6].amax(-1)[:, None] * focal_length(projections) / depth * columns / width
        sigma = (edge / _SIGMAS_PER_EDGE).clamp(_LEAST_SIGMA, _MOST_SIGMA)
        on = sample * views + torch.arange(views, device=boxes.device).expand_as(inside)
        azimuth = viewing_azimuth(projections, boxes[:, None, :3].expand(-1, views, -1))
        shape = rotate_shape(_shape(boxes)[:, None].expand(-1, views, -1), azimuth)
        third = (depth / depth_scale(projections)).log()
        centres = Centres(on, labels[:, None].expand_as(inside), cell, third, shape, sigma)
        found.append(Centres(*(values[shown] for values in centres)))
    return Centres(*map(torch.cat, zip(*found, strict=True)))


def _shape(boxes: Tensor) -> Tensor:
    """Return (N, 7) shapes, see `ProposalMaps`, of boxes (N, 9)."""
    return encode(boxes)[:, SHAPE_CODES]


def _health(health: Tensor, cell: Tensor, size: torch.Size) -> Tensor:
    """Return (N, V): of health maps (V, r, c), the values at places (N, V, 2) in cells of a rows x columns map."""
    rows, columns = size
    place = 2 * cell / cell.new_tensor([columns, rows]) - 1
    sampled = F.grid_sample(health[:, None], place.transpose(0, 1)[:, :, None], align_corners=False)
    return sampled[:, 0, :, 0].T
