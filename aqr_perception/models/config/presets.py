"""Model configurations: one YAML file a preset in ``config/models/``, read strictly into typed dataclasses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from aqr_perception.models.config.typed_values import WrongValueError, read
from aqr_perception.options import AqrOptions


class PresetError(ValueError):
    """A preset is unknown or its file does not fit; the message names the file, the entry and the remedy."""


@dataclass(frozen=True)
class VitOptions:
    """What a Vision Transformer needs beside its size; the defaults fit DINOv2's and most of timm's weights.

    Attributes:
        class_token: whether there is one.
        registers: how many register tokens there are.
        positions: rows and columns of the learned position embedding, which is interpolated to the image's patches.
            DINOv2 has 37, timm's models for 224 pixels have 14; a file's are interpolated when it is loaded.
        norm: before each layer, or of its output.
        layer_scale: initial factor of the residuals; 0 for none.
        drop_path: rate of stochastic depth in the last block; it rises from 0 in the first.
        window: largest side of an attention window in patches; 0 for global attention everywhere.
        global_blocks: how many blocks, evenly spread, have global attention where there is a window.
        pyramid_channels: of the feature maps made for the neck.
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
    """Backbone and FPN of the cameras.

    Attributes:
        size: width and height of the model's images in pixels, multiples of 32.
        backbone: which network computes the features.
        mean, std: of the BGR pixels.
        width: channels of a ResNet's first stage; published weights have 64.
        vit: read by the Vision Transformers alone.
    """

    size: tuple[int, int]
    backbone: Literal[
        "resnet18",
        "resnet50",
        "resnet101_deformable",
        "vovnet99",
        "vit_tiny",
        "vit_small",
        "vit_base",
        "vit_large",
    ]
    mean: tuple[float, float, float] = (103.530, 116.280, 123.675)
    std: tuple[float, float, float] = (57.375, 57.120, 58.395)
    width: int = 64
    vit: VitOptions = field(default_factory=VitOptions)


@dataclass(frozen=True)
class PointBranch:
    """Voxels, sparse encoder, SECOND and SECOND-FPN of the LiDAR.

    Attributes:
        voxel_size: x, y, z in metres.
        grid: cells along x, y, z that are kept. The published 0.1 m model keeps 1024 of 1080.
        max_points, max_voxels: most points averaged in a voxel, and most voxels in a sweep.
        encoder_channels: of the sparse encoder's four stages.
        encoder_output: channels after its last convolution, before depth is folded in.
        backbone_channels, backbone_layers: of SECOND's two stages.
        neck_channels: of each of SECOND-FPN's two outputs.
    """

    voxel_size: tuple[float, float, float]
    grid: tuple[int, int, int]
    max_points: int = 10
    max_voxels: int = 160_000
    encoder_channels: tuple[int, int, int, int] = (16, 32, 64, 128)
    encoder_output: int = 128
    backbone_channels: tuple[int, int] = (128, 256)
    backbone_layers: tuple[int, int] = (5, 5)
    neck_channels: int = 256


@dataclass(frozen=True)
class ProposalOptions:
    """How many of the queries start where the sensors' own branches already suspect an object; CMT has none.

    Attributes:
        bev: at peaks of a class heat map in the bird's-eye view: the LiDAR's, or that of BEVFormer.
        image: at peaks of the cameras' class heat maps, at the depths estimated there.
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
        channels: of every token and query.
        queries: all of them, proposals included.
        proposals: the others start at learned reference points, as do these where their sensor is missing.
        layers, heads, feedforward: of the transformer decoder.
        depths: points along a camera ray.
        head_kernel: of the prediction heads' convolutions over the queries.
    """

    channels: int = 256
    queries: int = 900
    layers: int = 6
    heads: int = 8
    feedforward: int = 1024
    depths: int = 64
    head_kernel: int = 1
    proposals: ProposalOptions = field(default_factory=ProposalOptions)


