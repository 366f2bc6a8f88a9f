# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Interface of all detection models to `Detector` and to training."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from aqr_perception.models.config.presets import Preset
from aqr_perception.models.model_io import (
    DecodeOptions,
    Features,
    History,
    ModelOutput,
    Predictions,
    ProposalMaps,
    Queries,
)
from aqr_perception.models.proposals.proposal_head import ProposalHead
from aqr_perception.models.proposals.queries import propose
from aqr_perception.models.weights.branches import BRANCHES
from aqr_perception.models.weights.checkpoint import ROUTER_PREFIX
from aqr_perception.options import AqrOptions, BoxConvention

_SMALL = 64_000
"""Numbers in a layer's queries up to which more than one thread does not pay: those of `aqr_tiny` twice."""

_SMALL_PICTURE = 100_000
"""Pixels up to which the same holds for operations on a picture: those of `aqr_tiny` twice."""


class DetectionModel(nn.Module, ABC):
    """Feature branches and a decoder; separate calls allow timing and reuse of each.

    Attributes:
        preset: the model's configuration.
        proposals: the head that proposes queries; None in models without proposals.
        aqr_options: how `forward` uses and draws the query weights.
        router_trained: whether the model has a trained query router; loading a checkpoint without one clears it.
        router_supervised: whether the health of the sensors supervises the query weights in training; otherwise they
            learn from the set loss alone.
        remembers: whether the model has memory: `decode` returns a state that it needs with the next frame.
        routes_alone: whether `decode` can return the router's weights without running the decoder; see `NO_LAYER`.
        removes_tokens: whether the model can leave out cells of its features; see `removed_tokens`.
        takes_queries: whether `decode` accepts denoising queries.
        optional_router: key prefixes of the router, all of which a checkpoint may lack.
        branches: key prefixes of the branches that models share; see `weights.branches`.
        weights_at_boxes: whether query weights are drawn at the predicted boxes instead of the reference points.
        bev_of_cameras: whether BEV proposals come from the cameras instead of the LiDAR.
        box_convention: convention of the box codes in the weights; None where the published weights have always had
            this package's own, whatever version of mmdetection3d they name.
        box_convention_entry: the preset's entry with the convention; empty without one.
    """

    branches: tuple[str, ...] = BRANCHES
    weights_at_boxes: bool = False
    bev_of_cameras: bool = False
    remembers: bool = False
    optional_router: tuple[str, ...] = (ROUTER_PREFIX,)
    router_supervised: bool = True
    routes_alone: bool = False
    removes_tokens: bool = False
    takes_queries: bool = True
    box_convention: BoxConvention | None = None
    box_convention_entry: str = ""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        self.aqr_options: AqrOptions = preset.aqr
        self.proposals: ProposalHead | None = None
        self.router_trained = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the class outputs."""
        return self.preset.classes

    def is_small(self, batch_size: int = 1) -> bool:
        """Return whether most operations on a batch are too small to be shared among threads of a CPU."""
        decoder = self.preset.decoder
        return batch_size * decoder.queries * decoder.channels <= _SMALL

    @property
    def has_small_branches(self) -> bool:
        """Whether the same holds for the branches; sparse encoders share their work among threads well."""
        image, points = self.preset.image, self.preset.points
        pixels = 0 if image is None else image.size[0] * image.size[1]
        sparse = points is not None and points.encoder == "sparse"
        return self.is_small() and pixels <= _SMALL_PICTURE and not sparse

    def class_count(self, weights: Mapping[str, Tensor]) -> int | None:
        """Return the number of classes of this architecture's weights; None where they have no class output."""
        return None

    def convert_weights(self, name: str, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a checkpoint's weights with variants of this architecture's tensors in the model's shapes.

        Args:
            name: name of the checkpoint, for messages.
            weights: by key.

        Raises:
            CheckpointError: constants in the checkpoint contradict the model's.
        """
        return weights

    def adopt_variant(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Take over what loaded weights tell about their training; `weights` are those before `convert_weights`."""

    def forward(
        self,
        images: Tensor | None,
        lidar_to_image: Tensor | None,
        points: Sequence[Tensor] | None = None,
        queries: Queries | None = None,
        history: History | None = None,
    ) -> Predictions:
        """Return every decoder layer's predictions; see `features` and `decode` for the arguments."""
        features = self.features(images, lidar_to_image, points)
        return self.decode(features, DecodeOptions(self.aqr_options), queries, history).predictions

    def features(
        self, images: Tensor | None, lidar_to_image: Tensor | None, points: Sequence[Tensor] | None
    ) -> Features:
        """Return the feature maps of one batch of inputs.

        Args:
            images: (B, V, 3, H, W) float, BGR, normalised by the preset's mean and deviation. V may be smaller than in
                training. None, or V = 0, without cameras.
            lidar_to_image: (B, V, 4, 4), model frame -> pixels of these images; None without cameras.
            points: B point clouds (N, 5): x, y, z in metres, intensity 0..255, age in seconds. None without LiDAR.
        """
        image, bev = self.image_features(images), self.bev_features(points)
        batch_size = len(images) if images is not None else len(points) if points is not None else 1
        has_points = (False,) * batch_size
        if bev is not None and points is not None:
            has_points = tuple(len(cloud) > 0 for cloud in points)
        if images is None or image is None or lidar_to_image is None:
            no_cameras = torch.zeros(batch_size, 0, 4, 4, device=next(self.parameters()).device)
            return Features(None, bev, no_cameras, (0, 0), has_points)
        return Features(image, bev, lidar_to_image, (images.shape[-2], images.shape[-1]), has_points)

    @abstractmethod
    def image_features(self, images: Tensor | None) -> Tensor | None:
        """Return features (B, V, ...) of (B, V, 3, H, W) normalised images; None without images."""

    def bev_features(self, points: Sequence[Tensor] | None) -> Tensor | None:
        """Return (B, C, H, W) features of B point clouds (N, 5); None without points or without a LiDAR branch."""
        return None

    def propose(self, features: Features) -> ProposalMaps | None:
        """Return the proposals' heat maps, those of the features if they have some; None without proposals."""
        return self.branch_proposals(features) if features.proposals is None else features.proposals

    def branch_proposals(self, features: Features) -> ProposalMaps | None:
        """Return the heat maps of proposals that need nothing but their branch's features; None without such.

        The branches make them in their own number format, and while the other branch runs.
        """
        return propose(self.proposals, features)

    def signed_weights(self, aqr: AqrOptions) -> bool:
        """Return whether the router's weights may be negative with these options, as given to `decode`.

        A negative weight suppresses a sensor, 0 is neutral, and a positive one trusts it. The attention mass is never
        negative.
        """
        return False

    def aqr_problem(self, aqr: AqrOptions) -> str | None:
        """Return why the model's router cannot act as the options say, with the remedy; None if it can.

        Without a trained router every mode is ``off``, which is no problem.
        """
        if self.router_trained and aqr.resolved(self.preset.aqr).gates:
            return (
                f"aqr.mode is 'gate', but the query router of {self.preset.name} (architecture "
                f"{self.preset.architecture}) has no gate; use aqr.mode auto"
            )
        return None

    @abstractmethod
    def decode(
        self,
        features: Features,
        options: DecodeOptions,
        queries: Queries | None = None,
        history: History | None = None,
    ) -> ModelOutput:
        """Return predictions and query weights of one batch.

        Args:
            features: feature maps of the sensors in use.
            options: see `DecodeOptions`.
            queries: replacement of the learned queries, for training. Proposals replace the first ones after the
                denoising queries.
            history: the previous frame, for models with memory.
        """
