# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Embeddings against their definitions, computed point by point."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models.transformer.position_embedding import (
    BevEmbedding,
    FrustumEmbedding,
    bev_cell_centres,
    sine_features,
)

POINT_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
IMAGE_SIZE = (96, 160)


def camera_ring(views: int) -> torch.Tensor:
    """(1, V, 4, 4) projections of cameras that look outwards from the origin, 70 degrees wide."""
    matrices = []
    for view in range(views):
        yaw = 2 * math.pi * view / max(views, 1)
        forward = torch.tensor([math.cos(yaw), math.sin(yaw), 0.0])
        right = torch.tensor([math.sin(yaw), -math.cos(yaw), 0.0])
        rotation = torch.stack((right, torch.tensor([0.0, 0.0, -1.0]), forward))
        extrinsics = torch.eye(4)
        extrinsics[:3, :3] = rotation
        extrinsics[:3, 3] = torch.tensor([0.0, 0.3, -0.5])
        intrinsics = torch.eye(4)
        intrinsics[0, 0] = intrinsics[1, 1] = 114.0
        intrinsics[0, 2], intrinsics[1, 2] = 80.0, 48.0
        matrices.append(intrinsics @ extrinsics)
    return torch.stack(matrices)[None] if matrices else torch.zeros(1, 0, 4, 4)


def embed_pixel(embedding: FrustumEmbedding, u: float, v: float, lidar_to_image: torch.Tensor) -> torch.Tensor:
    """PETR's definition: 64 points along the ray, normalised, through the MLP."""
    lower, upper = torch.tensor(POINT_RANGE[:3]), torch.tensor(POINT_RANGE[3:])
    inverse = torch.linalg.inv(lidar_to_image.double())
    points = []
    for k in range(embedding[0].in_features // 3):
        depth = 1 + k * (POINT_RANGE[3] - 1) / (embedding[0].in_features // 3)
        point = (inverse @ torch.tensor([u * depth, v * depth, depth, 1.0]).double())[:3].float()
        points.append((point - lower) / (upper - lower))
    return embedding[2](torch.relu(embedding[0](torch.cat(points))))


@pytest.fixture
def embedding() -> FrustumEmbedding:
    torch.manual_seed(0)
    return FrustumEmbedding(16, 64, POINT_RANGE)


def test_image_cells_embed_the_points_along_their_first_pixels_ray(embedding: FrustumEmbedding) -> None:
    lidar_to_image = camera_ring(3)
    grid = embedding.image_grid(lidar_to_image, 6, 10, IMAGE_SIZE)
    for view, row, column in ((0, 0, 0), (1, 3, 7), (2, 5, 9)):
        expected = embed_pixel(embedding, column * 16.0, row * 16.0, lidar_to_image[0, view])
        torch.testing.assert_close(grid[0, view, row * 10 + column], expected, atol=1e-4, rtol=1e-4)


def test_queries_sum_the_embeddings_of_every_camera_that_sees_them(embedding: FrustumEmbedding) -> None:
    lidar_to_image = camera_ring(6)
    points = torch.tensor([[[10.0, 0.0, 0.0], [10.0, 5.6, 0.5], [-3.0, 8.0, -1.0], [0.0, 0.0, 40.0]]])
    embedded = embedding.queries(points, lidar_to_image, IMAGE_SIZE)
    seen = 0
    for query, point in enumerate(points[0]):
        expected = torch.zeros(16)
        for matrix in lidar_to_image[0]:
            u, v, depth, _ = matrix @ torch.cat((point, torch.ones(1)))
            u, v = float(u / depth), float(v / depth)
            if depth > 0 and 0 <= u < IMAGE_SIZE[1] and 0 <= v < IMAGE_SIZE[0]:
                expected += embed_pixel(embedding, u, v, matrix)
                seen += 1
        torch.testing.assert_close(embedded[0, query], expected, atol=1e-4, rtol=1e-4)
    assert seen == 4  # one point lies where two cameras overlap, one is seen by none
    assert not embedded[0, 3].any()


def test_without_cameras_the_embeddings_are_empty_or_zero(embedding: FrustumEmbedding) -> None:
    points = torch.zeros(1, 5, 3)
    assert not embedding.queries(points, camera_ring(0), IMAGE_SIZE).any()
    assert embedding.image_grid(camera_ring(0), 6, 10, IMAGE_SIZE).shape == (1, 0, 60, 16)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_sine_features_put_y_first_and_stay_on_the_unit_circle(x: float, y: float, half: int) -> None:
    features = sine_features(torch.tensor([x, y]), 2 * half)
    swapped = sine_features(torch.tensor([y, x]), 2 * half)
    torch.testing.assert_close(features, torch.cat(swapped.chunk(2)[::-1]))
    sine, cosine = features.unflatten(0, (-1, 2)).unbind(-1)
    torch.testing.assert_close(sine**2 + cosine**2, torch.ones(2 * half))
    torch.testing.assert_close(features[0], torch.tensor(math.sin(2 * math.pi * y)), atol=1e-5, rtol=0)


def test_cells_run_along_x_first() -> None:
    centres = bev_cell_centres(2, 4)
    assert centres[:2].tolist() == [[0.125, 0.25], [0.375, 0.25]]
    assert centres[-1].tolist() == [0.875, 0.75]


def test_grid_embedding_is_cached_until_a_parameter_changes() -> None:
    embedding = BevEmbedding(8)
    with torch.no_grad():
        first = embedding.grid(4, 4)
        assert embedding.grid(4, 4) is first
        embedding[2].bias.add_(1.0)
        torch.testing.assert_close(embedding.grid(4, 4), first + 1.0)


def test_grid_embedding_follows_a_fused_optimiser_that_raises_no_versions() -> None:
    embedding = BevEmbedding(8)
    optimiser = torch.optim.AdamW(embedding.parameters(), lr=0.5, fused=True)
    with torch.no_grad():
        before = embedding.grid(4, 4)
    embedding.grid(4, 4).sum().backward()
    optimiser.step()
    with torch.no_grad():
        torch.testing.assert_close(embedding.grid(4, 4), embedding(bev_cell_centres(4, 4)))
        assert not torch.allclose(embedding.grid(4, 4), before)


def test_autocast_leaves_pixels_and_rays_precise(embedding: FrustumEmbedding) -> None:
    lidar_to_image = camera_ring(6)
    points = (torch.rand(1, 300, 3) - 0.5) * torch.tensor([100.0, 100.0, 6.0])
    exact = embedding.queries(points, lidar_to_image, IMAGE_SIZE)
    grid = embedding.image_grid(lidar_to_image, 6, 10, IMAGE_SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            embedding.queries(points, lidar_to_image, IMAGE_SIZE).float(), exact, atol=0.01, rtol=0.01
        )
        torch.testing.assert_close(
            embedding.image_grid(lidar_to_image, 6, 10, IMAGE_SIZE).float(), grid, atol=0.01, rtol=0.01
        )
