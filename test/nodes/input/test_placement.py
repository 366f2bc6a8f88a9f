"""A model frame at another height or with other axes than in the model's training is named once."""

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
    check, found = PlacementCheck(), []
    heading = [0, 0, np.sin(0.35), np.cos(0.35)]
    for index in range(frames):
        pose = rigid_transform([0, 0, 0], heading)
        pose[:3, 3] = pose[:3, :3] @ [index * direction[0], index * direction[1], 0]
        points = None if height is None else ground(height)
        frame = Frame(index * 100_000_000, points, (), "lidar", pose if moving else None)
        found += [str(doubt) for doubt in check.doubts(frame, placement, "/points")]
    return found


@pytest.mark.parametrize("height", [1.5, 1.84, 2.2])
def test_a_model_frame_near_the_trained_height_is_no_doubt(height: float) -> None:
    assert drive(height) == []


@pytest.mark.parametrize(("height", "lift"), [(0.0, "+1.84"), (3.0, "-1.16")])
def test_a_model_frame_at_another_height_is_named_once_with_the_frame_that_fits(height: float, lift: str) -> None:
    (found,) = drive(height)
    assert found.startswith(f"/points: model frame at another height: found 'lidar' {height:.2f} m above the ground")
    assert f"to a frame {lift} m along z, and name that frame in `model_frame`" in found


@pytest.mark.parametrize(
    ("direction", "forward", "turn"),
    [((0.0, 1.0), "x", "+90"), ((0.0, -1.0), "x", "-90"), ((1.0, 0.0), "y", "-90"), ((-1.0, 0.0), "x", "-180")],
)
def test_motion_along_another_axis_is_named_once(direction: tuple[float, float], forward: str, turn: str) -> None:
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
        found = [doubt for frame in frames for doubt in check.doubts(frame, TRAINED, "/points")]
        assert len(found) == 1 and name in str(found[0])
