# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Consistency checks of a preset's values with each other and with its architecture."""

import math
import re
from typing import TYPE_CHECKING

from aqr_perception.models.architectures import ARCHITECTURES, Architecture
from aqr_perception.models.config.preset_ranges import range_problem

if TYPE_CHECKING:
    from aqr_perception.models.config.presets import Preset


_LOWEST_GRID = 25
"""Fewest cells along z of which the sparse encoder's convolutions leave a layer."""
_CLASS_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")


def preset_problem(preset: "Preset") -> str | None:
    """Return a preset's first error, with the remedy; None without an error."""
    architecture = ARCHITECTURES[preset.architecture]
    return (
        _class_problem(preset.classes)
        or range_problem(preset)
        or _sensor_problem(preset, architecture)
        or _image_problem(preset)
        or _point_problem(preset)
        or _router_problem(preset)
        or (architecture.check(preset) if architecture.check is not None else None)
        or _proposal_problem(preset, architecture)
        or _decoder_problem(preset)
        or _factor_problem(preset)
    )


def _class_problem(classes: tuple[str, ...]) -> str | None:
    if not classes:
        return "classes is empty; list at least one class, or remove the entry for nuScenes' ten"
    for index, name in enumerate(classes):
        # A class name is also a part of the ROS parameter `class_score_thresholds.<class>`.
        if not _CLASS_NAME.fullmatch(name):
            return (
                f"classes[{index}] is {name!r}, but must be a letter followed by letters, digits and underscores, as "
                "in traffic_cone"
            )
        if name in classes[:index]:
            return f"classes[{index}] is {name!r}, as is classes[{classes.index(name)}]; list each class once"
    return None


def _sensor_problem(preset: "Preset", architecture: Architecture) -> str | None:
    cameras, lidar = preset.image is not None, preset.points is not None
    if not cameras and not lidar:
        return "has neither 'image' nor 'points'; add at least one of them"
    if architecture.sensors == "cameras" and (not cameras or lidar):
        return f"architecture {preset.architecture} uses cameras only: add 'image' and remove 'points'"
    if architecture.sensors == "cameras and lidar" and not (cameras and lidar):
        return f"architecture {preset.architecture} uses cameras and LiDAR: it needs both 'image' and 'points'"
    return None


def _image_problem(preset: "Preset") -> str | None:
    image = preset.image
    if image is None:
        return None
    if any(size <= 0 or size % 32 for size in image.size):
        return f"image.size is {list(image.size)}, but both must be positive multiples of 32"
    if image.width < 1:
        return f"image.width is {image.width}, but must be at least 1"
    if image.stride != 16 and (image.backbone == "vovnet99" or preset.architecture == "bevformer"):
        user = "backbone vovnet99" if image.backbone == "vovnet99" else "architecture bevformer"
        return f"image.stride is {image.stride}, but {user} has maps of fixed strides; remove the entry"
    minima = {"positions": 1, "global_blocks": 1, "pyramid_channels": 1, "registers": 0, "window": 0, "layer_scale": 0}
    for name, minimum in minima.items():
        if getattr(image.vit, name) < minimum:
            return f"image.vit.{name} is {getattr(image.vit, name)}, but must be at least {minimum}"
    if not 0 <= image.vit.drop_path < 1:
        return f"image.vit.drop_path is {image.vit.drop_path}, but must be at least 0 and below 1"
    return None


