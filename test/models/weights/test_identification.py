# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Shipped presets that weights fit, and the remedy in the error for a wrong preset."""

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch
from helpers.own_classes import OWN, write_preset
from helpers.preset_weights import (
    BIAS,
    GENERATOR,
    MODULATION,
    PLAIN,
    bias_constants,
    empty_model,
    intermediate,
    published,
    weights_of,
)
from helpers.quick_first import quick_first
from torch import Tensor

from aqr_perception.frame import CLASSES
from aqr_perception.models import build_model, load_checkpoint, preset_names
from aqr_perception.models.weights.checkpoint import CheckpointError, save_checkpoint
from aqr_perception.models.weights.fitting import box_problem
from aqr_perception.models.weights.identification import compare_with_presets, fitting_presets
from aqr_perception.models.weights.inspection import inspect_checkpoint
from aqr_perception.models.weights.stored_weights import StoredWeights, read_weights


def fits(weights: dict[str, Tensor], classes: tuple[str, ...] | None = None) -> tuple[str, ...]:
    return fitting_presets(StoredWeights("file", weights, classes))


def refusal(preset: str, weights: dict[str, Tensor]) -> str:
    """Return the error of weights under a preset that they do not fit; the model's values are not needed for it."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(empty_model(preset), weights)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("preset", preset_names())
def test_the_weights_of_every_preset_are_identified(preset: str) -> None:
    fitting = fits(weights_of(preset))
    assert preset in fitting
    shapes = {key: tensor.shape for key, tensor in weights_of(preset).items()}
    for other in fitting:
        assert {key: tensor.shape for key, tensor in weights_of(other).items()} == shapes


def test_all_presets_with_the_same_shapes_are_named() -> None:
    assert fits(weights_of("petr_vov_800x320")) == ("petr_vov_1600x640", "petr_vov_800x320")


@pytest.mark.slow
def test_building_all_presets_without_memory_takes_seconds() -> None:
    empty_model.cache_clear()
    start = time.perf_counter()
    for preset in preset_names():
        assert all(tensor.is_meta for tensor in empty_model(preset).state_dict().values())
    assert time.perf_counter() - start < 30  # 3 s on one core of a Xeon


def test_published_keys_are_identified(shared_reference: Path) -> None:
    for path in sorted((shared_reference / "checkpoints").glob("*.keys.json")):
        name = path.name.removesuffix(".keys.json")
        keys = json.loads(path.read_text())
        weights = {
            key: torch.zeros((), dtype=getattr(torch, dtype.removeprefix("torch."))).expand(shape)
            for key, (shape, dtype) in keys.items()
        }
        weights |= {key: value for key, value in weights_of(name).items() if key.startswith(GENERATOR)}
        assert name in fits(weights), name


def test_sparse_kernels_in_either_layout_are_identified() -> None:
    swapped = {
        key: tensor.permute(1, 2, 3, 4, 0) if tensor.dim() == 5 else tensor for key, tensor in weights_of(PLAIN).items()
    }
    assert fits(swapped) == (PLAIN,)


def test_published_weights_fit_their_own_preset_first() -> None:
    assert fits(published(PLAIN)) == (PLAIN,) and fits(published("aqr_tiny_sparse")) == ("aqr_tiny_sparse",)
    candidates = compare_with_presets(StoredWeights("file", published(PLAIN)))
    assert [found.preset for found in candidates if found.fits] == [PLAIN, MODULATION, BIAS]
    assert all(found.lacks for found in candidates if found.fits), "all of them run with AQR off"


def test_presets_with_other_classes_do_not_fit() -> None:
    tiny = weights_of("aqr_tiny_sparse")
    classes = empty_model("aqr_tiny_sparse").classes
    assert fits(tiny, classes) == ("aqr_tiny_sparse",) and fits(tiny, classes[::-1]) == ()


@pytest.mark.parametrize(
    ("preset", "weights", "named"),
    [
        (BIAS, MODULATION, MODULATION),
        (MODULATION, BIAS, BIAS),
        (PLAIN, BIAS, BIAS),
        (PLAIN, MODULATION, MODULATION),
        ("aqr_cmt_voxel0075_vov_1600x640", PLAIN, PLAIN),
        (BIAS, "cmt_voxel0075_vov_1600x640", "cmt_voxel0075_vov_1600x640"),
        ("petr_vov_800x320", PLAIN, PLAIN),
        ("bevformer_tiny", "bevformer_small", "bevformer_small"),
        ("aqr_tiny_sparse", "mome_voxel0075_vov_1600x640", "mome_voxel0075_vov_1600x640"),
    ],
)
def test_a_wrong_preset_is_answered_with_the_right_one_in_few_lines(preset: str, weights: str, named: str) -> None:
    message = refusal(preset, published(weights))
    assert message.splitlines()[-1] == f"These weights fit the preset {named}: choose it, or other weights."
    assert len(message.splitlines()) <= 16


def test_the_missing_parts_of_the_research_router_are_lines_of_their_own() -> None:
    lines = refusal(PLAIN, weights_of(BIAS)).splitlines()
    assert lines[1:-1] == [
        "  surplus: 18 keys under pts_bbox_head.aqr_weight_generator.* (bev_type_embed, rv_type_embed, ...)",
        "  surplus: 6 keys under pts_bbox_head.attention_bias_generator.* (bias_scale, y_offsets, ...)",
        "  surplus: pts_bbox_head.weight_renderer.gaussian_kernel",
    ]
    without_scale = {key: value for key, value in weights_of(BIAS).items() if not key.endswith("bias_scale")}
    assert f"missing: {GENERATOR}bias_scale" in refusal(BIAS, without_scale)


def test_variants_that_loading_converts_are_identified() -> None:
    assert fits(intermediate(weights_of(BIAS))) == (BIAS,)
    assert fits({**weights_of(BIAS), **bias_constants(7)}) == (BIAS,)


def test_constants_that_loading_refuses_do_not_fit() -> None:
    gaussian = {**weights_of(BIAS), f"{GENERATOR}gaussian_weights": torch.rand(64)}
    assert fits(gaussian) == ()
    nearest = compare_with_presets(StoredWeights("file", gaussian))[0]
    assert nearest.preset == BIAS and nearest.problem is not None and "Gaussian windows" in nearest.problem
    assert f"the nearest is {BIAS}: " in refusal(PLAIN, gaussian)


def test_constants_of_another_grid_are_answered_with_the_preset_of_that_grid() -> None:
    message = refusal("aqr_cmt_voxel0075_vov_1600x640", weights_of(BIAS))
    assert message.startswith(f"state dict: {GENERATOR}") and message.endswith(f". These weights fit the preset {BIAS}")


def test_an_unknown_prefix_is_named_with_the_preset() -> None:
    student = {f"student.net.{key}": value for key, value in published(PLAIN).items()}
    assert refusal(PLAIN, student).splitlines()[-1] == (
        f"All keys start with 'student.net.' and fit the preset {PLAIN} without it: save these keys without the prefix."
    )
    more = {f"model.{key}": value for key, value in published(PLAIN).items()} | {"loss.weight": torch.ones(10)}
    assert refusal(PLAIN, more).splitlines()[-1] == (
        f"689 of 690 keys start with 'model.' and fit the preset {PLAIN} without it: save these keys without the "
        "prefix, and leave out the others (loss.weight)."
    )


def test_weights_near_a_preset_name_it_and_others_do_not() -> None:
    weights = weights_of("petr_tiny")
    weights.pop("pts_bbox_head.reference_points.weight")
    message = refusal("aqr_tiny_sparse", weights)
    assert f"the nearest is petr_tiny (missing 1, surplus 0, misfits 0 of {len(weights)} keys)" in message
    assert "fit none of the shipped presets. Choose the model preset" in refusal(
        "aqr_tiny_sparse", {"x": torch.ones(1)}
    )


def test_the_refusal_of_other_classes_names_the_preset_that_fits(tmp_path: Path) -> None:
    save_checkpoint(build_model("aqr_tiny_sparse"), tmp_path / "tiny.safetensors")
    own = build_model(write_preset(tmp_path))
    with pytest.raises(CheckpointError, match=rf"has 10 classes[\s\S]*has {len(OWN)}.*fit the preset aqr_tiny_sparse$"):
        load_checkpoint(own, tmp_path / "tiny.safetensors")
    save_checkpoint(own, tmp_path / "own.safetensors")
    with pytest.raises(CheckpointError, match=r"or other weights$"):
        load_checkpoint(build_model("aqr_tiny_sparse"), tmp_path / "own.safetensors")


@pytest.mark.filterwarnings("ignore:.*meta parameter")
def test_a_published_file_under_a_preset_with_the_research_router_is_answered_with_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = empty_model(BIAS)
    load_checkpoint(model, published(PLAIN))
    assert not model.router_trained
    assert f"has nothing of this preset's query router. These weights fit the preset {PLAIN}" in caplog.text


def described(place: str, classes: tuple[str, ...]) -> dict[str, object]:
    return {"CLASSES": classes} if place == "CLASSES" else {"dataset_meta": {"classes": list(classes)}}


@pytest.mark.parametrize("place", ["CLASSES", "dataset_meta"])
def test_classes_in_the_training_s_description_are_compared(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, path = build_model("petr_tiny"), tmp_path / "epoch_1.pth"

    def load(classes: tuple[str, ...]) -> str:
        torch.save({"meta": described(place, classes), "state_dict": model.state_dict()}, path)
        caplog.clear()
        load_checkpoint(model, path)
        return caplog.text

    spelled = tuple(name.replace("_", " ").title() for name in model.classes)
    assert not load(model.classes) and not load(spelled)
    assert "epoch_1.pth: its training describes the classes" in load(("van", *model.classes[1:]))
    with pytest.raises(CheckpointError, match=r"in the order traffic_cone, .*entry 'classes' lists them in that order"):
        load(model.classes[::-1])


def test_weights_of_classes_in_another_order_load_with_a_preset_in_that_order(tmp_path: Path) -> None:
    order = CLASSES[::-1]
    preset = write_preset(tmp_path, classes=order)
    model = build_model(preset)
    torch.save({"meta": {"CLASSES": order}, "state_dict": model.state_dict()}, tmp_path / "epoch_1.pth")
    load_checkpoint(model, tmp_path / "epoch_1.pth")


@pytest.mark.parametrize("preset", ["petr_tiny", "petrv2_tiny", "bevformer_mini"])
@pytest.mark.parametrize(
    "meta", quick_first([{"mmdet3d_version": "1.0.0rc6"}, {"mmdet3d_version": "1.4.0"}, {"mmengine_version": "0.10.3"}])
)
def test_box_codes_of_mmdet3d_1_need_a_preset_that_reads_them(
    tmp_path: Path, preset: str, meta: dict[str, str]
) -> None:
    path, model = tmp_path / "epoch_1.pth", empty_model(preset)
    architecture = model.preset.architecture
    torch.save({"meta": meta, "state_dict": weights_of(preset)}, path)
    wanted = rf"trained with mm\w+ [\d.rc]+, .*\(l, w, h; yaw\).*set {architecture}\.box_convention: mmdet3d_1"
    with pytest.raises(CheckpointError, match=wanted):
        load_checkpoint(model, path)
    report = inspect_checkpoint(path).weights
    assert report is not None and report.presets == () and "box_convention" in report.differences[-1]
    options = dataclasses.replace(model.preset.options, box_convention="mmdet3d_1")
    with torch.device("meta"):
        reading = type(model)(dataclasses.replace(model.preset, options=options))
    assert box_problem(read_weights(path), reading) is None
    torch.save({"meta": {"mmdet3d_version": "0.17.1+5e1e6b4"}, "state_dict": weights_of(preset)}, path)
    assert box_problem(read_weights(path), model) is None
    assert "mmdet3d_0" in str(box_problem(read_weights(path), reading))


@pytest.mark.parametrize("version", ["0.17.1", "1.0.0rc5", "unknown"])
def test_the_published_cmt_has_one_box_convention_with_every_version(tmp_path: Path, version: str) -> None:
    torch.save({"meta": {"mmdet3d_version": version}, "state_dict": published(PLAIN)}, tmp_path / "epoch_20.pth")
    assert box_problem(read_weights(tmp_path / "epoch_20.pth"), empty_model(PLAIN)) is None


def test_the_log_of_a_loaded_file_holds_no_preset(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = build_model("aqr_tiny_sparse")
    save_checkpoint(model, tmp_path / "tiny.safetensors")
    load_checkpoint(model, tmp_path / "tiny.safetensors")
    assert not caplog.records
