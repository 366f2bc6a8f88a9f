# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""BEVFormer's own preset entries, under the key ``bevformer``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aqr_perception.options import BoxConvention

if TYPE_CHECKING:
    from aqr_perception.models.config.presets import Preset


@dataclass(frozen=True)
class BevFormerOptions:
    """Options of BEVFormer.

    Attributes:
        grid: cells of the BEV along x and y.
        levels: number of image feature maps: 1, the backbone's last stage (stride 32); 2, its last two stages (16 and
            32); or 4, its last three and a further convolution (8, 16, 32 and 64).
        encoder_layers: layers of temporal self-attention, spatial cross-attention and feed-forward.
        heights: points in a cell's pillar.
        points: sampling points of the spatial cross-attention in every head and level, a multiple of `heights`.
        rgb: whether the weights were trained on RGB instead of BGR. The mean and deviation stay in BGR order.
        rotation_centre: x and y, in cells from the grid's corner, of the centre about which the history is rotated.
            None is the vehicle's position, which is correct. The published weights were trained with (100, 100) for
            every grid.
        forward: direction of the vehicle's front in the model frame in degrees, counter-clockwise from +x: 90 in the
            frame of nuScenes' LiDAR (y forward), where the published weights were trained.
        camera_azimuths: see `PetrOptions.camera_azimuths`; a camera gets the embedding of its position in the ring.
        box_convention: see `PetrOptions.box_convention`.
    """

    grid: tuple[int, int] = (50, 50)
    levels: Literal[1, 2, 4] = 1
    encoder_layers: int = 3
    heights: int = 4
    points: int = 8
    rgb: bool = False
    rotation_centre: tuple[float, float] | None = None
    forward: float = 90.0
    camera_azimuths: tuple[float, float, float, float, float, float] = (90.0, 34.0, 146.0, -90.0, -162.0, -20.0)
    box_convention: BoxConvention = "mmdet3d_0"


def check_bevformer(preset: "Preset") -> str | None:
    """Return what is wrong with a BEVFormer preset; None if nothing is."""
    options = preset.architecture_options(BevFormerOptions)
    if preset.image is not None and preset.image.backbone == "vovnet99" and options.levels == 4:
        return "bevformer.levels is 4, but vovnet99 has no map of stride 8; use 1, 2 or a resnet"
    counts = (*options.grid, options.encoder_layers, options.heights)
    if min(counts) < 1 or options.points < 1 or options.points % options.heights:
        return (
            f"bevformer.grid, encoder_layers and heights are {counts}, points is {options.points}, but all must be "
            "positive, and points a multiple of heights"
        )
    if preset.decoder.channels % 2:
        return f"decoder.channels is {preset.decoder.channels}, but BEVFormer needs an even number"
    return None
