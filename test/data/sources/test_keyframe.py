"""A keyframe's folder -> a set of one labelled frame."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.places import REFERENCE
from numpy.typing import NDArray

from aqr_perception.data.sources.keyframe import KeyframeDataset
from aqr_perception.frame import LabelledFrame
from aqr_perception.geometry import invert, rigid_transform, transform_points
from aqr_perception.keyframe import KeyframeError

KEYFRAME = REFERENCE / "nuscenes_keyframe"


@pytest.fixture(scope="module")
def keyframe() -> LabelledFrame:
    if not KEYFRAME.is_dir():
        pytest.skip("the reference keyframe is not beside this checkout")
    frames = KeyframeDataset(KEYFRAME)
    assert len(frames) == 1
    return frames[0]


def points_of(labelled: LabelledFrame) -> NDArray[np.float32]:
    assert labelled.frame.points is not None
    return labelled.frame.points


def test_a_keyframes_points_lie_in_its_boxes_as_often_as_it_says(keyframe: LabelledFrame) -> None:
    points = points_of(keyframe)
    assert points.shape == (34688, 5) and (points[:, 4] == 0).all()
    for box, expected in zip(keyframe.truth.boxes.astype(np.float64), keyframe.truth.lidar_points, strict=True):
        pose = rigid_transform(box[:3], [0, 0, np.sin(box[6] / 2), np.cos(box[6] / 2)])
        local = transform_points(invert(pose), points.astype(np.float64))
        inside = (np.abs(local) <= box[3:6] / 2).all(axis=1).sum()
        assert abs(inside - expected) <= max(2, 0.15 * expected)


def test_a_keyframes_calibration_is_the_given_one(keyframe: LabelledFrame) -> None:
    cameras = json.loads((KEYFRAME / "keyframe.json").read_text())["cameras"]
    for view, (name, camera) in zip(keyframe.frame.cameras, cameras.items(), strict=True):
        assert f"cam_{view.name}" == name.lower()
        np.testing.assert_allclose(view.extrinsics, camera["lidar_to_camera"], atol=1e-5)
        assert view.image.shape == (900, 1600, 3)


def test_a_keyframes_objects_are_seen_where_they_stand(keyframe: LabelledFrame) -> None:
    truth = keyframe.truth
    assert 50 < len(truth) < 69
    assert truth.visibility.shape == (len(truth), 6)
    ahead = (np.abs(truth.boxes[:, 0]) < 0.3 * truth.boxes[:, 1]) & (truth.boxes[:, 1] > 10)
    assert (truth.visibility[ahead, 0] > 0.5).all() and ahead.any()
    assert (truth.visibility[ahead, 3] == 0).all()


def test_a_keyframe_without_objects_says_what_is_missing(tmp_path: Path) -> None:
    np.zeros((1, 5), np.float32).tofile(tmp_path / "lidar.bin")
    lidar = {"file": "lidar.bin", "stamp": 0.0, "lidar_to_ego": np.eye(4).tolist()}
    record = {"stamp": 0.0, "ego_to_global": np.eye(4).tolist(), "lidar": lidar, "cameras": {}}
    (tmp_path / "keyframe.json").write_text(json.dumps(record))
    with pytest.raises(KeyframeError, match=r"keyframe\.json.*objects"):
        KeyframeDataset(tmp_path)


def test_a_folder_that_is_no_keyframe_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyframeError, match="keyframe"):
        KeyframeDataset(tmp_path / "nowhere")
