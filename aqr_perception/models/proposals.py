"""Proposals: queries that start where one sensor's branch already suspects an object.

Each branch has a small head that says where the centres of objects lie: the LiDAR's on the bird's-eye view, as
CenterPoint (arXiv:2006.11275) and TransFusion (arXiv:2203.11496) do it, the cameras' in the picture together with a
depth, as CenterNet (arXiv:1904.07850) does it. Its peaks become reference points. Dense heads learn from every cell of
every frame, so a model learns with far fewer frames than from learned reference points alone; and as each sensor
proposes by itself, what the other one cannot see is still looked at.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UPSAMPLING = 2
"""Heat maps have so many cells along the edge of one feature cell: two pedestrians often share a feature cell."""
PLACE_CHANNELS = 3

_HIDDEN = 64
_CLASS_BIAS = -4.6  # focal loss from a prior of 1 %: most cells hold nothing
_PIXELS_PER_METRE = 10.0
_MOST_LOG_DEPTH = 4.0
_INSIDE = 1e-4


class ProposalMaps(NamedTuple):
    """What the branches suspect, `UPSAMPLING` times as fine as their features.

    Channels are the classes' logits, then the place in the cell: offset in cells from its middle along columns and
    rows, and height (BEV: in parts of the point range, from its middle) or depth (image: see `depth_scale`).

    Attributes:
        bev: (B, classes + 3, H, W); None without LiDAR.
        image: (B, V, classes + 3, h, w); None without cameras.
    """

    bev: Tensor | None
    image: Tensor | None


class Proposals(NamedTuple):
    """Places where one sensor suspects objects.

    Attributes:
        points: (B, P, 3), reference points in 0..1.
        class_logits: (B, P, classes).
    """

    points: Tensor
    class_logits: Tensor


class PlacedQueries(NamedTuple):
    """Queries with proposals among them.

    Attributes:
        points: (B, Q, 3), reference points in 0..1.
        content: (B, Q, C), what the decoder starts from; zero for learned reference points.
        class_logits: (B, Q, classes), what the branches said already, for the decoder to correct; likewise.
    """

    points: Tensor
    content: Tensor
    class_logits: Tensor

    def put(self, first: int, proposals: Proposals, content: Tensor, where: Tensor) -> "PlacedQueries":
        """Return the queries with proposals and their content from a place on, in the samples `where` (B,)."""
        last = first + content.shape[1]
        new = (proposals.points, content, proposals.class_logits)

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
            nn.Conv2d(_HIDDEN, (classes + PLACE_CHANNELS) * spread, 1),
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
            self.bev_content = nn.Linear(classes, channels)
        if image:
            self.image = _HeatHead(image_channels, classes)
            self.image_content = nn.Linear(classes, channels)
        lower, upper = torch.tensor(point_range[:3]), torch.tensor(point_range[3:])
        self.register_buffer("_lower", lower, persistent=False)
        self.register_buffer("_extent", upper - lower, persistent=False)

    def forward(self, bev: Tensor | None, image: Tensor | None) -> ProposalMaps:
        """Return the heat maps of BEV features (B, C, H, W) and image features (B, V, C, h, w), where there are any."""
        bev_map, image_map = None, None
        if bev is not None and self.bev_count:
            bev_map = self.bev(bev).float()
        if image is not None and self.image_count:
            image_map = self.image(image.flatten(0, 1)).float().unflatten(0, image.shape[:2])
        return ProposalMaps(bev_map, image_map)

    def queries(
        self,
        maps: ProposalMaps,
        learned: Tensor,
        has_points: Tensor,
        lidar_to_image: Tensor | None,
        image_size: tuple[int, int],
    ) -> PlacedQueries:
        """Return the queries.

        The proposals are of the LiDAR first, then of the cameras; queries after these keep their learned reference
        points, as do those of a sensor that is missing. No gradient flows back into the maps.

        Args:
            learned: (B, Q, 3) reference points in 0..1.
            has_points: (B,) bool, which samples' BEV features are of a cloud.
            lidar_to_image: (B, V, 4, 4), model frame -> pixels.
            image_size: height and width of the images in pixels.
        """
        batch, count = learned.shape[:2]
        nothing = learned.new_zeros(batch, count, self._channels)
        placed = PlacedQueries(learned, nothing, nothing.new_zeros(batch, count, self._classes))
        if maps.bev is not None:
            found = self._bev_proposals(maps.bev.detach())
            placed = placed.put(0, found, self.bev_content(found.class_logits.sigmoid()), has_points)
        if maps.image is not None and maps.image.shape[1] and lidar_to_image is not None:
            found = self._image_proposals(maps.image.detach(), lidar_to_image, image_size)
            content = self.image_content(found.class_logits.sigmoid())
            placed = placed.put(self.bev_count, found, content, torch.ones_like(has_points))
        return placed

    def _bev_proposals(self, maps: Tensor) -> Proposals:
        rows, columns = maps.shape[2:]
        peaks = _peak_scores(maps[:, : self._classes]).flatten(1)
        logits, place, index = _best(maps.flatten(2), peaks, self._classes, self.bev_count)
        x = (index % columns + 0.5 + place[..., 0]) / columns
        y = (torch.div(index, columns, rounding_mode="floor") + 0.5 + place[..., 1]) / rows
        points = torch.stack((x, y, place[..., 2] + 0.5), dim=-1)
        return Proposals(points.clamp(_INSIDE, 1 - _INSIDE), logits)

    def _image_proposals(self, maps: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int]) -> Proposals:
        rows, columns = maps.shape[3:]
        peaks = _peak_scores(maps.flatten(0, 1)[:, : self._classes]).view(len(maps), -1)
        by_cell = maps.transpose(1, 2).flatten(2)  # (B, channels, V * h * w)
        logits, place, index = _best(by_cell, peaks, self._classes, self.image_count)
        view, cell = torch.div(index, rows * columns, rounding_mode="floor"), index % (rows * columns)
        u = (cell % columns + 0.5 + place[..., 0]) * (image_size[1] / columns)
        v = (torch.div(cell, columns, rounding_mode="floor") + 0.5 + place[..., 1]) * (image_size[0] / rows)
        sample = torch.arange(len(maps), device=maps.device)[:, None]
        projection = lidar_to_image[sample, view].double()
        depth = place[..., 2].clamp(-_MOST_LOG_DEPTH, _MOST_LOG_DEPTH).exp() * depth_scale(projection).float()
        image_point = torch.stack((u * depth, v * depth, depth, torch.ones_like(depth)), dim=-1).double()
        position = torch.linalg.solve(projection, image_point[..., None])[..., :3, 0].float()
        return Proposals(((position - self._lower) / self._extent).clamp(_INSIDE, 1 - _INSIDE), logits)


def depth_scale(lidar_to_image: Tensor) -> Tensor:
    """Return (...): the depth in metres of an image map's depth 0, for projections (..., 4, 4).

    It is the depth at which a metre takes `_PIXELS_PER_METRE`: what a picture tells is the size in pixels, from which
    depth follows with the focal length. The map holds the logarithm of depth over this scale.
    """
    return focal_length(lidar_to_image) / _PIXELS_PER_METRE


def focal_length(lidar_to_image: Tensor) -> Tensor:
    """Return (...): the focal length in pixels, horizontally, of projections (..., 4, 4)."""
    first, third = lidar_to_image[..., 0, :3], lidar_to_image[..., 2, :3]
    # The rows are f r1 + c r3 and r3 of a rotation's rows: their cross product is f long.
    return torch.linalg.cross(first, third).norm(dim=-1)


def _peak_scores(logits: Tensor) -> Tensor:
    """Return (N, h, w): of logits (N, classes, h, w), the best score of a class that has a local maximum there."""
    scores = logits.sigmoid()
    return torch.where(scores == F.max_pool2d(scores, 3, stride=1, padding=1), scores, 0.0).amax(1)


def _best(maps: Tensor, peaks: Tensor, classes: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return class logits (B, P, classes), places (B, P, 3) and cells (B, P) where maps (B, C, cells) have high peaks.

    There are as many as there are cells at most.
    """
    index = peaks.topk(min(count, peaks.shape[1]), dim=1).indices
    chosen = maps.gather(2, index[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
    return chosen[..., :classes], chosen[..., classes:], index
