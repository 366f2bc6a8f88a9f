# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sequences for models with memory: one augmentation per sequence keeps the vehicle's motion consistent."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aqr_perception.data.augmentation import move
from aqr_perception.data.batch import Batch, collate
from aqr_perception.data.batch_loader import load_batches
from aqr_perception.data.frames import TrainingFrames, earlier_frames
from aqr_perception.data.sample_order import SampleOrder
from aqr_perception.data.sequences import TrainingSequences, collate_sequences
from aqr_perception.data.sources.simulated import SimulatedDataset
from aqr_perception.frame import Frame, GroundTruth, LabelledFrame
from aqr_perception.geometry import project, rigid_transform, transform_points
from aqr_perception.models.config.presets import load_preset
from aqr_perception.simulator.drive import draw_drive
from aqr_perception.simulator.rig import nuscenes_rig

PRESET = load_preset("bevformer_mini")
PICTURE = (88, 32)


class Drives:
    """Two drives of three frames each, half a second apart."""

    def __init__(self) -> None:
        self._frames = []
        for seed in (3, 7):
            drive = draw_drive(seed, 2.0, nuscenes_rig(PICTURE), sweeps=1)
            for time in (0.0, 0.5, 1.0):
                labelled = drive.frame(time)
                to_fixed = labelled.model_to_world
                frame = Frame(labelled.frame.stamp_ns, labelled.frame.points, labelled.frame.cameras, "lidar", to_fixed)
                self._frames.append(LabelledFrame(frame, labelled.truth, to_fixed))

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> LabelledFrame:
        return self._frames[index]

    def earlier_frames(self, index: int, count: int, step: float) -> tuple[LabelledFrame, ...]:
        assert step == 0.5
        return tuple(self._frames[max(index - count, index - index % 3) : index])


@pytest.fixture(scope="module")
def drives() -> Drives:
    return Drives()


def bare(pose: NDArray[np.float64]) -> LabelledFrame:
    nothing = GroundTruth(
        np.zeros((0, 9), np.float32),
        *(np.zeros(0, np.int64) for _ in range(3)),
        np.zeros((0, 0), np.float32),
    )
    return LabelledFrame(Frame(0, None, (), "lidar", pose), nothing, pose)


poses = st.builds(
    lambda x, y, angle: rigid_transform([x, y, 1.0], [0, 0, np.sin(angle / 2), np.cos(angle / 2)]),
    st.floats(-1000, 1000),
    st.floats(-1000, 1000),
    st.floats(-3.1, 3.1),
)


@given(poses, poses, st.floats(-3.1, 3.1), st.floats(0.8, 1.2), st.sampled_from([-1.0, 1.0]), st.floats(-2, 2))
@settings(max_examples=40, deadline=None)
def test_static_points_stay_static_in_frames_moved_by_the_same_motion(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    angle: float,
    scale: float,
    mirror: float,
    shift: float,
) -> None:
    motion = np.diag([mirror, 1.0, 1.0, 1.0]) @ rigid_transform(
        [shift, -shift, 0.3], [0, 0, np.sin(angle / 2), np.cos(angle / 2)]
    )
    motion[:3, :3] *= scale
    landmarks = np.random.default_rng(0).uniform(-30, 30, (5, 3)) + first[:3, 3]
    fixed = []
    for pose in (first, second):
        moved = move(bare(pose), motion).frame.to_fixed
        assert moved is not None
        np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-9)  # a vehicle's pose is rigid
        assert np.linalg.det(moved[:3, :3]) > 0
        seen = transform_points(motion @ np.linalg.inv(pose), landmarks)
        fixed.append(transform_points(moved, seen))
    np.testing.assert_allclose(fixed[0], fixed[1], atol=1e-6)


