# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sparse encoder from voxels to the BEV."""

import pytest
import torch

from aqr_perception.models.points.sparse_encoder import SparseEncoder
from aqr_perception.models.points.voxels import Voxels

GRID = (41, 32, 24)


def small_encoder() -> SparseEncoder:
    torch.manual_seed(0)
    return SparseEncoder(5, (4, 6, 8, 10), grid=GRID, output_channels=12).eval()


def random_voxels(seed: int, batch_size: int = 2, density: float = 0.03) -> Voxels:
    generator = torch.Generator().manual_seed(seed)
    coordinates = (torch.rand(batch_size, 40, *GRID[1:], generator=generator) < density).nonzero()
    return Voxels(coordinates, torch.randn(len(coordinates), 5, generator=generator), GRID, batch_size)


def sample_of(voxels: Voxels, sample: int) -> Voxels:
    mine = voxels.coordinates[:, 0] == sample
    coordinates = voxels.coordinates[mine] - torch.tensor([sample, 0, 0, 0])
    return Voxels(coordinates, voxels.features[mine], voxels.grid, 1)


def test_bev_features_have_an_eighth_of_the_resolution_and_depth_in_their_channels() -> None:
    encoder = small_encoder()
    view = encoder(random_voxels(0))
    assert encoder.stride == 8
    assert view.shape == (2, encoder.out_channels, 4, 3) == (2, 24, 4, 3)
    assert view.is_contiguous(memory_format=torch.channels_last)


def test_samples_of_a_batch_are_independent() -> None:
    encoder, voxels = small_encoder(), random_voxels(1)
    with torch.no_grad():
        together = encoder(voxels)
        apart = torch.cat([encoder(sample_of(voxels, sample)) for sample in range(2)])
    torch.testing.assert_close(together, apart)


def test_the_order_of_the_voxels_does_not_matter() -> None:
    encoder, voxels = small_encoder(), random_voxels(2)
    order = torch.randperm(len(voxels.features))
    shuffled = Voxels(voxels.coordinates[order], voxels.features[order], GRID, 2)
    with torch.no_grad():
        assert torch.equal(encoder(shuffled), encoder(voxels))


def test_inference_equals_the_differentiable_forward() -> None:
    encoder, voxels = small_encoder(), random_voxels(3)
    expected = encoder(voxels)
    assert expected.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(encoder(voxels), expected)


def test_a_moved_voxel_moves_its_bev_features() -> None:
    encoder = small_encoder()
    with torch.no_grad():
        here, there = (encoder(Voxels(torch.tensor([[0, 20, y, 8]]), torch.ones(1, 5), GRID, 1)) for y in (8, 16))
    empty = encoder(Voxels(torch.empty(0, 4).long(), torch.empty(0, 5), GRID, 1))
    assert (here != empty).any()
    assert torch.equal(there[:, :, 1:], here[:, :, :-1])


@pytest.mark.parametrize("gradients", [False, True])
def test_no_voxels_give_empty_bev_features(gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        view = small_encoder()(Voxels(torch.empty(0, 4).long(), torch.empty(0, 5), GRID, 2))
    assert view.shape == (2, 24, 4, 3)
    assert not view.any()


@pytest.mark.parametrize("voxels", [0, 1, 2])
def test_training_works_with_a_nearly_empty_batch(voxels: int) -> None:
    encoder = small_encoder().train()
    coordinates = torch.tensor([[0, 10, 4, 4], [0, 30, 20, 20]])[:voxels]
    view = encoder(Voxels(coordinates, torch.ones(voxels, 5), GRID, 1))
    view.sum().backward()
    assert view.isfinite().all()
    for norm in (module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm1d)):
        assert all(statistic.isfinite().all() for statistic in norm.buffers())


def test_voxels_beyond_the_grid_are_dropped() -> None:
    encoder, voxels = small_encoder(), random_voxels(4)
    beyond = torch.cat([voxels.coordinates, torch.tensor([[0, 3, 32, 5], [1, 3, 5, 30]])])
    more = Voxels(beyond, torch.cat([voxels.features, torch.ones(2, 5)]), GRID, 2)
    with torch.no_grad():
        assert torch.equal(encoder(more), encoder(voxels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    voxels = random_voxels(5)
    with torch.no_grad():
        expected = small_encoder()(voxels)
        view = small_encoder().to(dtype)(voxels)
    assert view.dtype == dtype
    difference = (view.float() - expected).square().mean().sqrt()
    assert difference < 8 * torch.finfo(dtype).eps * expected.square().mean().sqrt()


def test_another_number_of_stages_is_refused() -> None:
    with pytest.raises(ValueError, match=r"channels are \[.*\], but must be 4 numbers"):
        SparseEncoder(5, (4, 8), grid=(41, 32, 32))


@pytest.mark.parametrize("grid", [(41, 30, 32), (41, 32, 30), (9, 32, 32)])
def test_a_grid_that_does_not_fit_the_strides_is_refused(grid: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        SparseEncoder(grid=grid)
