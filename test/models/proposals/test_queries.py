# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Proposals in CMT, PETR and BEVFormer."""

import pytest
import torch
from torch import Tensor

from aqr_perception.models import build_model
from aqr_perception.models.boxes.coder import SHAPE_CODES
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import DecodeOptions, ModelOutput
from aqr_perception.options import AqrOptions

SIZE = (96, 128)
"""Height and width of the images in pixels."""


def projections() -> Tensor:
    """Return (1, 2, 4, 4), projections of a front and a back camera."""
    matrices = torch.eye(4).repeat(1, 2, 1, 1)
    for view, forward in enumerate((1.0, -1.0)):
        rotation = torch.tensor([[0.0, -forward, 0.0], [0.0, 0.0, -1.0], [forward, 0.0, 0.0]])
        pinhole = torch.tensor([[80.0, 0, 64], [0, 80, 48], [0, 0, 1]])
        matrices[0, view, :3, :3] = pinhole @ rotation
        matrices[0, view, :3, 3] = pinhole @ torch.tensor([0.0, 1.5, 0.0])
    return matrices


def answer(model: DetectionModel, pictures: Tensor | None) -> ModelOutput:
    features = model.features(pictures, None if pictures is None else projections(), None)
    return model.decode(features, DecodeOptions(AqrOptions.of_model()))


@torch.inference_mode()
@pytest.mark.parametrize("name", ["aqr_tiny", "aqr_tiny_sparse", "petr_tiny", "petrv2_tiny", "bevformer_mini"])
def test_images_determine_the_proposals_and_nothing_else(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name).eval()
    first, second = (answer(model, torch.randn(1, 2, 3, *SIZE)) for _ in range(2))
    assert first.proposals is not None and first.proposals.image is not None
    assert (first.proposals.bev is None) != model.bev_of_cameras, "no points were given"
    assert first.queries is not None and second.queries is not None
    assert first.queries.class_logits is not None
    moved = (first.queries.reference_points != second.queries.reference_points).any(-1)
    suspected = (first.queries.class_logits != 0).any(-1)
    wanted = model.preset.decoder.proposals
    from_above = wanted.bev if model.bev_of_cameras else 0
    assert suspected.sum() == wanted.image + from_above
    assert moved.sum() >= 0.9 * wanted.image, "two proposals beyond the range may end at the same place of its border"
    assert not (moved & ~suspected).any(), "only proposals depend on the images"

    blind = answer(model, None)
    assert blind.queries is not None and blind.queries.class_logits is not None
    suspected = (blind.queries.class_logits != 0).any(-1)
    assert suspected.sum() == from_above, "a bird's-eye view proposes without images"
    assert blind.predictions.boxes.isfinite().all()


@torch.inference_mode()
@pytest.mark.parametrize("name", ["aqr_tiny", "aqr_tiny_sparse", "petr_tiny", "petrv2_tiny", "bevformer_mini"])
def test_an_untrained_decoder_keeps_the_proposals(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name).eval()
    output = answer(model, torch.randn(1, 2, 3, *SIZE))
    queries, (logits, boxes) = output.queries, output.predictions
    assert queries is not None and queries.class_logits is not None and queries.codes is not None
    proposed = (queries.class_logits != 0).any(-1)
    lower, upper = map(torch.tensor, (model.preset.point_range[:3], model.preset.point_range[3:]))
    places = (queries.reference_points * (upper - lower) + lower)[proposed]
    codes, guess = boxes[:, proposed], queries.codes[proposed]
    assert (codes[..., :2] - places[..., :2]).norm(dim=-1).mean() < 0.3
    assert (codes[..., SHAPE_CODES] - guess[..., SHAPE_CODES]).abs().max() < 0.1
    corrections = logits[:, proposed] - queries.class_logits[proposed]
    assert corrections.std() < 0.05, "the prior probability shifts all logits alike"
