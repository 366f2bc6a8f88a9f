# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decoders of the architectures as modules with plain tensors as inputs and outputs."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from aqr_perception.export.static_positions import Inverses
from aqr_perception.models.aqr.agreement import SensorAgreement
from aqr_perception.models.bevformer.head import BirdsEyeView
from aqr_perception.models.bevformer.model import BEVFormer
from aqr_perception.models.bevformer.spatial import Visibility
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.fusion_model import FusionModel
from aqr_perception.models.model_io import (
    LAST_LAYER,
    DecodeOptions,
    Features,
    OtherEvidence,
    ProposalRanges,
    Queries,
    QueryWeights,
)
from aqr_perception.models.petr.memory import CameraFrame
from aqr_perception.models.petr.model import PETR
from aqr_perception.options import AqrOptions

QUERY_INPUTS = ("query_points", "query_content", "query_class_logits", "query_codes")
"""Inputs of the decoders of models with proposals: fields of `Queries`."""

AGREEMENT_INPUTS = tuple(f"agreement_{name}" for name in SensorAgreement._fields)
"""Inputs of decoders whose router compares the sensors' proposals: fields of `SensorAgreement`."""

OTHER_INPUTS = tuple(f"other_{name}" for name in OtherEvidence._fields)
"""Inputs of decoders of models with proposals of both sensors: fields of `OtherEvidence`."""


class _DecoderPart(nn.Module):
    """Base of the decoders: names of the inputs, and queries among them.

    Args:
        names: names of the inputs in their order.
    """

    outputs: tuple[str, ...]

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._names = tuple(names)

    def _named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self._names, tensors, strict=True))

    @staticmethod
    def _queries(given: dict[str, Tensor], learned: Queries, preset: Preset) -> Queries:
        if "query_points" not in given:
            return learned
        points, content, logits, codes = (given[name] for name in QUERY_INPUTS)
        counts = preset.decoder.proposals
        places = ProposalRanges.after(0, counts.bev, counts.image)
        queries = Queries(points, 0, None, content, logits, codes, at_proposals=places)
        if OTHER_INPUTS[0] in given:
            queries = queries._replace(other=OtherEvidence(*(given[name] for name in OTHER_INPUTS)))
        if AGREEMENT_INPUTS[0] in given:
            queries = queries._replace(agreement=SensorAgreement(*(given[name] for name in AGREEMENT_INPUTS)))
        return queries


class CmtDecoderPart(_DecoderPart):
    """Tokens, router, window bias, decoder and heads of CMT and AQR-CMT."""

    outputs = ("class_logits", "boxes", "modality", "cameras", "bev_map", "camera_maps")

    def __init__(self, model: FusionModel, inverses: Inverses, aqr: AqrOptions, names: Sequence[str]) -> None:
        super().__init__(names)
        self.model, self._inverses = model, inverses
        model.proposals = None  # proposals are inputs
        self._options = DecodeOptions(aqr, model.router_trained, not model.router_trained, LAST_LAYER)
        image = model.preset.image
        self._image_size = (0, 0) if image is None else (image.size[1], image.size[0])

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return logits (1, Q, C), boxes (1, Q, 10) and the fields of `QueryWeights`."""
        given = self._named(tensors)
        image, bev = given.get("image_features"), given.get("bev_features")
        projections = given.get("lidar_to_image", torch.zeros(1, 0, 4, 4))
        self._inverses.image_to_lidar = given.get("image_to_lidar", projections)
        features = Features(image, bev, projections, self._image_size, (bev is not None,))
        queries = self._queries(given, self.model.pts_bbox_head.learned_queries(1), self.model.preset)  # type: ignore[operator, union-attr]
        output = self.model.decode(features, self._options, queries)
        weights = output.router if self.model.router_trained else output.attention
        return (output.predictions.class_logits[-1], output.predictions.boxes[-1], *cast(QueryWeights, weights))


class PetrDecoderPart(_DecoderPart):
    """Tokens of one or two frames, decoder and heads of PETR and PETRv2."""

    outputs = ("class_logits", "boxes", "modality", "cameras", "bev_map", "camera_maps")

    def __init__(self, model: PETR, inverses: Inverses, aqr: AqrOptions, names: Sequence[str]) -> None:
        super().__init__(names)
        self.model, self._inverses, self._aqr = model, inverses, aqr
        image = model.preset.image
        assert image is not None  # needed by the architecture
        self._image_size = (image.size[1], image.size[0])

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return logits (1, Q, C), boxes (1, Q, 10) and the fields of `QueryWeights`."""
        given, head = self._named(tensors), self.model.pts_bbox_head
        frames = [_camera_frame(given, "", 0.0)]
        inverses = [given["image_to_lidar"]]
        if head.frame_count == 2:
            # A tensor, so that the age is an input; `CameraFrame` has a number.
            frames.append(_camera_frame(given, "past_", cast(float, given["past_seconds"])))
            inverses.append(given["past_image_to_lidar"])
        projections = frames[0].lidar_to_image
        features = Features(frames[0].image, None, projections, self._image_size, (False,))
        queries = self._queries(given, head.learned_queries(1), self.model.preset)
        self._inverses.set(inverses)
        memory = head.memory(frames, features)
        position = head.query_embedding.embed(queries.reference_points)
        decoded = head.transformer.decoder(position, memory, None, None, True, content=queries.content)
        predictions = head.predict(decoded.queries, queries, frames, LAST_LAYER)
        weights = head.attention_weights(decoded.mass, frames, queries, self._image_size, self._aqr)
        return (predictions.class_logits[-1], predictions.boxes[-1], *cast(QueryWeights, weights))


def _camera_frame(given: dict[str, Tensor], prefix: str, seconds: float) -> CameraFrame:
    image, projections, places = (given[prefix + name] for name in ("image_features", "lidar_to_image", "places"))
    return CameraFrame(image, projections, places, seconds)


class BevFormerDecoderPart(_DecoderPart):
    """Decoder and heads of BEVFormer, from the BEV features that its encoder returns."""

    outputs = ("class_logits", "boxes", "sampled_places", "sampled_weights")

    def __init__(self, model: BEVFormer, names: Sequence[str]) -> None:
        super().__init__(names)
        self.model = model

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return logits (1, Q, C), boxes (1, Q, 10) and the last layer's `SamplingPoints`."""
        given, head = self._named(tensors), self.model.pts_bbox_head
        queries = self._queries(given, head.learned_queries(1), self.model.preset)
        # The decoder does not use the visibility, which is for the cameras' weights.
        decoded = head.decode(BirdsEyeView(given["bev_cells"], head.grid, cast(Visibility, None)), queries)
        predictions = head.predict(decoded, queries, LAST_LAYER)
        return (predictions.class_logits[-1], predictions.boxes[-1], *decoded.samples)
