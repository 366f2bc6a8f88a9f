# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Matching of queries to objects: the one-to-one assignment of least cost (DETR, arXiv:2005.12872, section 3.1)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from aqr_perception.models.boxes.coder import encode
from aqr_perception.models.model_io import Predictions

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
FOCAL_WEIGHT, L1_WEIGHT = 2.0, 0.25
CODE_WEIGHTS = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
"""Weights of a box code's entries, in the order of `encode`: CMT's values, for losses and matching costs."""

_NO_FINITE_COST = 1e6
"""Cost of a pair without a finite cost, higher than all real costs."""


class Matches(NamedTuple):
    """M pairs of a query and an object, of all layers and samples: (M,) int64 indices.

    Attributes:
        layer, sample, query: indices of the query in `Predictions`.
        target: index of the object in the concatenation of all samples' objects.
    """

    layer: Tensor
    sample: Tensor
    query: Tensor
    target: Tensor


@torch.no_grad()
def match(predictions: Predictions, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Matches:
    """Return the assignment of each layer's queries to the objects with the least total cost of class and box.

    A query gets at most one object, and an object at most one query. In a sample with more objects than queries, some
    objects get no query.

    Args:
        predictions: predictions of the matching queries, (L, B, Q, C) and (L, B, Q, 10). Values may be infinite or NaN.
        boxes: B tensors (N, 9), metres, model frame; an unknown velocity may be NaN.
        labels: B tensors (N,) int64.

    Raises:
        ValueError: a box has a size that is not positive.
    """
    pairs: list[NDArray[np.int64]] = []
    first_target = 0
    for sample, (sample_boxes, sample_labels) in enumerate(zip(boxes, labels, strict=True)):
        if len(sample_boxes):
            logits, codes = predictions.class_logits[:, sample], predictions.boxes[:, sample]
            costs: NDArray[Any] = pair_costs(logits, codes, sample_boxes, sample_labels).cpu().numpy()
            for layer, cost in enumerate(costs):
                query, target = linear_sum_assignment(cost)
                pairs.append(np.stack(np.broadcast_arrays(layer, sample, query, first_target + target)))
        first_target += len(sample_boxes)
    indices = np.concatenate(pairs, axis=1) if pairs else np.zeros((4, 0), np.int64)
    return Matches(*torch.from_numpy(indices).long().to(predictions.boxes.device))


def pair_costs(class_logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """Return (L, Q, N) finite costs of one sample's (L, Q, C) logits and (L, Q, 10) codes for its N objects.

    The class cost is the change of the logit's focal loss if the query gets the object.
    """
    with torch.autocast(class_logits.device.type, enabled=False):
        logits = class_logits.float()
        scores = logits.sigmoid()
        loss_as_object = -FOCAL_ALPHA * (1 - scores) ** FOCAL_GAMMA * F.logsigmoid(logits)
        loss_as_background = -(1 - FOCAL_ALPHA) * scores**FOCAL_GAMMA * F.logsigmoid(-logits)
        weights = codes.new_tensor(CODE_WEIGHTS, dtype=torch.float32)
        predicted, true = codes.float() * weights, encode(boxes.float()) * weights
        distance = torch.cdist(predicted[..., :8], true[:, :8].expand(len(predicted), -1, -1), p=1)
        # An unknown velocity costs nothing.
        velocity = torch.where(true[:, 8:].isnan(), 0.0, (predicted[:, :, None, 8:] - true[:, 8:]).abs())
        distance = distance + velocity.sum(-1)
        cost = FOCAL_WEIGHT * (loss_as_object - loss_as_background)[..., labels] + L1_WEIGHT * distance
        return torch.where(cost.isfinite(), cost, _NO_FINITE_COST).clamp(max=_NO_FINITE_COST)
