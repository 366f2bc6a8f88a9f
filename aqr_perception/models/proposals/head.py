"""Proposals: queries that start where one sensor's branch already suspects an object.

Each branch has a small head that says where the centres of objects lie: the LiDAR's on the bird's-eye view, as
CenterPoint (arXiv:2006.11275) and TransFusion (arXiv:2203.11496) do it, the cameras' in the picture together with a
depth, as CenterNet (arXiv:1904.07850) does it, and how large the object is, where it heads and how fast. Its peaks
become reference points, and the rest of what it says the decoder's first guess. Dense heads learn from every cell of
every frame, so a model learns with far fewer frames than from learned reference points alone; and as each sensor
proposes by itself, what the other one cannot see is still looked at.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.boxes.coder import SHAPE_CODES
from aqr_perception.models.proposals.rays import RAY_CHANNELS, depth_scale, seen_from, sight_azimuth, sight_rays

UPSAMPLING = 2
"""Heat maps have so many cells along the edge of one feature cell: two pedestrians often share a feature cell."""
PLACE_CHANNELS, SHAPE_CHANNELS = 3, len(SHAPE_CODES)
BOX_CHANNELS = PLACE_CHANNELS + SHAPE_CHANNELS
CODE = 10
"""Numbers of a box code, see `boxes.coder`."""
USUAL_LOG_LENGTH = 1.0
"""Where nothing is proposed: a length of 2.7 m."""

_HIDDEN = 64
_CLASS_BIAS = -4.6  # focal loss from a prior of 1 %: most cells hold nothing
_MOST_LOG_DEPTH, _MOST_LOG_SIZE = 4.0, 3.5
_INSIDE = 1e-4


class ProposalMaps(NamedTuple):
    """What the branches suspect, `UPSAMPLING` times as fine as their features.

    Channels are the classes' logits, then the box. Its place in the cell: offset in cells from the middle along columns
    and rows, and height (BEV: in parts of the point range, from its middle) or depth (image: see `depth_scale`). Its
    shape: log length, width and height, sine and cosine of the yaw, velocity x and y in m/s; in the model frame (BEV),
    or turned so that the camera looks along +x at the object (image: what a picture shows does not depend on where the
    camera points).

    Attributes:
        bev: (B, classes + 10, H, W); None without LiDAR.
        image: (B, V, classes + 10, h, w); None without cameras.
    """

    bev: Tensor | None
    image: Tensor | None


class Proposals(NamedTuple):
    """Places where one sensor suspects objects.

    Attributes:
        points: (B, P, 3), reference points in 0..1.
        class_logits: (B, P, classes).
        codes: (B, P, 10), box codes, see `boxes.coder`; x and y are not read.
    """

    points: Tensor
    class_logits: Tensor
    codes: Tensor


class PlacedQueries(NamedTuple):
    """Queries with proposals among them.

    Attributes:
        points: (B, Q, 3), reference points in 0..1.
        content: (B, Q, C), what the decoder starts from; zero for learned reference points.
        class_logits: (B, Q, classes), what the branches said already, for the decoder to correct; likewise.
        codes: (B, Q, 10), as `Proposals.codes`, of a usual object where nothing is proposed.
    """

    points: Tensor
    content: Tensor
    class_logits: Tensor
    codes: Tensor

    def put(self, first: int, proposals: Proposals, content: Tensor, where: Tensor) -> "PlacedQueries":
        """Return the queries with proposals and their content from a place on, in the samples `where` (B,)."""
        last = first + content.shape[1]
        new = (proposals.points, content, proposals.class_logits, proposals.codes)

        def replaced(old: Tensor, chosen: Tensor) -> Tensor:
            chosen = torch.where(where[:, None, None], chosen.to(old.dtype), old[:, first:last])
            return torch.cat((old[:, :first], chosen, old[:, last:]), dim=1)

        return PlacedQueries(*map(replaced, self, new))


class _HeatHead(nn.Sequential):
    """Two convolutions; the last one's output is spread over `UPSAMPLING` x `UPSAMPLING` cells."""

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
        nn.init.constant_(last.bias[: classes * spread], _CLASS_BIAS)


