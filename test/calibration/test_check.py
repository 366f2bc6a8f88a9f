# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A turned camera is found by its pictures and the points on them; a well-calibrated one is left alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aqr_perception.calibration.alignment import Alignment
from aqr_perception.calibration.check import check_calibration, verdict
from aqr_perception.calibration.overlay import overlay
from aqr_perception.data.recordings.keyframes import read_keyframes
from aqr_perception.data.recordings.recorded_frames import recorded_frames
from aqr_perception.frame import CameraView, Frame

OPTICAL = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
INTRINSICS = np.array([[300.0, 0, 240], [0, 300, 150], [0, 0, 1]])


def turned(frame: Frame, rotation: tuple[float, float, float]) -> Frame:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.radians(rotation)).as_matrix()
    return replace(frame, cameras=tuple(replace(view, extrinsics=turn @ view.extrinsics) for view in frame.cameras))


def painted_wall(points: int = 3000) -> Frame:
    """Return a wall 10 m ahead whose paint is the points' intensity and the picture's brightness."""
    rng = np.random.default_rng(0)
    patches = rng.integers(30, 226, (40, 60)).astype(np.float64)
    rows, columns = np.mgrid[:300, :480]
    y, z = (240 - columns) / 30, (150 - rows) / 30

    def paint(y: np.ndarray, z: np.ndarray) -> np.ndarray:
        return patches[np.clip((z * 2 + 20).astype(int), 0, 39), np.clip((y * 2 + 30).astype(int), 0, 59)]

    image = np.repeat(paint(y, z)[..., None], 3, axis=2).astype(np.uint8)
    across, up = rng.uniform(-7.5, 7.5, points), rng.uniform(-4.5, 4.5, points)
    cloud = np.c_[np.full(points, 10.0), across, up, paint(across, up), np.zeros(points)].astype(np.float32)
    return Frame(1, cloud, (CameraView("front", image, INTRINSICS, OPTICAL),))


@pytest.mark.slow
@pytest.mark.parametrize("rotation", [(-1.0, 2.0, 0.0)])
def test_the_rotation_of_a_turned_camera_is_found(rotation: tuple[float, float, float]) -> None:
    (check,) = check_calibration([turned(painted_wall(), rotation)])
    assert check.alignment is not None
    assert check.verdict == "off"
    np.testing.assert_allclose(check.alignment.rotation, -np.array(rotation), atol=0.4)
    assert check.shift > 2.0


@pytest.mark.slow
def test_a_camera_that_fits_is_left_alone() -> None:
    (check,) = check_calibration([painted_wall()])
    assert check.verdict == "fits"


def test_few_points_give_no_estimate() -> None:
    (check,) = check_calibration([painted_wall(points=50)])
    assert (check.verdict, check.alignment) == ("unclear", None)


@pytest.mark.parametrize(
    ("angle", "spread", "better", "expected"),
    [
        (1.5, 0.1, 1.0, "off"),
        (0.3, 0.1, 1.0, "fits"),
        (1.5, 2.0, 1.0, "unclear"),
        (1.5, 0.1, 0.6, "unclear"),
    ],
)
def test_only_a_certain_rotation_is_called_off(angle: float, spread: float, better: float, expected: str) -> None:
    assert verdict(Alignment(np.array([angle, 0.0, 0.0]), spread, better, 0.1, 20_000)) == expected


def test_the_overlay_shows_both_states_in_one_picture() -> None:
    frame = painted_wall()
    assert frame.points is not None
    picture = overlay(frame.cameras[0], frame.points, np.array([0.0, 3.0, 0.0]))
    assert picture.shape == (600, 480, 3)
    assert (picture[:300] != picture[300:]).any()


def real_frames(folder: Path, camera: str) -> list[Frame]:
    frames = [recorded.frame() for recorded in recorded_frames(read_keyframes(folder))]
    return [replace(f, cameras=tuple(view for view in f.cameras if view.name == camera)) for f in frames]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "camera", "expected"),
    [
        ("ddad_scene_01", "camera_01", "off"),
        ("ddad_scene_02", "camera_05", "fits"),
        ("pandar64", "center_camera", "fits"),
    ],
)
def test_the_verdict_about_a_real_vehicle(shared_reference: Path, name: str, camera: str, expected: str) -> None:
    (check,) = check_calibration(real_frames(shared_reference / "real" / name, camera))
    assert check.verdict == expected
    if name == "ddad_scene_01":
        assert check.alignment is not None
        assert np.linalg.norm(check.alignment.rotation - (-0.83, -1.46, 0.2)) < 0.7, "the data's own estimate"
