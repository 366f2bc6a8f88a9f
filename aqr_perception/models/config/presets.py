# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Model presets: one YAML file each in ``config/models/``, read strictly into typed dataclasses."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

from aqr_perception.frame import CLASSES, FramePlacement
from aqr_perception.models.architectures import ARCHITECTURES
from aqr_perception.models.config.preset_checks import preset_problem
from aqr_perception.models.config.typed_values import WrongValueError, read
from aqr_perception.models.config.yaml_file import YamlFileError, read_yaml
from aqr_perception.options import AqrOptions

OptionsT = TypeVar("OptionsT")


class PresetError(ValueError):
    """A preset is unknown or its file is invalid; the message names the file, the entry and the remedy."""


@dataclass(frozen=True)
class VitOptions:
    """Options of a Vision Transformer; the defaults fit DINOv2's and most of timm's weights.

    Attributes:
        class_token: whether there is a class token.
        registers: number of register tokens.
        positions: rows and columns of the learned position embedding, which the model interpolates to the image's
            patches. DINOv2 has 37, timm's models for 224 pixels have 14; loading interpolates a file's embedding.
        norm: ``pre`` normalises before each layer, ``post`` the layer's output.
        layer_scale: initial factor of the residuals; 0 for none.
        drop_path: rate of stochastic depth in the last block; it rises linearly from 0 in the first.
        window: largest side of an attention window in patches; 0 for global attention everywhere.
        global_blocks: number of evenly spread blocks with global attention in a model with windows.
        pyramid_channels: channels of the feature maps for the neck.
    """

    class_token: bool = True
    registers: int = 0
    positions: int = 37
    norm: Literal["pre", "post"] = "pre"
    layer_scale: float = 1.0
    drop_path: float = 0.1
    window: int = 0
    global_blocks: int = 4
    pyramid_channels: int = 256


@dataclass(frozen=True)
class ImageBranch:
    """Image backbone and feature pyramid of the cameras.

    Attributes:
        size: width and height of the model's images in pixels, multiples of 32.
        backbone: name of the network.
        mean, std: mean and standard deviation of the BGR pixels.
        width: channels of a ResNet's first stage; published weights have 64.
        stride: pixels along the edge of a feature cell. 16, as in all published weights: stages of stride 16 and 32; 8:
            stages of stride 8 and 16, which find smaller objects with a shallower backbone and four times the tokens.
        vit: options of Vision Transformers; others ignore them.
    """

    size: tuple[int, int]
    backbone: Literal[
        "resnet18",
        "resnet50",
        "resnet101_deformable",
        "vovnet99",
        "efficientnet_lite0",
        "vit_tiny",
        "vit_small",
        "vit_base",
        "vit_large",
    ]
    mean: tuple[float, float, float] = (103.530, 116.280, 123.675)
    std: tuple[float, float, float] = (57.375, 57.120, 58.395)
    width: int = 64
    stride: Literal[8, 16] = 16
    vit: VitOptions = field(default_factory=VitOptions)


@dataclass(frozen=True)
class PillarOptions:
    """Encoder of pillars (PointPillars); see `models.points.pillars`.

    Attributes:
        channels: channels of the pillars, and of the maps after each halving of the resolution.
        blocks: number of further convolutions at each lower resolution.
    """

    channels: tuple[int, ...] = (32, 64, 64)
    blocks: int = 1


