# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pillars: each is the maximum of its points' features, whatever the order, the sample and the number of points."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aqr_perception.models.points.pillars import PillarEncoder

SIZE = (1.0, 0.5)
RANGE = (-2.0, -1.0, 0.0, 2.0, 1.0, 4.0)
GRID = (4, 4)


def encoder(channels: tuple[int, ...] = (6,), blocks: int = 0) -> PillarEncoder:
    torch.manual_seed(0)
    model = PillarEncoder(channels, blocks, pillar_size=SIZE, point_range=RANGE, grid=GRID)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean = torch.randn(module.num_features)
            module.running_var = torch.rand(module.num_features) + 0.5
    return model.eval()


def clouds(seed: int, sizes: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    result = []
    for size in sizes:
        cloud = torch.rand((size, 5), generator=generator) * 6 - 3
        cloud[torch.rand(size, generator=generator) < 0.1, 4] = torch.nan
        result.append(cloud)
    return result


def one_by_one(model: PillarEncoder, cloud: Tensor) -> Tensor:
    """Return the (C, H, W) pillars of a point cloud, computed pillar by pillar from the paper's definition."""
    width, height = GRID
    pillars = torch.zeros(model.norm.num_features, height, width)
    for row in range(height):
        for column in range(width):
            left, low = RANGE[0] + column * SIZE[0], RANGE[1] + row * SIZE[1]
            members = torch.stack(
                [
                    cloud[:, 0] >= left,
                    cloud[:, 0] < left + SIZE[0],
                    cloud[:, 1] >= low,
                    cloud[:, 1] < low + SIZE[1],
                    cloud[:, 2] >= RANGE[2],
                    cloud[:, 2] < RANGE[5],
                    cloud.isfinite().all(dim=1),
                ]
            ).all(dim=0)
            points = cloud[members]
            if len(points):
                from_mean = points[:, :3] - points[:, :3].mean(dim=0)
                from_centre = points[:, :2] - torch.tensor([left + SIZE[0] / 2, low + SIZE[1] / 2])
                hidden = model.norm(model.linear(torch.cat([points, from_mean, from_centre], dim=1) / model.units))
                pillars[:, row, column] = hidden.relu().amax(dim=0)
    return pillars


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(0, 60), min_size=1, max_size=3))
def test_pillars_equal_those_computed_pillar_by_pillar(seed: int, sizes: list[int]) -> None:
    model, points = encoder(), clouds(seed, sizes)
    with torch.no_grad():
        expected = torch.stack([one_by_one(model, cloud) for cloud in points])
        torch.testing.assert_close(model(points), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_order_of_the_points_does_not_matter() -> None:
    model, (cloud,) = encoder((6, 8), blocks=1), clouds(1, [200])
    torch.testing.assert_close(model([cloud[torch.randperm(len(cloud))]]), model([cloud]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_samples_of_a_batch_do_not_mix() -> None:
    model, points = encoder((6, 8), blocks=1), clouds(2, [50, 0, 120])
    alone = torch.cat([model([cloud]) for cloud in points])
    torch.testing.assert_close(model(points), alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_each_stage_halves_the_resolution() -> None:
    model = encoder((6, 8, 10), blocks=2)
    assert (model.stride, model.out_channels) == (4, 10)
    assert model(clouds(3, [40, 30])).shape == (2, 10, 1, 1)


def test_training_and_evaluation_agree_where_the_statistics_are_the_batches() -> None:
    model, points = encoder(), clouds(4, [1000])
    model.norm.momentum = 1.0
    trained = model.train()(points)
    with torch.no_grad():
        # The running variance is unbiased, that of a batch is not.
        torch.testing.assert_close(model.eval()(points), trained.detach(), atol=0.01, rtol=0.01)


def test_every_parameter_gets_a_gradient() -> None:
    model = encoder((6, 8), blocks=1).train()
    model(clouds(6, [300, 200])).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@torch.no_grad()
def test_coordinates_keep_their_precision_in_bf16() -> None:
    model, points = encoder(), clouds(5, [200])
    precise = model(points)
    model.to(torch.bfloat16)
    low = model(points)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), precise, atol=0.05, rtol=0.02)


def test_clouds_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[\(3, 4\)\], but must be one point cloud \(N, 5\)"):
        encoder()([torch.zeros(3, 4)])
    with pytest.raises(ValueError, match="one point cloud"):
        encoder()([])
