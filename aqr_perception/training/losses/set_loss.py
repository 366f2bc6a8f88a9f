# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Set prediction loss of CMT: focal loss of classes and distance of box codes, by decoder layer (arXiv:2301.01283)."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.models.boxes.coder import encode
from aqr_perception.models.model_io import Predictions
from aqr_perception.training.losses.denoising import BACKGROUND, DenoisingTargets
from aqr_perception.training.losses.matching import (
    CODE_WEIGHTS,
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    FOCAL_WEIGHT,
    L1_WEIGHT,
    match,
)

VELOCITY_WEIGHT = 1.0
"""Weight of the velocity distance. Its slope at an error of 1 m/s equals that of CMT's L1 distance with weight 0.2."""

_QUADRATIC_UP_TO = 5.0  # m/s
_FIRST_VELOCITY = 8  # index of vx in a box code


def set_loss(
    predictions: Predictions,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    denoising: DenoisingTargets | None = None,
) -> dict[str, Tensor]:
    """Return the weighted parts of the loss, float32 scalars summed over the layers; training minimises their sum.

    ``class`` and ``box`` are losses of the matching queries, divided by the number of objects in the batch.
    ``denoising_class`` and ``denoising_box`` are losses of the denoising queries, divided by the number of queries with
    an object's label and by the number without padding. The divisors are means over the processes and at least 1; with
    torch.distributed, every process has to call this function for every batch.

    Args:
        predictions: predictions of D denoising queries followed by the matching ones, (L, B, D + Q, C) and
            (L, B, D + Q, 10).
        boxes: B tensors (N, 9), metres, model frame. An unknown velocity may be NaN and does not count.
        labels: B tensors (N,) int64.
        denoising: targets of the D denoising queries; None without denoising queries.

    Raises:
        ValueError: a box has a size that is not positive.
    """
    with torch.autocast(predictions.boxes.device.type, enabled=False):
        logits, codes = predictions.class_logits.float(), predictions.boxes.float()
        count = 0 if denoising is None else denoising.labels.shape[1]
        matching = Predictions(logits[:, :, count:], codes[:, :, count:])
        sums = [*_matching_sums(matching, boxes, labels)]
        counts = [torch.tensor(sum(map(len, boxes)), device=logits.device)] * 2
        if denoising is None:
            sums += [logits.new_zeros(())] * 2
            counts += [torch.tensor(0, device=logits.device)] * 2
        else:
            sums += _denoising_sums(Predictions(logits[:, :, :count], codes[:, :, :count]), denoising)
            counts += [(denoising.labels != BACKGROUND).sum(), denoising.real.sum()]
        names = ("class", "box", "denoising_class", "denoising_box")
        weights = (FOCAL_WEIGHT, L1_WEIGHT, FOCAL_WEIGHT, L1_WEIGHT)
        divisors = _mean_over_processes(torch.stack(counts).float()).clamp(min=1)
        return {
            name: weight * total / divisor
            for name, weight, total, divisor in zip(names, weights, sums, divisors, strict=True)
        }


def velocity_distance(velocities: Tensor, truth: Tensor) -> Tensor:
    """Return the smooth L1 distance of each velocity component in m/s: quadratic up to `_QUADRATIC_UP_TO`, then linear.

    Half of all vehicles stand still. CMT's L1 distance has its optimum at a velocity of 0 as long as the model
    cannot distinguish moving vehicles, and models on the simulator did not leave this optimum. The optimum of this
    distance is the mean of the possible velocities, which changes with every piece of evidence.
    """
    return F.smooth_l1_loss(velocities, truth.expand_as(velocities), reduction="none", beta=_QUADRATIC_UP_TO)


def box_distance(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the distance of each entry of boxes or codes (..., n): L1, and `velocity_distance` for the last two."""
    velocity = velocity_distance(predicted[..., -2:], truth[..., -2:])
    return torch.cat(((predicted - truth)[..., :-2].abs(), velocity), dim=-1)


def focal_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the focal loss (..., n) of each logit (arXiv:1708.02002, equation 5); `truth` (..., n) is 0 or 1."""
    wrong = torch.where(truth > 0, (-logits).sigmoid(), logits.sigmoid())
    balance = torch.where(truth > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return balance * wrong**FOCAL_GAMMA * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")


def _matching_sums(
    predictions: Predictions, boxes: Sequence[Tensor], labels: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the focal loss of all queries, unmatched ones as background, and the distance of the matched boxes."""
    logits, codes = predictions
    layer, sample, query, target = match(predictions, boxes, labels)
    truth = torch.zeros_like(logits)
    truth[layer, sample, query, torch.cat(list(labels))[target]] = 1.0
    return focal_loss(logits, truth).sum(), _distance(codes[layer, sample, query], torch.cat(list(boxes))[target])


def _denoising_sums(predictions: Predictions, targets: DenoisingTargets) -> tuple[Tensor, Tensor]:
    """Return the focal loss and the box distance of the denoising queries without padding.

    Background queries also have a box distance.
    """
    logits, codes = (values[:, targets.real] for values in predictions)  # (L, R, ...)
    labels, boxes = targets.labels[targets.real], targets.boxes[targets.real]
    truth = F.one_hot(labels.clamp(min=0), logits.shape[-1]) * (labels != BACKGROUND)[:, None]
    return focal_loss(logits, truth.to(logits.dtype).expand_as(logits)).sum(), _distance(codes, boxes)


def _distance(codes: Tensor, boxes: Tensor) -> Tensor:
    """Return the weighted sum of the `box_distance` of codes (..., R, 10) from boxes (R, 9).

    NaN velocities do not count. A NaN in another entry of a box makes the loss NaN.
    """
    truth = encode(boxes.float())
    unknown = truth.isnan()
    unknown[:, :_FIRST_VELOCITY] = False
    weights = codes.new_tensor(CODE_WEIGHTS[:_FIRST_VELOCITY] + (VELOCITY_WEIGHT,) * 2)
    distance = box_distance(codes, truth.masked_fill(unknown, 0.0)) * weights
    return distance.masked_fill(unknown, 0.0).sum()


def _mean_over_processes(counts: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(counts)
        counts = counts / dist.get_world_size()
    return counts
