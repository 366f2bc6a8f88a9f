# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Simulated frames as a data set."""

from pathlib import Path

import numpy as np
import pytest

from aqr_perception.data.sources.simulated import VALIDATION_SEEDS, SimulatedDataset, training_seeds
from aqr_perception.simulator.street_sensors.camera_models import draw_rig

PICTURE = (176, 64)


def test_a_cached_frame_equals_the_drawn_frame_up_to_compression(tmp_path: Path) -> None:
    drawn = SimulatedDataset([10_001], PICTURE)[0]
    cached = SimulatedDataset([10_001], PICTURE, cache=tmp_path)
    first = cached[0]
    stored = list(tmp_path.rglob("*.npz"))
    assert len(stored) == 1 and stored[0].stat().st_size < 1_500_000
    modified = stored[0].stat().st_mtime_ns
    for found in (first, cached[0]):
        np.testing.assert_allclose(found.frame.points, drawn.frame.points, atol=0.51)  # intensities are whole numbers
        np.testing.assert_allclose(found.frame.points[:, :3], drawn.frame.points[:, :3], atol=0.003)
        np.testing.assert_array_equal(found.truth.boxes, drawn.truth.boxes)
        np.testing.assert_array_equal(found.truth.visibility, drawn.truth.visibility)
        for view, own in zip(found.frame.cameras, drawn.frame.cameras, strict=True):
            assert np.abs(view.image.astype(int) - own.image).mean() < 6
            np.testing.assert_array_equal(view.extrinsics, own.extrinsics)
    assert stored[0].stat().st_mtime_ns == modified


@pytest.mark.slow
def test_earlier_frames_are_cached_next_to_a_frame_without_changing_it(tmp_path: Path) -> None:
    data = SimulatedDataset([10_001], PICTURE, sweeps=1, cache=tmp_path)
    _ = data[0]
    (stored,) = tmp_path.rglob("*.npz")
    content = stored.read_bytes()
    drawn, read = data.earlier_frames(0, 2), data.earlier_frames(0, 2)
    assert stored.read_bytes() == content and len(list(stored.parent.iterdir())) == 3
    for one, other in zip(drawn, read, strict=True):
        assert one.frame.stamp_ns == other.frame.stamp_ns < data[0].frame.stamp_ns
        np.testing.assert_array_equal(one.frame.to_fixed, other.frame.to_fixed)
        np.testing.assert_array_equal(one.frame.cameras[0].image, other.frame.cameras[0].image)


@pytest.mark.slow
def test_the_past_sweep_is_as_old_as_the_model_needs_and_stored_apart(tmp_path: Path) -> None:
    near, far = (SimulatedDataset([10_001], PICTURE, 2, tmp_path, sweep_interval=step) for step in (0.0, 0.4))
    clouds = [data[0].frame.points for data in (near, far)]
    assert near.folder != far.folder
    ages = [np.unique(cloud[:, 4]).tolist() for cloud in clouds if cloud is not None]
    np.testing.assert_allclose(ages, [[0.0, 0.1], [0.0, 0.4]], atol=1e-6)
    newest = [cloud[cloud[:, 4] == 0] for cloud in clouds if cloud is not None]
    np.testing.assert_array_equal(*newest)


def test_training_and_validation_scenes_are_disjoint() -> None:
    assert not set(training_seeds(1_000_000)) & set(VALIDATION_SEEDS) and len(VALIDATION_SEEDS) == 200


@pytest.mark.slow
def test_frames_of_world_2_are_stored_apart_and_read_back(tmp_path: Path) -> None:
    first, second = (SimulatedDataset([10_003], PICTURE, 1, tmp_path, world=world) for world in (1, 2))
    seed_rig = draw_rig(10_003, PICTURE)
    one, other = first[0], second[0]
    assert len(list(tmp_path.iterdir())) == 2
    assert [view.name for view in other.frame.cameras] == [camera.name for camera in seed_rig.cameras]
    drawn = SimulatedDataset([10_003], PICTURE, 1, world=2)[0]
    for found in (other, second[0]):
        np.testing.assert_array_equal(found.truth.boxes, drawn.truth.boxes)
        np.testing.assert_allclose(found.frame.points[:, :3], drawn.frame.points[:, :3], atol=0.003)
    (before,) = second.earlier_frames(0, 1)
    assert before.frame.stamp_ns < other.frame.stamp_ns
    assert len(one.truth) != len(other.truth) or not np.array_equal(one.truth.boxes, other.truth.boxes)


def test_a_world_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="world is 3, but must be one of 1, 2"):
        SimulatedDataset([0], PICTURE, world=3)


RECORDED = {  # seed: points, sum of their coordinates, sum of the boxes, mean colour of each camera
    7: (30273, 508380.6, 65.3759, [163.269, 172.909, 153.857, 153.592, 159.207, 143.246]),
    10001: (31254, 499724.8, -182.8124, [149.407, 145.000, 141.997, 149.814, 145.034, 145.327]),
}


@pytest.mark.parametrize("seed", sorted(RECORDED))
def test_world_1_is_the_one_in_which_the_shipped_weights_were_trained(seed: int) -> None:
    labelled = SimulatedDataset([seed], PICTURE, 1)[0]
    points, coordinates, boxes, colours = RECORDED[seed]
    assert labelled.frame.points is not None
    assert abs(len(labelled.frame.points) - points) <= 3  # rounding differs between machines
    assert np.abs(labelled.frame.points[:, :3]).sum() == pytest.approx(coordinates, rel=1e-3)
    assert labelled.truth.boxes.sum() == pytest.approx(boxes, rel=1e-5)
    assert [view.image.mean() for view in labelled.frame.cameras] == pytest.approx(colours, abs=0.02)
