# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sparse 3D encoder from voxels to the bird's-eye view (SECOND, Yan et al. 2018, with residual blocks)."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from aqr_perception.models.points.sites import Grid
from aqr_perception.models.points.sparse_conv import SparseConv3d, SparseTensor, SubmanifoldConv3d, convolve
from aqr_perception.models.points.voxels import Voxels

_BLOCKS = 2
"""Residual blocks per stage."""

_PADDINGS: tuple[Grid, ...] = ((1, 1, 1), (1, 1, 1), (0, 1, 1))
"""Padding along z, y, x of the convolution after each stage except the last."""


class ConvNormReLU(nn.Sequential):
    """Sparse convolution, batch norm (eps 1e-3) and ReLU."""

    def __init__(self, convolution: SubmanifoldConv3d | SparseConv3d, channels: int) -> None:
        super().__init__(convolution, nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01))

    def forward(self, inputs: SparseTensor) -> SparseTensor:
        return convolve(inputs, cast(SparseConv3d, self[0]), cast(nn.BatchNorm1d, self[1]))


class SparseBasicBlock(nn.Module):
    """Two submanifold convolutions with a shortcut: ResNet's basic block on sparse sites."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = SubmanifoldConv3d(channels, channels)
        self.bn1 = nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)
        self.conv2 = SubmanifoldConv3d(channels, channels)
        self.bn2 = nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)

    def forward(self, inputs: SparseTensor) -> SparseTensor:
        hidden = convolve(inputs, self.conv1, self.bn1)
        return convolve(hidden, self.conv2, self.bn2, residual=inputs.features)


class SparseEncoder(nn.Module):
    """Stages of residual blocks with convolutions of stride 2 between them.

    Args:
        in_channels: channels of the voxels.
        channels: channels of each of the four stages.
        grid: number of cells along z, y, x; y and x must be divisible by the encoder's stride. Published models have
            one cell more along z than the point range.
        output_channels: channels of the last convolution, which only reduces the depth.

    Attributes:
        out_channels: output channels x remaining depth.
        stride: size of the result's cells in voxels.

    Raises:
        ValueError: the grid does not fit the stride, or the number of stages is not four.
    """

    def __init__(
        self,
        in_channels: int = 5,
        channels: Sequence[int] = (16, 32, 64, 128),
        *,
        grid: Grid,
        output_channels: int = 128,
    ) -> None:
        super().__init__()
        if len(channels) != len(_PADDINGS) + 1:
            raise ValueError(f"channels are {list(channels)}, but must be {len(_PADDINGS) + 1} numbers, one per stage")
        self.stride = 2 ** len(_PADDINGS)
        depth = grid[0]
        for padding in _PADDINGS:
            depth = (depth + 2 * padding[0] - 3) // 2 + 1
        depth = (depth - 3) // 2 + 1
        if depth < 1 or grid[1] % self.stride or grid[2] % self.stride:
            raise ValueError(
                f"grid (z, y, x) is {grid}, but y and x must be multiples of {self.stride} and z must leave a layer"
            )
        self.grid, self.out_channels = grid, output_channels * depth

        self.conv_input = ConvNormReLU(SubmanifoldConv3d(in_channels, channels[0]), channels[0])
        self.encoder_layers = nn.Sequential()
        for stage, width in enumerate(channels):
            layers: list[nn.Module] = [SparseBasicBlock(width) for _ in range(_BLOCKS)]
            if stage < len(_PADDINGS):
                wider = channels[stage + 1]
                down = SparseConv3d(width, wider, kernel=(3, 3, 3), stride=(2, 2, 2), padding=_PADDINGS[stage])
                layers.append(ConvNormReLU(down, wider))
            self.encoder_layers.add_module(f"encoder_layer{stage + 1}", nn.Sequential(*layers))
        last = SparseConv3d(channels[-1], output_channels, kernel=(3, 1, 1), stride=(2, 1, 1), padding=(0, 0, 0))
        self.conv_out = ConvNormReLU(last, output_channels)

    def forward(self, voxels: Voxels) -> Tensor:
        """Return (B, out_channels, H / stride, W / stride), channels last in memory.

        Channel = feature * depth + layer. Voxels outside the grid are dropped. The result has the parameters' dtype.
        """
        features = voxels.features.to(cast(SparseConv3d, self.conv_out[0]).weight.dtype)
        inputs = SparseTensor.from_coordinates(voxels.coordinates, features, self.grid, voxels.batch_size)
        outputs: SparseTensor = self.conv_out(self.encoder_layers(self.conv_input(inputs)))
        return outputs.dense().flatten(1, 2)
