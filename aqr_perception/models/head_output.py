"""What a detection head is asked and what it answers, whichever model it belongs to."""

from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.proposals.head import ProposalMaps


class Predictions(NamedTuple):
    """What every decoder layer says of every query.

    Attributes:
        class_logits: (L, B, Q, C).
        boxes: (L, B, Q, 10) as cx, cy, log dx, log dy, cz, log dz, sin yaw, cos yaw, vx, vy in metres, model frame.
    """

    class_logits: Tensor
    boxes: Tensor


class QueryWeights(NamedTuple):
    """What each query's evidence is worth, and the maps rendered from it.

    Attributes:
        modality: (B, Q, 2) in 0..1: LiDAR, camera.
        cameras: (B, Q, V) in 0..1.
        bev_map: (B, H, W) in [0, 1.5]; (B, 0, 0) without LiDAR.
        camera_maps: (B, V, h, w) in [0, 1.5].
    """

    modality: Tensor
    cameras: Tensor
    bev_map: Tensor
    camera_maps: Tensor


class Queries(NamedTuple):
    """Queries other than the learned ones alone.

    Attributes:
        reference_points: (B, Q, 3) in 0..1 of the point range, denoising queries first.
        denoising: how many of them are denoising queries.
        mask: (Q, Q) bool, true where the row's query must not see the column's.
        content: (B, Q, C), what the decoder starts from; None for zeros.
        class_logits: (B, Q, classes), to which every layer adds its own; None for zeros.
        codes: (B, Q, 10), box codes to which every layer adds its own, but for x and y; None for zeros.
    """

    reference_points: Tensor
    denoising: int
    mask: Tensor | None
    content: Tensor | None = None
    class_logits: Tensor | None = None
    codes: Tensor | None = None

    def of(self, samples: list[int]) -> "Queries":
        """Return the queries of some samples of the batch."""

        def chosen(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[samples]

        return Queries(
            self.reference_points[samples],
            self.denoising,
            self.mask,
            chosen(self.content),
            chosen(self.class_logits),
            chosen(self.codes),
        )

    def added_to(self, predictions: Predictions, which: tuple[int, ...]) -> Predictions:
        """Return predictions with what the queries know already added: class logits, and some numbers of the codes."""
        logits, boxes = predictions
        if self.class_logits is not None:
            logits = logits + self.class_logits
        if self.codes is not None:
            known = torch.zeros_like(self.codes)
            known[..., which] = self.codes[..., which]
            boxes = boxes + known
        return Predictions(logits, boxes)


class HeadOutput(NamedTuple):
    """What a model makes of one batch.

    Attributes:
        router, attention: the query weights by source: the router's and the attention mass's, where computed.
        state: what a model that remembers wants to be given with the next frame; None for the others.
        queries: those asked; None for the learned ones alone.
        proposals: the heat maps behind the proposals among them; None in models without.
    """

    predictions: Predictions
    router: QueryWeights | None
    attention: QueryWeights | None
    state: object | None = None
    queries: Queries | None = None
    proposals: ProposalMaps | None = None


def merge(first: HeadOutput, second: HeadOutput, samples: list[int]) -> HeadOutput:
    """Return one batch's output from the outputs of its two parts.

    Args:
        first: of samples with LiDAR.
        second: of samples without, whose LiDAR maps are therefore empty and become zeros.
        samples: the place in the batch of each of first's samples, then of each of second's.
    """
    order = torch.tensor(samples, device=first.predictions.boxes.device).argsort()

    def merged(a: QueryWeights | None, b: QueryWeights | None) -> QueryWeights | None:
        if a is None or b is None:
            return None
        b = b._replace(bev_map=a.bev_map.new_zeros(b.bev_map.shape[0], *a.bev_map.shape[1:]))
        return QueryWeights(*(torch.cat(pair)[order] for pair in zip(a, b, strict=True)))

    predictions = (torch.cat(pair, dim=1)[:, order] for pair in zip(first.predictions, second.predictions, strict=True))
    return HeadOutput(
        Predictions(*predictions), merged(first.router, second.router), merged(first.attention, second.attention)
    )
