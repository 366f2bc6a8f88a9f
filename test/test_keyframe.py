"""One nuScenes keyframe from a folder."""

from pathlib import Path

import numpy as np
import pytest
from helpers.made_up_keyframe import IMAGE_NS, LIDAR_TO_CAMERA, POINTS, SWEEP_NS, write_keyframe

from aqr_perception.keyframe import KeyframeError, read_keyframe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_keyframe(tmp_path / "keyframe")


def test_its_frame_sees_what_was_seen_from_where_it_was_seen(folder: Path) -> None:
    frame = read_keyframe(folder).frame()
    (view,) = frame.cameras
    assert (frame.stamp_ns, view.name) == (SWEEP_NS, "front")
    assert view.age == pytest.approx((SWEEP_NS - IMAGE_NS) / 1e9)
    np.testing.assert_allclose(view.extrinsics, LIDAR_TO_CAMERA, atol=1e-9)
    assert view.image.shape == (24, 40, 3)
    assert frame.points is not None
    np.testing.assert_array_equal(frame.points[:, :4], POINTS[:, :4])
    assert not frame.points[:, 4].any(), "the file's ring is no lag"


def test_a_folder_that_is_no_keyframe_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyframeError, match=r"none: found no readable .*keyframe\.json"):
        read_keyframe(tmp_path / "none")
    (folder / "front.jpg").unlink()
    with pytest.raises(KeyframeError, match=r"front\.jpg"):
        read_keyframe(folder)
    (folder / "keyframe.json").write_text("{}")
    with pytest.raises(KeyframeError, match=r"KeyError: 'lidar'"):
        read_keyframe(folder)


def test_a_picture_that_is_none_is_named(folder: Path) -> None:
    (folder / "front.jpg").write_bytes(b"no picture")
    with pytest.raises(KeyframeError, match="CAM_FRONT: found 10 bytes"):
        read_keyframe(folder).frame()
