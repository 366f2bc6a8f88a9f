"""What a model is to `Detector` and to training, whichever it is: CMT, MoME, PETR, BEVFormer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aqr_perception.models.config.presets import Preset
from aqr_perception.models.head_output import HeadOutput, Queries
from aqr_perception.models.proposals.head import ProposalHead, ProposalMaps
from aqr_perception.models.proposals.queries import put_among
from aqr_perception.models.weights.branches import BRANCHES
from aqr_perception.options import AqrOptions


class Features(NamedTuple):
    """Feature maps of one batch.

    Attributes:
        bev: (B, C, H, W) of the LiDAR; None where no sample has points. Of the cameras in BEVFormer, once `decode` has
            made it.
        image: the cameras', as `DetectionModel.image_features` gives them; None without them.
        has_points: for each sample; an empty cloud gives no LiDAR tokens.
        image_size: height and width of the images in pixels; (0, 0) without them.
        survey: what the model itself wants to know again of how it made `bev`; None where it did not.
    """

    bev: Tensor | None
    image: Tensor | None
    has_points: tuple[bool, ...]
    image_size: tuple[int, int]
    survey: object = None


class History(NamedTuple):
    """What a model that remembers is given of the frame before.

    Attributes:
        state: the `HeadOutput.state` of that frame; the model's own. None in the first frame of a drive: then
            `to_current` is the identity and `seconds` is 0.
        to_current: (4, 4) float32, that frame's model frame -> the current one's, from the vehicle's motion; (B, 4, 4)
            where each sample has its own.
        to_fixed: (4, 4) or (B, 4, 4) float32, the current model frame -> a frame that stands still.
        seconds: between the two frames.
    """

    state: object
    to_current: Tensor
    to_fixed: Tensor
    seconds: float


class DecodeOptions(NamedTuple):
    """What is asked of one batch; see `DetectionModel.decode`."""

    aqr: AqrOptions
    route: bool
    attention_weights: bool
    queries: Queries | None
    layers: slice
    history: History | None


class DetectionModel(nn.Module, ABC):
    """A model in parts, so that each can be timed.

    Attributes:
        preset: its configuration.
        proposals: what puts proposals among its queries; None in models without.
        aqr_options: how `forward` uses and draws the query weights.
        router_trained: whether query weights of a trained router are to be had.
        remembers: whether `decode` gives a state that it wants back with the next frame.
        takes_queries: whether `decode` takes other queries than the learned ones, as denoising needs.
        branches: what the keys of its branches begin with, see `models.branches`.
        bev_of_cameras: whether proposals in the bird's-eye view come from the cameras, behind their branch.
    """

    branches: tuple[str, ...] = BRANCHES
    bev_of_cameras: bool = False
    router_trained: bool
    remembers: bool = False
    takes_queries: bool = True

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        self.aqr_options: AqrOptions = preset.aqr
        self.proposals: ProposalHead | None = None

    @abstractmethod
    def image_features(self, images: Tensor | None) -> Tensor | None:
        """Return features (B, V, ...) of (B, V, 3, H, W) normalised images; None without any."""

    @abstractmethod
    def bev_features(self, points: Sequence[Tensor] | None) -> Tensor | None:
        """Return (B, C, H, W) features of B clouds (N, 5); None where there are none, or the model cannot use them."""

    @staticmethod
    @abstractmethod
    def features(
        images: Tensor | None, points: Sequence[Tensor] | None, image: Tensor | None, bev: Tensor | None
    ) -> Features:
        """Return the feature maps of these inputs, with what the head needs to know of the inputs themselves."""

    def propose(self, features: Features, lidar_to_image: Tensor | None) -> ProposalMaps | None:
        """Return the heat maps that proposals among the queries come from; None for models without proposals."""
        if self.proposals is None:
            return None
        maps: ProposalMaps = self.proposals(*self._proposing(features), lidar_to_image, features.image_size)
        return maps

    def decode(
        self,
        features: Features,
        lidar_to_image: Tensor | None,
        aqr: AqrOptions,
        *,
        route: bool = False,
        attention_weights: bool = False,
        queries: Queries | None = None,
        layers: slice = slice(None),
        history: History | None = None,
    ) -> HeadOutput:
        """Return predictions and query weights for feature maps.

        Args:
            features: of the sensors that take part.
            lidar_to_image: (B, V, 4, 4); None without cameras.
            aqr: how the query weights are used and drawn.
            route: whether to return the router's weights also where they are not used.
            attention_weights: whether to return weights from the attention mass.
            queries: instead of the learned queries alone (training). Proposals take the place of the first of those
                that follow the denoising ones.
            layers: the decoder layers whose predictions are computed.
            history: the frame before, for models that remember.
        """
        features = self._surveyed(features, lidar_to_image, history)
        maps = self.propose(features, lidar_to_image)
        if maps is not None:
            queries = self._with_proposals(maps, queries, features, lidar_to_image)
        asked = DecodeOptions(aqr, route, attention_weights, queries, layers, history)
        return self._decode(features, lidar_to_image, asked)._replace(queries=queries, proposals=maps)

    @abstractmethod
    def _decode(self, features: Features, lidar_to_image: Tensor | None, asked: DecodeOptions) -> HeadOutput:
        """As `decode`; proposals are among the queries already."""

    def _surveyed(self, features: Features, lidar_to_image: Tensor | None, history: History | None) -> Features:
        """Return the features with what has to be made of them before anything is proposed."""
        return features

    def _proposing(self, features: Features) -> tuple[Tensor | None, Tensor | None]:
        """Return the features that proposals come from: (B, C, H, W) of the BEV, (B, V, C, h, w) of the cameras."""
        return features.bev, features.image

    def _learned_references(self) -> Tensor:
        """Return (Q, 3), the model's own reference points in 0..1."""
        return self.get_parameter("pts_bbox_head.reference_points.weight")

    def _with_proposals(
        self, maps: ProposalMaps, queries: Queries | None, features: Features, lidar_to_image: Tensor | None
    ) -> Queries:
        assert self.proposals is not None  # where the maps come from
        learned = self._learned_references()
        if queries is None:
            queries = Queries(learned.expand(len(features.has_points), -1, -1), 0, None)
        has_bev = [has_points or self.bev_of_cameras for has_points in features.has_points]
        sensed, where = self._proposing(features), torch.tensor(has_bev, device=learned.device)
        return put_among(queries, self.proposals, maps, sensed, where, lidar_to_image, features.image_size)