def test_static_points_stay_static_and_project_consistently_in_an_augmented_sequence(drives: Drives) -> None:
    plain = TrainingSequences(TrainingFrames(drives, PRESET, augment=False, corrupted=False, grid_mask=False))
    augmented = TrainingSequences(TrainingFrames(drives, PRESET, corrupted=False, grid_mask=False))
    as_it_is = plain.sample(2, np.random.default_rng(0), 0.0)
    landmarks = np.random.default_rng(1).uniform((-20, -20, -1), (20, 20, 3), (200, 3))  # in the labelled frame
    for seed in range(3):
        changed = augmented.sample(2, np.random.default_rng(seed), 0.0)
        now = changed[-1].labelled
        motion = np.linalg.inv(now.model_to_world) @ as_it_is[-1].labelled.model_to_world
        assert now.frame.to_fixed is not None
        for old, new in zip(as_it_is, changed, strict=True):
            before_, after = old.labelled.frame, new.labelled.frame
            assert before_.to_fixed is not None and after.to_fixed is not None
            to_past = np.linalg.inv(before_.to_fixed) @ as_it_is[-1].labelled.model_to_world
            to_past_augmented = np.linalg.inv(after.to_fixed) @ now.frame.to_fixed
            there = transform_points(to_past, landmarks)
            there_augmented = transform_points(to_past_augmented, transform_points(motion, landmarks))
            for view, changed_view in zip(before_.cameras, after.cameras, strict=True):
                pixels, depths = project(view.intrinsics, transform_points(view.extrinsics, there))
                found, found_depths = project(
                    changed_view.intrinsics, transform_points(changed_view.extrinsics, there_augmented)
                )
                ahead = depths > 1
                np.testing.assert_allclose(found_depths[ahead], depths[ahead], atol=1e-6)
                change = changed_view.intrinsics @ np.linalg.inv(view.intrinsics)
                expected = np.c_[pixels[ahead], np.ones(ahead.sum())] @ change[:2].T
                np.testing.assert_allclose(found[ahead], expected, atol=1e-4)


def test_all_frames_of_a_sequence_have_the_same_augmentation(drives: Drives) -> None:
    data = TrainingSequences(TrainingFrames(drives, PRESET, corrupted=False))
    for seed in range(4):
        sequence = data.sample(5, np.random.default_rng(seed), 1.0)
        assert [sample.labelled.frame.stamp_ns for sample in sequence] == [0, 500_000_000, 1_000_000_000]
        intrinsics = [sample.labelled.frame.cameras[0].intrinsics for sample in sequence]
        sides = [np.linalg.inv(sample.labelled.model_to_world) @ drives[3 + place].model_to_world
                 for place, sample in enumerate(sequence)]  # fmt: skip
        for place in (1, 2):
            np.testing.assert_array_equal(intrinsics[place], intrinsics[0])
            np.testing.assert_allclose(sides[place], sides[0], atol=1e-9)


def test_faults_last_in_some_sequences_and_change_in_others(drives: Drives) -> None:
    data = TrainingSequences(TrainingFrames(drives, PRESET, augment=False, grid_mask=False))
    lasting = changing = 0
    for seed in range(40):
        sequence = data.sample(2, np.random.default_rng(seed), 0.0)
        failed = [frozenset(sample.health.cameras) | {"lidar"[: sample.health.lidar.size - 1]} for sample in sequence]
        lasting += len(set(failed)) == 1 and len(failed[0]) > 1
        changing += len(set(failed)) > 1
    assert lasting > 5 and changing > 5


def test_a_sequence_without_history_equals_the_single_frame_sample(drives: Drives) -> None:
    frames = TrainingFrames(drives, PRESET)
    (only,) = TrainingSequences(frames, history=0).sample(1, np.random.default_rng(5), 0.7)
    single = frames.sample(1, np.random.default_rng(5), 0.7)
    alone, batch = collate([single], PRESET), collate_sequences([(only,)], PRESET)
    assert batch.history == ()
    assert_same(alone, batch)


