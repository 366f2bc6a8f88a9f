# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sparse 3D convolutions built from torch operations: gather, matrix product and scatter along a rulebook.

Inference on a CPU with a compiler uses the kernels of `native_sparse` instead.
Kernels are stored in spconv 2's layout: (out, kD, kH, kW, in).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from aqr_perception.models.ops.derived_tensors import DerivedTensors
from aqr_perception.models.ops.folding import scale_and_shift
from aqr_perception.models.points import native_sparse
from aqr_perception.models.points.sites import Grid, Rulebook, Sites

_kernels = DerivedTensors()


@dataclass(frozen=True)
class SparseTensor:
    """Features at the occupied cells of a grid; all other cells are zero.

    Attributes:
        features: (N, C), in the order of the sites.
        sites: occupied cells.
    """

    features: Tensor
    sites: Sites

    @staticmethod
    def from_coordinates(coordinates: Tensor, features: Tensor, grid: Grid, batch_size: int) -> "SparseTensor":
        """Return the tensor with (N, C) features at those (N, 4) coordinates (batch, z, y, x) that lie in the grid.

        Raises:
            ValueError: two coordinates are equal.
        """
        sites, source = Sites.from_coordinates(coordinates, grid, batch_size)
        return SparseTensor(features[source], sites)

    def dense(self) -> Tensor:
        """Return (B, C, D, H, W) with C and D fastest in memory, so that flattening both gives channels-last memory."""
        depth, height, width = self.sites.grid
        samples, z, y, x = self.sites.coordinates()
        cells = self.features.new_zeros(self.sites.batch_size, height, width, self.features.shape[1], depth)
        cells[samples, y, x, :, z] = self.features
        return cells.permute(0, 3, 4, 1, 2)


class _SparseConvolution(nn.Module, ABC):
    """Kernel of a sparse convolution; subclasses determine the output sites."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Grid) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, *kernel, in_channels))
        bound = 1 / math.sqrt(in_channels * math.prod(kernel))  # as in torch's dense convolutions
        nn.init.uniform_(self.weight, -bound, bound)

    @abstractmethod
    def connect(self, sites: Sites) -> tuple[Sites, Rulebook]:
        """Return the output sites for these input sites, and the rulebook that connects them."""

    @abstractmethod
    def connect_table(self, sites: Sites) -> tuple[Sites, Tensor] | None:
        """Return the output sites and the neighbour table for the compiled kernels; None where these are unsuited."""

    def forward(self, inputs: SparseTensor) -> SparseTensor:
        """Return the convolved tensor, differentiable in features and kernel."""
        sites, rulebook = self.connect(inputs.sites)
        return SparseTensor(_apply(inputs.features, rulebook, _by_offset(self.weight)), sites)


class SubmanifoldConv3d(_SparseConvolution):
    """3x3x3 convolution whose output sites are its input sites (Graham et al. 2018, arXiv:1711.10275)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (3, 3, 3))

    def connect(self, sites: Sites) -> tuple[Sites, Rulebook]:
        return sites, sites.submanifold()

    def connect_table(self, sites: Sites) -> tuple[Sites, Tensor] | None:
        return sites, sites.submanifold_table()


class SparseConv3d(_SparseConvolution):
    """Convolution with an output site wherever its kernel covers an input site.

    Args:
        kernel, stride, padding: sizes along z, y, x.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Grid, stride: Grid, padding: Grid) -> None:
        super().__init__(in_channels, out_channels, kernel)
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def connect(self, sites: Sites) -> tuple[Sites, Rulebook]:
        return sites.strided(self.kernel, self.stride, self.padding)

    def connect_table(self, sites: Sites) -> tuple[Sites, Tensor] | None:
        return sites.strided_table(self.kernel, self.stride, self.padding)


def convolve(
    inputs: SparseTensor, convolution: _SparseConvolution, norm: nn.BatchNorm1d, residual: Tensor | None = None
) -> SparseTensor:
    """Return relu(norm(convolution(inputs)) + residual).

    Without gradients and with the norm in evaluation mode, the norm is folded into the kernel.

    Args:
        residual: (M, C), at the output sites.
    """
    if torch.is_grad_enabled() or norm.training:
        _kernels.drop(convolution)
        outputs = convolution(inputs)
        features = _normalize(outputs.features, norm)
        return SparseTensor(F.relu(features if residual is None else features + residual), outputs.sites)
    sources = (convolution.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    kernel, bias = _kernels.get(convolution, sources, lambda: _fold(convolution, norm))
    if native_sparse.supports(inputs.features, kernel) and (connected := convolution.connect_table(inputs.sites)):
        sites, table = connected
        return SparseTensor(native_sparse.convolve(inputs.features, table, kernel, bias, residual), sites)
    sites, rulebook = convolution.connect(inputs.sites)
    if kernel.is_cpu and kernel.dtype == torch.float32 and inputs.features.dtype == torch.float32:
        return SparseTensor(_apply_in_blocks(inputs.features, rulebook, kernel, bias, residual), sites)
    features = _apply(inputs.features, rulebook, kernel, bias)
    if residual is not None:
        features += residual
    return SparseTensor(features.relu_(), sites)


def _normalize(features: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    if norm.training and len(features) < 2:  # a nearly empty sweep has too few sites for a variance
        return F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    normalised: Tensor = norm(features)
    return normalised


def _fold(convolution: _SparseConvolution, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    scale, shift = scale_and_shift(norm)
    dtype = convolution.weight.dtype
    return (_by_offset(convolution.weight).to(scale.dtype) * scale).to(dtype).contiguous(), shift.to(dtype)


def _by_offset(weight: Tensor) -> Tensor:
    """Return a kernel (out, kD, kH, kW, in) as one matrix per offset, (kD * kH * kW, in, out)."""
    return weight.flatten(1, 3).permute(1, 2, 0)


def _apply(features: Tensor, rulebook: Rulebook, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return (M, out) outputs of (N, in) features with a kernel (offsets, in, out) and a bias (out,).

    Each offset takes one matrix product of its connected rows. The outputs of an offset are distinct, so adding the
    products has no races. Half precision is summed in float32.
    """
    dtype = kernel.dtype
    if torch.is_autocast_enabled(features.device.type):
        kernel = kernel.to(torch.get_autocast_dtype(features.device.type))
    # torch does not annotate Function.apply.
    outputs: Tensor = _GatherScatter.apply(features.to(kernel.dtype), kernel, rulebook)  # type: ignore[no-untyped-call]
    return (outputs if bias is None else outputs + bias).to(dtype)


