# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Attention bias of the research code: scaled query weights inside windows of the BEV grid and of one camera.

Attribute names follow the checkpoints' keys.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aqr_perception.models.aqr.published_windows import PublishedCells
from aqr_perception.models.aqr.window_bias import WindowBias
from aqr_perception.models.aqr.window_tiles import reach
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.weights.checkpoint import CheckpointError
from aqr_perception.options import AqrOptions

SCALE_RANGE = (0.5, 5.0)
"""Smallest and largest scale; a learned scale outside acts as the nearer one, and gets no gradient."""

MAX_BIAS = 5.0


class BiasGenerator(nn.Module):
    """The learned scale of the bias, and the constants that the code stores with it.

    Attributes:
        bias_scale: (1,), the scale before it is limited to `SCALE_RANGE`.
    """

    def __init__(self, window: int, scale: float, columns: tuple[int, int]) -> None:
        """Create the constants of one window size.

        Args:
            window: edge length in cells.
            scale: initial scale.
            columns: columns of the BEV grid and of a camera's token grid.
        """
        super().__init__()
        self.columns = columns
        self.bias_scale = nn.Parameter(torch.tensor([scale]))
        self.set_window(window)

    def set_window(self, window: int) -> None:
        """Replace the constants by those of a window of another edge length in cells."""
        for name, values in window_constants(window, self.columns).items():
            self.register_buffer(name, values.to(self.bias_scale.device))

    @property
    def scale(self) -> Tensor:
        """(1,), the scale that acts."""
        return self.bias_scale.clamp(*SCALE_RANGE)


def window_constants(window: int, columns: tuple[int, int]) -> dict[str, Tensor]:
    """Return the constants that a checkpoint stores for a window: its cells relative to its centre, and their factors.

    Args:
        window: edge length in cells.
        columns: columns of the BEV grid and of a camera's token grid.
    """
    before, after = reach(window)
    y, x = torch.cartesian_prod(*[torch.arange(-before, after + 1)] * 2).unbind(-1)
    return {
        "y_offsets": y,
        "x_offsets": x,
        "window_offsets_bev": y * columns[0] + x,
        "window_offsets_pers": y * columns[1] + x,
        "gaussian_weights": torch.ones(window**2),
    }


def stored_window(weights: Mapping[str, Tensor], prefix: str) -> int | None:
    """Return the edge length in cells of the windows that a checkpoint's constants describe; None without them."""
    offsets = weights.get(f"{prefix}y_offsets")
    return None if offsets is None else math.isqrt(offsets.numel())


def converted_constants(
    name: str, weights: Mapping[str, Tensor], prefix: str, generator: BiasGenerator
) -> dict[str, Tensor]:
    """Return a checkpoint's weights with the scale and the constants in a generator's shapes.

    The first code with a bias stores the scale without a dimension and no Gaussian factors. Constants of another window
    size become the generator's; `stored_window` tells the size.

    Args:
        name: name of the checkpoint, for messages.
        weights: by key.
        prefix: key prefix of the generator.
        generator: the generator whose shapes are needed.

    Raises:
        CheckpointError: the constants are not those of a window, or its factors are not uniform.
    """
    converted, window = dict(weights), stored_window(weights, prefix)
    if window is None:
        return converted
    scale = weights.get(f"{prefix}bias_scale")
    if scale is not None and scale.dim() == 0:
        converted[f"{prefix}bias_scale"] = scale.reshape(1)
        converted.setdefault(f"{prefix}gaussian_weights", torch.ones(window**2))
    for key, constant in window_constants(window, generator.columns).items():
        found = converted.get(f"{prefix}{key}")
        if found is None:
            continue
        if found.shape != constant.shape or not torch.equal(found.to(constant), constant):
            raise CheckpointError(
                f"{name}: {prefix}{key} is not that of a window of {window} x {window} cells with equal factors over "
                f"grids of {generator.columns[0]} and {generator.columns[1]} columns, which this model needs; Gaussian "
                "windows are not supported, and other grids need the preset of the weights"
            )
        converted[f"{prefix}{key}"] = generator.get_buffer(key)
    return converted


def scaled_bias(
    weights: Tensor, scale: Tensor | float, cells: PublishedCells, layout: TokenLayout, options: AqrOptions
) -> WindowBias:
    """Return the bias of (B, Q, 2) weights of LiDAR and cameras, times ``options.strength``.

    Args:
        weights: in -1..1.
        scale: factor of the weights.
        cells: cells of the queries, the centres of the windows.
        layout: layout of the tokens.
        options: strength and window sizes.
    """
    bias = (weights.float() * scale).clamp(-MAX_BIAS, MAX_BIAS)
    # The code stores the bias in half precision; without the rounding, a box centre changes by up to 3 mm.
    lidar, camera = (options.strength * bias.half().float()).unbind(-1)
    placed = cells.query_cells(layout)
    return WindowBias(
        placed,
        torch.where(placed.bev_inside, lidar, 0.0),
        torch.where(placed.image_visible, camera[..., None], 0.0),
        layout,
        options.bev_window,
        options.image_window,
    )