def _point_problem(preset: "Preset") -> str | None:
    points = preset.points
    if points is None:
        return None
    if points.encoder == "pillars" and (not points.pillars.channels or min(points.pillars.channels) < 1):
        return f"points.pillars.channels is {list(points.pillars.channels)}, but must be one positive number or more"
    if points.encoder == "pillars" and points.pillars.blocks < 0:
        return f"points.pillars.blocks is {points.pillars.blocks}, but must be 0 or more"
    if points.encoder == "pillars" and points.grid[2] != 1:
        return (
            f"points.grid is {list(points.grid)}, but pillars have one cell along z: set the third number to 1 and the "
            "third of points.voxel_size to the height of point_range"
        )
    quantiles = points.intensity_quantiles
    if quantiles and (len(quantiles) < 2 or list(quantiles) != sorted(quantiles)):
        return f"points.intensity_quantiles is {list(quantiles)}, but must be empty or ascend, two numbers or more"
    multiple = 2 * points.stride  # SECOND halves the cells once more, and its pyramid doubles them again
    if any(size <= 0 or size % multiple for size in points.grid[:2]):
        return f"points.grid is {list(points.grid)}, but x and y must be positive multiples of {multiple}"
    if points.encoder != "pillars" and points.grid[2] < _LOWEST_GRID:
        return f"points.grid is {list(points.grid)}, but z must be at least {_LOWEST_GRID}"
    return None


def _router_problem(preset: "Preset") -> str | None:
    """Return why the architecture has no router of the kind that `AqrOptions` need; only CMT's has kinds."""
    if preset.architecture == "cmt":
        return None
    own = f"architecture {preset.architecture} has no such router; use architecture cmt"
    if preset.aqr.mode == "gate":
        return f"aqr.mode is 'gate', but {own}, or another mode"
    if preset.aqr.bias == "signed":
        return f"aqr.bias is 'signed', but {own}, or additive"
    return None


def _proposal_problem(preset: "Preset", architecture: Architecture) -> str | None:
    proposals = preset.decoder.proposals
    if min(proposals.bev, proposals.image) < 0 or proposals.count > preset.decoder.queries:
        return (
            f"decoder.proposals are {proposals.bev} and {proposals.image}, but must be at least 0 and together at most "
            f"decoder.queries ({preset.decoder.queries})"
        )
    if proposals.count and not architecture.proposals:
        return f"decoder.proposals are not available in {preset.architecture}; set them to 0, or use architecture cmt"
    # A camera-only architecture makes its BEV features from the images.
    has_bev = "bev" in architecture.proposals and (preset.points is not None or architecture.sensors == "cameras")
    has_image = "image" in architecture.proposals and preset.image is not None
    if (proposals.bev and not has_bev) or (proposals.image and not has_image):
        return (
            f"decoder.proposals are {proposals.bev} (bev) and {proposals.image} (image), but the model lacks a branch "
            "for them; add 'points' or 'image', or set them to 0"
        )
    return None


def _decoder_problem(preset: "Preset") -> str | None:
    decoder, image, points = preset.decoder, preset.image, preset.points
    for name, pooling, branch, present in (
        ("image_pooling", decoder.image_pooling, "image", image is not None),
        ("bev_pooling", decoder.bev_pooling, "points", points is not None),
    ):
        if pooling != 1 and preset.architecture != "cmt":
            return f"decoder.{name} is {pooling}, but only architecture cmt pools cells; remove the entry"
        if pooling != 1 and not present:
            return f"decoder.{name} is {pooling}, but the model has no {branch!r}; remove the entry, or add {branch!r}"
    if image is not None and any(size % (image.stride * decoder.image_pooling) for size in image.size):
        return (
            f"decoder.image_pooling is {decoder.image_pooling}, but image.size {list(image.size)} is no multiple of it "
            f"times image.stride ({image.stride})"
        )
    if points is not None and any(cells % decoder.bev_pooling for cells in points.bev_cells):
        return (
            f"decoder.bev_pooling is {decoder.bev_pooling}, but the BEV features have {list(points.bev_cells)} cells, "
            "which are no multiples of it"
        )
    if decoder.channels % decoder.heads:
        return f"decoder.channels is {decoder.channels}, but must be a multiple of decoder.heads ({decoder.heads})"
    return None


def _factor_problem(preset: "Preset") -> str | None:
    for part, factor in preset.learning_rate_factors.items():
        if not all(part.split(".")):
            return (
                f"learning_rate_factors has the part {part!r}, but a part is one or several components of parameters' "
                "names with dots between them, as in pts_bbox_head.transformer"
            )
        if not 0 <= factor < math.inf:
            return f"learning_rate_factors.{part} is {factor}, but must be 0 (frozen) or more, and finite"
    return None
