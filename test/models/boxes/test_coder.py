# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Box codes and the selection of detections."""

import math

import numpy as np
import pytest
import torch
from helpers.places import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.models.boxes.coder import decode, decode_boxes, encode

GOLDEN = REFERENCE / "golden"

coordinate = st.floats(-60, 60, width=32)
size = st.floats(0.0625, 30, width=32)
angle = st.floats(-10, 10, width=32)
boxes_of_a_frame = st.lists(
    st.tuples(coordinate, coordinate, coordinate, size, size, size, angle, coordinate, coordinate), max_size=5
)


@settings(deadline=None)
@given(boxes_of_a_frame)
def test_decoding_inverts_encoding(frame: list[tuple[float, ...]]) -> None:
    boxes = torch.tensor(frame, dtype=torch.float32).reshape(-1, 9)
    decoded = decode_boxes(encode(boxes))
    turn = (decoded[:, 6] - boxes[:, 6]) / (2 * math.pi)
    torch.testing.assert_close(turn, turn.round(), atol=1e-5, rtol=0)
    others = [0, 1, 2, 3, 4, 5, 7, 8]
    torch.testing.assert_close(decoded[:, others], boxes[:, others], atol=1e-5, rtol=1e-5)


def test_codes_have_the_order_of_the_published_networks() -> None:
    box = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5, 7.0, 8.0])
    expected = [1, 2, math.log(4), math.log(5), 3, math.log(6), math.sin(0.5), math.cos(0.5), 7, 8]
    torch.testing.assert_close(encode(box), torch.tensor(expected))


def test_a_box_of_size_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"-1\.0 m, but must be positive"):
        encode(torch.tensor([[0, 0, 0, 4, -1, 2, 0, 0, 0]], dtype=torch.float32))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_detections_are_the_highest_scoring_pairs_of_query_and_class(most: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 7, 4, generator=generator)
    codes = torch.randn(2, 7, 10, generator=generator)
    for sample, found in enumerate(decode(logits, codes, most)):
        expected = logits[sample].sigmoid().flatten().sort(descending=True).values[:most]
        torch.testing.assert_close(found.scores, expected)
        torch.testing.assert_close(found.scores, logits[sample, found.query_index, found.labels].sigmoid())
        torch.testing.assert_close(found.boxes, decode_boxes(codes[sample, found.query_index]))


@settings(deadline=None)
@given(st.floats(-70, 70, width=32), st.floats(-70, 70, width=32), st.floats(-12, 12, width=32))
def test_only_centres_inside_the_range_or_on_its_border_remain(x: float, y: float, z: float) -> None:
    codes = encode(torch.tensor([[[x, y, z, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0], [0, 0, 0, 4, 2, 1.5, 0, 0, 0]]]))
    [found] = decode(torch.tensor([[[2.0], [1.0]]]), codes)
    inside = max(abs(x), abs(y)) <= torch.tensor(61.2) and abs(z) <= 10
    assert found.query_index.tolist() == ([0, 1] if inside else [1])


def test_boxes_that_are_not_finite_are_dropped() -> None:
    codes = torch.zeros(1, 3, 10)
    codes[0, 0, 2] = 1000.0
    codes[0, 1, 0] = math.nan
    [found] = decode(torch.tensor([[[3.0], [2.0], [1.0]]]), codes)
    assert found.query_index.tolist() == [2]


def test_detections_of_a_real_keyframe_equal_the_published_models() -> None:
    path = GOLDEN / "cmt_voxel0100_r50_800x320.npz"
    if not path.exists():
        pytest.skip(f"the published model's outputs are not here: {path} is absent")
    golden = np.load(path)
    names = ("center", "height", "dim", "rot", "vel")
    codes = torch.cat([torch.from_numpy(golden[f"head/{name}"][-1]) for name in names], dim=-1)
    [found] = decode(torch.from_numpy(golden["head/cls_logits"][-1]), codes)
    assert len(found.boxes) == len(golden["decoded/bboxes"])
    np.testing.assert_allclose(found.scores, golden["decoded/scores"], atol=1e-6)
    np.testing.assert_array_equal(found.labels, golden["decoded/labels"])
    np.testing.assert_allclose(found.boxes, golden["decoded/bboxes"], atol=1e-4)