class _GatherScatter(torch.autograd.Function):
    """Gather, product and scatter with sums in float32 or higher.

    Plain autograd would store the gathered rows of each offset, and sum one gradient of all features per offset in the
    backward pass. This function gathers the rows again and accumulates a single gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, kernel: Tensor, rulebook: Rulebook) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.rulebook = rulebook  # type: ignore[attr-defined]
        precise = torch.promote_types(kernel.dtype, torch.float32)
        if rulebook.identity is None:
            outputs = features.new_zeros(rulebook.output_count, kernel.shape[2], dtype=precise)
        else:
            outputs = (features @ kernel[rulebook.identity]).to(precise)
        for offset, sources, targets in rulebook.pairs():
            rows = features.index_select(0, sources) @ kernel[offset]
            outputs.index_add_(0, targets, rows.to(precise))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        features, kernel = ctx.saved_tensors
        rulebook: Rulebook = ctx.rulebook
        precise, gradient = gradient.dtype, gradient.to(kernel.dtype)
        to_kernel = torch.zeros_like(kernel)
        if rulebook.identity is None:
            to_features = torch.zeros_like(features, dtype=precise)
        else:
            to_features = (gradient @ kernel[rulebook.identity].T).to(precise)
            to_kernel[rulebook.identity] = features.T @ gradient
        for offset, sources, targets in rulebook.pairs():
            rows = gradient.index_select(0, targets)
            to_features.index_add_(0, sources, (rows @ kernel[offset].T).to(precise))
            to_kernel[offset] = features.index_select(0, sources).T @ rows
        return to_features.to(features.dtype), to_kernel, None


_BLOCK_BYTES = 16 * 2**20
"""Size of a block's products.

Below 32 MiB glibc recycles memory instead of mapping new pages; much smaller blocks make the matrix products slow.
"""


def _apply_in_blocks(
    features: Tensor, rulebook: Rulebook, kernel: Tensor, bias: Tensor, residual: Tensor | None
) -> Tensor:
    """Return relu(`_apply` + bias + residual) for inference on CPUs.

    A buffer holds the products of a block of outputs, and `embedding_bag`, torch's fastest gather-and-sum on CPUs, adds
    up those of each output.
    """
    channels = kernel.shape[2]
    blocks = rulebook.blocks(_BLOCK_BYTES // (4 * channels))
    outputs = features.new_empty(rulebook.output_count, channels)
    products = features.new_empty(max(len(block.order) for block in blocks), channels)
    gathered = features.new_empty(max(len(sources) for block in blocks for sources in block.sources), features.shape[1])
    for block in blocks:
        end = 0
        for offset, sources in enumerate(block.sources):
            if count := len(sources):
                start, end = end, end + count
                rows = torch.index_select(features, 0, sources, out=gathered[:count])
                torch.mm(rows, kernel[offset], out=products[start:end])
        sums = F.embedding_bag(block.order, products[:end], block.starts, mode="sum").add_(bias)
        if rulebook.identity is not None:
            sums.addmm_(features[block.rows], kernel[rulebook.identity])
        if residual is not None:
            sums += residual[block.rows]
        torch.clamp(sums, min=0, out=outputs[block.rows])
    return outputs
