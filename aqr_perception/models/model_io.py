# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Input and output types of all detection models."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from aqr_perception.models.aqr.agreement import SensorAgreement
from aqr_perception.models.aqr.gate import Gate
from aqr_perception.options import AqrOptions


class ProposalMaps(NamedTuple):
    """Heat maps, `proposal_head.UPSAMPLING` times as fine as their features.

    Channels are the class logits, then the box: its position in the cell and its shape. The position is the offset from
    the cell's middle along columns and rows, in cells, and height (BEV: share of the point range, from its middle) or
    depth (image: see `rays.depth_scale`). The shape is log length, width and height, sine and cosine of the yaw, and
    velocity x and y in m/s. BEV shapes are in the model frame; image shapes are rotated so that the camera looks along
    +x at the object, because an image does not show where its camera points.

    Attributes:
        bev: (B, classes + 10, H, W); None without LiDAR.
        image: (B, V, classes + 10, h, w); None without cameras.
    """

    bev: Tensor | None
    image: Tensor | None


class Features(NamedTuple):
    """Feature maps and geometry of one batch.

    Attributes:
        image: the cameras' features, as `DetectionModel.image_features` returns them; None without cameras.
        bev: (B, C, H, W) LiDAR features; None if no sample has points.
        lidar_to_image: (B, V, 4, 4), model frame -> pixels of the model's images; V is 0 without cameras.
        image_size: height and width of the model's images in pixels; (0, 0) without cameras.
        has_points: for each sample, whether `bev` comes from points; an empty point cloud gives no LiDAR tokens.
        removed_bev: (B, H, W) bool, true for cells of `bev` that are neither tokens nor proposals; None: no cell.
        removed_image: (B, V, h, w) bool, the same for cells of `image`. Models with `removes_tokens` only.
        proposals: heat maps of the proposals, if they were made together with the features; see
            `DetectionModel.branch_proposals`.
    """

    image: Tensor | None
    bev: Tensor | None
    lidar_to_image: Tensor
    image_size: tuple[int, int]
    has_points: tuple[bool, ...]
    removed_bev: Tensor | None = None
    removed_image: Tensor | None = None
    proposals: ProposalMaps | None = None

    @property
    def batch_size(self) -> int:
        return len(self.has_points)

    def select(self, samples: Sequence[int]) -> "Features":
        """Return the features of some samples, without proposals; `bev` is None if none of them has points."""
        index = list(samples)
        if index == list(range(self.batch_size)) and (self.bev is None or any(self.has_points)):
            return self
        has_points = tuple(self.has_points[sample] for sample in index)
        return Features(
            None if self.image is None else self.image[index],
            None if self.bev is None or not any(has_points) else self.bev[index],
            self.lidar_to_image[index],
            self.image_size,
            has_points,
            None if self.removed_bev is None else self.removed_bev[index],
            None if self.removed_image is None else self.removed_image[index],
        )


class History(NamedTuple):
    """Previous frame of a model with memory; see `model_memory.ModelMemory`.

    Attributes:
        state: `ModelOutput.state` of the previous frame, in the model's own format. None in the first frame of a drive:
            then `to_current` is the identity and `seconds` is 0.
        to_current: (4, 4) float32, previous model frame -> current model frame, from the vehicle's motion; (B, 4, 4)
            if it differs by sample.
        to_fixed: (4, 4) or (B, 4, 4) float32, current model frame -> a fixed frame.
        seconds: time between the two frames.
    """

    state: object
    to_current: Tensor
    to_fixed: Tensor
    seconds: float

    def to(self, device: torch.device) -> "History":
        """Return the history with its transforms on a device."""
        return self._replace(to_current=self.to_current.to(device), to_fixed=self.to_fixed.to(device))


class DecodeOptions(NamedTuple):
    """Decoding options of one batch.

    Attributes:
        aqr: use and rendering of the query weights.
        router_weights: whether to return the router's weights even if the decoder does not use them.
        attention_weights: whether to return weights from the attention mass.
        layers: the decoder layers whose predictions are computed.
        fixed_router: whether the predictions pass no gradient to the router, which then learns from its weights alone.
    """

    aqr: AqrOptions
    router_weights: bool = False
    attention_weights: bool = False
    layers: slice = slice(None)
    fixed_router: bool = False


LAST_LAYER = slice(-1, None)
"""`DecodeOptions.layers` of inference; only training needs the other layers' predictions."""

NO_LAYER = slice(0)
"""`DecodeOptions.layers` for the router's weights alone, of models with `routes_alone`: predictions of 0 layers."""


BOX_CODE = 10
"""Entries of a box code; see `Predictions`."""


class Predictions(NamedTuple):
    """Class logits and boxes by decoder layer and query.

    Attributes:
        class_logits: (L, B, Q, C).
        boxes: (L, B, Q, 10) as cx, cy, log dx, log dy, cz, log dz, sin yaw, cos yaw, vx, vy in metres, model frame.
    """

    class_logits: Tensor
    boxes: Tensor


