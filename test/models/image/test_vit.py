# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The Vision Transformer as a backbone: image sizes, positions, gradients, and selection in a preset."""

from pathlib import Path

import pytest
import torch
import yaml
from helpers.quick_first import quick_first
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models import build_model
from aqr_perception.models.config.presets import PresetError, VitOptions, load_preset, preset_directory, preset_names
from aqr_perception.models.image.vit import VIT_SIZES, VisionTransformer, VitBackbone, VitSize, resample_positions

SMALL = VitSize(16, 4, 2)


@given(height=st.integers(1, 4), width=st.integers(1, 5), window=st.integers(0, 3), registers=st.integers(0, 2))
@settings(max_examples=20, deadline=None)
def test_images_of_any_multiple_of_32_give_maps_at_the_backbones_strides(
    height: int, width: int, window: int, registers: int
) -> None:
    options = VitOptions(registers=registers, positions=5, window=window, pyramid_channels=8)
    backbone = VitBackbone(SMALL, options, (2, 3, 4)).eval()
    with torch.inference_mode():
        levels = backbone(torch.randn(2, 3, 32 * height, 32 * width))
    assert backbone.out_channels == (8, 8, 8)
    assert [level.shape for level in levels] == [(2, 8, scale * height, scale * width) for scale in (4, 2, 1)]


def test_images_without_a_whole_number_of_patches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"40 x 32 pixels.*multiples of 16.*image\.size"):
        VisionTransformer(SMALL, VitOptions())(torch.randn(1, 3, 32, 40))


def test_an_images_features_do_not_depend_on_the_other_images() -> None:
    backbone = VitBackbone(SMALL, VitOptions(window=2)).eval()
    images = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        for together, alone in zip(backbone(images), backbone(images[1:2]), strict=True):
            torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_positions_of_the_same_size_are_not_resampled() -> None:
    vit = VisionTransformer(SMALL, VitOptions(positions=3))
    assert torch.equal(vit.positions((3, 3)).flatten(2).transpose(1, 2), vit.pos_embed)


@given(rows=st.integers(2, 9), columns=st.integers(2, 9))
@settings(max_examples=25, deadline=None)
def test_rows_and_columns_of_positions_are_interpolated_independently(rows: int, columns: int) -> None:
    down = torch.randn(4)
    positions = down[:, None].expand(4, 4)[None, None].contiguous()  # differ only by row
    resampled = resample_positions(positions, (rows, columns))
    assert resampled.shape == (1, 1, rows, columns)
    torch.testing.assert_close(resampled, resampled[..., :1].expand_as(resampled))
    turned = resample_positions(positions.transpose(2, 3), (columns, rows))
    torch.testing.assert_close(turned, resampled.transpose(2, 3), atol=1e-5, rtol=1e-5)


def test_an_interpolated_ramp_of_positions_remains_a_ramp() -> None:
    ramp = torch.arange(8.0)[None, None, None].expand(1, 1, 8, 8)
    finer = resample_positions(ramp, (8, 32))[0, 0, 0]
    torch.testing.assert_close(finer[8:-8], ((torch.arange(32.0) + 0.5) / 4 - 0.5)[8:-8], atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "options",
    [VitOptions(positions=3, registers=2, window=2), VitOptions(positions=3, class_token=False, norm="post")],
)
def test_every_parameter_gets_a_gradient(options: VitOptions) -> None:
    torch.manual_seed(0)
    backbone = VitBackbone(SMALL, options)
    images = torch.randn(2, 3, 64, 96)
    sum((level * torch.randn_like(level)).sum() for level in backbone(images)).backward()
    gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values() if gradient is not None)


def test_blocks_are_dropped_only_in_training() -> None:
    torch.manual_seed(0)
    backbone, images = VitBackbone(SMALL, VitOptions(drop_path=0.9)), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(backbone(images)[0], backbone(images)[0])
        backbone.eval()
        assert torch.equal(backbone(images)[0], backbone(images)[0])
    rates = [block.drop_path.rate for block in backbone.vit.blocks]
    assert rates == pytest.approx([0, 0.3, 0.6, 0.9])


@pytest.mark.parametrize(("count", "whole"), [(1, [11]), (4, [2, 5, 8, 11]), (5, [1, 3, 6, 8, 11])])
def test_blocks_with_global_attention_are_evenly_spread(count: int, whole: list[int]) -> None:
    vit = VisionTransformer(VitSize(4, 12, 1), VitOptions(window=2, global_blocks=count))
    assert [index for index, block in enumerate(vit.blocks) if block.attn.window == 0] == whole


def test_more_global_blocks_than_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="global_blocks is 5, but must be at most 4"):
        VisionTransformer(SMALL, VitOptions(window=2, global_blocks=5))


def with_backbone(preset: str, backbone: str, tmp_path: Path) -> str:
    """Return the path of a copy of a preset's file with one line changed."""
    lines = (preset_directory() / f"{preset}.yaml").read_text().splitlines()
    changed = [f"  backbone: {backbone}" if line.startswith("  backbone:") else line for line in lines]
    assert sum(a != b for a, b in zip(lines, changed, strict=True)) == 1
    path = tmp_path / f"{preset}.yaml"
    path.write_text("\n".join(changed))
    return str(path)


@pytest.mark.parametrize(
    "preset", quick_first([name for name in preset_names() if load_preset(name).image is not None], quick=4)
)
def test_one_line_swaps_the_backbone_of_any_preset(preset: str, tmp_path: Path) -> None:
    model = build_model(with_backbone(preset, "vit_tiny", tmp_path))
    assert isinstance(model.img_backbone, VitBackbone)
    with torch.inference_mode():
        features = model.image_features(torch.randn(1, 1, 3, 64, 96))
    assert features is not None and features.isfinite().all() and features.std() > 0.1


def test_the_small_model_detects_with_a_vision_transformer(tmp_path: Path) -> None:
    model = build_model(with_backbone("aqr_tiny_sparse", "vit_small", tmp_path))
    assert model.img_backbone.vit.out_channels == VIT_SIZES["vit_small"].channels == 384
    projections, points = torch.eye(4).expand(1, 1, 4, 4), [torch.randn(50, 5)]
    with torch.inference_mode():
        seen = model(torch.randn(1, 1, 3, 64, 96), projections, points)
        blind = model(torch.zeros(1, 1, 3, 64, 96), projections, points)
    assert seen.class_logits.isfinite().all() and not torch.equal(seen.class_logits, blind.class_logits)


@pytest.mark.parametrize(
    ("entry", "value"), [("positions", 0), ("drop_path", 1.0), ("window", -1), ("layer_scale", -0.5), ("registers", -1)]
)
def test_an_invalid_option_is_named(entry: str, value: float, tmp_path: Path) -> None:
    values = yaml.safe_load((preset_directory() / "cmt_vit_small.yaml").read_text())
    values["image"]["vit"][entry] = value
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(PresetError, match=rf"mine\.yaml: image\.vit\.{entry} is {value}"):
        load_preset(str(path))
