# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Denoising queries: displaced true objects that the decoder learns to move back (DN-DETR, arXiv:2203.01305).

They need no matching, so the decoder learns from the first step; CMT trains with them (arXiv:2301.01283, 3.4).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aqr_perception.models.model_io import Queries

BACKGROUND = -1
"""Label of a query without an object."""


class DenoisingTargets(NamedTuple):
    """Targets of the D denoising queries of each sample; D is 0 if no sample has objects.

    Attributes:
        boxes: (B, D, 9), true boxes, as `Detections.boxes`.
        labels: (B, D) int64; `BACKGROUND` if the query is too far from its object.
        real: (B, D) bool, false for padding in samples with fewer objects than others.
    """

    boxes: Tensor
    labels: Tensor
    real: Tensor


def denoising_queries(
    reference_points: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    point_range: Sequence[float],
    generator: torch.Generator | None = None,
    *,
    max_groups: int = 10,
    max_queries: int = 900,
    background_distance: float = 0.75,
) -> tuple[Queries, DenoisingTargets]:
    """Return denoising queries followed by the learned ones, and the targets of the denoising queries.

    Every object appears once in each of several groups, displaced by noise that is uniform within its box. Groups are
    padded to the largest number of objects in the batch. The mask hides denoising queries, which reveal the truth,
    from the learned queries, and the groups from each other. Denoising queries attend to the learned ones.

    Args:
        reference_points: (Q, 3) learned reference points in 0..1 of the point range, which get gradients.
        boxes: B tensors (N, 9), metres, model frame.
        labels: B tensors (N,) int64.
        point_range: x, y, z minimum and maximum in metres.
        generator: generator of the noise; None for the default generator of the boxes' device.
        max_groups: largest number of groups.
        max_queries: largest number of denoising queries. A batch with more objects in a sample gets none.
        background_distance: distance from the true centre, in half sizes of the box along each axis, beyond which a
            query is background. So the model learns that only the nearest of several queries represents an object.
    """
    batch, learned = len(boxes), reference_points.expand(len(boxes), -1, -1)
    group_size = max(map(len, boxes), default=0)
    groups = min(max_groups, max_queries // group_size) if group_size else 0
    count = groups * group_size
    if count == 0:
        empty = reference_points.new_zeros(batch, 0, dtype=torch.long)
        targets = DenoisingTargets(reference_points.new_zeros(batch, 0, 9), empty, empty.bool())
        return Queries(learned, 0, None), targets

    true_boxes = pad_sequence(list(boxes), batch_first=True).float().repeat(1, groups, 1)
    true_labels = pad_sequence(list(labels), batch_first=True, padding_value=BACKGROUND).repeat(1, groups)
    real = pad_sequence([torch.ones_like(label, dtype=torch.bool) for label in labels], batch_first=True)
    real = real.repeat(1, groups)

    device = true_boxes.device
    noise_device = device if generator is None else generator.device
    noise = (2 * torch.rand(batch, count, 3, generator=generator, device=noise_device) - 1).to(device)
    centre = true_boxes[..., :3] + _along_heading(noise * true_boxes[..., 3:6] / 2, true_boxes[..., 6])
    lower, upper = centre.new_tensor(point_range[:3]), centre.new_tensor(point_range[3:])
    # Padding is in the middle of the range, usually inside the ego vehicle, which no camera sees.
    points = torch.where(real[..., None], ((centre - lower) / (upper - lower)).clamp(0.0, 1.0), 0.5)
    foreground = real & (noise.norm(dim=-1) <= background_distance)
    targets = DenoisingTargets(true_boxes, torch.where(foreground, true_labels, BACKGROUND), real)
    mask = _mask(groups, group_size, len(reference_points), device)
    return Queries(torch.cat((points.to(learned.dtype), learned), dim=1), count, mask), targets


def _along_heading(offset: Tensor, yaw: Tensor) -> Tensor:
    """Return offsets (..., 3) along a box's length, width and height as offsets in the model frame.

    CMT's authors add them along the axes of the frame, which moves the centre of a long vehicle with a heading along y
    sideways out of its box.
    """
    along, across, up = offset.unbind(-1)
    sine, cosine = yaw.sin(), yaw.cos()
    return torch.stack((cosine * along - sine * across, sine * along + cosine * across, up), dim=-1)


def _mask(groups: int, size: int, learned: int, device: torch.device) -> Tensor:
    """Return (D + Q, D + Q) bool, true where the row's query must not attend to the column's."""
    group = torch.arange(groups + 1, device=device)  # the last group holds the learned queries
    group = group.repeat_interleave(torch.tensor([size] * groups + [learned], device=device))
    is_denoising = group < groups
    return (group[:, None] != group) & is_denoising
