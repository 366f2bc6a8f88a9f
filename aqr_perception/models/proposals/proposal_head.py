# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Proposal heads: heat maps of object centres in the bird's-eye view (BEV) and in the images.

The LiDAR's head works on BEV features, as in CenterPoint (arXiv:2006.11275) and TransFusion (arXiv:2203.11496);
the cameras' works in the image and estimates depth, as in CenterNet (arXiv:1904.07850). Both also estimate the object's
size, heading and velocity. The maps' peaks become the queries' reference points; the other values become the decoder's
initial estimates. Dense heads learn from every cell of every frame, so a model needs far fewer frames than with learned
reference points only. Each sensor has its own proposals, so the decoder also gets objects that only one sensor sees.
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.boxes.coder import SHAPE_CODES
from aqr_perception.models.model_io import BOX_CODE, ProposalMaps
from aqr_perception.models.ops.convolution import convolve
from aqr_perception.models.proposals.rays import RAY_CHANNELS, depth_scale, ray_features, rotate_shape, viewing_azimuth

UPSAMPLING = 2
"""Heat map cells along the edge of a feature cell; two pedestrians often share one feature cell."""
PLACE_CHANNELS, SHAPE_CHANNELS = 3, len(SHAPE_CODES)
BOX_CHANNELS = PLACE_CHANNELS + SHAPE_CHANNELS
DEFAULT_LOG_LENGTH = 1.0
"""Initial log size of queries without a proposal: a length of 2.7 m."""
CLASS_BIAS = -4.6
"""Class logit of an untrained head: a prior of 1 % for the focal loss, because most cells are empty."""

_HIDDEN = 64
_MAX_LOG_DEPTH, _MAX_LOG_SIZE = 4.0, 3.5
_INSIDE = 1e-4


class Proposals(NamedTuple):
    """Object candidates of one sensor.

    Attributes:
        points: (B, P, 3), reference points in 0..1.
        class_logits: (B, P, classes).
        codes: (B, P, 10), box codes, see `boxes.coder`; x and y are unused.
    """

    points: Tensor
    class_logits: Tensor
    codes: Tensor


class PlacedQueries(NamedTuple):
    """Queries that start at proposals or at learned reference points.

    Attributes:
        points: (B, Q, 3), reference points in 0..1.
        content: (B, Q, C), initial content of the queries; zero without a proposal.
        class_logits: (B, Q, classes), the proposals' logits, which the decoder corrects; zero without a proposal.
        codes: (B, Q, 10), as `Proposals.codes`; see `ProposalHead.default_codes` for queries without a proposal.
    """

    points: Tensor
    content: Tensor
    class_logits: Tensor
    codes: Tensor

    def replace(self, first: int, proposals: Proposals, content: Tensor, used: Tensor) -> "PlacedQueries":
        """Return the queries with proposals from index `first` on, those that are true in `used` (B, P) or (B, 1)."""
        last = first + content.shape[1]
        new = (proposals.points, content, proposals.class_logits, proposals.codes)

        def replaced(old: Tensor, chosen: Tensor) -> Tensor:
            chosen = torch.where(used[..., None], chosen.to(old.dtype), old[:, first:last])
            return torch.cat((old[:, :first], chosen, old[:, last:]), dim=1)

        return PlacedQueries(*map(replaced, self, new))


