# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""MoME against the authors' model on a real keyframe."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.authors_reference import formula_state
from torch import Tensor

from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.boxes.coder import decode
from aqr_perception.models.mome.model import MoME

NAME = "mome_voxel0075_vov_1600x640"
CAMERAS = ("cam_front", "cam_front_right", "cam_front_left", "cam_back", "cam_back_left", "cam_back_right")
BIAS = "pts_bbox_head.transformer.selected_cls.bias"


@pytest.fixture(scope="module")
def golden(shared_reference: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared_reference / "golden" / f"{NAME}.npz"))


@pytest.fixture(scope="module")
def state(shared_reference: Path, golden: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {**formula_state(NAME), BIAS: torch.from_numpy(golden[f"override/{BIAS}"])}


@pytest.fixture(scope="module")
def published(state: dict[str, Tensor]) -> MoME:
    model = build_model(NAME)
    assert isinstance(model, MoME)
    load_checkpoint(model, {"state_dict": state})
    return model


def test_every_key_of_the_published_checkpoint_loads_strictly(published: MoME, state: dict[str, Tensor]) -> None:
    loaded = published.state_dict()
    assert len(state) == 1036 and loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.timeout(900)  # 100 s of one core: VoVNet-99 on six pictures of 1600 x 640
@torch.inference_mode()
def test_routing_and_predictions_agree_with_the_published_model(
    published: MoME, golden: dict[str, np.ndarray], shared_reference: Path
) -> None:
    keyframe = shared_reference / "nuscenes_keyframe"
    pixels = np.stack([cv2.imread(str(keyframe / f"{camera}.jpg"))[260:] for camera in CAMERAS])
    branch = published.preset.image
    assert branch is not None
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    images = (images - torch.tensor(branch.mean)[:, None, None]) / torch.tensor(branch.std)[:, None, None]
    projections = torch.from_numpy(golden["input/lidar2img"]).float()
    points = torch.from_numpy(np.load(shared_reference / "golden" / "cmt_voxel0100_r50_800x320.input.npz")["points"])

    said = []
    hook = published.pts_bbox_head.transformer.selected_cls.register_forward_hook(lambda *call: said.append(call[-1]))
    logits, boxes = published(images[None], projections[None], [points])
    hook.remove()

    (router,) = said
    np.testing.assert_allclose(router.numpy(), golden["router/logits"], atol=1e-3, rtol=0)
    order = torch.from_numpy(golden["head_last/query_order"])
    assert torch.equal(router[0].argmax(-1).argsort(stable=True), order)
    np.testing.assert_allclose(logits[-1][:, order].numpy(), golden["head_last/cls_logits"], atol=1e-3, rtol=0)
    raw = np.concatenate([golden[f"head_last/{name}"] for name in ("center", "height", "dim", "rot", "vel")], axis=-1)
    np.testing.assert_allclose(boxes[-1][:, order].numpy(), raw, atol=1e-3, rtol=0)

    ours = decode(logits[-1], boxes[-1])[0]
    theirs = decode(torch.from_numpy(golden["head_last/cls_logits"]), torch.from_numpy(raw))[0]
    np.testing.assert_allclose(ours.scores.numpy(), theirs.scores.numpy(), atol=1e-4)
    # Formula weights give nearly equal scores: find each of their boxes among ours.
    distance = torch.cdist(theirs.boxes.double(), ours.boxes.double(), p=float("inf"))
    assert (distance.min(dim=1).values < 1e-3).float().mean() > 0.98
