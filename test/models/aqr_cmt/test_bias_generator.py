# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Attention bias of the research code, and variants of its constants in checkpoints."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.sensed_batch import Sensed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models import load_checkpoint
from aqr_perception.models.aqr.published_windows import PublishedCells
from aqr_perception.models.aqr_cmt.bias_generator import BiasGenerator, scaled_bias, window_constants
from aqr_perception.models.aqr_cmt.model import AqrCMT
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.models.weights.checkpoint import CheckpointError, save_checkpoint
from aqr_perception.options import AqrOptions

PREFIX = "pts_bbox_head.attention_bias_generator."
COLUMNS = (8, 6)


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2),
    st.floats(0.0, 9.0),
    st.floats(0.0, 4.0),
    st.integers(1, 9),
)
@settings(max_examples=50, deadline=None)
def test_the_bias_is_the_scaled_weight_in_both_windows(
    weights: list[float], scale: float, strength: float, window: int
) -> None:
    layout = TokenLayout((9, 10), 2, (7, 8))
    cells = PublishedCells(torch.tensor([[[4, 5]]]), torch.tensor([[1]]), torch.tensor([[[3, 2]]]))
    options = AqrOptions(mode="bias", strength=strength, bev_window=window, image_window=window)
    bias = scaled_bias(torch.tensor([[weights]]), scale, cells, layout, options)
    lidar, camera = weights
    by_segment = ((lidar, (4, 5)), (0.0, None), (camera, (3, 2)))
    for segment, (weight, cell) in zip(layout.segments, by_segment, strict=True):
        grid = bias.dense()[0, 0, segment]
        expected = strength * min(max(weight * scale, -5), 5)
        assert cell is not None or not grid.any()
        if cell is not None:
            grid = grid.view(layout.bev if segment.start == 0 else layout.image)
            assert grid[cell].item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
            assert set(grid.unique().tolist()) <= {0.0, grid[cell].item()}


@pytest.mark.parametrize(("stored", "acting"), [(3.7, 3.7), (0.01, 0.5), (-2.0, 0.5), (9.0, 5.0)])
def test_the_learned_scale_is_limited_where_it_acts(stored: float, acting: float) -> None:
    generator = BiasGenerator(8, stored, COLUMNS)
    assert generator.bias_scale.item() == pytest.approx(stored) and generator.scale.item() == pytest.approx(acting)


def intermediate(model: AqrCMT, window: int) -> dict[str, Tensor]:
    """Return weights as the first code with a bias stores them."""
    state = dict(model.state_dict())
    constants = window_constants(window, COLUMNS)
    del constants["gaussian_weights"], state[f"{PREFIX}gaussian_weights"]
    state |= {f"{PREFIX}{name}": values for name, values in constants.items()}
    state[f"{PREFIX}bias_scale"] = torch.tensor(3.25)
    return state


def test_weights_of_the_first_code_with_a_bias_load(new_model: Callable[[], AqrCMT], caplog) -> None:
    model = new_model()
    load_checkpoint(model, intermediate(model, 5))
    assert model.pts_bbox_head.attention_bias_generator.bias_scale.tolist() == [3.25]
    # The windows are odd there: a configured 4 has 5 x 5 cells.
    assert "bias windows of 5 x 5 cells, not the preset's 4 x 4; the file's are used" in caplog.text
    resolved = AqrOptions.of_model().resolved(model.preset.aqr)
    assert (resolved.bev_window, resolved.image_window) == (5, 5)


def test_only_the_scale_may_be_of_the_first_code(new_model: Callable[[], AqrCMT], caplog) -> None:
    model = new_model()
    load_checkpoint(model, {**model.state_dict(), f"{PREFIX}bias_scale": torch.tensor(1.5)})
    assert model.pts_bbox_head.attention_bias_generator.bias_scale.tolist() == [1.5] and not caplog.records


@torch.inference_mode()
def test_saved_weights_keep_the_window_of_the_file(
    new_model: Callable[[], AqrCMT], sensed: Sensed, tmp_path: Path, caplog
) -> None:
    model, other, path = new_model(), new_model(), tmp_path / "saved.safetensors"
    default = model(*sensed)
    load_checkpoint(model, intermediate(model, 5))
    save_checkpoint(model, path)
    load_checkpoint(other, path)
    expected = model(*sensed)
    assert torch.equal(other(*sensed).boxes, expected.boxes) and not torch.equal(default.boxes, expected.boxes)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("y_offsets", torch.zeros(16, dtype=torch.int64)),
        ("x_offsets", torch.arange(16)),
        ("window_offsets_bev", window_constants(4, (9, 6))["window_offsets_bev"]),
        ("gaussian_weights", torch.linspace(0, 1, 16)),
        ("gaussian_weights", torch.ones(25)),
    ],
)
def test_constants_that_are_not_a_uniform_window_are_refused(
    new_model: Callable[[], AqrCMT], key: str, values: Tensor
) -> None:
    model = new_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"{key} is not that of a window of 4 x 4 cells"):
        load_checkpoint(model, {**before, f"{PREFIX}{key}": values})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_weights_without_the_router_switch_aqr_off(new_model: Callable[[], AqrCMT], sensed: Sensed, caplog) -> None:
    model = new_model()
    plain = {key: value for key, value in model.state_dict().items() if not key.startswith(model.optional_router)}
    load_checkpoint(model, plain)
    assert not model.router_trained and "no query router: AQR is off" in caplog.text
    with torch.inference_mode():
        assert torch.isfinite(model(*sensed).boxes).all()


def test_weights_with_a_part_of_the_router_are_refused(new_model: Callable[[], AqrCMT]) -> None:
    model = new_model()
    without_bias = {key: value for key, value in model.state_dict().items() if not key.startswith(PREFIX)}
    with pytest.raises(CheckpointError, match=rf"missing: {PREFIX}bias_scale"):
        load_checkpoint(model, without_bias)