@dataclass(frozen=True)
class PetrOptions:
    """What PETR and PETRv2 need beside queries and decoder.

    Attributes:
        frames: 1 is PETR; 2 is PETRv2, which also looks at a past frame.
        position_range: x, y, z minimum and maximum in metres that the position embedding of image cells spans.
        camera_azimuths: of the six cameras' optical axes in degrees, in the model frame, counter-clockwise from +x, in
            the order front, front right, front left, back, back left, back right. A camera takes the place in the ring
            of the one that looks most nearly its way, so missing and reordered cameras change nothing for the others.
            nuScenes' in the frame of its LiDAR (y forward), where the published weights were trained.
        frame_gap: seconds before the frame that the past one lies if there is a choice.
    """

    frames: Literal[1, 2] = 1
    position_range: tuple[float, float, float, float, float, float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    camera_azimuths: tuple[float, float, float, float, float, float] = (90.0, 34.0, 146.0, -90.0, -162.0, -20.0)
    frame_gap: float = 1.245


@dataclass(frozen=True)
class BevFormerOptions:
    """What BEVFormer needs beside queries and decoder.

    Attributes:
        grid: cells of the BEV along x and y.
        levels: image feature maps that it looks at: 1, the backbone's last stage (stride 32); 2, the last two (16 and
            32); or 4, the last three and a further convolution (8, 16, 32 and 64).
        encoder_layers: temporal self-attention, spatial cross-attention and feed-forward in a row.
        heights: points in a cell's pillar.
        points: sampling points of the spatial cross-attention in every head and level, a multiple of `heights`.
        rgb: whether the weights were trained on RGB instead of BGR. The mean and deviation stay in BGR order.
        rotation_centre: x and y, in cells from the grid's corner, about which the history is turned; None is the
            vehicle, which is right. The published weights were trained with (100, 100) whatever the grid.
        forward: direction of the vehicle's front in the model frame in degrees, counter-clockwise from +x. nuScenes'
            LiDAR (y forward), where the published weights were trained, has 90.
        camera_azimuths: see `PetrOptions.camera_azimuths`; a camera gets the embedding of its place in the ring.
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


@dataclass(frozen=True)
class Preset:
    """A model's whole configuration.

    Attributes:
        name: the file's stem.
        description: one line for people.
        point_range: x, y, z minimum and maximum of the scene in metres, model frame.
        image: None for a LiDAR-only model.
        points: None for a camera-only model.
        sweeps: LiDAR sweeps the model was trained to see at once.
        aqr: how query weights are used unless the user says otherwise.
        architecture: which model the preset configures.
        petr: read by ``petr`` alone.
        bevformer: read by ``bevformer`` alone.
    """

    name: str
    description: str
    point_range: tuple[float, float, float, float, float, float]
    image: ImageBranch | None = None
    points: PointBranch | None = None
    decoder: Decoder = field(default_factory=Decoder)
    sweeps: int = 10
    aqr: AqrOptions = field(default_factory=AqrOptions)
    architecture: Literal["cmt", "mome", "petr", "bevformer"] = "cmt"
    petr: PetrOptions = field(default_factory=PetrOptions)
    bevformer: BevFormerOptions = field(default_factory=BevFormerOptions)


def preset_directory() -> Path:
    """Return where the presets lie: inside the installed package, or beside it in a source checkout."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "config" / "models"
    return installed if installed.is_dir() else package.parent / "config" / "models"


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    return tuple(sorted(path.stem for path in preset_directory().glob("*.yaml")))


def load_preset(name: str) -> Preset:
    """Read a preset by name, or from a path ending in ``.yaml``.

    Raises:
        PresetError: there is no such preset, or an entry is unknown, missing or of the wrong type.
    """
    path = Path(name) if name.endswith(".yaml") else preset_directory() / f"{name}.yaml"
    if not path.is_file():
        raise PresetError(
            f"model preset {name!r} does not exist; choose one of {', '.join(preset_names())}, "
            "or give the path of a .yaml file"
        )
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise PresetError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise PresetError(f"{path}: found {type(values).__name__}, needed a mapping of preset entries")
    try:
        preset = read(Preset, {"name": path.stem, **values}, str(path))
    except WrongValueError as error:
        raise PresetError(str(error)) from error
    _check(preset, str(path))
    return preset


def _check(preset: Preset, path: str) -> None:
    if preset.image is None and preset.points is None:
        raise PresetError(f"{path}: has neither 'image' nor 'points'; a model needs at least one of them")
    if preset.image is not None and any(size <= 0 or size % 32 for size in preset.image.size):
        raise PresetError(f"{path}: image.size is {list(preset.image.size)}, but both must be positive multiples of 32")
    if preset.image is not None:
        if preset.image.width < 1:
            raise PresetError(f"{path}: image.width is {preset.image.width}, but must be at least 1")
        _check_vit(preset.image.vit, path)
    if preset.points is not None and any(size % 8 for size in preset.points.grid[:2]):
        raise PresetError(f"{path}: points.grid is {list(preset.points.grid)}, but x and y must be multiples of 8")
    if preset.architecture == "petr" and (preset.image is None or preset.points is not None):
        raise PresetError(f"{path}: PETR looks at cameras alone: it needs 'image', and 'points' must not be there")
    if preset.architecture == "mome" and (preset.image is None or preset.points is None):
        raise PresetError(f"{path}: MoME chooses between cameras and LiDAR: it needs both 'image' and 'points'")
    if preset.architecture == "bevformer":
        _check_bevformer(preset, path)
    _check_proposals(preset, path)
    if preset.decoder.channels % preset.decoder.heads:
        raise PresetError(
            f"{path}: decoder.channels is {preset.decoder.channels}, but must be a multiple of decoder.heads "
            f"({preset.decoder.heads})"
        )


def _check_proposals(preset: Preset, path: str) -> None:
    proposals = preset.decoder.proposals
    if min(proposals.bev, proposals.image) < 0 or proposals.count > preset.decoder.queries:
        raise PresetError(
            f"{path}: decoder.proposals are {proposals.bev} and {proposals.image}, but must be at least 0 and together "
            f"at most decoder.queries ({preset.decoder.queries})"
        )
    if proposals.count and preset.architecture == "mome":
        raise PresetError(f"{path}: decoder.proposals are not for mome; give 0, or take architecture cmt")
    seen_from_above = preset.points is not None or preset.architecture == "bevformer"
    if (proposals.bev and not seen_from_above) or (proposals.image and preset.image is None):
        raise PresetError(f"{path}: decoder.proposals come from a branch that is not there; add it, or give 0")


def _check_vit(vit: VitOptions, path: str) -> None:
    least = {"positions": 1, "global_blocks": 1, "pyramid_channels": 1, "registers": 0, "window": 0, "layer_scale": 0}
    for name, minimum in least.items():
        if getattr(vit, name) < minimum:
            raise PresetError(f"{path}: image.vit.{name} is {getattr(vit, name)}, but must be at least {minimum}")
    if not 0 <= vit.drop_path < 1:
        raise PresetError(f"{path}: image.vit.drop_path is {vit.drop_path}, but must be at least 0 and below 1")


def _check_bevformer(preset: Preset, path: str) -> None:
    options = preset.bevformer
    if preset.image is None or preset.points is not None:
        raise PresetError(f"{path}: BEVFormer looks at cameras alone: it needs 'image', and 'points' must not be there")
    if preset.image.backbone == "vovnet99" and options.levels == 4:
        raise PresetError(f"{path}: bevformer.levels is 4, but vovnet99 has no map of stride 8; use 1, 2 or a resnet")
    counts = (*options.grid, options.encoder_layers, options.heights)
    if min(counts) < 1 or options.points < 1 or options.points % options.heights:
        raise PresetError(
            f"{path}: bevformer.grid, encoder_layers and heights are {counts}, points is {options.points}, but all "
            "must be positive, and points a multiple of heights"
        )
    if preset.decoder.channels % 2:
        raise PresetError(f"{path}: decoder.channels is {preset.decoder.channels}, but BEVFormer needs an even number")
