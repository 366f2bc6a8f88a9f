# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Boxes, points and images of a simulated drive agree with each other."""

import numpy as np
import pytest
from helpers.quick_first import quick_first

from aqr_perception.frame import LabelledFrame
from aqr_perception.geometry import box_corners, project, transform_points
from aqr_perception.simulator.drive import REACH, Drive, draw_drive
from aqr_perception.simulator.raycasting import SCENERY
from aqr_perception.simulator.rig import nuscenes_rig

TIME = 0.5


@pytest.fixture(scope="module", params=quick_first((3, 7, 11)))
def drive(request: pytest.FixtureRequest) -> Drive:
    return draw_drive(request.param, 1.0)


@pytest.fixture(scope="module")
def labelled(drive: Drive) -> LabelledFrame:
    return drive.frame(TIME)


def test_the_same_seed_and_time_give_the_same_frame(drive: Drive, labelled: LabelledFrame) -> None:
    first, second = labelled, draw_drive(drive.scene.seed, 1.0).frame(TIME)
    np.testing.assert_array_equal(first.frame.points, second.frame.points)
    np.testing.assert_array_equal(first.truth.boxes, second.truth.boxes)
    for one, other in zip(first.frame.cameras, second.frame.cameras, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_a_frame_at_the_start_has_earlier_sweeps() -> None:
    points, _ = draw_drive(3, 1.0, sweeps=2).points(0.0)
    assert points[:, 4].max() > 0


def test_the_points_of_an_object_lie_in_its_box_and_those_of_others_do_not(
    drive: Drive, labelled: LabelledFrame
) -> None:
    boxes, tracks = drive.true_boxes(TIME)
    points, owner = drive.single_sweep(TIME)
    for box, track in zip(boxes, tracks, strict=True):
        inside = _inside(points[:, :3], box, margin=0.1)
        assert inside[owner == track].all()
        deep = _inside(points[:, :3], box, margin=-0.1)
        assert set(owner[deep]) <= {track, SCENERY}  # a pedestrian may walk by a tree, below its crown
    truth = labelled.truth
    assert truth.lidar_points.tolist() == [int((owner == track).sum()) for track in tracks]


def test_the_ground_is_flat_and_at_height_0(drive: Drive) -> None:
    points, owner = drive.single_sweep(TIME)
    height = points[:, 2] + drive.rig.lidar.to_vehicle[2, 3]
    low = height[(height < 0.15) & (owner < 0)]
    assert len(low) > 3000 and abs(np.median(low)) < 0.03 and height.min() > -0.3


def test_a_box_projects_onto_the_pixels_of_its_object(drive: Drive) -> None:
    boxes, tracks = drive.true_boxes(TIME)
    seen = 0
    for camera in drive.rig.cameras:
        view, picture = drive.view(camera, TIME)
        for box, track in zip(boxes, tracks, strict=True):
            rows, columns = np.nonzero(picture.owner == track)
            if not len(rows):
                continue
            moved = box.copy()  # where the object was when the image was taken
            moved[:2] -= view.age * box[7:9]
            pixels, depths = project(view.intrinsics, transform_points(view.extrinsics, box_corners(moved[None])[0]))
            if (depths < 0.3).any():
                continue
            seen += 1
            margin = 1.5
            assert columns.min() >= pixels[:, 0].min() - margin and columns.max() <= pixels[:, 0].max() + margin
            assert rows.min() >= pixels[:, 1].min() - margin and rows.max() <= pixels[:, 1].max() + margin
    assert seen >= 3


def test_visible_objects_are_those_with_pixels(drive: Drive, labelled: LabelledFrame) -> None:
    truth, cameras = labelled.truth, drive.rig.cameras
    assert truth.visibility.shape == (len(truth), len(cameras))
    assert truth.visibility.min() >= 0 and truth.visibility.max() <= 1
    for column, camera in enumerate(cameras):
        owners = drive.view(camera, TIME)[1].owner
        shown = [bool((owners == track).any()) for track in truth.tracks]
        assert (truth.visibility[:, column] > 0).tolist() == shown


def test_velocities_predict_the_boxes_of_a_later_time(drive: Drive) -> None:
    boxes, tracks = drive.true_boxes(TIME)
    later = {track: box for box, track in zip(*drive.true_boxes(TIME + 0.2), strict=True)}
    to_now = np.linalg.inv(drive.lidar_to_world(TIME)) @ drive.lidar_to_world(TIME + 0.2)
    for box, track in zip(boxes, tracks, strict=True):
        if track in later:
            moved = transform_points(to_now, later[track][None, :3])[0, :2]
            np.testing.assert_allclose(moved, box[:2] + 0.2 * box[7:9], atol=0.05)
    assert np.hypot(boxes[:, 0], boxes[:, 1]).max() <= REACH


def test_earlier_sweeps_are_in_the_newest_sweeps_frame() -> None:
    drive = draw_drive(3, 1.0, sweeps=2, sweep_interval=0.3)
    points, _ = drive.points(TIME)
    assert sorted(set(points[:, 4].tolist())) == pytest.approx([0.0, 0.3])
    walls = points[(points[:, 2] > 1.0)]
    now, before = walls[walls[:, 4] == 0, :3], walls[walls[:, 4] > 0, :3]
    still = [np.abs(now - point).max(axis=1).min() for point in before[:: max(len(before) // 200, 1)]]
    assert np.median(still) < 0.4


def test_a_rig_renders_pictures_of_the_given_size() -> None:
    rig = nuscenes_rig((160, 64))
    view, _ = draw_drive(3, 1.0, rig).view(rig.cameras[0], TIME)
    assert view.image.shape == (64, 160, 3)
    ray = np.linalg.inv(view.intrinsics) @ (80, 0, 1)
    assert abs(ray[0]) < 0.05


def _inside(points: np.ndarray, box: np.ndarray, margin: float) -> np.ndarray:
    offset = points - box[:3]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    local = np.c_[offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin, offset[:, 2]]
    return (np.abs(local) <= box[3:6] / 2 + margin).all(axis=1)
