"""Simulated frames as a data set."""

from pathlib import Path

import numpy as np

from aqr_perception.data.sources.simulated import VALIDATION_SEEDS, SimulatedDataset, training_seeds

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


def test_training_and_validation_scenes_are_disjoint() -> None:
    assert not set(training_seeds(1_000_000)) & set(VALIDATION_SEEDS) and len(VALIDATION_SEEDS) == 200