@dataclass(frozen=True)
class PointBranch:
    """Encoder of the point cloud, SECOND and SECOND-FPN of the LiDAR.

    Attributes:
        voxel_size: x, y, z in metres.
        grid: cells along x, y, z from the lower corner of the point range; the published 0.1 m model uses 1024 of 1080.
        encoder: ``sparse``: SECOND's sparse convolutions on voxels, as in all published weights; ``pillars``:
            PointPillars' dense ones, several times faster on CPUs. Pillars need one cell along z.
        pillars: options of the pillars; the sparse encoder ignores them.
        max_points, max_voxels: maximum number of points averaged in a voxel, and of voxels in a sweep; pillars have no
            limits and ignore these and the next two.
        encoder_channels: channels of the sparse encoder's four stages.
        encoder_output: channels after its last convolution, before height is folded into channels.
        backbone_channels, backbone_layers: channels and layers of SECOND's two stages.
        neck_channels: channels of each of SECOND-FPN's two outputs.
        intensity_quantiles: intensities 0..255 at ranks evenly spaced in 0..1, onto which those of each point cloud are
            mapped; see `points.intensities`. Empty: unchanged, as in all published models.
    """

    voxel_size: tuple[float, float, float]
    grid: tuple[int, int, int]
    encoder: Literal["sparse", "pillars"] = "sparse"
    pillars: PillarOptions = field(default_factory=PillarOptions)
    max_points: int = 10
    max_voxels: int = 160_000
    encoder_channels: tuple[int, int, int, int] = (16, 32, 64, 128)
    encoder_output: int = 128
    backbone_channels: tuple[int, int] = (128, 256)
    backbone_layers: tuple[int, int] = (5, 5)
    neck_channels: int = 256
    intensity_quantiles: tuple[float, ...] = ()

    @property
    def stride(self) -> int:
        """Size of the BEV features' cells in cells of the grid."""
        return 8 if self.encoder == "sparse" else 2 ** (len(self.pillars.channels) - 1)

    @property
    def bev_cells(self) -> tuple[int, int]:
        """Number of cells of the BEV features along x, y."""
        return self.grid[0] // self.stride, self.grid[1] // self.stride


@dataclass(frozen=True)
class ProposalOptions:
    """Numbers of queries that start at proposals of the sensors' branches; published CMT weights have none.

    Attributes:
        bev: number of peaks of the BEV class heat maps, from LiDAR features or BEVFormer's BEV features.
        image: number of peaks of the cameras' class heat maps; each peak has an estimated depth.
    """

    bev: int = 0
    image: int = 0

    @property
    def count(self) -> int:
        return self.bev + self.image


@dataclass(frozen=True)
class Decoder:
    """Queries, transformer decoder and prediction heads.

    Attributes:
        channels: channels of every token and query.
        queries: number of queries, including proposals.
        proposals: queries that start at proposals. The others, and those of a missing sensor, start at learned
            reference points.
        layers, heads, feedforward: sizes of the transformer decoder.
        depths: number of points along a camera ray.
        image_pooling: edge of the square of image cells whose mean is one token. With 2, proposals find small objects
            in fine image cells, and the decoder attends to a quarter of the tokens.
        bev_pooling: the same for the cells of the BEV features of the LiDAR.
        head_kernel: kernel size of the prediction heads' convolutions over the queries.
        nms: whether detections of an object that a better one has found are left out; see `boxes.duplicates`.
    """

    channels: int = 256
    queries: int = 900
    layers: int = 6
    heads: int = 8
    feedforward: int = 1024
    depths: int = 64
    image_pooling: int = 1
    bev_pooling: int = 1
    head_kernel: int = 1
    nms: bool = False
    proposals: ProposalOptions = field(default_factory=ProposalOptions)


