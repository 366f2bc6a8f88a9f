# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Boxes, points and images of a real nuScenes keyframe agree with each other."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.nuscenes_keyframe import Keyframe, read_keyframe

from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.data.outlines import outline_shares


@pytest.fixture
def folder(shared_reference: Path) -> Path:
    return shared_reference / "nuscenes_keyframe"


@pytest.fixture
def keyframe(folder: Path) -> Keyframe:
    return read_keyframe(folder)


def test_boxes_hold_as_many_points_as_nuscenes_counts(keyframe: Keyframe) -> None:
    points = keyframe.frame().points
    assert points is not None and points.shape == (34688, 5) and (points[:, 4] == 0).all()
    for box, expected in zip(*keyframe.boxes(), strict=True):
        assert abs(len(points_in_box(points, box)) - expected) <= max(2, 0.15 * expected)


def test_extrinsics_are_those_of_the_reference(folder: Path, keyframe: Keyframe) -> None:
    cameras = json.loads((folder / "keyframe.json").read_text())["cameras"]
    for view, (name, camera) in zip(keyframe.frame().cameras, cameras.items(), strict=True):
        assert f"cam_{view.name}" == name.lower()
        np.testing.assert_allclose(view.extrinsics, camera["lidar_to_camera"], atol=1e-5)
        assert view.image.shape == (900, 1600, 3)


def test_objects_ahead_are_in_the_front_image_only(keyframe: Keyframe) -> None:
    boxes, _ = keyframe.boxes()
    shares = outline_shares(boxes, keyframe.frame().cameras)
    assert 50 < len(boxes) < 69
    assert shares.shape == (len(boxes), 6)
    ahead = (np.abs(boxes[:, 0]) < 0.3 * boxes[:, 1]) & (boxes[:, 1] > 10)
    assert (shares[ahead, 0] > 0.5).all() and ahead.any()
    assert (shares[ahead, 3] == 0).all()
