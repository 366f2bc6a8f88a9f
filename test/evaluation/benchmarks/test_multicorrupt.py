# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""MultiCorrupt's corruptions: published numbers, severities, random numbers."""

import dataclasses

import numpy as np
import pytest
from helpers.scanned_frame import labelled_frame, points_of

from aqr_perception.evaluation.benchmarks.multicorrupt import CORRUPTIONS, SCENARIOS, SEVERITIES, scenario_name
from aqr_perception.evaluation.scenarios import fail, generator
from aqr_perception.frame import CameraView, LabelledFrame


def corrupted(name: str, severity: int, labelled: LabelledFrame, earlier: LabelledFrame | None = None) -> LabelledFrame:
    scenario = scenario_name(name, severity)
    return fail(scenario, SCENARIOS[scenario], labelled, 0, earlier)


def frame_with_content(seed: int = 0, beams: int = 32) -> LabelledFrame:
    """Return a frame with intensities, two sweeps' ages and pictures that are not noise."""
    labelled = labelled_frame(seed, cameras=3)
    points = points_of(labelled).copy()
    points[:, 3] = np.random.default_rng(seed).uniform(5, 120, len(points))
    if beams != 32:
        elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
        every = np.unique(elevation.round(1))[:: 32 // beams]
        points = points[np.isin(elevation.round(1), every)]
    rows = np.linspace(20, 160, 32, dtype=np.uint8)[:, None, None]
    views = tuple(
        dataclasses.replace(view, image=np.broadcast_to(rows, (32, 56, 3)).copy()) for view in labelled.frame.cameras
    )
    return dataclasses.replace(labelled, frame=dataclasses.replace(labelled.frame, points=points, cameras=views))


def arrays(labelled: LabelledFrame) -> list[np.ndarray]:
    return [points_of(labelled), *(view.image for view in labelled.frame.cameras)]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_repeatable_keep_their_input_and_touch_only_their_sensors(name: str) -> None:
    labelled, earlier = frame_with_content(), dataclasses.replace(frame_with_content(1))
    earlier = dataclasses.replace(earlier, frame=dataclasses.replace(earlier.frame, stamp_ns=5 * 10**8))
    for array in (*arrays(labelled), *arrays(earlier)):
        array.setflags(write=False)
    for severity in SEVERITIES:
        first, second = (corrupted(name, severity, labelled, earlier) for _ in range(2))
        assert all(np.array_equal(one, other) for one, other in zip(arrays(first), arrays(second), strict=True))
        if not CORRUPTIONS[name].lidar:
            assert first.frame.points is labelled.frame.points
        if not CORRUPTIONS[name].cameras:
            assert first.frame.cameras is labelled.frame.cameras
        assert np.array_equal(first.truth.boxes, labelled.truth.boxes)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severer_corruptions_change_no_less(name: str) -> None:
    change = np.zeros(3)
    for seed in range(6):
        labelled, earlier = frame_with_content(seed), frame_with_content(seed + 100)
        earlier = dataclasses.replace(earlier, frame=dataclasses.replace(earlier.frame, stamp_ns=5 * 10**8))
        for index, severity in enumerate(SEVERITIES):
            failing = arrays(corrupted(name, severity, labelled, earlier))
            for before, after in zip(arrays(labelled), failing, strict=True):
                lost = len(before) - len(after)
                change[index] += lost if lost else np.abs(after.astype(float) - before).mean()
    assert list(change) == sorted(change) and change[2] > 0


@pytest.mark.parametrize("beams", [32, 16])
def test_beam_reduction_keeps_16_8_and_4_beams(beams: int) -> None:
    labelled = frame_with_content(beams=beams)
    for severity, count in zip(SEVERITIES, (16, 8, 4), strict=True):
        points = points_of(corrupted("beamsreducing", severity, labelled))
        elevations = np.unique(np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))).round(1))
        assert len(elevations) == min(count, beams)
        if beams == 32:
            published = np.linspace(-30.67, 10.67, 32)[1 :: 32 // count]
            assert np.allclose(elevations, published, atol=0.06)


def test_points_reduction_leaves_30_20_and_10_percent() -> None:
    labelled = frame_with_content()
    count = len(points_of(labelled))
    left = [len(points_of(corrupted("pointsreducing", severity, labelled))) for severity in SEVERITIES]
    assert left == [round(count * share) for share in (0.3, 0.2, 0.1)]


def black_cameras(labelled: LabelledFrame) -> list[bool]:
    return [not view.image.any() for view in labelled.frame.cameras]


def test_a_fifth_to_three_fifths_of_the_cameras_are_black_each_for_itself() -> None:
    by_severity = np.array(
        [
            [
                black_cameras(corrupted("missingcamera", severity, labelled_frame(seed, objects=1)))
                for severity in SEVERITIES
            ]
            for seed in range(100)
        ]
    )
    assert by_severity.mean(axis=(0, 2)) == pytest.approx([0.2, 0.4, 0.6], abs=0.06)
    # A camera that is black stays black at the next severity.
    assert (by_severity[:, 1] >= by_severity[:, 0]).all() and (by_severity[:, 2] >= by_severity[:, 1]).all()


def test_spatial_misalignment_moves_whole_sweeps_to_the_right_and_turns_them() -> None:
    moved = 0
    for seed in range(40):
        labelled = labelled_frame(seed, cameras=1)  # forward is y, so right is x
        points = points_of(labelled).copy()
        points[::2, 4] = 0.05
        labelled = dataclasses.replace(labelled, frame=dataclasses.replace(labelled.frame, points=points))
        after = points_of(corrupted("spatialmisalignment", 3, labelled))
        for sweep in (0.0, np.float32(0.05)):
            mine = points[:, 4] == sweep
            step = after[mine, :3] - points[mine, :3]
            if not step.any():
                continue
            moved += 1
            near = np.linalg.norm(points[mine, :3], axis=1) < 5
            assert step[near].mean(axis=0) == pytest.approx([2, 0, 0], abs=0.3)
            centred = after[mine, :3] - [2, 0, 0]
            assert np.allclose(np.linalg.norm(centred, axis=1), np.linalg.norm(points[mine, :3], axis=1), atol=1e-3)
    assert 30 < moved < 65  # of 80 sweeps, with probability 0.6


def test_late_sensors_have_the_data_of_the_earlier_frame_and_first_frames_stay() -> None:
    late = []
    for seed in range(60):
        labelled, earlier = labelled_frame(seed), labelled_frame(seed + 1000)
        earlier = dataclasses.replace(earlier, frame=dataclasses.replace(earlier.frame, stamp_ns=5 * 10**8))
        after = corrupted("temporalmisalignment", 3, labelled, earlier)
        old: list[CameraView] = list(earlier.frame.cameras)
        pairs = zip(after.frame.cameras, labelled.frame.cameras, old, strict=True)
        failing = [after.frame.points is earlier.frame.points]
        for view, now, before in pairs:
            assert view.image is now.image or view.image is before.image
            assert view.extrinsics is now.extrinsics
            failing.append(view.image is before.image)
        late.append(failing)
        assert corrupted("temporalmisalignment", 3, labelled, None) is labelled
    assert np.mean(late) == pytest.approx(0.6, abs=0.08)


def test_severities_share_their_random_numbers() -> None:
    labelled = labelled_frame()
    names = {SCENARIOS[scenario_name("fog", severity)].draws for severity in SEVERITIES}
    assert names == {"fog"} and generator("fog", labelled, 0).random() != generator("snow", labelled, 0).random()
