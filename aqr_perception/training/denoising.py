"""Denoising queries: true objects, moved a little, that the decoder learns to move back (DN-DETR, arXiv:2203.01305).

They need no matching, so they teach the decoder from the first step on; CMT trains with them (arXiv:2301.01283, 3.4).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aqr_perception.models.model_io import Queries

BACKGROUND = -1
"""The label of a query that stands for no object."""


class DenoisingTargets(NamedTuple):
    """What the D denoising queries of each sample should say. D is 0 where no sample has objects.

    Attributes:
        boxes: (B, D, 9), as `Detections.boxes`: the objects as they are.
        labels: (B, D) int64; `BACKGROUND` where the query lies too far from its object to be taken for it.
        real: (B, D) bool, false in places that are empty because the sample has fewer objects than another.
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
    """Return denoising queries followed by the learned ones, and what the denoising ones should say.

    Every object appears once in each of several groups, moved by noise that is uniform within its box. The groups are
    padded to the batch's most objects. Matching queries must not see denoising ones, which know the truth, and the
    groups must not see each other; denoising queries may see matching ones.

    Args:
        reference_points: (Q, 3) learned ones, in 0..1 of the point range; gradients flow to them.
        boxes: B times (N, 9), metres, model frame.
        labels: B times (N,) int64.
        point_range: x, y, z minimum and maximum in metres.
        generator: of the noise; the default one of the boxes' device where None.
        max_groups: most groups.
        max_queries: most denoising queries. A batch with a sample of more objects than this has none at all.
        background_distance: of a moved centre from the true one, in half sizes of the box along each axis. Queries
            that are farther off are background, so that of several queries near an object only close ones claim it.
    """
    batch, learned = len(boxes), reference_points.expand(len(boxes), -1, -1)
    most = max(map(len, boxes), default=0)
    groups = min(max_groups, max_queries // most) if most else 0
    count = groups * most
    if count == 0:
        nothing = reference_points.new_zeros(batch, 0, dtype=torch.long)
        targets = DenoisingTargets(reference_points.new_zeros(batch, 0, 9), nothing, nothing.bool())
        return Queries(learned, 0, None), targets

    truth = pad_sequence(list(boxes), batch_first=True).float().repeat(1, groups, 1)
    truth_labels = pad_sequence(list(labels), batch_first=True, padding_value=BACKGROUND).repeat(1, groups)
    real = pad_sequence([torch.ones_like(label, dtype=torch.bool) for label in labels], batch_first=True)
    real = real.repeat(1, groups)

    drawn_on = truth.device if generator is None else generator.device
    noise = (2 * torch.rand(batch, count, 3, generator=generator, device=drawn_on) - 1).to(truth.device)
    centre = truth[..., :3] + _along_heading(noise * truth[..., 3:6] / 2, truth[..., 6])
    lower, upper = centre.new_tensor(point_range[:3]), centre.new_tensor(point_range[3:])
    # An empty place lies in the middle of the range: usually inside the ego vehicle, where no camera looks.
    points = torch.where(real[..., None], ((centre - lower) / (upper - lower)).clamp(0.0, 1.0), 0.5)
    claimed = real & (noise.norm(dim=-1) <= background_distance)
    targets = DenoisingTargets(truth, torch.where(claimed, truth_labels, BACKGROUND), real)
    mask = _mask(groups, most, len(reference_points), truth.device)
    return Queries(torch.cat((points.to(learned.dtype), learned), dim=1), count, mask), targets


def _along_heading(offset: Tensor, yaw: Tensor) -> Tensor:
    """Return offsets (..., 3), given along a box's length, width and height, in the model frame.

    The authors add them along the frame's axes, which moves the centre of a long vehicle that drives along y far out of
    its box sideways.
    """
    along, across, up = offset.unbind(-1)
    sine, cosine = yaw.sin(), yaw.cos()
    return torch.stack((cosine * along - sine * across, sine * along + cosine * across, up), dim=-1)


def _mask(groups: int, size: int, learned: int, device: torch.device) -> Tensor:
    """Return (D + Q, D + Q) bool, true where the row's query must not see the column's."""
    group = torch.arange(groups + 1, device=device)  # the last one is the learned queries
    group = group.repeat_interleave(torch.tensor([size] * groups + [learned], device=device))
    denoising = group < groups
    return (group[:, None] != group) & denoising
