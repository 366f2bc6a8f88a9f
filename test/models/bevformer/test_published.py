# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The published BEVFormers: every key loads, and both frames' outputs equal those of the authors' code."""

import math
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.authors_reference import formula_state, key_shapes
from helpers.camera_ring import pose
from helpers.small_bevformer import history
from torch import Tensor

from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.bevformer.ego_motion import ego_motion
from aqr_perception.models.bevformer.model import BEVFormer
from aqr_perception.models.boxes.coder import decode
from aqr_perception.models.model_io import DecodeOptions, Features, ModelOutput
from aqr_perception.options import AqrOptions

CAMERAS = ("front", "front_right", "front_left", "back", "back_left", "back_right")


@pytest.fixture(scope="module")
def state(shared_reference: Path) -> dict[str, Tensor]:
    return formula_state("bevformer_tiny")


@pytest.fixture(scope="module")
def published(state: dict[str, Tensor]) -> BEVFormer:
    model: Any = build_model("bevformer_tiny")
    load_checkpoint(model, {"state_dict": state})
    return model


@pytest.fixture(scope="module")
def golden(shared_reference: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared_reference / "golden" / "bevformer_tiny.npz"))


@pytest.fixture(scope="module")
def images(shared_reference: Path, published: BEVFormer) -> Tensor:
    """(1, 6, 3, 480, 800), BGR: half the size, with zeros below."""
    branch = published.preset.image
    assert branch is not None
    views = []
    for name in CAMERAS:
        picture = cv2.imread(str(shared_reference / "nuscenes_keyframe" / f"cam_{name}.jpg"))
        assert picture is not None
        pixels = (picture[::2, ::2].astype(np.float32) - np.float32(branch.mean)) / np.float32(branch.std)
        views.append(np.pad(pixels, ((0, 30), (0, 0), (0, 0))).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(views))[None]


@pytest.fixture(scope="module")
def features(golden: dict[str, np.ndarray], published: BEVFormer, images: Tensor) -> Features:
    matrices = torch.from_numpy(golden["input/lidar2img"]).float()[None]
    with torch.inference_mode():
        return published.features(images, matrices, None)


@pytest.fixture(scope="module")
def frames(golden: dict[str, np.ndarray], published: BEVFormer, features: Features) -> list[ModelOutput]:
    """The model's outputs for the golden file's two frames; the vehicle faces the LiDAR's y."""
    before, now = pose(700.0, 900.0, math.radians(30.0 - 90.0)), pose(701.2, 900.1, math.radians(31.5 - 90.0))
    options = DecodeOptions(AqrOptions(), attention_weights=True)
    with torch.inference_mode():
        start = history(None, before, before)
        first = published.decode(features, options, history=start)
        past = history(first.state, before, now)
        second = published.decode(features, options, history=past)
    for index, motion in enumerate((start, past)):
        vector = ego_motion(motion, 1, published.options.forward).can_bus[0]
        np.testing.assert_allclose(vector.numpy(), golden[f"frame{index}/can_bus"], atol=1e-4)
    return [first, second]


def assert_samples(found: Tensor, golden: dict[str, np.ndarray], stage: str) -> None:
    assert tuple(found.shape) == tuple(golden[f"{stage}/shape"])
    sampled = found.flatten()[torch.from_numpy(np.random.RandomState(0).randint(0, found.numel(), 4096))]
    np.testing.assert_allclose(sampled.numpy(), golden[f"{stage}/samples"], atol=1e-3, rtol=0)


def old_mmdet3d(boxes: Tensor) -> np.ndarray:
    """Return our box codes in the published convention: w, l, h; yaw' = -yaw - pi/2."""
    x, y, log_length, log_width, z, log_height, sine, cosine, vx, vy = boxes.unbind(-1)
    return torch.stack((x, y, log_width, log_length, z, log_height, -cosine, -sine, vx, vy), dim=-1).numpy()


def test_every_key_loads_strictly(published: BEVFormer, state: dict[str, Tensor]) -> None:
    loaded = published.state_dict()
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_image_features_agree(golden: dict[str, np.ndarray], features: Features) -> None:
    assert features.image is not None
    assert_samples(features.image[0].transpose(1, 2).unflatten(2, (15, 25)), golden, "img_neck/0")