class _HeatHead(nn.Sequential):
    """Two convolutions and a pixel shuffle onto `UPSAMPLING` x `UPSAMPLING` cells per feature cell."""

    def __init__(self, in_channels: int, classes: int) -> None:
        spread = UPSAMPLING**2
        super().__init__(
            nn.Conv2d(in_channels, _HIDDEN, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(_HIDDEN, (classes + BOX_CHANNELS) * spread, 1),
            nn.PixelShuffle(UPSAMPLING),
        )
        last = self[2]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        nn.init.constant_(last.bias[: classes * spread], CLASS_BIAS)

    def forward(self, features: Tensor) -> Tensor:
        """Return the (N, classes + BOX_CHANNELS, 2h, 2w) map of (N, C, h, w) features."""
        first, _, last, shuffle = self
        hidden = convolve(features, cast(nn.Conv2d, first), relu=True)
        # The last layer makes depths and sizes: in bf16, an object at 40 m would be off by up to 0.5 m.
        with torch.autocast(features.device.type, enabled=False):
            spread: Tensor = shuffle(convolve(hidden.float(), cast(nn.Conv2d, last)))
        return spread


class ProposalHead(nn.Module):
    """Heat maps of both sensors, and queries that start at their peaks.

    Args:
        bev_channels, image_channels: channels of the branches' features.
        channels: channels of the queries.
        classes: number of classes.
        point_range: x, y, z minimum and maximum in metres, the range of reference points in 0..1.
        bev_range: x_min, y_min, x_max, y_max of the BEV features in metres; see `Preset.bev_range`.
        bev, image: number of proposals of each branch; a branch with 0 has no layers.

    Attributes:
        bev_range, bev_count, image_count: `bev_range`, `bev` and `image`.
    """

    _lower: Tensor
    _extent: Tensor
    _bev_lower: Tensor
    _bev_extent: Tensor

    def __init__(
        self,
        bev_channels: int,
        image_channels: int,
        channels: int,
        classes: int,
        point_range: tuple[float, ...],
        bev_range: tuple[float, float, float, float],
        bev: int,
        image: int,
    ) -> None:
        super().__init__()
        self.bev_count, self.image_count = bev, image
        self.bev_range = bev_range
        self._classes, self._channels = classes, channels
        if bev:
            self.bev = _HeatHead(bev_channels, classes)
            self.bev_content = _Content(bev_channels, classes, channels)
        if image:
            self.image = _HeatHead(image_channels + RAY_CHANNELS, classes)
            self.image_content = _Content(image_channels, classes, channels)
        lower, upper = torch.tensor(point_range[:3]), torch.tensor(point_range[3:])
        self.register_buffer("_lower", lower, persistent=False)
        self.register_buffer("_extent", upper - lower, persistent=False)
        bev_lower, bev_upper = torch.tensor(bev_range[:2]), torch.tensor(bev_range[2:])
        # The BEV map's corner and size in units of the point range.
        self.register_buffer("_bev_lower", (bev_lower - lower[:2]) / self._extent[:2], persistent=False)
        self.register_buffer("_bev_extent", (bev_upper - bev_lower) / self._extent[:2], persistent=False)

    def forward(
        self,
        bev: Tensor | None,
        image: Tensor | None,
        lidar_to_image: Tensor | None = None,
        image_size: tuple[int, int] = (0, 0),
    ) -> ProposalMaps:
        """Return the heat maps of the given features.

        Args:
            bev: features (B, C, H, W).
            image: features (B, V, C, h, w).
            lidar_to_image: (B, V, 4, 4), model frame -> pixels; needed for `image`.
            image_size: height and width of the images in pixels.
        """
        bev_map, image_map = None, None
        if bev is not None and self.bev_count:
            bev_map = self.bev(bev).float()
        if image is not None and lidar_to_image is not None and self.image_count:
            rays = ray_features(lidar_to_image, image_size, image.shape[3:]).to(image.dtype)
            with_rays = torch.cat((image, rays), dim=2).flatten(0, 1)
            image_map = self.image(with_rays).float().unflatten(0, image.shape[:2])
        return ProposalMaps(bev_map, image_map)

    def queries(
        self,
        maps: ProposalMaps,
        features: tuple[Tensor | None, Tensor | None],
        learned: Tensor,
        has_bev: Tensor,
        lidar_to_image: Tensor | None,
        image_size: tuple[int, int],
        removed: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> PlacedQueries:
        """Return queries that start at the maps' peaks.

        LiDAR proposals come first, then camera proposals. The remaining queries, and those of a missing sensor, keep
        their learned reference points. No gradient flows back into the maps.

        Args:
            maps: the result of `forward`.
            features: BEV and image features of the maps.
            learned: (B, Q, 3) reference points in 0..1.
            has_bev: (B,) bool, which samples have BEV features.
            lidar_to_image: (B, V, 4, 4), model frame -> pixels.
            image_size: height and width of the images in pixels.
            removed: feature cells without proposals, as `Features.removed_bev` and `Features.removed_image`.
        """
        batch, count = learned.shape[:2]
        content = learned.new_zeros(batch, count, self._channels)
        logits = learned.new_zeros(batch, count, self._classes)
        placed = PlacedQueries(learned, content, logits, self.default_codes(learned))
        bev, image = features
        if maps.bev is not None and bev is not None:
            proposals, cell = self._bev_proposals(maps.bev.detach(), removed[0])
            content = self.bev_content(_at(bev, cell), proposals)
            placed = placed.replace(0, proposals, content, has_bev[:, None] & _kept(removed[0], cell, has_bev))
        if maps.image is not None and image is not None and maps.image.shape[1] and lidar_to_image is not None:
            stacked = None if removed[1] is None else removed[1].flatten(1, 2)
            proposals, cell = self._image_proposals(maps.image.detach(), lidar_to_image, image_size, stacked)
            # The views are stacked vertically as one image.
            content = self.image_content(_at(image.transpose(1, 2).flatten(2, 3), cell), proposals)
            placed = placed.replace(self.bev_count, proposals, content, _kept(stacked, cell, has_bev))
        return placed

    def metres(self, points: Tensor) -> Tensor:
        """Return reference points (..., 3), which are in 0..1, in metres of the model frame."""
        return points * self._extent + self._lower

    def default_codes(self, points: Tensor) -> Tensor:
        """Return (B, Q, 10) codes of a default-sized object at reference points (B, Q, 3)."""
        codes = points.new_zeros(*points.shape[:2], BOX_CODE)
        codes[..., 2] = DEFAULT_LOG_LENGTH
        codes[..., 4] = points.detach()[..., 2] * self._extent[2] + self._lower[2]
        return codes

    def _bev_proposals(self, maps: Tensor, removed: Tensor | None) -> tuple[Proposals, Tensor]:
        """Return the proposals, and (B, P, 2) rows and columns of their feature cells."""
        rows, columns = maps.shape[2:]
        peaks = _lowered(_peak_scores(maps[:, : self._classes]).flatten(1), removed)
        logits, box, index = _best(maps.flatten(2), peaks, self._classes, self.bev_count)
        row, column = torch.div(index, columns, rounding_mode="floor"), index % columns
        x, y = (column + 0.5 + box[..., 0]) / columns, (row + 0.5 + box[..., 1]) / rows
        ground = torch.stack((x, y), dim=-1) * self._bev_extent + self._bev_lower
        points = torch.cat((ground, box[..., 2:3] + 0.5), dim=-1).clamp(_INSIDE, 1 - _INSIDE)
        return Proposals(points, logits, self._codes(points, box[..., PLACE_CHANNELS:])), _feature_cell(row, column)

    def _image_proposals(
        self, maps: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int], removed: Tensor | None
    ) -> tuple[Proposals, Tensor]:
        """Return the proposals and their feature cells as `_bev_proposals`, with the views stacked vertically."""
        rows, columns = maps.shape[3:]
        peaks = _lowered(_peak_scores(maps.flatten(0, 1)[:, : self._classes]).view(len(maps), -1), removed)
        by_cell = maps.transpose(1, 2).flatten(2)  # (B, channels, V * h * w)
        logits, box, index = _best(by_cell, peaks, self._classes, self.image_count)
        row, column = torch.div(index, columns, rounding_mode="floor"), index % columns
        u = (column + 0.5 + box[..., 0]) * (image_size[1] / columns)
        v = (row % rows + 0.5 + box[..., 1]) * (image_size[0] / rows)
        sample = torch.arange(len(maps), device=maps.device)[:, None]
        projection = lidar_to_image[sample, torch.div(row, rows, rounding_mode="floor")].double()
        depth = box[..., 2].clamp(-_MAX_LOG_DEPTH, _MAX_LOG_DEPTH).exp() * depth_scale(projection).float()
        image_point = torch.stack((u * depth, v * depth, depth, torch.ones_like(depth)), dim=-1).double()
        position = torch.linalg.solve(projection, image_point[..., None])[..., :3, 0].float()
        points = ((position - self._lower) / self._extent).clamp(_INSIDE, 1 - _INSIDE)
        shape = rotate_shape(box[..., PLACE_CHANNELS:], -viewing_azimuth(projection, position))
        return Proposals(points, logits, self._codes(points, shape)), _feature_cell(row, column)

    def _codes(self, points: Tensor, shape: Tensor) -> Tensor:
        """Return (B, P, 10) box codes of reference points and shapes (B, P, 7) in the model frame."""
        codes = self.default_codes(points)
        codes[..., (2, 3, 5)] = shape[..., :3].clamp(-_MAX_LOG_SIZE, _MAX_LOG_SIZE)
        codes[..., 6:] = shape[..., 3:]
        return codes


class _Content(nn.Module):
    """Initial query content: a linear map of a proposal's features, class scores and shape."""

    def __init__(self, features: int, classes: int, channels: int) -> None:
        super().__init__()
        self.features = nn.Linear(features, channels)
        self.scores = nn.Linear(classes, channels)
        self.shape = nn.Linear(SHAPE_CHANNELS, channels)

    def forward(self, features: Tensor, proposals: Proposals) -> Tensor:
        """Return (B, P, C) for features (B, P, F)."""
        shape = proposals.codes[..., SHAPE_CODES]
        content: Tensor = self.features(features) + self.scores(proposals.class_logits.sigmoid()) + self.shape(shape)
        return content


def _feature_cell(row: Tensor, column: Tensor) -> Tensor:
    cells = torch.stack((row, column), dim=-1)
    return torch.div(cells, UPSAMPLING, rounding_mode="floor")


def _lowered(peaks: Tensor, removed: Tensor | None) -> Tensor:
    """Return peaks (B, h * w) with -1, below all others, in removed feature cells (B, H, W)."""
    if removed is None:
        return peaks
    fine = removed.repeat_interleave(UPSAMPLING, 1).repeat_interleave(UPSAMPLING, 2)
    return peaks.masked_fill(fine.flatten(1), -1.0)


def _kept(removed: Tensor | None, cells: Tensor, samples: Tensor) -> Tensor:
    """Return (B, P) bool, whether (B, P, 2) feature cells are not removed; (B, 1) if none is, for (B,) samples."""
    if removed is None:
        return torch.ones_like(samples)[:, None]
    return ~removed.flatten(1).gather(1, cells[..., 0] * removed.shape[2] + cells[..., 1])


def _at(features: Tensor, cells: Tensor) -> Tensor:
    """Return (B, P, C): features (B, C, H, W) at (B, P, 2) rows and columns."""
    index = cells[..., 0] * features.shape[3] + cells[..., 1]
    return features.flatten(2).gather(2, index[:, None].expand(-1, features.shape[1], -1)).transpose(1, 2)


def _peak_scores(logits: Tensor) -> Tensor:
    """Return (N, h, w) for logits (N, classes, h, w): the best score of classes with a local maximum in the cell."""
    scores = logits.sigmoid()
    return torch.where(scores == _highest_nearby(scores), scores, 0.0).amax(1)


def _highest_nearby(scores: Tensor) -> Tensor:
    """Return the maximum of each cell and its eight neighbours, as a max pooling, which CPUs compute far slower."""
    padded = F.pad(scores, (1, 1, 1, 1), value=float("-inf"))
    rows = torch.maximum(torch.maximum(padded[..., :-2, :], padded[..., 1:-1, :]), padded[..., 2:, :])
    return torch.maximum(torch.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def _best(maps: Tensor, peaks: Tensor, classes: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return class logits (B, P, classes), boxes (B, P, 10) and cells (B, P) at the highest peaks of (B, C, cells).

    P is `count`, or the number of cells if that is smaller.
    """
    index = peaks.topk(min(count, peaks.shape[1]), dim=1).indices
    chosen = maps.gather(2, index[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
    return chosen[..., :classes], chosen[..., classes:], index
