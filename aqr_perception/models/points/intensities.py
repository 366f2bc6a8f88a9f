# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Intensities of any LiDAR in the distribution of the training's.

What a LiDAR calls intensity depends on its maker: the middle one of a cloud is 14 of 255 in one drive and 76 in
another. A model reads other materials, and so other objects, from other numbers. Only their order is the same for all:
the intensities are therefore mapped so that those of each cloud have the same quantiles (histogram matching).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_INTENSITY = 3
_SHIFT = 15
"""Dropped bits of a float32, which leave 8 of its mantissa: whole numbers up to 256 stay apart."""
_BINS = 1 << (31 - _SHIFT)


def matched_intensities(points: Tensor, quantiles: Sequence[float]) -> Tensor:
    """Return a point cloud (N, 5) with intensities of given quantiles, in the order of its own.

    Intensities that differ by less than 1/256 may become equal. A cloud with one intensity, such as that of a LiDAR
    without any, gets the middle of the quantiles.

    Args:
        points: x, y, z, intensity of at least 0, in any unit, and age; not modified.
        quantiles: at ranks evenly spaced in 0..1, ascending; none: the cloud is returned as it is.
    """
    if not quantiles or not len(points):
        return points
    # The bits of positive numbers are in the numbers' order, so no sorting is needed.
    bits = points[:, _INTENSITY].float().nan_to_num(0.0).clamp(min=0.0).view(torch.int32)
    value = (bits >> _SHIFT).long()
    count = torch.bincount(value, minlength=_BINS)
    rank = (count.cumsum(0) - 0.5 * count) / len(points)
    wanted = torch.tensor(quantiles, device=points.device, dtype=points.dtype)
    place = rank * (len(wanted) - 1)
    lower = place.long().clamp(max=len(wanted) - 2)
    matched = torch.lerp(wanted[lower], wanted[lower + 1], (place - lower).to(points.dtype))
    changed = points.clone()
    changed[:, _INTENSITY] = matched[value]
    return changed
