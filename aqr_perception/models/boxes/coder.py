# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Box codes, the regression targets of the network, and their decoding to detections.

See CMT, arXiv:2301.01283, which needs no non-maximum suppression; small models do.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.boxes.duplicates import first_of_each_object

SHAPE_CODES = (2, 3, 5, 6, 7, 8, 9)
"""Indices of a code's entries other than the centre."""

CENTRE_LIMITS = (61.2, 61.2, 10.0)
"""Largest absolute x, y and z in metres of a detection's centre, as in the published models."""


MOST_CANDIDATES = 300
"""Largest number of objects in the published code, and of those among which duplicates are sought."""


class DecodedBoxes(NamedTuple):
    """Objects of one sample, highest score first.

    Attributes:
        boxes: (N, 9): x, y, z of the centre, dx (along the heading), dy, dz in metres, yaw in radians, vx, vy in m/s.
        scores: (N,) in 0..1.
        labels: (N,) int64, class indices.
        query_index: (N,) int64, the query that predicted each object.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    query_index: Tensor


def encode(boxes: Tensor) -> Tensor:
    """Return the codes (..., 10) of boxes (..., 9), both in metres, radians and m/s, model frame.

    A code is cx, cy, log dx, log dy, cz, log dz, sin yaw, cos yaw, vx, vy.

    Raises:
        ValueError: a box size is not positive.
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
    """Return the boxes (..., 9) of codes (..., 10), with yaw in (-pi, pi]; the inverse of `encode`."""
    yaw = torch.atan2(codes[..., 6:7], codes[..., 7:8])
    size = torch.cat((codes[..., 2:4], codes[..., 5:6]), dim=-1).exp()
    return torch.cat((codes[..., :2], codes[..., 4:5], size, yaw, codes[..., 8:10]), dim=-1)


def decode(
    class_logits: Tensor, boxes: Tensor, max_detections: int = MOST_CANDIDATES, *, nms: bool = False
) -> list[DecodedBoxes]:
    """Return each sample's objects with the highest sigmoid scores over queries x classes.

    A query may yield several objects of different classes. As in the published code, objects beyond `CENTRE_LIMITS` and
    boxes that are not finite are dropped after the selection, so fewer than ``max_detections`` may remain.

    Args:
        class_logits: (B, Q, C).
        boxes: (B, Q, 10) codes in metres.
        max_detections: largest number of objects per sample.
        nms: leave out the duplicates of better objects, of `MOST_CANDIDATES`; see `first_of_each_object`.
    """
    classes = class_logits.shape[-1]
    scores = class_logits.sigmoid().flatten(1)
    candidates = max(max_detections, MOST_CANDIDATES) if nms else max_detections
    scores, flat_index = scores.topk(min(candidates, scores.shape[1]))
    query, label = flat_index // classes, flat_index % classes
    decoded = decode_boxes(boxes.gather(1, query[..., None].expand(-1, -1, boxes.shape[-1])))
    in_range = (decoded[..., :3].abs() <= decoded.new_tensor(CENTRE_LIMITS)).all(-1)
    valid = in_range & decoded.isfinite().all(-1)
    found = []
    for sample, kept in enumerate(valid):
        objects = DecodedBoxes(*(values[sample][kept] for values in (decoded, scores, label, query)))
        if nms:
            first = first_of_each_object(objects.boxes, objects.labels)
            objects = DecodedBoxes(*(values[first][:max_detections] for values in objects))
        found.append(objects)
    return found
