# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pillar encoder: columns of points become the cells of a dense bird's-eye view (PointPillars, arXiv:1812.05784)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqr_perception.models.ops.convolution import convolve
from aqr_perception.models.ops.folding import scale_and_shift

_VALUES = 5
"""Values of a point: x, y, z, intensity and age, as in `Frame.points`."""

_OFFSETS = 5
"""Values that a point gets besides its own: x, y, z from the mean of its pillar's points, x, y from its centre."""

_BRIGHTEST, _AGE, _HEIGHT = 255.0, 0.5, 1.0
"""Units of intensity, age in seconds, and height above the pillar's mean in metres.

In raw units, an intensity of 200 and a position of 40 m drown an age of 0.4 s and the 0.2 m to a pillar's centre, which
show motion and shape. A training of minutes learns neither.
"""


class PillarEncoder(nn.Module):
    """PointPillars' feature net on all points of a pillar, and convolutions of stride 2.

    PointPillars draws at most 100 points of a pillar and 12,000 pillars. This encoder uses all of them, as dynamic
    voxelisation does (Zhou et al., arXiv:1910.06528): it needs no limits, and does not depend on the points' order.

    Args:
        channels: channels of the pillars, and of the maps after each halving of the resolution.
        blocks: number of further convolutions at each lower resolution.
        pillar_size: edge lengths along x, y in metres.
        point_range: x, y, z minimum and maximum in metres; points outside are dropped.
        grid: number of pillars along x, y, from the lower corner of the range; points beyond it are dropped.

    Attributes:
        out_channels: channels of the result.
        stride: size of the result's cells in pillars.
        units: (10,) float32, units of a point's values and offsets, in which the weights work.
    """

    units: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        blocks: int,
        *,
        pillar_size: tuple[float, float],
        point_range: tuple[float, float, float, float, float, float],
        grid: tuple[int, int],
    ) -> None:
        super().__init__()
        self.stride, self.out_channels = 2 ** (len(channels) - 1), channels[-1]
        self._size, self._range, self._grid = pillar_size, point_range, grid
        self.linear = nn.Linear(_VALUES + _OFFSETS, channels[0], bias=False)
        reach = [max(abs(low), abs(high)) for low, high in zip(point_range[:3], point_range[3:], strict=True)]
        units = [*reach, _BRIGHTEST, _AGE, *pillar_size, _HEIGHT, *pillar_size]
        self.register_buffer("units", torch.tensor(units), persistent=False)
        self.norm = nn.BatchNorm1d(channels[0], eps=1e-3, momentum=0.01)
        self.stages = nn.ModuleList()
        for narrow, wide in pairwise(channels):
            stage = nn.Sequential()
            for index in range(blocks + 1):
                first = index == 0
                stage.append(nn.Conv2d(narrow if first else wide, wide, 3, 2 if first else 1, padding=1, bias=False))
                stage.append(nn.BatchNorm2d(wide, eps=1e-3, momentum=0.01))
            self.stages.append(stage)

    def forward(self, points: Sequence[Tensor]) -> Tensor:
        """Return (B, out_channels, H / stride, W / stride) features of B point clouds (N, 5); see `Frame.points`.

        The result is channels last in memory and has the parameters' dtype. Points with values that are not finite are
        dropped. A pillar without points is 0.

        Raises:
            ValueError: there is no point cloud, or one has another number of values per point.
        """
        features = self._pillars(points)
        for stage in self.stages:
            layers = list(cast(nn.Sequential, stage))
            for convolution, norm in zip(layers[0::2], layers[1::2], strict=True):
                features = convolve(features, cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm), relu=True)
        return features

    def _pillars(self, points: Sequence[Tensor]) -> Tensor:
        """Return the (B, channels[0], H, W) features of the pillars."""
        width, height = self._grid
        cloud, pillar, cell = self._inside(points)
        # Metres and their sums need float32, also where the network computes in bf16.
        with torch.autocast(cloud.device.type, enabled=False):
            # Few pillars have points: maxima over all of them would cost several times as much, above all in training.
            has_points = torch.zeros(len(points) * height * width, dtype=torch.bool, device=cloud.device)
            has_points[pillar] = True
            occupied = has_points.nonzero()[:, 0]
            place = (has_points.cumsum(0) - 1)[pillar]
            local = self._local(cloud, cell)
            mean = _means(local, place, len(occupied))
            if self.norm.training:
                highest = self._normed_maxima(cloud, local, mean, place)
            else:
                highest = self._folded_maxima(cloud, local, mean, place)
            canvas = highest.new_zeros(len(has_points), highest.shape[1]).index_copy_(0, occupied, highest)
        dense = canvas.view(len(points), height, width, -1).permute(0, 3, 1, 2)
        return dense.to(self.linear.weight.dtype)

    def _inside(self, points: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the points in the grid, the index of the pillar of each, and its cell along x, y."""
        if not points or any(cloud.dim() != 2 or cloud.shape[1] != _VALUES for cloud in points):
            shapes = [tuple(cloud.shape) for cloud in points]
            raise ValueError(f"points have shapes {shapes}, but must be one point cloud (N, {_VALUES}) per sample")
        cloud = torch.cat(list(points)).float()
        sizes = torch.tensor([len(sample) for sample in points], device=cloud.device)
        sample = torch.arange(len(points), device=cloud.device).repeat_interleave(sizes, output_size=len(cloud))
        # Column by column, because PyTorch reduces short rows slowly. A sum with a value that is not finite is not.
        inside = cloud.sum(dim=1).isfinite()
        for axis in range(3):
            inside &= (cloud[:, axis] >= self._range[axis]) & (cloud[:, axis] < self._range[axis + 3])
        cell = torch.floor((cloud[:, :2] - cloud.new_tensor(self._range[:2])) / cloud.new_tensor(self._size))
        for axis, cells in enumerate(self._grid):
            inside &= (cell[:, axis] >= 0) & (cell[:, axis] < cells)
        chosen = inside.nonzero()[:, 0]
        cloud, sample, cell = cloud[chosen], sample[chosen], cell[chosen]
        width, height = self._grid
        whole = cell.long()
        return cloud, (sample * height + whole[:, 1]) * width + whole[:, 0], cell

    def _local(self, cloud: Tensor, cell: Tensor) -> Tensor:
        """Return (N, 3) the points' x, y from their pillars' centres, and z."""
        centre = (cell + 0.5) * cloud.new_tensor(self._size) + cloud.new_tensor(self._range[:2])
        return torch.cat([cloud[:, :2] - centre, cloud[:, 2:3]], dim=1)

    def _normed_maxima(self, cloud: Tensor, local: Tensor, mean: Tensor, place: Tensor) -> Tensor:
        """Return (P, channels[0]) the maxima of the points' features, normed with the batch's statistics."""
        described = torch.cat([cloud, local - mean[place], local[:, :2]], dim=1)
        hidden = F.relu(self.norm(F.linear(described, self.linear.weight.float() / self.units)))
        # After ReLU, the maximum with 0 changes nothing.
        highest = hidden.new_zeros(len(mean), hidden.shape[1])
        return highest.scatter_reduce(0, place[:, None].expand_as(hidden), hidden, "amax")

    def _folded_maxima(self, cloud: Tensor, local: Tensor, mean: Tensor, place: Tensor) -> Tensor:
        """Return the maxima with the norm's running statistics, as part of the linear layer.

        What is the same for all points of a pillar is added to the maximum and not to each point.
        """
        scale, shift = scale_and_shift(self.norm)
        weight = self.linear.weight.float() * scale[:, None] / self.units
        of_values, of_offset, of_local = weight.split([_VALUES, 3, 2], dim=1)
        of_points = torch.cat([of_values, of_local + of_offset[:, :2]], dim=1)
        of_points[:, 2] += of_offset[:, 2]
        hidden = F.linear(torch.cat([cloud, local[:, :2]], dim=1), of_points)
        highest = hidden.new_full((len(mean), hidden.shape[1]), -torch.inf)
        highest = highest.scatter_reduce(0, place[:, None].expand_as(hidden), hidden, "amax")
        return F.relu(highest - F.linear(mean, of_offset) + shift)


def _means(local: Tensor, place: Tensor, pillars: int) -> Tensor:
    """Return (P, 3) the mean of each pillar's offsets, because sums of coordinates would lose digits."""
    count = torch.bincount(place, minlength=pillars).clamp(min=1)
    return local.new_zeros(pillars, 3).index_add(0, place, local) / count[:, None]
