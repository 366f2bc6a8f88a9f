# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sparse convolutions equal dense ones at their sites."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aqr_perception.models.points import sparse_conv
from aqr_perception.models.points.sites import Grid
from aqr_perception.models.points.sparse_conv import SparseConv3d, SparseTensor, SubmanifoldConv3d, convolve

at = SparseTensor.from_coordinates

GRIDS = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


def occupied(seed: int, grid: Grid, density: float, batch_size: int = 2) -> tuple[Tensor, Tensor]:
    """Return coordinates in random order and their dense (B, 1, D, H, W) mask."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch_size, *grid, generator=generator) < density
    coordinates = mask.nonzero()
    return coordinates[torch.randperm(len(coordinates), generator=generator)], mask[:, None]


def random_tensor(coordinates: Tensor, channels: int, grid: Grid, batch_size: int = 2) -> SparseTensor:
    features = torch.randn(len(coordinates), channels, dtype=torch.float64)
    return at(coordinates, features, grid, batch_size)


def dense_kernel(convolution: SubmanifoldConv3d | SparseConv3d) -> Tensor:
    return convolution.weight.permute(0, 4, 1, 2, 3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), grid=GRIDS, density=st.floats(0, 1))
def test_dense_places_features_at_their_coordinates(seed: int, grid: Grid, density: float) -> None:
    coordinates, _ = occupied(seed, grid, density)
    features = torch.randn(len(coordinates), 3)
    dense = at(coordinates, features, grid, 2).dense()
    samples, z, y, x = coordinates.unbind(1)
    expected = torch.zeros(2, 3, *grid)
    expected[samples, :, z, y, x] = features
    assert torch.equal(dense, expected)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), grid=GRIDS, density=st.floats(0, 1))
def test_a_submanifold_convolution_equals_a_dense_one_at_its_sites(seed: int, grid: Grid, density: float) -> None:
    coordinates, mask = occupied(seed, grid, density)
    inputs = random_tensor(coordinates, 3, grid)
    convolution = SubmanifoldConv3d(3, 4).double()
    expected = F.conv3d(inputs.dense(), dense_kernel(convolution), padding=1) * mask
    torch.testing.assert_close(convolution(inputs).dense(), expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    grid=st.tuples(st.integers(3, 6), st.integers(3, 7), st.integers(3, 7)),
    density=st.floats(0, 0.5),
    layer=st.sampled_from(
        [((3, 3, 3), (2, 2, 2), (1, 1, 1)), ((3, 3, 3), (2, 2, 2), (0, 1, 1)), ((3, 1, 1), (2, 1, 1), (0, 0, 0))]
    ),
)
def test_a_strided_convolution_equals_a_dense_one(
    seed: int, grid: Grid, density: float, layer: tuple[Grid, Grid, Grid]
) -> None:
    kernel, stride, padding = layer
    coordinates, mask = occupied(seed, grid, density)
    inputs = random_tensor(coordinates, 2, grid)
    convolution = SparseConv3d(2, 3, kernel, stride, padding).double()
    outputs = convolution(inputs)
    expected = F.conv3d(inputs.dense(), dense_kernel(convolution), stride=stride, padding=padding)
    torch.testing.assert_close(outputs.dense(), expected)
    reached = F.conv3d(mask.double(), torch.ones(1, 1, *kernel).double(), stride=stride, padding=padding) > 0
    assert len(outputs.sites) == reached.sum()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["submanifold", "strided"])
def test_gradients_are_those_of_the_dense_convolution(kind: str) -> None:
    torch.manual_seed(0)
    grid = (5, 6, 7)
    coordinates, _ = occupied(1, grid, 0.3)
    if kind == "submanifold":
        convolution: SubmanifoldConv3d | SparseConv3d = SubmanifoldConv3d(2, 3).double()
    else:
        convolution = SparseConv3d(2, 3, (3, 3, 3), (2, 2, 2), (1, 1, 1)).double()
    features = torch.randn(len(coordinates), 2, dtype=torch.float64, requires_grad=True)
    parameters = (features, *convolution.parameters())
    assert torch.autograd.gradcheck(
        lambda values, *_: convolution(at(coordinates, values, grid, 2)).features, parameters
    )


def test_layers_of_one_resolution_share_their_rulebooks() -> None:
    coordinates, _ = occupied(0, (4, 8, 8), 0.3)
    inputs = random_tensor(coordinates, 2, (4, 8, 8))
    first = SubmanifoldConv3d(2, 2).double()(inputs)
    assert first.sites is inputs.sites
    assert first.sites.submanifold() is inputs.sites.submanifold()
    down = SparseConv3d(2, 2, (3, 3, 3), (2, 2, 2), (1, 1, 1)).double()
    assert down(first).sites is down(inputs).sites


def test_coordinates_outside_the_grid_are_dropped() -> None:
    coordinates = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 4], [0, -1, 0, 0], [0, 1, 1, 1], [2, 0, 0, 0]])
    tensor = at(coordinates, torch.arange(5.0)[:, None], (2, 2, 4), 2)
    assert tensor.features.flatten().tolist() == [0, 3]


def test_two_features_at_one_cell_are_refused() -> None:
    with pytest.raises(ValueError, match="same coordinates"):
        at(torch.zeros(2, 4), torch.zeros(2, 1), (2, 2, 2), 1)


def layer_pair(strided: bool) -> tuple[SubmanifoldConv3d | SparseConv3d, nn.BatchNorm1d]:
    torch.manual_seed(0)
    convolution = SparseConv3d(4, 6, (3, 3, 3), (2, 2, 2), (1, 1, 1)) if strided else SubmanifoldConv3d(4, 6)
    norm = nn.BatchNorm1d(6)
    norm(torch.randn(20, 6) * 2 + 1)
    return convolution, norm.eval()


@pytest.mark.parametrize("block_bytes", [16 * 2**20, 4000])
@pytest.mark.parametrize("density", [0.0, 0.3])
@pytest.mark.parametrize("strided", [False, True])
def test_inference_equals_the_layers_one_by_one(
    strided: bool, density: float, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_conv, "_BLOCK_BYTES", block_bytes)
    convolution, norm = layer_pair(strided)
    coordinates, _ = occupied(3, (5, 9, 9), density)
    inputs = at(coordinates, torch.randn(len(coordinates), 4), (5, 9, 9), 2)
    plain = convolution(inputs)
    residual = torch.randn_like(plain.features)
    with torch.no_grad():
        folded = convolve(inputs, convolution, norm, residual)
    torch.testing.assert_close(folded.features, F.relu(norm(plain.features) + residual))
    torch.testing.assert_close(convolve(inputs, convolution, norm, residual).features, folded.features)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strided", [False, True])
def test_half_precision_is_summed_precisely(strided: bool, dtype: torch.dtype) -> None:
    convolution, norm = layer_pair(strided)
    coordinates, _ = occupied(3, (4, 8, 8), 0.5)
    features = torch.randn(len(coordinates), 4)
    with torch.no_grad():
        expected = convolve(at(coordinates, features, (4, 8, 8), 2), convolution, norm).features
        half, half_norm = copy.deepcopy(convolution).to(dtype), copy.deepcopy(norm).to(dtype)
        result = convolve(at(coordinates, features.to(dtype), (4, 8, 8), 2), half, half_norm).features
    assert result.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(result.float(), expected, atol=tolerance * expected.max().item(), rtol=tolerance)


def test_inference_follows_a_training_step_and_a_loaded_state() -> None:
    convolution, norm = layer_pair(False)
    coordinates, _ = occupied(3, (4, 8, 8), 0.3)
    features = torch.randn(len(coordinates), 4)
    inputs = at(coordinates, features, (4, 8, 8), 2)

    def inferred() -> Tensor:
        with torch.inference_mode():
            return convolve(at(coordinates, features, (4, 8, 8), 2), convolution, norm).features

    before = inferred()
    state = copy.deepcopy(convolution.state_dict())
    optimiser = torch.optim.SGD([*convolution.parameters(), *norm.parameters()], lr=0.5)
    norm.train()
    convolve(inputs, convolution, norm).features.square().mean().backward()
    optimiser.step()
    norm.eval()
    after = inferred()
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, F.relu(norm(convolution(inputs).features)))
    convolution.load_state_dict(state)
    torch.testing.assert_close(inferred(), F.relu(norm(convolution(inputs).features)))
    convolution.double()
    norm.double()
    assert inferred().dtype == torch.float64


def test_a_single_site_does_not_change_the_weights() -> None:
    convolution = SparseConv3d(2, 3, (3, 1, 1), (2, 1, 1), (0, 0, 0))
    state = copy.deepcopy(convolution.state_dict())
    inputs = at(torch.tensor([[0, 1, 0, 0]]), torch.ones(1, 2), (3, 1, 1), 1)
    with torch.no_grad():
        convolution(inputs)
        torch.testing.assert_close(convolution(inputs).dense(), F.conv3d(inputs.dense(), dense_kernel(convolution)))
    assert all(torch.equal(value, state[key]) for key, value in convolution.state_dict().items())


def test_autocast_gives_single_precision_sums() -> None:
    convolution, norm = layer_pair(False)
    coordinates, _ = occupied(3, (4, 8, 8), 0.3)
    inputs = at(coordinates, torch.randn(len(coordinates), 4), (4, 8, 8), 2)
    expected = convolve(inputs, convolution, norm).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = convolve(inputs, convolution, norm).features
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=0.1, rtol=0.02)


def test_inference_follows_a_norms_statistics_and_a_fused_optimiser() -> None:
    convolution, norm = layer_pair(False)
    coordinates, _ = occupied(3, (4, 8, 8), 0.3)
    inputs = at(coordinates, torch.randn(len(coordinates), 4), (4, 8, 8), 2)
    optimiser = torch.optim.AdamW([*convolution.parameters(), *norm.parameters()], lr=0.5, fused=True)

    def inferred() -> Tensor:
        with torch.no_grad():
            found = convolve(inputs, convolution, norm).features
            torch.testing.assert_close(found, F.relu(norm(convolution(inputs).features)))
        return found

    before = inferred()
    loss = convolve(inputs, convolution, norm.train()).features.sum()  # updates only the statistics
    norm.eval()
    between = inferred()
    assert not torch.allclose(between, before)
    loss = convolve(inputs, convolution, norm).features.sum()
    loss.backward()
    optimiser.step()
    assert not torch.allclose(inferred(), between)


def test_training_does_not_store_gathered_rows() -> None:
    convolution = SubmanifoldConv3d(4, 4)
    coordinates, _ = occupied(3, (4, 8, 8), 0.9)
    features = torch.randn(len(coordinates), 4, requires_grad=True)
    inputs = at(coordinates, features, (4, 8, 8), 2)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = convolution(inputs).features
    # All rows of all offsets would be a good twenty times the features.
    assert outputs.requires_grad and 0 < sum(kept.values()) < 6 * features.nbytes
