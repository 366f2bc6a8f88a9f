# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Presets are read strictly, and every shipped one is valid."""

import dataclasses
import math
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.frame import CLASSES
from aqr_perception.models.architectures import ARCHITECTURES
from aqr_perception.models.bevformer.bevformer_options import BevFormerOptions
from aqr_perception.models.config.preset_checks import preset_problem
from aqr_perception.models.config.preset_ranges import _RANGES, _numbers
from aqr_perception.models.config.presets import PresetError, load_preset, preset_directory, preset_names
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.petr.petr_options import PetrOptions
from aqr_perception.models.points.sparse_encoder import SparseEncoder

PUBLISHED = (
    "cmt_voxel0100_r50_800x320",
    "cmt_voxel0075_vov_1600x640",
    "cmt_lidar_voxel0075",
    "cmt_camera_vov_1600x640",
)


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_loads(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.image is not None or preset.points is not None


def test_the_published_models_and_the_small_one_are_shipped() -> None:
    assert {*PUBLISHED, "aqr_tiny"} <= set(preset_names())


def test_published_lidar_models_have_the_keyframes_sweep_and_ten_past_ones() -> None:
    presets = [load_preset(name) for name in preset_names()]
    published = [preset for preset in presets if preset.points is not None and preset.point_range[0] == -54.0]
    assert len(published) == 7 and {preset.sweeps for preset in published} == {11}


def test_published_presets_leave_the_router_off() -> None:
    assert {load_preset(name).aqr.mode for name in PUBLISHED} == {"off"}
    assert load_preset("aqr_tiny").aqr.mode == "gate"


@pytest.mark.parametrize("name", preset_names())
def test_the_bev_features_cover_the_point_range_except_in_the_published_r50_model(name: str) -> None:
    preset = load_preset(name)
    x_min, y_min, _, x_max, y_max, _ = preset.point_range
    # Equal to the last bit: results of models whose grid covers the range do not depend on the way it is computed.
    covered = (-54.0, -54.0, 48.4, 48.4) if "voxel0100" in name else (x_min, y_min, x_max, y_max)
    assert preset.bev_range == covered


@given(
    lower=st.integers(-10_000, 10_000).map(lambda millimetres: millimetres / 100),
    size=st.integers(1, 2000).map(lambda millimetres: millimetres / 1000),
    cells=st.integers(1, 250).map(lambda count: 8 * count),
)
def test_the_extent_of_the_grid_has_no_rounding_errors(lower: float, size: float, cells: int) -> None:
    preset = load_preset("aqr_tiny")
    assert preset.points is not None
    points = dataclasses.replace(preset.points, voxel_size=(size, size, 0.2), grid=(cells, cells, 40))
    preset = dataclasses.replace(preset, points=points, point_range=(lower, lower, -5.0, 100.0, 100.0, 3.0))
    upper = float(Fraction(str(lower)) + cells * Fraction(str(size)))
    assert preset.bev_range == (lower, lower, upper, upper)


def test_a_preset_may_list_its_own_classes(tmp_path: Path) -> None:
    assert load_preset("aqr_tiny").classes == CLASSES
    assert load_preset(edited(tmp_path, classes=["car", "Forklift_2"])).classes == ("car", "Forklift_2")


def test_a_preset_may_have_learning_rate_factors(tmp_path: Path) -> None:
    assert load_preset("aqr_tiny_sparse").learning_rate_factors == {}
    preset = load_preset(edited(tmp_path, learning_rate_factors={"img_backbone": 0, "pts_bbox_head.transformer": 0.5}))
    assert preset.learning_rate_factors == {"img_backbone": 0.0, "pts_bbox_head.transformer": 0.5}
    assert all(type(factor) is float for factor in preset.learning_rate_factors.values())
    assert hash(preset) != hash(load_preset("aqr_tiny")), "presets stay hashable"


POINTS = {"voxel_size": [0.2, 0.2, 0.25], "grid": [512, 512, 1]}


def edited(tmp_path: Path, **changes: object) -> str:
    values = yaml.safe_load((preset_directory() / "aqr_tiny_sparse.yaml").read_text())
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return str(path)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("decoder.heads", 0, "decoder.heads is 0, but must be in 1..256"),
        ("decoder.layers", 10**6, "decoder.layers is 1000000"),
        ("decoder.queries", -1, "decoder.queries is -1"),
        ("decoder.channels", 2**62, "decoder.channels is"),
        ("sweeps", 0, "sweeps is 0"),
        ("image.width", 2**40, "image.width is"),
        ("image.std", [57.0, 0.0, 58.0], "image.std is"),
        ("image.mean", [math.nan, 0.0, 0.0], "image.mean is"),
        ("points.voxel_size", [0.2, -0.2, 0.25], "points.voxel_size is"),
        ("points.voxel_size", [0.2, 0.2, math.inf], "points.voxel_size is"),
        ("points.grid", [512, 512, 24], "points.grid is .* z must be at least 25"),
        ("points.grid", [0, 512, 32], "points.grid is"),
        ("points.max_voxels", 0, "points.max_voxels is 0"),
        ("points.encoder_channels", [16, 0, 32, 64], "points.encoder_channels is"),
        ("points.intensity_quantiles", [0, 300], "points.intensity_quantiles is .* 0..255"),
        ("points.intensity_quantiles", [40.0], "points.intensity_quantiles is .* two numbers or more"),
        ("points.intensity_quantiles", [0, 90, 40], "points.intensity_quantiles is .* ascend"),
        ("point_range", [-math.inf, -51.2, -5.0, 51.2, 51.2, 3.0], "point_range is"),
        ("point_range", [51.2, -51.2, -5.0, -51.2, 51.2, 3.0], "point_range is .* below their maximum"),
        ("point_range", [10**400, -51.2, -5.0, 51.2, 51.2, 3.0], "point_range.* an integer beyond"),
        ("model_frame.height", math.nan, "model_frame.height is nan"),
    ],
)
def test_a_number_that_no_model_has_is_named(tmp_path: Path, place: str, value: object, named: str) -> None:
    values = yaml.safe_load((preset_directory() / "aqr_tiny_sparse.yaml").read_text())
    *folders, entry = place.split(".")
    inner = values
    for folder in folders:
        inner = inner[folder]
    inner[entry] = value
    with pytest.raises(PresetError, match=named):
        load_preset(edited(tmp_path, **values))


