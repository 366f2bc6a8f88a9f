# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The published PETR: every key loads, and the outputs equal those of the authors' code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.authors_reference import formula_state, key_shapes
from torch import Tensor

from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.boxes.coder import decode
from aqr_perception.models.petr.model import PETR

NAME = "petr_vov_800x320"


@pytest.fixture(scope="module")
def state(shared_reference: Path) -> dict[str, Tensor]:
    return formula_state(NAME)


@pytest.fixture(scope="module")
def published(state: dict[str, Tensor]) -> PETR:
    model = build_model(NAME)
    assert isinstance(model, PETR)
    load_checkpoint(model, {"state_dict": state})
    return model


@pytest.fixture(scope="module")
def golden(shared_reference: Path) -> dict[str, np.ndarray]:
    images = np.load(shared_reference / "golden" / "cmt_voxel0100_r50_800x320.input.npz")["images_bgr"]
    return {**np.load(shared_reference / "golden" / f"{NAME}.npz"), "images_bgr": images}


def test_every_key_is_loaded_and_shared_branches_take_the_last_copy(published: PETR, state: dict[str, Tensor]) -> None:
    loaded = published.state_dict()
    assert set(loaded) == set(state)
    for key, value in loaded.items():
        for branch in ("cls_branches", "reg_branches"):
            prefix = f"pts_bbox_head.{branch}."
            if key.startswith(prefix):
                key = f"{prefix}5.{key.removeprefix(prefix).split('.', 1)[1]}"
        assert torch.equal(value, state[key]), key


def test_petrv2_differs_only_in_the_box_branches_and_the_feature_guide(shared_reference: Path) -> None:
    one, two = key_shapes(NAME), build_model("petrv2_vov_800x320").state_dict()
    branches = {
        f"pts_bbox_head.reg_branches.{layer}.{part}.{kind}"
        for layer in range(6)
        for part in (
            *(f"reg_branch.{index}" for index in (0, 3)),
            *(f"task_heads.{task}.{index}" for task in range(5) for index in (0, 2)),
        )
        for kind in ("weight", "bias")
    }
    guide = {f"pts_bbox_head.fpe.conv_{part}.{kind}" for part in ("reduce", "expand") for kind in ("weight", "bias")}
    kept = {key for key in one if "reg_branches" not in key}
    assert set(two) == kept | branches | guide
    assert all(tuple(two[key].shape) == one[key] for key in kept)
    widths = [len(two[f"pts_bbox_head.reg_branches.0.task_heads.{task}.2.bias"]) for task in range(5)]
    assert widths == [2, 1, 3, 2, 2]


@torch.inference_mode()
def test_outputs_agree_with_the_authors(golden: dict[str, np.ndarray], published: PETR) -> None:
    branch = published.preset.image
    assert branch is not None
    pixels = torch.from_numpy(golden["images_bgr"]).permute(0, 3, 1, 2).float()
    images = (pixels - torch.tensor(branch.mean)[:, None, None]) / torch.tensor(branch.std)[:, None, None]
    projections = torch.from_numpy(golden["input/lidar2img"]).float()[None]

    rows, columns = 20, 50
    embedding = published.pts_bbox_head.position_encoder.image_grid(projections, rows, columns, (320, 800))
    embedding = embedding.unflatten(2, (rows, columns)).permute(0, 1, 4, 2, 3)
    assert tuple(embedding.shape) == tuple(golden["position_embedding/shape"])
    sampled = embedding.flatten()[torch.from_numpy(np.random.RandomState(0).randint(0, embedding.numel(), 4096))]
    np.testing.assert_allclose(sampled.numpy(), golden["position_embedding/samples"], atol=5e-4)

    logits, boxes = published(images[None], projections)
    np.testing.assert_allclose(logits.numpy(), golden["head/all_cls_scores"], atol=1e-4)
    # Old mmdet3d: width before length, yaw' = -yaw - pi/2.
    theirs = golden["head/all_bbox_preds"].copy()
    theirs[..., [2, 3]] = theirs[..., [3, 2]]
    turned = np.exp(1j * (-np.angle(theirs[..., 7] + 1j * theirs[..., 6]) - np.pi / 2))
    turned *= np.hypot(theirs[..., 6], theirs[..., 7])
    theirs[..., 6], theirs[..., 7] = turned.imag, turned.real
    np.testing.assert_allclose(boxes.numpy(), theirs, atol=5e-4)

    best = decode(logits[-1], boxes[-1])[0]
    np.testing.assert_allclose(best.scores.numpy(), golden["decoded/scores"], atol=1e-5)
    # Formula weights give nearly equal scores: find each of the golden boxes, in our convention, among ours.
    expected = torch.from_numpy(golden["decoded/bboxes"]).double()[:, [0, 1, 2, 4, 3, 5, 6, 7, 8]]
    expected[:, 6] = torch.remainder(-expected[:, 6] - np.pi / 2 + np.pi, 2 * np.pi) - np.pi
    distance = torch.cdist(expected, best.boxes.double(), p=float("inf"))
    assert (distance.min(dim=1).values < 2e-3).float().mean() > 0.98