def test_the_history_of_a_batch_is_as_long_as_its_shortest_sequence(drives: Drives) -> None:
    data = TrainingSequences(TrainingFrames(drives, PRESET))
    samples = [data.sample(index, np.random.default_rng(index), 0.0) for index in (2, 4, 5, 3)]
    assert [len(sample) for sample in samples] == [3, 2, 3, 1]
    for chosen, count in (([0, 2], 2), ([0, 1, 2], 1), ([0, 3], 0)):
        batch = collate_sequences([samples[index] for index in chosen], PRESET)
        assert len(batch.history) == count
        for back, earlier in enumerate(reversed(batch.history), 1):
            assert batch.stamps_ns is not None and earlier.stamps_ns is not None and earlier.to_fixed is not None
            assert (batch.stamps_ns - earlier.stamps_ns == back * 500_000_000).all()
            assert earlier.to_fixed.shape == (len(chosen), 4, 4)


def test_a_data_set_of_single_frames_has_no_earlier_frames(drives: Drives) -> None:
    single = [drives[0], drives[1]]
    assert earlier_frames(single, 1, 2, 0.5) == ()
    assert len(TrainingSequences(TrainingFrames(single, PRESET)).sample(1, np.random.default_rng(0), 0.0)) == 1


def test_a_resumed_loader_continues_with_the_same_batches(drives: Drives) -> None:
    data = TrainingSequences(TrainingFrames(drives, PRESET))

    def load(start: int) -> list[Batch]:
        found = load_batches(
            data,
            lambda samples: collate_sequences(samples, PRESET),
            SampleOrder(len(data), seed=1),
            start=start,
            batch_size=2,
            workers=0,
            progress=lambda number: 0.5,
        )
        return [next(found) for _ in range(3 - start // 2)]

    whole, resumed = load(0), load(2)
    for one, other in zip(whole[1:], resumed, strict=True):
        assert_same(one, other)
        assert len(one.history) == len(other.history)
        for earlier, same in zip(one.history, other.history, strict=True):
            assert_same(earlier, same)
    assert any(batch.history for batch in resumed)


def test_a_batch_moves_to_a_device_with_its_history_even_after_pinning(drives: Drives) -> None:
    data = TrainingSequences(TrainingFrames(drives, PRESET))
    batch = collate_sequences([data.sample(2, np.random.default_rng(0), 0.0)], PRESET)
    pinned = batch._replace(history=list(batch.history))  # type: ignore[arg-type]  # pinning turns tuples into lists
    for given_ in (batch, pinned):
        moved = given_.to(torch.device("meta"))
        assert moved.to_fixed is not None and moved.to_fixed.is_meta and len(moved.history) == 2
        assert all(earlier.to_fixed.is_meta and earlier.boxes[0].is_meta for earlier in moved.history)


@pytest.mark.slow
def test_simulated_scenes_have_earlier_frames() -> None:
    data = SimulatedDataset([10_001], PICTURE, sweeps=1)
    labelled = data[0]
    past = data.earlier_frames(0, 2)
    assert [labelled.frame.stamp_ns - frame.frame.stamp_ns for frame in past] == [1_000_000_000, 500_000_000]
    assert labelled.frame.to_fixed is not None
    tracks = {track: box for track, box in zip(labelled.truth.tracks, labelled.truth.boxes, strict=True)}
    compared = 0
    for frame in past:
        assert frame.frame.to_fixed is not None
        to_now = np.linalg.inv(labelled.frame.to_fixed) @ frame.frame.to_fixed
        seconds = (labelled.frame.stamp_ns - frame.frame.stamp_ns) / 1e9
        places = transform_points(to_now, frame.truth.boxes)
        for track, place in zip(frame.truth.tracks, places, strict=True):
            if track in tracks:
                # A car on a bent road leaves its tangent by centimetres in a second.
                went = tracks[track][:2] - place[:2]
                np.testing.assert_allclose(went, tracks[track][7:9] * seconds, atol=0.4)
                compared += 1
    assert compared > 3


def assert_same(one: Batch, other: Batch) -> None:
    for left, right in zip(one[:-1], other[:-1], strict=True):
        if isinstance(left, list):
            assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
        else:
            assert left is right is None or torch.equal(left, right)
