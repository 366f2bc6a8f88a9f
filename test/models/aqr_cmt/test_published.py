# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""AQR-CMT against the outputs of the research code."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.authors_reference import formula_state, key_shapes
from numpy.typing import NDArray
from torch import Tensor

from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.aqr.published_windows import published_cells, router_windows
from aqr_perception.models.aqr_cmt.bias_generator import scaled_bias
from aqr_perception.models.aqr_cmt.head import _CODE_RANGE
from aqr_perception.models.aqr_cmt.model import AqrCMT
from aqr_perception.models.boxes.coder import decode
from aqr_perception.models.model_io import DecodeOptions, Features, Predictions
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import AqrOptions

BIAS, MODULATION = "aqr_cmt_voxel0100_r50_800x320", "aqr_cmt_modulation_voxel0100_r50_800x320"
KEYS = {BIAS: 714, "aqr_cmt_voxel0075_vov_1600x640": 1022, MODULATION: 708}
BOX_PARTS = ("center", "height", "dim", "rot", "vel")

Golden = Mapping[str, NDArray]


@pytest.mark.slow
@pytest.mark.parametrize("name", KEYS)
def test_every_key_of_the_research_codes_checkpoint_loads_strictly(shared_reference: Path, name: str) -> None:
    model, needed = build_model(name), key_shapes(name)
    own = model.state_dict()
    assert len(needed) == KEYS[name] and {key: tuple(value.shape) for key, value in own.items()} == needed
    # Constants keep their values.
    state = formula_state(name) | {key: value for key, value in own.items() if "weight_renderer" in key}
    constants = {key: value for key, value in own.items() if "attention_bias" in key and "scale" not in key}
    state |= constants
    load_checkpoint(model, {"state_dict": state, "meta": {"epoch": 1}})
    assert model.router_trained
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.fixture(scope="module")
def features(shared_reference: Path) -> Features:
    """Feature maps of the goldens' input; the branches are those of both models."""
    stored = np.load(shared_reference / "golden" / "cmt_voxel0100_r50_800x320.input.npz")
    model = golden_model(BIAS, np.load(shared_reference / "golden" / f"{BIAS}.npz"))
    branch = model.preset.image
    assert branch is not None
    pixels = torch.from_numpy(stored["images_bgr"]).permute(0, 3, 1, 2).float()
    images = (pixels - torch.tensor(branch.mean)[:, None, None]) / torch.tensor(branch.std)[:, None, None]
    projections = torch.from_numpy(stored["lidar2img"]).float()
    with torch.inference_mode():
        return model.features(images[None], projections[None], [torch.from_numpy(stored["points"])])


def golden_model(name: str, golden: Golden, prefix: str = "") -> AqrCMT:
    """Return a model with the weights of a golden file."""
    state = formula_state(name)
    for part in ("buffer/", f"{prefix}override/"):
        state |= {key.removeprefix(part): torch.from_numpy(golden[key]) for key in golden if key.startswith(part)}
    model = build_model(name)
    assert isinstance(model, AqrCMT)
    load_checkpoint(model, state)
    return model


def assert_predictions(golden: Golden, prefix: str, predictions: Predictions) -> None:
    boxes = np.concatenate([golden[f"{prefix}{name}"] for name in BOX_PARTS], axis=-1)
    np.testing.assert_allclose(predictions.class_logits, golden[f"{prefix}cls_logits"], atol=2e-3, rtol=0)
    np.testing.assert_allclose(predictions.boxes, boxes, atol=2e-3, rtol=0)


def assert_weights(golden: Golden, prefix: str, modality: Tensor) -> None:
    expected = np.stack([golden[f"{prefix}{sensor}_weights"] for sensor in ("lidar", "camera")], axis=-1)
    np.testing.assert_allclose(modality, expected, atol=1e-4, rtol=0)


def assert_decoded(golden: Golden, predictions: Predictions) -> None:
    best = decode(predictions.class_logits[-1], predictions.boxes[-1])[0]
    np.testing.assert_allclose(best.scores, golden["decoded/scores"], atol=1e-4)
    # Formula weights give nearly equal scores: find each golden box among ours.
    distance = torch.cdist(torch.from_numpy(golden["decoded/bboxes"]).double(), best.boxes.double(), p=float("inf"))
    assert (distance.min(dim=1).values < 5e-3).float().mean() > 0.98


