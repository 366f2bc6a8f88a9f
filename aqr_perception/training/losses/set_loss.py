"""The set prediction loss: focal loss of the classes and distance of the box codes, on every decoder layer (CMT)."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from aqr_perception.models.boxes.coder import encode
from aqr_perception.models.model_io import Predictions
from aqr_perception.training.denoising import BACKGROUND, DenoisingTargets
from aqr_perception.training.losses.matching import (
    CODE_WEIGHTS,
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    FOCAL_WEIGHT,
    L1_WEIGHT,
    match,
)

VELOCITY_WEIGHT = 1.0
"""Of the distance of velocities: beside CMT's weight of 0.2 for an L1 distance, as steep where 1 m/s is missing."""

_SMOOTH = 5.0  # m/s
_VELOCITY = 8  # where a box code has it


def set_loss(
    predictions: Predictions,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    denoising: DenoisingTargets | None = None,
) -> dict[str, Tensor]:
    """Return the weighted parts of the loss, whose sum is to be minimised: float32 scalars, summed over the layers.

    ``class`` and ``box`` are of the matching queries, divided by the number of objects in the batch.
    ``denoising_class`` and ``denoising_box`` are of the denoising queries, divided by the number of those that should
    claim an object and of those that have one. Each number is the mean over the ranks where torch.distributed runs
    (then every rank has to call this for every batch), and 1 at least.

    Args:
        predictions: of D denoising queries followed by the matching ones; (L, B, D + Q, C) and (L, B, D + Q, 10).
        boxes: B times (N, 9), metres, model frame. A velocity may be NaN where it is not known: it is left out.
        labels: B times (N,) int64.
        denoising: what the D denoising queries should say; None where there are none.

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
        divisors = _mean_over_ranks(torch.stack(counts).float()).clamp(min=1)
        return {
            name: weight * total / divisor
            for name, weight, total, divisor in zip(names, weights, sums, divisors, strict=True)
        }


def velocity_distance(velocities: Tensor, truth: Tensor) -> Tensor:
    """Return the smooth L1 distance of velocities in m/s, number by number: quadratic up to `_SMOOTH`, then straight.

    Half of all vehicles stand. So the L1 distance, CMT's, is least for standing as long as nothing tells which ones
    move, and a model that says so is hardly drawn away from it: on the simulator no velocity was learned by it at all.
    The mean of what is known so far, which this distance asks for instead, moves with every hint.
    """
    return F.smooth_l1_loss(velocities, truth.expand_as(velocities), reduction="none", beta=_SMOOTH)


def box_distance(said: Tensor, truth: Tensor) -> Tensor:
    """Return the distances of a box's numbers (..., n), one by one: L1, but of the last two `velocity_distance`."""
    velocity = velocity_distance(said[..., -2:], truth[..., -2:])
    return torch.cat(((said - truth)[..., :-2].abs(), velocity), dim=-1)


def focal_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the focal loss (Lin et al. 2017, arXiv:1708.02002, equation 5) of logits for 0 or 1, one by one."""
    wrong = torch.where(truth > 0, (-logits).sigmoid(), logits.sigmoid())
    balance = torch.where(truth > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return balance * wrong**FOCAL_GAMMA * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")


def _matching_sums(
    predictions: Predictions, boxes: Sequence[Tensor], labels: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the focal loss of all queries, background where not matched, and the distance of the matched boxes."""
    logits, codes = predictions
    layer, sample, query, target = match(predictions, boxes, labels)
    truth = torch.zeros_like(logits)
    truth[layer, sample, query, torch.cat(list(labels))[target]] = 1.0
    return focal_loss(logits, truth).sum(), _distance(codes[layer, sample, query], torch.cat(list(boxes))[target])


def _denoising_sums(predictions: Predictions, targets: DenoisingTargets) -> tuple[Tensor, Tensor]:
    """Return the focal loss and the L1 of the real denoising queries; background ones regress their object, too."""
    logits, codes = (values[:, targets.real] for values in predictions)  # (L, R, ...)
    labels, boxes = targets.labels[targets.real], targets.boxes[targets.real]
    claims = F.one_hot(labels.clamp(min=0), logits.shape[-1]) * (labels != BACKGROUND)[:, None]
    return focal_loss(logits, claims.to(logits.dtype).expand_as(logits)).sum(), _distance(codes, boxes)


def _distance(codes: Tensor, boxes: Tensor) -> Tensor:
    """Return the weighted distance of codes (..., R, 10) from boxes (R, 9), summed; NaN velocities are left out.

    L1, but for velocities: see `velocity_distance`.

    All other numbers of a box must be finite: a NaN there becomes a NaN of the loss.
    """
    truth = encode(boxes.float())
    unknown = truth.isnan()
    unknown[:, :_VELOCITY] = False
    weights = codes.new_tensor(CODE_WEIGHTS[:_VELOCITY] + (VELOCITY_WEIGHT,) * 2)
    distance = box_distance(codes, truth.masked_fill(unknown, 0.0)) * weights
    return distance.masked_fill(unknown, 0.0).sum()


def _mean_over_ranks(counts: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(counts)
        counts = counts / dist.get_world_size()
    return counts
