# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The parts of a model that can be exported, with inputs for a fixed rig, and the parts that stay in PyTorch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from aqr_perception.export.decoder_parts import BevFormerDecoderPart, CmtDecoderPart, PetrDecoderPart
from aqr_perception.export.example_inputs import comparison_inputs, decoder_geometry, normalised_images, query_inputs
from aqr_perception.export.static_model import static_copy
from aqr_perception.models.bevformer.model import BEVFormer
from aqr_perception.models.cmt.model import CMT
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.fusion_model import FusionModel
from aqr_perception.models.mome.model import MoME
from aqr_perception.models.petr.model import PETR
from aqr_perception.models.points.pillars import PillarEncoder
from aqr_perception.options import AqrOptions


class ExportError(ValueError):
    """A model cannot be exported as asked; the message names the part, the reason and the remedy."""


@dataclass(frozen=True)
class Part:
    """One part of a model for export.

    Attributes:
        name: ``image``, ``bev`` or ``decoder``.
        module: takes the inputs in their order.
        inputs: example inputs by name; their shapes are the only ones that the exported part takes.
        outputs: names of the outputs in their order.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ModelParts:
    """Parts of a model.

    Attributes:
        parts: those that can be exported.
        left_in_torch: name of each other part -> reason.
    """

    parts: tuple[Part, ...]
    left_in_torch: Mapping[str, str] = field(default_factory=dict)


class _ImagePart(nn.Module):
    """Cameras' images to feature maps."""

    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's image features (1, V, ...) of images (V, 3, H, W)."""
        features = self.model.image_features(images[None])
        assert features is not None  # there are images
        return features


class _BevPart(nn.Module):
    """Dense point features to BEV features: the pillars' convolutions, SECOND and its pyramid."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        encoder = model.pts_middle_encoder
        self.stages = encoder.stages if isinstance(encoder, PillarEncoder) else nn.ModuleList()
        self.backbone, self.neck = model.pts_backbone, model.pts_neck

    def forward(self, features: Tensor) -> Tensor:
        """Return (1, C, H, W) BEV features of the sparse encoder's output or of the pillars' canvas."""
        for stage in self.stages:
            layers = list(cast(nn.Sequential, stage))
            for convolution, norm in zip(layers[0::2], layers[1::2], strict=True):
                features = torch.relu(norm(convolution(features)))
        output: Tensor = self.neck(self.backbone(features))
        return output


def model_parts(model: DetectionModel, cameras: int, aqr: AqrOptions) -> ModelParts:
    """Return the parts of a model for a rig with a number of cameras.

    Args:
        model: with its weights; it is not changed.
        cameras: number of cameras, ignored by models without an image branch.
        aqr: use of the query weights, which is built into the decoder.
    """
    parts, left = [], dict(_PREPARATION)
    preset = model.preset
    if preset.image is not None:
        image = _ImagePart(static_copy(model)[0])
        parts.append(Part("image", image, {"images": normalised_images(cameras, preset.image.size)}, ("features",)))
    if isinstance(model, FusionModel) and preset.points is not None:
        parts.append(_bev_part(model))
        left |= _PILLARS if preset.points.encoder == "pillars" else _SPARSE
    if model.proposals is not None:
        left |= _PROPOSALS
    build, reasons = _DECODERS[_kind(model)]
    left |= reasons
    if build is not None:
        parts.append(build(model, cameras, aqr))
    return ModelParts(tuple(parts), left)


def _bev_part(model: FusionModel) -> Part:
    points = model.preset.points
    assert points is not None
    module = _BevPart(static_copy(model)[0])
    if points.encoder == "pillars":
        shape = (1, points.pillars.channels[0], points.grid[1], points.grid[0])
    else:
        shape = (1, model.pts_middle_encoder.out_channels, points.bev_cells[1], points.bev_cells[0])
    features = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    # Most cells of a sweep are empty.
    features = torch.where(features > 0.9, 10 * (features - 0.9), 0.0)
    return Part("bev", module, {"encoded": features}, ("features",))


def _features(model: DetectionModel, cameras: int) -> dict[str, Tensor]:
    """Return the decoder's example features: those of made-up inputs, so that their numbers have the usual size."""
    inputs: dict[str, Tensor] = {}
    preset = model.preset
    with torch.inference_mode():
        if preset.image is not None:
            image = model.image_features(normalised_images(cameras, preset.image.size)[None])
            assert image is not None
            inputs["image_features"] = image
        if preset.points is not None:
            part = _bev_part(cast(FusionModel, model))
            inputs["bev_features"] = part.module(*part.inputs.values())
    return {name: tensor.clone() for name, tensor in inputs.items()}