@pytest.mark.slow
@torch.inference_mode()
def test_the_bias_model_agrees_with_the_research_code(shared_reference: Path, features: Features) -> None:
    golden = np.load(shared_reference / "golden" / f"{BIAS}.npz")
    model = golden_model(BIAS, golden)
    head, layout = model.pts_bbox_head, model.pts_bbox_head.tokens(features).layout
    cells = head.published_cells(head.learned_queries(1), features, layout)
    np.testing.assert_array_equal(cells.bev, golden["projection/pts_bev"])
    in_view = torch.cat((cells.view[..., None], cells.image), dim=-1)
    np.testing.assert_array_equal(in_view, golden["projection/pts_pers"])

    output = model.decode(features, DecodeOptions(AqrOptions.of_model(), attention_weights=True))
    assert output.router is not None
    assert_weights(golden, "", output.router.modality)
    bias = head.bias(output.router.modality, cells, layout, model.preset.aqr).dense()
    nonzero = torch.from_numpy(golden["bias/nonzero_index"])
    np.testing.assert_allclose(bias.flatten()[nonzero], golden["bias/nonzero_samples"], atol=2.1e-3, rtol=0)
    for name, segment in (("bev", slice(0, layout.bev_tokens)), ("image", slice(layout.bev_tokens, None))):
        np.testing.assert_allclose(bias[0, :, segment].sum(-1), golden[f"bias/{name}_sum"], atol=0.15, rtol=0)
        np.testing.assert_array_equal((bias[0, :, segment] != 0).sum(-1), golden[f"bias/{name}_count"])
    assert_predictions(golden, "head/", output.predictions)
    assert_decoded(golden, output.predictions)

    windowed = golden_model(BIAS, golden, "windowed/")
    aqr = replace(AqrOptions.of_model(), router_attention="windowed")
    output = windowed.decode(features, DecodeOptions(aqr))
    assert output.router is not None
    assert_weights(golden, "windowed/", output.router.modality)
    last = Predictions(*(part[-1] for part in output.predictions))
    assert_predictions(golden, "windowed/head_last/", last)


@pytest.mark.slow
@torch.inference_mode()
def test_the_modulation_model_agrees_with_the_research_code(shared_reference: Path, features: Features) -> None:
    golden = np.load(shared_reference / "golden" / f"{MODULATION}.npz")
    model = golden_model(MODULATION, golden)
    output = model.decode(features, DecodeOptions(AqrOptions.of_model()))
    assert output.router is not None
    assert_weights(golden, "", output.router.modality)
    np.testing.assert_allclose(output.router.bev_map, golden["weight_map/bev"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(output.router.camera_maps, golden["weight_map/image"], atol=1e-5, rtol=0)
    assert_predictions(golden, "head/", output.predictions)
    assert_decoded(golden, output.predictions)

    signed = model.decode(features, DecodeOptions(replace(AqrOptions.of_model(), activation="tanh")))
    assert signed.router is not None
    np.testing.assert_allclose(signed.router.bev_map, golden["tanh/weight_map/bev"], atol=1e-5, rtol=0)
    last = Predictions(*(part[-1] for part in signed.predictions))
    assert_predictions(golden, "tanh/head_last/", last)

    model.pts_bbox_head.options = replace(model.pts_bbox_head.options, limit_camera_maps=False)
    unlimited = model.decode(features, DecodeOptions(AqrOptions.of_model()))
    assert unlimited.router is not None
    expected = golden["unclamped_image/weight_map"]
    np.testing.assert_allclose(unlimited.router.camera_maps, expected, atol=1e-5, rtol=0)
    last = Predictions(*(part[-1] for part in unlimited.predictions))
    assert_predictions(golden, "unclamped_image/head_last/", last)


@pytest.mark.parametrize(
    ("name", "layout", "router_window", "bias_window"),
    [
        ("r50", TokenLayout((128, 128), 6, (20, 50)), 9, 8),
        ("vov", TokenLayout((180, 180), 6, (40, 100)), 15, 15),
    ],
)
def test_windows_agree_at_the_edges_of_all_grids(
    shared_reference: Path, name: str, layout: TokenLayout, router_window: int, bias_window: int
) -> None:
    golden = np.load(shared_reference / "golden" / "aqr_functions.npz")
    edges = {key.removeprefix(f"edges_{name}/"): golden[key] for key in golden if key.startswith(f"edges_{name}/")}
    extent, lower = torch.tensor([108.0, 108, 8]), torch.tensor([-54.0, -54, -5])
    points = torch.from_numpy(edges["reference_points"]) * extent + lower
    projections = torch.from_numpy(edges["lidar2img"]).float()[None]
    height, width = edges["image_size"].tolist()
    cells = published_cells(points, _CODE_RANGE, projections, (height, width), layout)
    np.testing.assert_array_equal(torch.cat((cells.view[..., None], cells.image), -1), edges["pts_pers"])
    inside = edges["inside"]
    np.testing.assert_array_equal(cells.bev[0][inside], edges["pts_bev"][0][inside])

    windows = router_windows(cells, layout, 5, router_window)
    query, place = windows.inside[0].nonzero(as_tuple=True)
    found = set(zip(query.tolist(), windows.tokens[0, query, place].tolist(), strict=True))
    assert found == set(map(tuple, edges["router_window/query_key"].tolist()))

    weights = torch.from_numpy(np.stack((edges["lidar_weights"], edges["camera_weights"]), axis=-1))
    options = AqrOptions(mode="bias", bev_window=bias_window, image_window=bias_window)
    expected = torch.zeros(128, layout.total)
    query, token = torch.from_numpy(edges["bias/query_key"]).long().unbind(-1)
    expected[query, token] = torch.from_numpy(edges["bias/values"])
    bias = scaled_bias(weights, 3.7, cells, layout, options).dense()[0]
    torch.testing.assert_close(bias, expected, atol=2.1e-3, rtol=0)
