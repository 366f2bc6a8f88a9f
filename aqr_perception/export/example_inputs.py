# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Made-up inputs of the exported parts; they fix the shapes, and exports are compared with PyTorch on them."""

import math
from typing import cast

import torch
from torch import Tensor

from aqr_perception.export.decoder_parts import AGREEMENT_INPUTS, OTHER_INPUTS, QUERY_INPUTS
from aqr_perception.models.aqr.agreement import IN_PICTURE, ON_GROUND, SURROUNDINGS
from aqr_perception.models.cmt.model import CMT
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import Queries


def normalised_images(cameras: int, size: tuple[int, int]) -> Tensor:
    """Return (V, 3, H, W) normalised noise for images of a width and height."""
    coarse = torch.randn(cameras, 3, size[1] // 8, size[0] // 8, generator=torch.Generator().manual_seed(0))
    images: Tensor = torch.nn.functional.interpolate(coarse, (size[1], size[0]), mode="bilinear")
    return images


def inverted(lidar_to_image: Tensor) -> Tensor:
    """Return the inverses of projections (..., 4, 4) in float32, computed in float64."""
    inverses: Tensor = torch.linalg.inv(lidar_to_image.double()).float()
    return inverses


def decoder_geometry(cameras: int, preset: Preset) -> dict[str, Tensor]:
    """Return ``lidar_to_image`` and ``image_to_lidar``, (1, V, 4, 4) each, of a ring of cameras."""
    assert preset.image is not None
    width, height = preset.image.size
    projections = torch.zeros(1, cameras, 4, 4, dtype=torch.float64)
    intrinsics = torch.tensor([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]]).double()
    for view in range(cameras):
        yaw = 2 * math.pi * view / cameras
        forward = torch.tensor([math.cos(yaw), math.sin(yaw), 0.0]).double()
        right = torch.tensor([math.sin(yaw), -math.cos(yaw), 0.0]).double()
        rotation = torch.stack((right, torch.tensor([0.0, 0.0, -1.0]).double(), forward))
        projections[0, view, :3, :3] = intrinsics @ rotation
        projections[0, view, :3, 3] = -intrinsics @ rotation @ (0.8 * forward)
    projections[..., 3, 3] = 1.0
    return {"lidar_to_image": projections.float(), "image_to_lidar": inverted(projections.float())}


def query_inputs(model: DetectionModel) -> dict[str, Tensor]:
    """Return the inputs of the queries for a model with proposals; none for other models."""
    head = model.proposals
    if head is None:
        return {}
    learned = cast(Queries, model.pts_bbox_head.learned_queries(1))  # type: ignore[operator, union-attr]
    points, random = learned.reference_points.detach(), torch.Generator().manual_seed(0)
    content = torch.randn(1, points.shape[1], model.preset.decoder.channels, generator=random)
    logits = torch.randn(1, points.shape[1], len(model.classes), generator=random)
    return dict(zip(QUERY_INPUTS, (points, content, logits, head.default_codes(points).detach()), strict=True))


def comparison_inputs(model: CMT, cameras: int) -> dict[str, Tensor]:
    """Return the inputs of a decoder that compares the proposals of both sensors; none for other models."""
    head, random = model.proposals, torch.Generator().manual_seed(1)
    if head is None or not head.bev_count or not head.image_count:
        return {}
    channels, queries, classes = model.preset.decoder.channels, model.preset.decoder.queries, len(model.classes)
    shapes: dict[str, tuple[int, ...]] = dict(
        zip(OTHER_INPUTS, ((1, head.image_count, channels), (1, head.bev_count, cameras, channels)), strict=True)
    )
    if model.router_trained and model.aqr.compares:
        correlations = (1, ON_GROUND), (1, cameras, ON_GROUND), (1, cameras, IN_PICTURE)
        scores = (1, queries, classes), (1, queries, cameras, classes)
        assert model.preset.points is not None
        around = (1, queries, SURROUNDINGS * 2 * model.preset.points.neck_channels)
        shapes |= dict(zip(AGREEMENT_INPUTS, (*correlations, *scores, around), strict=False))
    inputs = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    if AGREEMENT_INPUTS[0] in inputs:
        inputs[AGREEMENT_INPUTS[-1]] = (torch.arange(queries) < head.bev_count)[None]
    return inputs