def no_predictions(positions: Tensor, classes: int) -> Predictions:
    """Return the predictions of 0 layers for queries with position embeddings (B, Q, C)."""
    return Predictions(*(positions.new_zeros(0, *positions.shape[:2], entries) for entries in (classes, BOX_CODE)))


class QueryWeights(NamedTuple):
    """Weights of the sensors' evidence for each query, and the maps rendered from them.

    Attributes:
        modality: (B, Q, 2): LiDAR, camera; in 0..1, or in [-1, 1] for signed weights (see
            `DetectionModel.signed_weights`).
        cameras: (B, Q, V) in the same range; 0 if the camera does not see the query.
        bev_map: (B, H, W) in [0, 1.5], or in [-1.5, 1.5] for signed weights; (B, 0, 0) without LiDAR.
        camera_maps: (B, V, h, w) in the same range.
    """

    modality: Tensor
    cameras: Tensor
    bev_map: Tensor
    camera_maps: Tensor

    def detached(self) -> "QueryWeights":
        """Return the weights and maps without gradient."""
        return QueryWeights(*(tensor.detach() for tensor in self))


class OtherEvidence(NamedTuple):
    """What the other sensor adds to the content of queries at proposals; see `proposals.other_sensor`.

    Attributes:
        lidar: (B, P, C), the LiDAR's part for the P proposals of the cameras.
        cameras: (B, L, V, C), each camera's part for the L proposals of the LiDAR.
    """

    lidar: Tensor
    cameras: Tensor


class ProposalRanges(NamedTuple):
    """Ranges of the queries that start at proposals, in each range the best one first; may be empty.

    Attributes:
        lidar, cameras: those of the LiDAR, and those of the cameras, which follow.
    """

    lidar: slice
    cameras: slice

    @classmethod
    def after(cls, first: int, lidar: int, cameras: int) -> "ProposalRanges":
        """Return the ranges of so many proposals, from the query of index `first` on."""
        return cls(slice(first, first + lidar), slice(first + lidar, first + lidar + cameras))


class Queries(NamedTuple):
    """Object queries of one batch: reference points, and initial estimates of their objects.

    Attributes:
        reference_points: (B, Q, 3) in 0..1 of the point range, denoising queries first.
        denoising: number of denoising queries.
        mask: (Q, Q) bool, true where the row's query must not attend to the column's.
        content: (B, Q, C), initial content of the queries; None for zeros.
        class_logits: (B, Q, classes), initial logits to which every layer adds its own; None for zeros.
        codes: (B, Q, 10), initial box codes to which every layer adds its own, except x and y; None for zeros.
        agreement: comparison of the sensors' proposals, and what the LiDAR alone shows; None without LiDAR features.
        other: evidence of the other sensor for each proposal, not yet part of `content`; None for none.
        at_proposals: the queries that start at proposals; None for none.
    """

    reference_points: Tensor
    denoising: int
    mask: Tensor | None
    content: Tensor | None = None
    class_logits: Tensor | None = None
    codes: Tensor | None = None
    agreement: SensorAgreement | None = None
    other: OtherEvidence | None = None
    at_proposals: ProposalRanges | None = None

    def select(self, samples: Sequence[int]) -> "Queries":
        """Return the queries of some samples of the batch."""
        index = list(samples)

        def chosen(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[index]

        return self._replace(
            reference_points=self.reference_points[index],
            content=chosen(self.content),
            class_logits=chosen(self.class_logits),
            codes=chosen(self.codes),
            agreement=None if self.agreement is None else SensorAgreement(*(part[index] for part in self.agreement)),
            other=None if self.other is None else OtherEvidence(*(part[index] for part in self.other)),
        )

    def add_first_guess(self, predictions: Predictions, entries: tuple[int, ...]) -> Predictions:
        """Return predictions plus the queries' initial class logits and these entries of their initial box codes."""
        logits, boxes = predictions
        if self.class_logits is not None:
            logits = logits + self.class_logits
        if self.codes is not None:
            guess = torch.zeros_like(self.codes)
            guess[..., entries] = self.codes[..., entries]
            boxes = boxes + guess
        return Predictions(logits, boxes)


class ModelOutput(NamedTuple):
    """A model's output for one batch.

    Attributes:
        predictions: see `Predictions`.
        router, attention: query weights from the router and from the attention mass; None if not computed.
        queries: the decoder's queries, including proposals.
        proposals: heat maps of the proposals; None for models without proposals.
        state: state that a model with memory needs with the next frame; None for other models.
        gate: logits of the gate behind the router's weights; None for other routers.
    """

    predictions: Predictions
    router: QueryWeights | None
    attention: QueryWeights | None
    queries: Queries | None = None
    proposals: ProposalMaps | None = None
    state: object | None = None
    gate: Gate | None = None
