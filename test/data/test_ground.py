# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The height of a sensor above the ground, from its sweep."""

from pathlib import Path

import numpy as np
import pytest

from aqr_perception.data.ground import ground_height
from aqr_perception.simulator.drive import draw_drive


def street(height: float, slope: float = 0.0, seed: int = 0) -> np.ndarray:
    """Return a sweep of a sloping street with walls, cars and a few points below the ground."""
    rng = np.random.default_rng(seed)
    ground = np.c_[rng.uniform(-25, 25, (6000, 2)), rng.normal(0, 0.02, 6000)]
    cars = np.c_[rng.uniform(3, 8, (1500, 2)), rng.uniform(0, 1.8, 1500)]
    walls = np.c_[rng.uniform(-25, 25, 1500), rng.choice([-9.0, 9.0], 1500), rng.uniform(0, 8, 1500)]
    reflections = np.c_[rng.uniform(-9, 9, (20, 2)), rng.uniform(-3, -1, 20)]
    points = np.concatenate([ground, cars, walls, reflections])
    points[:, 2] += np.tan(slope) * points[:, 0] - height
    return points.astype(np.float32)


@pytest.mark.parametrize("height", [0.0, 0.5, 1.84, 3.2])
@pytest.mark.parametrize("slope", [0.0, 0.06])
def test_the_height_of_a_street_is_found(height: float, slope: float) -> None:
    assert ground_height(street(height, slope)) == pytest.approx(height, abs=0.05)


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((0, 5)),
        np.zeros((500, 5)),
        np.random.default_rng(0).uniform(-40, 40, (3000, 3)),
        np.c_[np.random.default_rng(0).uniform(-1, 1, (3000, 2)), np.zeros(3000)],
        street(0.0) @ np.diag([1.0, 1.0, 0.0]) + np.random.default_rng(0).uniform(-4, 4, (9020, 1)),
        street(0.0)[:, [2, 1, 0]],
    ],
    ids=["empty", "origin", "everywhere", "near", "thick", "upright"],
)
def test_without_clear_ground_there_is_no_height(points: np.ndarray) -> None:
    assert ground_height(points.astype(np.float32)) is None


def test_the_simulators_lidar_is_found_at_its_height() -> None:
    for seed in (0, 3):
        drive = draw_drive(seed, sweeps=1)
        points, _ = drive.points(1.0)
        assert ground_height(points) == pytest.approx(drive.rig.lidar.to_vehicle[2, 3], abs=0.15)


@pytest.mark.parametrize(
    ("folder", "height"),
    [("ddad_scene_01", -0.1), ("ddad_scene_02", -0.1), ("kitti_raw", 1.73), ("kitti_object", 1.73), ("pandar64", 2.1)],
)
def test_real_sweeps_have_their_sensors_height(folder: str, height: float, shared_reference: Path) -> None:
    sweeps = sorted((shared_reference / "real" / folder).glob("*/lidar.bin"))
    for sweep in sweeps:
        points = np.fromfile(sweep, np.float32).reshape(-1, 5)
        assert ground_height(points) == pytest.approx(height, abs=0.2), sweep.parent.name
    assert sweeps