@pytest.mark.parametrize("index", [0, 1])
def test_both_frames_agree(golden: dict[str, np.ndarray], frames: list[ModelOutput], index: int) -> None:
    output, name = frames[index], f"frame{index}"
    assert isinstance(output.state, Tensor)
    assert_samples(output.state.transpose(0, 1), golden, f"{name}/bev_embed")
    logits, boxes = output.predictions
    np.testing.assert_allclose(logits.numpy(), golden[f"{name}/all_cls_scores"], atol=1e-3)
    np.testing.assert_allclose(old_mmdet3d(boxes), golden[f"{name}/all_bbox_preds"], atol=1e-3)

    best = decode(logits[-1], boxes[-1])[0]
    np.testing.assert_allclose(best.scores.numpy(), golden[f"{name}/decoded/scores"], atol=1e-4)
    # Formula weights give nearly equal scores: find each golden box among ours. Its sizes are w, l, h.
    ours = best.boxes[:, (0, 1, 2, 4, 3, 5, 7, 8)].double()
    theirs = torch.from_numpy(golden[f"{name}/decoded/bboxes"])[:, (0, 1, 2, 3, 4, 5, 7, 8)].double()
    assert (torch.cdist(theirs, ours, p=float("inf")).min(dim=1).values < 5e-3).float().mean() > 0.98


def test_nearly_all_attention_falls_on_cells_that_cameras_see(frames: list[ModelOutput]) -> None:
    for output in frames:
        assert output.attention is not None
        assert output.attention.modality[..., 1].mean() > 0.9
        assert output.attention.camera_maps.shape == (1, 6, 15, 25)


def expected_keys(tiny: dict[str, tuple[int, ...]], cells: int, levels: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Return the keys outside the image branch: those of tiny with the changes of the authors' configurations."""
    shapes = {key: shape for key, shape in tiny.items() if not key.startswith("img_")}
    shapes["pts_bbox_head.bev_embedding.weight"] = (cells * cells, 256)
    for axis in ("row", "col"):
        shapes[f"pts_bbox_head.positional_encoding.{axis}_embed.weight"] = (cells, 128)
    encoder = "pts_bbox_head.transformer.encoder.layers."
    for key, shape in list(shapes.items()):
        if key.startswith(f"{encoder}0."):
            if re.search(r"deformable_attention\.(sampling_offsets|attention_weights)", key):
                shape = (shape[0] * levels, *shape[1:])
            shapes.update({f"{encoder}{layer}{key[len(encoder) + 1 :]}": shape for layer in range(layers)})
    return shapes


@pytest.mark.parametrize(
    ("name", "cells", "levels", "layers"), [("bevformer_small", 150, 1, 3), ("bevformer_base", 200, 4, 6)]
)
def test_small_and_base_have_the_keys_of_the_authors_configurations(
    shared_reference: Path, name: str, cells: int, levels: int, layers: int
) -> None:
    shapes = {key: tuple(value.shape) for key, value in build_model(name).state_dict().items()}
    tiny = key_shapes("bevformer_tiny")
    assert {key: shape for key, shape in shapes.items() if not key.startswith("img_")} == expected_keys(
        tiny, cells, levels, layers
    )

    backbone = {key: shape for key, shape in shapes.items() if key.startswith("img_backbone.")}
    blocks = {(int(stage), int(block)) for stage, block in re.findall(r"layer(\d)\.(\d+)\.conv1", " ".join(backbone))}
    assert sorted(blocks) == [(stage, block) for stage, count in enumerate((3, 4, 23, 3), 1) for block in range(count)]
    offsets = {key for key in backbone if "conv_offset" in key}
    assert offsets == {
        f"img_backbone.layer{stage}.{block}.conv2.conv_offset.{kind}"
        for stage, block in blocks
        if stage > 2
        for kind in ("weight", "bias")
    }
    assert backbone["img_backbone.layer3.22.conv2.conv_offset.weight"] == (27, 256, 3, 3)
    plain = {re.sub(r"(layer3)\.\d+", r"\1.1", key) for key in set(backbone) - offsets}
    assert plain == {re.sub(r"(layer3)\.\d+", r"\1.1", key) for key in tiny if key.startswith("img_backbone.")}

    channels = {1: (2048,), 4: (512, 1024, 2048)}[levels]
    necks = {f"lateral_convs.{index}.conv.weight": (256, width, 1, 1) for index, width in enumerate(channels)}
    necks |= {f"fpn_convs.{index}.conv.weight": (256, 256, 3, 3) for index in range(levels)}
    necks |= {key.replace("weight", "bias"): (256,) for key in necks}
    assert {key: shape for key, shape in shapes.items() if key.startswith("img_neck.")} == {
        f"img_neck.{key}": shape for key, shape in necks.items()
    }
