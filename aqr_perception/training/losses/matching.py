"""Which query answers for which object: the cheapest assignment, one to one (DETR, arXiv:2005.12872, section 3.1)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from aqr_perception.models.boxes.coder import encode
from aqr_perception.models.model_io import Predictions

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
FOCAL_WEIGHT, L1_WEIGHT = 2.0, 0.25
CODE_WEIGHTS = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
"""Of the codes' numbers, in the order of `encode`. CMT's values; losses and costs use the same."""

_HOPELESS = 1e6
"""The cost of a pair that has no finite cost: above any real one, so that it is taken only for want of others."""


class Matches(NamedTuple):
    """Pairs of a query and an object, of all layers and samples: (M,) int64 indices each.

    Attributes:
        layer, sample, query: the place in `Predictions`.
        target: place in the samples' objects, one sample after the other.
    """

    layer: Tensor
    sample: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(predictions: Predictions, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Matches:
    """Assign each layer's queries to the objects so that classification and box together cost least.

    A query gets one object at most, an object one query; with more objects than queries some objects stay without.

    Args:
        predictions: of the matching queries; (L, B, Q, C) and (L, B, Q, 10). Values may be infinite or NaN.
        boxes: B times (N, 9), metres, model frame; a velocity may be NaN where it is not known.
        labels: B times (N,) int64.

    Raises:
        ValueError: a box has a size that is not positive.
    """
    device = predictions.boxes.device
    found: list[np.ndarray] = []
    first_target = 0
    for sample, (truth, classes) in enumerate(zip(boxes, labels, strict=True)):
        if len(truth):
            logits, codes = predictions.class_logits[:, sample], predictions.boxes[:, sample]
            costs = pair_costs(logits, codes, truth, classes).cpu().numpy()
            for layer, cost in enumerate(costs):
                query, matched = linear_sum_assignment(cost)
                found.append(np.stack(np.broadcast_arrays(layer, sample, query, first_target + matched)))
        first_target += len(truth)
    pairs = np.concatenate(found, axis=1) if found else np.zeros((4, 0), np.int64)
    return Matches(*torch.from_numpy(pairs).long().to(device))


def pair_costs(class_logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """Return (L, Q, N) finite costs of one sample's (L, Q, C) logits and (L, Q, 10) codes for its N objects.

    The class costs what the focal loss of that logit would change by if the query took the object.
    """
    with torch.autocast(class_logits.device.type, enabled=False):
        logits = class_logits.float()
        scores = logits.sigmoid()
        taken = -FOCAL_ALPHA * (1 - scores) ** FOCAL_GAMMA * F.logsigmoid(logits)
        spurned = -(1 - FOCAL_ALPHA) * scores**FOCAL_GAMMA * F.logsigmoid(-logits)
        weights = codes.new_tensor(CODE_WEIGHTS, dtype=torch.float32)
        found, true = codes.float() * weights, encode(boxes.float()) * weights
        distance = torch.cdist(found[..., :8], true[:, :8].expand(len(found), -1, -1), p=1)
        # A velocity that is not known costs nothing.
        velocity = torch.where(true[:, 8:].isnan(), 0.0, (found[:, :, None, 8:] - true[:, 8:]).abs())
        distance = distance + velocity.sum(-1)
        cost = FOCAL_WEIGHT * (taken - spurned)[..., labels] + L1_WEIGHT * distance
        return torch.where(cost.isfinite(), cost, _HOPELESS).clamp(max=_HOPELESS)