class ProposalHead(nn.Module):
    """Finds proposals and puts them among the queries, instead of the first learned reference points.

    Args:
        bev_channels, image_channels: of the branches' features.
        channels: of the queries.
        classes: number of classes.
        point_range: x, y, z minimum and maximum in metres.
        bev, image: how many proposals each branch makes; it must not be asked for its features where it makes none.
    """

    _lower: Tensor
    _extent: Tensor

    def __init__(
        self,
        bev_channels: int,
        image_channels: int,
        channels: int,
        classes: int,
        point_range: tuple[float, ...],
        bev: int,
        image: int,
    ) -> None:
        super().__init__()
        self.bev_count, self.image_count = bev, image
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

    def forward(
        self,
        bev: Tensor | None,
        image: Tensor | None,
        lidar_to_image: Tensor | None = None,
        image_size: tuple[int, int] = (0, 0),
    ) -> ProposalMaps:
        """Return the heat maps of what features there are.

        Args:
            bev: features (B, C, H, W).
            image: features (B, V, C, h, w).
            lidar_to_image: (B, V, 4, 4), model frame -> pixels; images come with it.
            image_size: height and width of the images in pixels.
        """
        bev_map, image_map = None, None
        if bev is not None and self.bev_count:
            bev_map = self.bev(bev).float()
        if image is not None and lidar_to_image is not None and self.image_count:
            rays = sight_rays(lidar_to_image, image_size, image.shape[3:]).to(image.dtype)
            sensed = torch.cat((image, rays), dim=2).flatten(0, 1)
            image_map = self.image(sensed).float().unflatten(0, image.shape[:2])
        return ProposalMaps(bev_map, image_map)

    def queries(
        self,
        maps: ProposalMaps,
        features: tuple[Tensor | None, Tensor | None],
        learned: Tensor,
        has_points: Tensor,
        lidar_to_image: Tensor | None,
        image_size: tuple[int, int],
    ) -> PlacedQueries:
        """Return the queries.

        The proposals are of the LiDAR first, then of the cameras; queries after these keep their learned reference
        points, as do those of a sensor that is missing. No gradient flows back into the maps.

        Args:
            features: BEV and image features that the maps were made of.
            learned: (B, Q, 3) reference points in 0..1.
            has_points: (B,) bool, which samples' BEV features are of a cloud.
            lidar_to_image: (B, V, 4, 4), model frame -> pixels.
            image_size: height and width of the images in pixels.
        """
        batch, count = learned.shape[:2]
        nothing = learned.new_zeros(batch, count, self._channels)
        suspected = nothing.new_zeros(batch, count, self._classes)
        placed = PlacedQueries(learned, nothing, suspected, self.usual_codes(learned))
        bev, image = features
        if maps.bev is not None and bev is not None:
            found, cell = self._bev_proposals(maps.bev.detach())
            content = self.bev_content(_at(bev, cell), found)
            placed = placed.put(0, found, content, has_points)
        if maps.image is not None and image is not None and maps.image.shape[1] and lidar_to_image is not None:
            found, cell = self._image_proposals(maps.image.detach(), lidar_to_image, image_size)
            # The views side by side, as one picture.
            content = self.image_content(_at(image.transpose(1, 2).flatten(2, 3), cell), found)
            placed = placed.put(self.bev_count, found, content, torch.ones_like(has_points))
        return placed

    def usual_codes(self, points: Tensor) -> Tensor:
        """Return (B, Q, 10) codes of a usual object at reference points (B, Q, 3)."""
        codes = points.new_zeros(*points.shape[:2], CODE)
        codes[..., 2] = USUAL_LOG_LENGTH
        codes[..., 4] = points.detach()[..., 2] * self._extent[2] + self._lower[2]
        return codes

    def _bev_proposals(self, maps: Tensor) -> tuple[Proposals, Tensor]:
        """Return the proposals, and (B, P, 2) rows and columns of the feature cells they come from."""
        rows, columns = maps.shape[2:]
        peaks = _peak_scores(maps[:, : self._classes]).flatten(1)
        logits, box, index = _best(maps.flatten(2), peaks, self._classes, self.bev_count)
        row, column = torch.div(index, columns, rounding_mode="floor"), index % columns
        x, y = (column + 0.5 + box[..., 0]) / columns, (row + 0.5 + box[..., 1]) / rows
        points = torch.stack((x, y, box[..., 2] + 0.5), dim=-1).clamp(_INSIDE, 1 - _INSIDE)
        return Proposals(points, logits, self._codes(points, box[..., PLACE_CHANNELS:])), _feature_cell(row, column)

    def _image_proposals(
        self, maps: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int]
    ) -> tuple[Proposals, Tensor]:
        """As `_bev_proposals`; the cells are of all views' features, one below the other."""
        rows, columns = maps.shape[3:]
        peaks = _peak_scores(maps.flatten(0, 1)[:, : self._classes]).view(len(maps), -1)
        by_cell = maps.transpose(1, 2).flatten(2)  # (B, channels, V * h * w)
        logits, box, index = _best(by_cell, peaks, self._classes, self.image_count)
        row, column = torch.div(index, columns, rounding_mode="floor"), index % columns
        u = (column + 0.5 + box[..., 0]) * (image_size[1] / columns)
        v = (row % rows + 0.5 + box[..., 1]) * (image_size[0] / rows)
        sample = torch.arange(len(maps), device=maps.device)[:, None]
        projection = lidar_to_image[sample, torch.div(row, rows, rounding_mode="floor")].double()
        depth = box[..., 2].clamp(-_MOST_LOG_DEPTH, _MOST_LOG_DEPTH).exp() * depth_scale(projection).float()
        image_point = torch.stack((u * depth, v * depth, depth, torch.ones_like(depth)), dim=-1).double()
        position = torch.linalg.solve(projection, image_point[..., None])[..., :3, 0].float()
        points = ((position - self._lower) / self._extent).clamp(_INSIDE, 1 - _INSIDE)
        shape = seen_from(box[..., PLACE_CHANNELS:], -sight_azimuth(projection, position))
        return Proposals(points, logits, self._codes(points, shape)), _feature_cell(row, column)

    def _codes(self, points: Tensor, shape: Tensor) -> Tensor:
        """Return (B, P, 10) box codes of reference points and shapes (B, P, 7) in the model frame."""
        codes = self.usual_codes(points)
        codes[..., (2, 3, 5)] = shape[..., :3].clamp(-_MOST_LOG_SIZE, _MOST_LOG_SIZE)
        codes[..., 6:] = shape[..., 3:]
        return codes


