# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Evidence of the other sensor at proposals: neutral at first, at the right place, and as far as a gate trusts it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aqr_perception.models import build_model
from aqr_perception.models.cmt.model import CMT
from aqr_perception.models.model_io import DecodeOptions, Features, ModelOutput, Queries
from aqr_perception.models.weights.checkpoint import load_checkpoint
from aqr_perception.options import AqrOptions

VIEWS = 2


@pytest.fixture(scope="module")
def model() -> CMT:
    torch.manual_seed(0)
    built = build_model("aqr_tiny").eval()
    assert isinstance(built, CMT)
    return built


def features_of(model: CMT, removed: bool = False, has_points: tuple[bool, ...] = (True,)) -> Features:
    """Return random features of two cameras that look forward."""
    random, image, batch = torch.Generator().manual_seed(0), model.preset.image, len(has_points)
    assert image is not None
    width, height = image.size
    projection = torch.tensor([[width / 2, -250.0, 0, 0], [height / 2, 0, -250, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    return Features(
        torch.randn(batch, VIEWS, 128, height // 8, width // 8, generator=random),
        torch.randn(batch, 128, 64, 64, generator=random),
        projection.expand(batch, VIEWS, 4, 4),
        (height, width),
        has_points,
        None,
        torch.ones(batch, VIEWS, height // 8, width // 8, dtype=torch.bool) if removed else None,
    )


@torch.inference_mode()
def decoded(model: CMT, features: Features) -> ModelOutput:
    return model.decode(features, DecodeOptions(AqrOptions.of_model("off"), False))


def compared(model: CMT, features: Features) -> Queries:
    queries = decoded(model, features).queries
    assert queries is not None and queries.other is not None
    return queries


def test_an_untrained_one_adds_nothing(model: CMT) -> None:
    other = compared(model, features_of(model)).other
    assert other is not None and not other.lidar.any() and not other.cameras.any()


@torch.inference_mode()
def test_a_proposal_gets_the_other_sensors_features_at_its_place(model: CMT) -> None:
    for layer in (model.other_sensor.cameras, model.other_sensor.lidar):
        layer.weight.copy_(torch.eye(128, layer.in_features))  # the features themselves
    features = features_of(model)
    queries = compared(model, features)
    assert queries.other is not None and model.proposals is not None and features.bev is not None
    count = model.proposals.bev_count
    points = model.proposals.metres(queries.reference_points)[0]
    checked = 0
    for index, place in enumerate(points[count : count + model.proposals.image_count]):
        column, row = ((place[:2] + 51.2) / 102.4 * 64).long().tolist()
        near = features.bev[0, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert (queries.other.lidar[0, index] <= near.amax((1, 2)).clamp(min=0) + 1e-4).all()
    for index, place in enumerate(points[:count]):
        x, y, depth, _ = features.lidar_to_image[0, 0] @ torch.cat((place, torch.ones(1)))
        column, row = int(x / depth / 8) if depth > 0.1 else -1, int(y / depth / 8) if depth > 0.1 else -1
        seen = queries.other.cameras[0, index, 0]
        if 1 <= column < 43 and 1 <= row < 15:
            assert features.image is not None
            near = features.image[0, 0, :, row - 1 : row + 2, column - 1 : column + 2]
            assert ((seen <= near.amax((1, 2)) + 1e-4) & (seen >= near.amin((1, 2)) - 1e-4)).all()
            checked += 1
        elif not (-1 <= column <= 44 and -1 <= row <= 16):
            assert not seen.any()
    assert checked > 5


@torch.inference_mode()
def test_removed_cells_and_samples_without_lidar_give_no_features(model: CMT) -> None:
    for layer in (model.other_sensor.cameras, model.other_sensor.lidar):
        layer.weight.copy_(torch.eye(128, layer.in_features))
    removed = compared(model, features_of(model, removed=True)).other
    assert removed is not None and not removed.cameras.any() and removed.lidar.any()
    two = compared(model, features_of(model, has_points=(True, False))).other
    assert two is not None and two.lidar[0].any() and not two.lidar[1].any() and not two.cameras[1].any()


@torch.inference_mode()
def test_queries_at_no_lidar_proposal_get_the_logit_where_there_are_points(model: CMT) -> None:
    features, options = features_of(model), DecodeOptions(AqrOptions.of_model("off"))
    blind = features._replace(bev=None, has_points=(False,))
    half = torch.zeros(1, 64, 64, dtype=torch.bool)
    half[:, :, 32:] = True  # columns ascend with x
    parts = features._replace(removed_bev=half)
    before = [model.decode(maps, options).predictions.class_logits for maps in (features, blind, parts)]
    model.other_sensor.beside_lidar.fill_(-2.0)
    after = [model.decode(maps, options).predictions.class_logits for maps in (features, blind, parts)]
    model.other_sensor.beside_lidar.zero_()
    assert model.proposals is not None
    count = model.proposals.bev_count
    torch.testing.assert_close(after[0][:, :, :count], before[0][:, :, :count])
    torch.testing.assert_close(after[0][:, :, count:], before[0][:, :, count:] - 2.0)
    torch.testing.assert_close(after[1], before[1])
    queries = model.decode(parts, options).queries
    assert queries is not None
    behind = model.proposals.metres(queries.reference_points)[0, count:, 0] < 0
    assert behind.any() and not behind.all()
    expected = torch.where(behind, -2.0, 0.0)[:, None].expand_as(after[2][0, 0, count:])
    torch.testing.assert_close((after[2] - before[2])[0, 0, count:], expected)


def test_weights_without_the_logit_fit_with_0(model: CMT, tmp_path: Path) -> None:
    weights = {key: value for key, value in model.state_dict().items() if not key.endswith("beside_lidar")}
    save_file(weights, tmp_path / "before.safetensors")
    other = build_model("aqr_tiny")
    torch.nn.init.ones_(other.other_sensor.beside_lidar)
    load_checkpoint(other, tmp_path / "before.safetensors")
    assert not other.other_sensor.beside_lidar.any()
