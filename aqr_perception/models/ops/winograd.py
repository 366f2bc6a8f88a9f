"""3x3 convolution by Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray 2016, https://arxiv.org/abs/1509.09308).

Each 4x4 tile of the output costs 36 multiplications a channel pair instead of 144. oneDNN, which does PyTorch's
convolutions on CPUs, has no such fp32 kernel; cuDNN chooses one by itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TILE = 4
_WINDOW = _TILE + 2
# The paper's transforms: Y = A^T [(G g G^T) * (B^T d B)] A for a kernel g and a 6x6 window d.
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # times 1 / 24
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
# A^T maps the unit vector of point 1 to ones: what is added to that element of the 36 is added to a tile's every pixel.
_CONSTANT = 1 * _WINDOW + 1

# Fewer channels: the transforms cost as much as is saved. Fewer tiles: reading the four times larger kernels does.
_LEAST_CHANNELS = 128
_LEAST_TILES = 64
# Elements of a working buffer, 16 MB: larger ones leave the cache and are fetched from the system anew every time.
_BUFFER = 4_000_000


def pays(convolution: nn.Conv2d, features: Tensor) -> bool:
    """Return whether this is a convolution that `convolve_3x3` computes, and faster than a direct one."""
    tiles = features.shape[0] * -(-features.shape[2] // _TILE) * -(-features.shape[3] // _TILE)
    return (
        convolution.kernel_size == (3, 3)
        and convolution.stride == convolution.dilation == convolution.padding == (1, 1)
        and convolution.padding_mode == "zeros"
        and convolution.groups == 1
        and min(convolution.in_channels, convolution.out_channels) >= _LEAST_CHANNELS
        and tiles >= _LEAST_TILES
    )


def transform_kernel(weight: Tensor) -> Tensor:
    """Return the (36, in, out) transform of a (out, in, 3, 3) kernel."""
    transform = _both_axes(weight.new_tensor(_KERNEL) / 24)
    out_channels, in_channels = weight.shape[:2]
    return (transform @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(-1, in_channels, out_channels)


def convolve_3x3(features: Tensor, kernel: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """Convolve with stride 1 and one zero of padding; without gradients.

    Args:
        features: (N, in, H, W).
        kernel: (36, in, out) of `transform_kernel`.
        bias: (out,) or None.
        relu: whether to apply it to the result.

    Returns:
        (N, out, H, W), channels last in memory.
    """
    batch, in_channels, height, width = features.shape
    out_channels = kernel.shape[2]
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    margins = (0, 0, 1, _TILE * columns + 1 - width, 1, _TILE * rows + 1 - height)
    padded = F.pad(features.permute(0, 2, 3, 1), margins).contiguous()
    outputs = features.new_empty(batch, _TILE * rows, _TILE * columns, out_channels)
    transform_input = _both_axes(features.new_tensor(_INPUT))
    transform_output = _both_axes(features.new_tensor(_OUTPUT))

    row_elements = _WINDOW**2 * columns * max(in_channels, out_channels)
    chunks = _chunks(batch, rows, max(1, _BUFFER // row_elements))
    largest = max(len(images) * len(tile_rows) for images, tile_rows in chunks) * row_elements
    first, second = features.new_empty(largest), features.new_empty(largest)
    for images, tile_rows in chunks:
        shape = (len(images), len(tile_rows), columns)
        tiles = shape[0] * shape[1] * shape[2]
        image_slice = slice(images.start, images.stop)
        windows = _windows(padded[image_slice, _TILE * tile_rows.start :], shape)
        # The two buffers take turns: windows, their transforms, products, and tiles of the output.
        gathered = first[: 36 * tiles * in_channels].view(36, -1)
        gathered.view(windows.shape).copy_(windows)
        transformed = torch.mm(transform_input, gathered, out=second[: gathered.numel()].view(36, -1))
        products = first[: 36 * tiles * out_channels].view(36, tiles, out_channels)
        torch.bmm(transformed.view(36, tiles, in_channels), kernel, out=products)
        if bias is not None:
            products[_CONSTANT].add_(bias)
        pixels = second[: 16 * tiles * out_channels].view(16, -1)
        torch.mm(transform_output, products.view(36, -1), out=pixels)
        pixels = pixels.view(_TILE, _TILE, *shape, out_channels).permute(2, 3, 0, 4, 1, 5)
        target = outputs[image_slice, _TILE * tile_rows.start : _TILE * tile_rows.stop].view(pixels.shape)
        if relu:
            torch.clamp_min(pixels, 0, out=target)
        else:
            target.copy_(pixels)
    return outputs[:, :height, :width].contiguous().permute(0, 3, 1, 2)


def _both_axes(transform: Tensor) -> Tensor:
    return torch.kron(transform, transform)


def _chunks(batch: int, rows: int, rows_in_buffer: int) -> list[tuple[range, range]]:
    """Return pieces of the batch, as images and rows of tiles: several whole images, or a part of one."""
    if rows_in_buffer >= rows:
        step = rows_in_buffer // rows
        return [(range(start, min(start + step, batch)), range(rows)) for start in range(0, batch, step)]
    return [
        (range(image, image + 1), range(start, min(start + rows_in_buffer, rows)))
        for image in range(batch)
        for start in range(0, rows, rows_in_buffer)
    ]


def _windows(padded: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return (6, 6, images, rows, columns, C) overlapping windows of (images, H, W, C), without a copy."""
    image, row, column, channel = padded.stride()
    size = (_WINDOW, _WINDOW, *shape, padded.shape[3])
    stride = (row, column, image, _TILE * row, _TILE * column, channel)
    return padded.as_strided(size, stride, padded.storage_offset())