def _cmt_decoder(model: DetectionModel, cameras: int, aqr: AqrOptions) -> Part:
    inputs = _features(model, cameras)
    if "image_features" in inputs:
        inputs |= decoder_geometry(cameras, model.preset)
    queries = query_inputs(model)
    if isinstance(model, CMT):
        queries |= comparison_inputs(model, cameras)
    copied, inverses = static_copy(model)
    module = CmtDecoderPart(cast(FusionModel, copied), inverses, aqr, (*inputs, *queries))
    return Part("decoder", module, {**inputs, **queries}, CmtDecoderPart.outputs)


def _petr_decoder(model: DetectionModel, cameras: int, aqr: AqrOptions) -> Part:
    current = _features(model, cameras) | decoder_geometry(cameras, model.preset)
    head = cast(PETR, model).pts_bbox_head
    current["places"] = torch.arange(cameras)[None] % head.ring
    inputs = dict(current)
    if head.frame_count == 2:
        inputs |= {f"past_{name}": tensor.clone() for name, tensor in current.items()}
        inputs["past_seconds"] = torch.tensor(head.frame_gap)
    queries = query_inputs(model)
    copied, inverses = static_copy(model)
    module = PetrDecoderPart(cast(PETR, copied), inverses, aqr, (*inputs, *queries))
    return Part("decoder", module, {**inputs, **queries}, PetrDecoderPart.outputs)


def _bevformer_decoder(model: DetectionModel, cameras: int, aqr: AqrOptions) -> Part:
    head = cast(BEVFormer, model).pts_bbox_head
    random = torch.Generator().manual_seed(0)
    cells = torch.randn(1, head.grid[0] * head.grid[1], model.preset.decoder.channels, generator=random)
    queries = query_inputs(model)
    module = BevFormerDecoderPart(cast(BEVFormer, static_copy(model)[0]), ("bev_cells", *queries))
    return Part("decoder", module, {"bev_cells": cells, **queries}, BevFormerDecoderPart.outputs)


def _kind(model: DetectionModel) -> str:
    for kind, name in ((BEVFormer, "bevformer"), (PETR, "petr"), (MoME, "mome")):
        if isinstance(model, kind):
            return name
    return "cmt"


_PREPARATION = {"preprocessing": "it scales, crops and normalises images, and inverts projections"}
_SPARSE = {"sparse encoder": "its sparse convolutions have as many rows as a sweep has occupied voxels"}
_PILLARS = {"pillars": "points are scattered to the canvas of pillars, and their number differs from sweep to sweep"}
_PROPOSALS = {
    "proposals": "the highest peaks of the heat maps become queries, and rounding in another runtime would change which"
}
_DECODERS: Mapping[str, tuple[Callable[[DetectionModel, int, AqrOptions], Part] | None, dict[str, str]]] = {
    "cmt": (_cmt_decoder, {}),
    "petr": (_petr_decoder, {}),
    "bevformer": (
        _bevformer_decoder,
        {
            "BEV encoder": "each camera attends to the BEV cells that it sees, whose number depends on the calibration",
            "camera weights": "they need the visibility of the BEV cells, from the encoder",
        },
    ),
    "mome": (None, {"router and decoder": "each frame sends other numbers of queries to the three experts"}),
}
"""Architecture -> what builds its decoder, if that can be exported, and what stays in PyTorch."""