def test_every_number_of_a_preset_has_a_range() -> None:
    """A list of the entries without one: they are checked elsewhere."""
    elsewhere = {"aqr", "decoder.proposals", "image.vit.drop_path", "aqr_cmt.sigma", "aqr_cmt.min_weight"}
    elsewhere |= {"bevformer.levels", "petr.frames"}
    without = {
        name
        for preset in map(load_preset, preset_names())
        for name, _ in _numbers(preset, "")
        if name not in _RANGES and not elsewhere & {name, name.rpartition(".")[0]}
    }
    assert without == set()


@pytest.mark.parametrize("height", [24, 25])
def test_the_lowest_grid_is_the_one_of_which_the_encoder_leaves_a_layer(height: int) -> None:
    preset = load_preset("aqr_tiny_sparse")
    assert preset.points is not None
    spoilt = dataclasses.replace(preset, points=dataclasses.replace(preset.points, grid=(16, 16, height)))
    problem = preset_problem(spoilt)
    if height == 25:
        assert problem is None and SparseEncoder(grid=(height, 16, 16)).out_channels == 128
        return
    assert problem is not None
    with pytest.raises(ValueError, match="must leave a layer"):
        SparseEncoder(grid=(height, 16, 16))


def test_a_users_preset_file_loads_by_path(tmp_path: Path) -> None:
    assert load_preset(edited(tmp_path, description="mine")).description == "mine"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"colour": "red"}, "colour"),
        ({"image": {"size": [450, 192], "backbone": "resnet18"}}, "image.size"),
        ({"image": {"size": [448], "backbone": "resnet18"}}, "image: size"),
        ({"image": {"size": [448, 192], "backbone": "alexnet"}}, "backbone"),
        ({"image": {"size": [448, 192], "backbone": "resnet18", "stride": 4}}, "stride: found 4, needed one of 8, 16"),
        (
            {"image": {"size": [448, 192], "backbone": "vovnet99", "stride": 8}},
            "image.stride is 8, but backbone vovnet99",
        ),
        ({"points": {"voxel_size": [0.2, 0.2, 0.2]}}, "grid"),
        ({"points": {**POINTS, "encoder": "dense"}}, "points: encoder: found 'dense'"),
        ({"points": {**POINTS, "grid": [520, 512, 1]}}, "points.grid is .* positive multiples of 16"),
        ({"points": {**POINTS, "encoder": "pillars", "grid": [256, 256, 32]}}, "pillars have one cell along z"),
        ({"points": {**POINTS, "encoder": "pillars", "grid": [260, 256, 1]}}, "positive multiples of 8"),
        ({"points": {**POINTS, "encoder": "pillars", "pillars": {"channels": []}}}, "points.pillars.channels is"),
        ({"points": {**POINTS, "encoder": "pillars", "pillars": {"blocks": -1}}}, "points.pillars.blocks is -1"),
        ({"decoder": {"layers": "six"}}, "layers"),
        ({"decoder": {"image_pooling": 3}}, "no multiple of it times image.stride"),
        ({"decoder": {"bev_pooling": 3}}, r"bev_pooling is 3, but the BEV features have \[64, 64\] cells"),
        ({"decoder": {"image_pooling": 2}, "image": None}, "image_pooling is 2, but the model has no 'image'"),
        ({"decoder": {"bev_pooling": 2}, "points": None}, "bev_pooling is 2, but the model has no 'points'"),
        ({"decoder": {"channels": 130}}, "decoder.channels"),
        ({"aqr": {"strength": 9.0}}, "aqr.strength"),
        ({"image": None, "points": None}, "neither"),
        ({"learning_rate_factors": [0.5]}, r"learning_rate_factors: found \[0.5\], needed a mapping"),
        ({"learning_rate_factors": {"img_neck": "low"}}, "learning_rate_factors: img_neck: found 'low', needed float"),
        ({"learning_rate_factors": {"img_neck": True}}, "learning_rate_factors: img_neck: found True, needed float"),
        ({"learning_rate_factors": {"img_neck": None}}, "learning_rate_factors: img_neck: found None, needed float"),
        ({"learning_rate_factors": {5: 1.0}}, "learning_rate_factors: key: found 5, needed str"),
        ({"learning_rate_factors": {"img_neck": -0.1}}, r"learning_rate_factors\.img_neck is -0\.1"),
        ({"learning_rate_factors": {"img_neck": float("nan")}}, r"learning_rate_factors\.img_neck is nan"),
        ({"learning_rate_factors": {"img_neck": float("inf")}}, r"learning_rate_factors\.img_neck is inf"),
        ({"learning_rate_factors": {"aqr.": 0.5}}, r"learning_rate_factors has the part 'aqr\.'"),
        ({"learning_rate_factors": {"": 0.5}}, "learning_rate_factors has the part ''"),
        ({"classes": []}, "classes is empty"),
        ({"classes": "car"}, "classes: found 'car', needed a list"),
        ({"classes": ["car", False]}, r"classes\[1\]: found False, needed str"),
        ({"classes": ["car", "traffic cone"]}, r"classes\[1\] is 'traffic cone'.*traffic_cone"),
        ({"classes": ["2_wheeler"]}, r"classes\[0\] is '2_wheeler'"),
        ({"classes": ["car", "bus", "car"]}, r"classes\[2\] is 'car', as is classes\[0\]"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    path = edited(tmp_path, **changes)
    with pytest.raises(PresetError, match=named) as error:
        load_preset(path)
    assert path in str(error.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"decoder": {"queries": 100, "proposals": {"bev": 90, "image": 20}}},
            r"decoder\.proposals are 90 and 20.*100",
        ),
        ({"decoder": {"proposals": {"bev": -1}}}, "at least 0"),
        ({"points": None, "decoder": {"proposals": {"bev": 10}}}, "lacks a branch"),
        ({"architecture": "mome", "decoder": {"proposals": {"bev": 10}}}, "not available in mome"),
    ],
)
def test_impossible_proposals_are_refused(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    with pytest.raises(PresetError, match=named):
        load_preset(edited(tmp_path, **changes))


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(PresetError, match="aqr_tiny"):
        load_preset("cmt_huge")


def test_broken_yaml_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("image: [")
    with pytest.raises(PresetError, match=r"broken\.yaml"):
        load_preset(str(path))


def test_an_unknown_architecture_lists_the_known_ones(tmp_path: Path) -> None:
    for wrong in ("yolo", None, ["cmt"]):
        with pytest.raises(PresetError, match=r"architecture: found .*'cmt', 'aqr_cmt', 'mome', 'petr', 'bevformer'"):
            load_preset(edited(tmp_path, architecture=wrong))


def test_own_entries_are_read_only_for_their_architecture(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"unknown entries \['petr'\]"):
        load_preset(edited(tmp_path, petr={"frames": 2}))
    with pytest.raises(PresetError, match=r"unknown entries \['options'\]"):
        load_preset(edited(tmp_path, options={"frames": 2}))
    proposals = {"decoder": {"proposals": {"image": 10}}}
    preset = load_preset(edited(tmp_path, architecture="petr", points=None, petr={"frames": 2}, **proposals))
    assert preset.architecture_options(PetrOptions).frames == 2
    with pytest.raises(TypeError, match="PetrOptions, needed BevFormerOptions"):
        preset.architecture_options(BevFormerOptions)
    with pytest.raises(PresetError, match=r"petr: frames: found 3"):
        load_preset(edited(tmp_path, architecture="petr", points=None, petr={"frames": 3}, **proposals))


@pytest.mark.parametrize("architecture", ["petr", "bevformer"])
def test_a_camera_only_architecture_refuses_a_point_branch(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(PresetError, match=f"{architecture} uses cameras only: add 'image' and remove 'points'"):
        load_preset(edited(tmp_path, architecture=architecture))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_table_names_a_model_for_every_architecture(name: str) -> None:
    assert issubclass(ARCHITECTURES[name].model_class(), DetectionModel)