@dataclass(frozen=True)
class Preset:
    """Complete configuration of a model.

    Attributes:
        name: the file's stem.
        description: one line for users.
        point_range: x, y, z minimum and maximum of the scene in metres, model frame.
        image: None for a LiDAR-only model.
        points: None for a camera-only model.
        sweeps: number of LiDAR sweeps that the model was trained with, including the newest.
        sweep_interval: seconds between two of these sweeps, at least; 0: consecutive ones. A longer interval shows
            slower motion at the same number of points; see `sweep_choice.spaced_sweeps`.
        aqr: default use of the query weights.
        model_frame: where the model frame of the training data lies on the vehicle; None if unknown.
        architecture: a name in `ARCHITECTURES`.
        classes: names of the model's classes; a label is an index into them.
        learning_rate_factors: learning rates in training relative to the schedule, by part of the model; 0 freezes the
            part, and parts without an entry have 1. A part is one or several components of its parameters' names, such
            as ``img_neck`` or ``pts_bbox_head.transformer``; see `training.part_factors`.
        options: the architecture's own entries, under its name in the file; see `architecture_options`.
    """

    name: str
    description: str
    point_range: tuple[float, float, float, float, float, float]
    image: ImageBranch | None = None
    points: PointBranch | None = None
    decoder: Decoder = field(default_factory=Decoder)
    sweeps: int = 10
    sweep_interval: float = 0.0
    aqr: AqrOptions = field(default_factory=AqrOptions)
    model_frame: FramePlacement | None = None
    architecture: str = "cmt"
    classes: tuple[str, ...] = CLASSES
    learning_rate_factors: Mapping[str, float] = field(default_factory=dict, hash=False)
    options: object = field(default=None, metadata={"from_file": False})

    @property
    def bev_range(self) -> tuple[float, float, float, float]:
        """x_min, y_min, x_max, y_max of the BEV features in metres, model frame.

        With a LiDAR branch, this is the extent of its voxel grid, which starts at the lower corner of the point range
        and may end before or beyond the upper one. BEV features from cameras cover the point range.
        """
        x_min, y_min, _, x_max, y_max, _ = self.point_range
        if self.points is None:
            return x_min, y_min, x_max, y_max
        # Decimal, because in floats 1024 voxels of 0.1 m from -54 m end at 48.400000000000006 m.
        x_end, y_end = (
            float(Decimal(str(low)) + cells * Decimal(str(size)))
            for low, cells, size in zip((x_min, y_min), self.points.grid, self.points.voxel_size, strict=False)
        )
        return x_min, y_min, x_end, y_end

    def architecture_options(self, kind: type[OptionsT]) -> OptionsT:
        """Return the architecture's own options; their defaults if the preset has none."""
        options = kind() if self.options is None else self.options
        if not isinstance(options, kind):
            raise TypeError(f"options of preset {self.name!r} are {type(options).__name__}, needed {kind.__name__}")
        return options


def preset_directory() -> Path:
    """Return the folder of the presets: in the installed package, or next to it in a source checkout."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "config" / "models"
    return installed if installed.is_dir() else package.parent / "config" / "models"


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    return tuple(sorted(path.stem for path in preset_directory().glob("*.yaml")))


def load_preset(name: str) -> Preset:
    """Read a preset by name, or from a path ending in ``.yaml``.

    Raises:
        PresetError: the preset does not exist, or an entry is unknown, missing or of the wrong type.
    """
    path = Path(name) if name.endswith(".yaml") else preset_directory() / f"{name}.yaml"
    if not path.is_file() or (not name.endswith(".yaml") and name not in preset_names()):
        raise PresetError(
            f"model preset {name!r} does not exist; choose one of {', '.join(preset_names())}, "
            "or give the path of a .yaml file"
        )
    try:
        values = read_yaml(path)
    except YamlFileError as error:
        raise PresetError(str(error)) from error
    if not isinstance(values, dict):
        raise PresetError(f"{path}: found {type(values).__name__}, needed a mapping of preset entries")
    try:
        preset = _read_preset({"name": path.stem, **values}, str(path))
    except WrongValueError as error:
        raise PresetError(str(error)) from error
    problem = preset_problem(preset)
    if problem is not None:
        raise PresetError(f"{path}: {problem}")
    return preset


def _read_preset(values: dict[str, Any], path: str) -> Preset:
    name = values.get("architecture", "cmt")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(map(repr, ARCHITECTURES))
        raise PresetError(f"{path}: architecture: found {name!r}, needed one of {known}")
    kind = ARCHITECTURES[name].options
    own = values.pop(name, {}) if kind is not None else {}
    preset: Preset = read(Preset, values, path)
    if kind is None:
        return preset
    return dataclasses.replace(preset, options=read(kind, own, f"{path}: {name}"))
