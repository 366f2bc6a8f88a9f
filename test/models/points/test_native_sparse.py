# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Compiled sparse convolutions equal those of torch operations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aqr_perception.models.points import native_sparse
from aqr_perception.models.points.sites import Grid, Sites
from aqr_perception.models.points.sparse_conv import SparseConv3d, SparseTensor, SubmanifoldConv3d, convolve
from aqr_perception.models.points.sparse_encoder import SparseEncoder
from aqr_perception.models.points.voxels import Voxels

pytestmark = pytest.mark.skipif(not native_sparse.available(), reason="needs a C++ compiler")

grids = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))
sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))


def random_sites(seed: int, grid: Grid, density: float) -> Sites:
    mask = torch.rand(2, *grid, generator=torch.Generator().manual_seed(seed)) < density
    return Sites.from_coordinates(mask.nonzero(), grid, 2)[0]


def norm(channels: int) -> nn.BatchNorm1d:
    module = nn.BatchNorm1d(channels).eval()
    for tensor in (module.weight, module.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    for tensor in (module.bias, module.running_mean):
        nn.init.normal_(tensor)
    return module


def both(inputs: SparseTensor, convolution, batch_norm, residual, monkeypatch) -> tuple[SparseTensor, SparseTensor]:
    """Return the results of the kernels and of torch operations."""
    with torch.inference_mode():
        native = convolve(inputs, convolution, batch_norm, residual)
        with monkeypatch.context() as patch:
            patch.setattr(native_sparse, "available", lambda: False)
            return native, convolve(SparseTensor(inputs.features, inputs.sites), convolution, batch_norm, residual)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 9999),
    grid=grids,
    density=st.floats(0, 1),
    inputs=st.sampled_from((1, 5, 16)),
    outputs=st.sampled_from((16, 48, 112)),
    adds=st.booleans(),
)
def test_a_submanifold_convolution_equals_torchs(seed, grid, density, inputs, outputs, adds) -> None:
    sites = random_sites(seed, grid, density)
    tensor = SparseTensor(torch.randn(len(sites), inputs), sites)
    residual = torch.randn(len(sites), outputs) if adds else None
    with pytest.MonkeyPatch.context() as patch:
        native, expected = both(tensor, SubmanifoldConv3d(inputs, outputs), norm(outputs), residual, patch)
    torch.testing.assert_close(native.features, expected.features, atol=1e-4, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), grid=grids, density=st.floats(0, 1), kernel=sizes, stride=sizes, padding=sizes)
def test_a_strided_convolution_has_torchs_sites_and_features(seed, grid, density, kernel, stride, padding) -> None:
    if any(size + 2 * p < k for size, p, k in zip(grid, padding, kernel, strict=True)):
        return  # no output
    sites = random_sites(seed, grid, density)
    tensor = SparseTensor(torch.randn(len(sites), 3), sites)
    with pytest.MonkeyPatch.context() as patch:
        native, expected = both(tensor, SparseConv3d(3, 16, kernel, stride, padding), norm(16), None, patch)
    assert native.sites.grid == expected.sites.grid
    assert torch.equal(native.sites.keys, expected.sites.keys)
    torch.testing.assert_close(native.features, expected.features, atol=1e-4, rtol=1e-4)


def test_an_encoder_equals_torchs_with_one_and_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    grid = (33, 32, 32)
    encoder = SparseEncoder(5, (16, 32, 32, 64), grid=grid, output_channels=64).eval()
    coordinates = (torch.rand(2, *grid) < 0.05).nonzero()
    voxels = Voxels(coordinates, torch.randn(len(coordinates), 5), grid, 2)
    threads = torch.get_num_threads()
    with torch.inference_mode():
        try:
            results = []
            for number in (1, 2):
                torch.set_num_threads(number)
                results.append(encoder(voxels))
        finally:
            torch.set_num_threads(threads)
        monkeypatch.setattr(native_sparse, "available", lambda: False)
        expected = encoder(voxels)
    assert torch.equal(*results)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(results[0], expected, atol=1e-3, rtol=1e-3)


def test_a_huge_grid_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    sites = random_sites(0, (3, 5, 5), 0.5)
    monkeypatch.setattr(native_sparse, "_MOST_KEYS", 64)
    assert sites.strided_table((3, 3, 3), (2, 2, 2), (1, 1, 1)) is None
    tensor = SparseTensor(torch.randn(len(sites), 3), sites)
    native, expected = both(tensor, SparseConv3d(3, 16, (3, 3, 3), (2, 2, 2), (1, 1, 1)), norm(16), None, monkeypatch)
    torch.testing.assert_close(native.features, expected.features)


def test_numbers_that_are_not_finite_stay_visible() -> None:
    sites = random_sites(0, (2, 3, 3), 1.0)
    features = torch.full((len(sites), 5), float("nan"))
    with torch.inference_mode():
        found = convolve(SparseTensor(features, sites), SubmanifoldConv3d(5, 16), norm(16))
    assert found.features.isnan().all()
