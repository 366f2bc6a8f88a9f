# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A model frame at another height or with other axes than in the model's training is named as long as it is so."""

import numpy as np
import pytest

from aqr_perception.frame import Frame, FramePlacement
from aqr_perception.geometry import rigid_transform
from aqr_perception.nodes.input.placement import PlacementCheck

TRAINED = FramePlacement(1.84, "x")


def ground(height: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = np.c_[rng.uniform(-20, 20, (5000, 2)), np.full(5000, -height)]
    return np.c_[points, np.zeros((5000, 2))].astype(np.float32)


def drive(
    height: float | None = 1.84,
    direction: tuple[float, float] = (1.0, 0.0),
    placement: FramePlacement | None = TRAINED,
    frames: int = 30,
    moving: bool = True,
) -> list[str]:
    """Return the findings of a drive at 10 m/s and 10 Hz; the vehicle's heading in the fixed frame is 0.7 rad."""
    check = PlacementCheck()
    found: list[list[str]] = []
    heading = [0, 0, np.sin(0.35), np.cos(0.35)]
    for index in range(frames):
        pose = rigid_transform([0, 0, 0], heading)
        pose[:3, 3] = pose[:3, :3] @ [index * direction[0], index * direction[1], 0]
        points = None if height is None else ground(height)
        frame = Frame(index * 100_000_000, points, (), "lidar", pose if moving else None)
        found.append(sorted(str(doubt) for doubt in check.doubts(frame, placement, "/points")))
    assert found == sorted(found, key=len), "a doubt holds"
    return found[-1]


@pytest.mark.parametrize("height", [1.5, 1.84, 2.2])
def test_a_model_frame_near_the_trained_height_is_no_doubt(height: float) -> None:
    assert drive(height) == []


@pytest.mark.parametrize(("height", "lift"), [(0.0, "+1.84"), (3.0, "-1.16")])
def test_a_model_frame_at_another_height_is_named_with_the_frame_that_fits(height: float, lift: str) -> None:
    (found,) = drive(height)
    assert found.startswith(f"/points: model frame at another height: found 'lidar' {height:.2f} m above the ground")
    assert f"to a frame {lift} m along z, and name that frame in `model_frame`" in found


@pytest.mark.parametrize(
    ("direction", "forward", "turn"),
    [((0.0, 1.0), "x", "+90"), ((0.0, -1.0), "x", "-90"), ((1.0, 0.0), "y", "-90"), ((-1.0, 0.0), "x", "-180")],
)
def test_motion_along_another_axis_is_named(direction: tuple[float, float], forward: str, turn: str) -> None:
    (found,) = drive(direction=direction, placement=FramePlacement(1.84, forward), frames=60)
    assert "model frame with other axes" in found and f"needed motion along +{forward}" in found
    assert f"turned by {turn} degrees about z" in found


def test_a_short_way_backwards_is_no_doubt() -> None:
    assert drive(direction=(-1.0, 0.0), frames=25) == []


def test_without_ground_motion_or_knowledge_of_the_model_nothing_is_said() -> None:
    assert drive(None, moving=False) == []
    assert drive(0.0, (0.0, 1.0), placement=None, frames=60) == []
    assert drive(moving=False) == []


def test_another_model_frame_is_judged_anew() -> None:
    check = PlacementCheck()
    for name in ("lidar", "base_link", "lidar"):
        frames = [Frame(index * 100_000_000, ground(0.0), (), name) for index in range(5)]
        found = [check.doubts(frame, TRAINED, "/points") for frame in frames]
        assert found[0] == [] and len(found[-1]) == 1 and name in str(found[-1][0])


def frame_at(seconds: float, height: float, place: tuple[float, float], yaw: float = 0.0) -> Frame:
    pose = rigid_transform([*place, 0], [0, 0, np.sin(yaw / 2), np.cos(yaw / 2)])
    return Frame(round(seconds * 1e9), ground(height), (), "lidar", pose)


def test_a_doubt_ends_when_the_transform_is_corrected() -> None:
    check, driven = PlacementCheck(), 0.0
    for index in range(10):
        driven += 1.0
        wrong = check.doubts(frame_at(0.1 * index, 0.1, (driven, 0.0), np.pi / 2), TRAINED, "/points")
    assert {doubt.problem for doubt in wrong} == {"model frame at another height", "model frame with other axes"}
    for index in range(100):
        driven += 1.0
        right = check.doubts(frame_at(1.0 + 0.1 * index, 1.84, (driven, 0.0)), TRAINED, "/points")
    assert right == []


def test_a_vehicle_that_has_driven_ahead_may_drive_backwards() -> None:
    check, driven = PlacementCheck(), 0.0
    for index, step in enumerate([1.0] * 20 + [-1.0] * 80 + [1.0] * 20):
        driven += step
        found = check.doubts(frame_at(0.1 * index, 1.84, (driven, 0.0)), TRAINED, "/points")
        assert found == []