class _Content(nn.Module):
    """What the decoder starts from: the features that a proposal was made of, and what it says."""

    def __init__(self, features: int, classes: int, channels: int) -> None:
        super().__init__()
        self.features = nn.Linear(features, channels)
        self.scores = nn.Linear(classes, channels)
        self.shape = nn.Linear(SHAPE_CHANNELS, channels)

    def forward(self, features: Tensor, proposals: Proposals) -> Tensor:
        """Return (B, P, C) for features (B, P, F)."""
        shape = proposals.codes[..., SHAPE_CODES]
        return self.features(features) + self.scores(proposals.class_logits.sigmoid()) + self.shape(shape)


def _feature_cell(row: Tensor, column: Tensor) -> Tensor:
    cells = torch.stack((row, column), dim=-1)
    return torch.div(cells, UPSAMPLING, rounding_mode="floor")


def _at(features: Tensor, cells: Tensor) -> Tensor:
    """Return (B, P, C): features (B, C, H, W) at (B, P, 2) rows and columns."""
    index = cells[..., 0] * features.shape[3] + cells[..., 1]
    return features.flatten(2).gather(2, index[:, None].expand(-1, features.shape[1], -1)).transpose(1, 2)


def _peak_scores(logits: Tensor) -> Tensor:
    """Return (N, h, w): of logits (N, classes, h, w), the best score of a class that has a local maximum there."""
    scores = logits.sigmoid()
    return torch.where(scores == F.max_pool2d(scores, 3, stride=1, padding=1), scores, 0.0).amax(1)


def _best(maps: Tensor, peaks: Tensor, classes: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return class logits (B, P, classes), boxes (B, P, 10) and cells (B, P) where maps (B, C, cells) have high peaks.

    There are as many as there are cells at most.
    """
    index = peaks.topk(min(count, peaks.shape[1]), dim=1).indices
    chosen = maps.gather(2, index[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
    return chosen[..., :classes], chosen[..., classes:], index
