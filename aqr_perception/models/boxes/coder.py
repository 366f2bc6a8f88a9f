"""Box codes: what the network regresses, and back (CMT, arXiv:2301.01283; no non-maximum suppression)."""

from typing import NamedTuple

import torch
from torch import Tensor

SHAPE_CODES = (2, 3, 5, 6, 7, 8, 9)
"""Of a code's numbers, those that say nothing of the centre."""


class DecodedBoxes(NamedTuple):
    """One sample's objects, best first.

    Attributes:
        boxes: (N, 9): x, y, z of the centre, dx (along the heading), dy, dz in metres, yaw in radians, vx, vy in m/s.
        scores: (N,) in 0..1.
        labels: (N,) int64, class indices.
        query_index: (N,) int64, the query that each object comes from.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    query_index: Tensor


def encode(boxes: Tensor) -> Tensor:
    """Return codes (..., 10) of boxes (..., 9), both in metres: cx, cy, log dx, log dy, cz, log dz, sin, cos, vx, vy.

    Raises:
        ValueError: a box has a size that is not positive.
    """
    size = boxes[..., 3:6]
    if not bool((size > 0).all()):
        raise ValueError(f"a box size is {size.min().item()} m, but must be positive; drop degenerate boxes first")
    log_size, yaw = size.log(), boxes[..., 6:7]
    return torch.cat(
        (boxes[..., :2], log_size[..., :2], boxes[..., 2:3], log_size[..., 2:], yaw.sin(), yaw.cos(), boxes[..., 7:9]),
        dim=-1,
    )


def decode_boxes(codes: Tensor) -> Tensor:
    """Return boxes (..., 9) of codes (..., 10), yaw in (-pi, pi]; the inverse of `encode`."""
    yaw = torch.atan2(codes[..., 6:7], codes[..., 7:8])
    size = torch.cat((codes[..., 2:4], codes[..., 5:6]), dim=-1).exp()
    return torch.cat((codes[..., :2], codes[..., 4:5], size, yaw, codes[..., 8:10]), dim=-1)


def decode(
    class_logits: Tensor,
    boxes: Tensor,
    max_detections: int = 300,
    centre_range: tuple[float, float, float, float, float, float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
) -> list[DecodedBoxes]:
    """Return each sample's best objects: the highest sigmoid scores over queries x classes, centre within a range.

    A query may appear with more than one class. As published, the range is applied to the best, so that fewer than
    ``max_detections`` may be left. Boxes that are not finite are dropped.

    Args:
        class_logits: (B, Q, C).
        boxes: (B, Q, 10) codes in metres.
        max_detections: most objects a sample.
        centre_range: x, y, z minimum and maximum in metres, inclusive.
    """
    classes = class_logits.shape[-1]
    scores = class_logits.sigmoid().flatten(1)
    scores, flat_index = scores.topk(min(max_detections, scores.shape[1]))
    query, label = flat_index // classes, flat_index % classes
    decoded = decode_boxes(boxes.gather(1, query[..., None].expand(-1, -1, boxes.shape[-1])))
    lower, upper = decoded.new_tensor(centre_range[:3]), decoded.new_tensor(centre_range[3:])
    centre = decoded[..., :3]
    kept = ((centre >= lower) & (centre <= upper)).all(-1) & decoded.isfinite().all(-1)
    return [
        DecodedBoxes(*(values[sample][kept[sample]] for values in (decoded, scores, label, query)))
        for sample in range(len(boxes))
    ]
