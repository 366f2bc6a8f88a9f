# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sweeps, pictures and labels of a drive in world 2 agree with each other, in either convention of axes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from helpers.quick_first import quick_first

from aqr_perception.frame import LabelledFrame
from aqr_perception.geometry import box_corners, project, transform_points
from aqr_perception.simulator.drive import REACH, Drive, draw_drive
from aqr_perception.simulator.raycasting import SCENERY
from aqr_perception.simulator.rig import Rig
from aqr_perception.simulator.street.population import Pace
from aqr_perception.simulator.street.street_scene import StreetScene, draw_street_scene
from aqr_perception.simulator.street_sensors.camera_models import ModelledLidar, axes, draw_rig, turned
from aqr_perception.simulator.street_sensors.lidar_models import LIDAR_MODELS

TIME, PICTURE = 0.5, (176, 64)


def lidar_of(rig: Rig) -> ModelledLidar:
    assert isinstance(rig.lidar, ModelledLidar)
    return rig.lidar


def small_rig(seed: int, cameras: int = 1, **changes: object) -> Rig:
    """Return the rig of a seed with at most some cameras, and changes of its LiDAR."""
    rig = draw_rig(seed, PICTURE)
    return Rig(rig.cameras[:cameras], replace(lidar_of(rig), **changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=quick_first((20, 35)))
def drive(request: pytest.FixtureRequest) -> Drive:
    return draw_drive(request.param, 1.0, small_rig(request.param, 2), world=2)


@pytest.fixture(scope="module")
def moving() -> StreetScene:
    """Return a clear day in which the vehicle drives at 10 m/s or more."""
    scenes = (draw_street_scene(seed, 1.0, time_of_day="day", weather="clear") for seed in range(70, 100))
    return next(scene for scene in scenes if scene.ego.pace and scene.ego.pace.mean > 10)


@pytest.mark.slow
def test_the_same_seed_and_time_give_the_same_frame(drive: Drive) -> None:
    again = Drive(draw_street_scene(drive.scene.seed, 1.0), drive.rig)
    _assert_equal(drive.frame(TIME), again.frame(TIME))


def _assert_equal(first: LabelledFrame, second: LabelledFrame) -> None:
    np.testing.assert_array_equal(first.frame.points, second.frame.points)
    np.testing.assert_array_equal(first.truth.boxes, second.truth.boxes)
    for one, other in zip(first.frame.cameras, second.frame.cameras, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_the_points_of_an_object_lie_in_its_box_up_to_its_motion_during_the_sweep(drive: Drive) -> None:
    boxes, tracks = drive.true_boxes(TIME)
    points, owner = drive.single_sweep(TIME)
    lidar = lidar_of(drive.rig)
    step = drive.lidar_to_world(TIME)[:3, 3] - drive.lidar_to_world(TIME - lidar.period)[:3, 3]
    seen = 0
    for box, track in zip(boxes, tracks, strict=True):
        motion = lidar.period * np.hypot(box[7], box[8]) + (0 if lidar.compensated else np.linalg.norm(step))
        mine = _local(points[owner == track, :3].astype(float), box)
        seen += len(mine)
        assert (np.abs(mine) <= box[3:6] / 2 + 0.15 + motion).all()
    assert seen > 100
    truth = drive.frame(TIME).truth
    assert truth.lidar_points.tolist() == [int((owner == track).sum()) for track in tracks]


def _local(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    offset = points - box[:3]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    return np.c_[offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin, offset[:, 2]]


def test_the_outline_of_a_box_holds_95_percent_of_its_pixels_and_points(drive: Drive) -> None:
    boxes, tracks = drive.true_boxes(TIME)
    points, owner = drive.single_sweep(TIME)
    pixels_inside: list[bool] = []
    points_inside: list[bool] = []
    for camera in drive.rig.cameras:
        view, picture = drive.view(camera, TIME)
        for box, track in zip(boxes, tracks, strict=True):
            rows, columns = np.nonzero(picture.owner == track)
            moved = box.copy()  # where the object was when the image was taken
            moved[:2] -= view.age * box[7:9]
            corners, depths = project(view.intrinsics, transform_points(view.extrinsics, box_corners(moved[None])[0]))
            if not len(rows) or (depths < 0.3).any():
                continue
            outline = cv2.convexHull(corners.astype(np.float32))
            pixels_inside += _within(outline, np.c_[columns + 0.5, rows + 0.5])
            if np.hypot(box[7], box[8]) < 0.1 and lidar_of(drive.rig).compensated:
                shown = project(view.intrinsics, transform_points(view.extrinsics, points[owner == track]))[0]
                points_inside += _within(outline, shown)
    assert len(pixels_inside) > 300 and np.mean(pixels_inside) >= 0.95
    assert not points_inside or np.mean(points_inside) >= 0.95


def _within(outline: np.ndarray, pixels: np.ndarray) -> list[bool]:
    return [cv2.pointPolygonTest(outline, (float(x), float(y)), True) > -1.5 for x, y in pixels]


def test_velocities_predict_the_boxes_of_a_later_time(drive: Drive) -> None:
    boxes, tracks = drive.true_boxes(TIME)
    later = {track: box for box, track in zip(*drive.true_boxes(TIME + 0.2), strict=True)}
    to_now = np.linalg.inv(drive.lidar_to_world(TIME)) @ drive.lidar_to_world(TIME + 0.2)
    for box, track in zip(boxes, tracks, strict=True):
        if track in later:
            moved = transform_points(to_now, later[track][None, :3])[0, :2]
            np.testing.assert_allclose(moved, box[:2] + 0.2 * box[7:9], atol=0.12)
    assert np.hypot(boxes[:, 0], boxes[:, 1]).max() <= REACH


@pytest.mark.slow
def test_both_conventions_of_axes_give_the_same_scene_after_a_rotation(drive: Drive) -> None:
    other = "y" if lidar_of(drive.rig).forward == "x" else "x"
    rotated = Drive(drive.scene, turned(drive.rig, other))
    first, second = drive.frame(TIME), rotated.frame(TIME)
    to_first = axes(lidar_of(drive.rig).forward).T @ axes(other)
    assert first.frame.points is not None and second.frame.points is not None
    back = transform_points(to_first, second.frame.points)
    np.testing.assert_allclose(back, first.frame.points[:, :3], atol=2e-3)
    np.testing.assert_allclose(transform_points(to_first, second.truth.boxes), first.truth.boxes[:, :3], atol=1e-3)
    velocity = np.c_[second.truth.boxes[:, 7:9], np.zeros(len(second.truth))] @ to_first[:3, :3].T
    np.testing.assert_allclose(velocity[:, :2], first.truth.boxes[:, 7:9], atol=1e-3)
    for one, two in zip(first.frame.cameras, second.frame.cameras, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_allclose(two.extrinsics @ np.linalg.inv(to_first), one.extrinsics, atol=1e-9)


def test_forward_is_the_axis_along_which_the_vehicle_drives(moving: StreetScene) -> None:
    for forward, column in (("x", 0), ("y", 1)):
        drive = Drive(moving, turned(small_rig(1), forward))  # type: ignore[arg-type]
        step = drive.lidar_to_world(0.1)[:3, 3] - drive.lidar_to_world(0.0)[:3, 3]
        ahead = drive.lidar_to_world(0.0)[:3, column] @ step / np.linalg.norm(step)
        assert ahead > 0.99


@pytest.mark.parametrize("model", sorted(LIDAR_MODELS))
def test_the_beams_of_a_sweep_have_the_elevations_of_the_table(model: str) -> None:
    table = np.array(LIDAR_MODELS[model].elevations)
    assert (np.diff(table) < 0).all() and LIDAR_MODELS[model].beams in (16, 32, 64, 128)
    scene = draw_street_scene(41, 1.0, time_of_day="day", weather="clear")
    rig = small_rig(41, 0, table=tuple(table[::4]), beams=len(table[::4]), columns=120, noise=0.0, compensated=False)
    points, _ = Drive(scene, rig).single_sweep(TIME)
    still = np.hypot(points[:, 0], points[:, 1]) > 2
    found = np.degrees(np.arctan2(points[still, 2], np.hypot(points[still, 0], points[still, 1])))
    off = np.abs(found[:, None] - table[None, ::4]).min(axis=1)
    assert np.mean(off < 0.01) > 0.9  # the others are moving objects


@pytest.mark.slow
def test_echoes_get_rarer_with_the_range_and_with_weather() -> None:
    clear = draw_street_scene(71, 1.0, time_of_day="day", weather="clear")
    lidar = {"dropout": 0.0, "sensitivity": 30.0, "table": tuple(np.linspace(10, -30, 32)), "beams": 32, "columns": 720}
    drive = Drive(clear, small_rig(71, 0, **lidar))
    reference = Drive(clear, small_rig(71, 0, **{**lidar, "sensitivity": 3000.0}))
    near, middle, far = (_count(drive, *span) / _count(reference, *span) for span in ((3, 12), (18, 28), (40, 75)))
    assert near > middle > far and near > 0.85 and far < 0.5
    shares = {}
    for kind in ("rain", "fog", "dust"):
        weather = draw_street_scene(71, 1.0, time_of_day="day", weather=kind).weather
        shares[kind] = _count(Drive(replace(clear, weather=weather), drive.rig), 12, 75) / _count(drive, 12, 75)
    assert max(shares.values()) < 0.97 and shares["fog"] < 0.8


def _count(drive: Drive, nearest: float, farthest: float) -> int:
    points, _ = drive.single_sweep(TIME)
    distance = np.linalg.norm(points[:, :3], axis=1)
    return int(((distance > nearest) & (distance < farthest)).sum())


def test_fog_returns_echoes_of_its_own_near_the_sensor() -> None:
    clear = draw_street_scene(71, 1.0, time_of_day="day", weather="clear")
    fog = draw_street_scene(71, 1.0, time_of_day="day", weather="fog").weather
    rig = small_rig(71, 0)
    counts = []
    for scene in (clear, replace(clear, weather=fog)):
        points, owner = Drive(scene, rig).single_sweep(TIME)
        high = points[:, 2] > -lidar_of(rig).to_vehicle[2, 3] + 1.0
        counts.append(int((high & (owner == SCENERY) & (np.linalg.norm(points[:, :3], axis=1) < 6)).sum()))
    assert counts[1] > counts[0] + 20


def test_a_raw_sweep_is_bent_by_the_vehicles_motion_and_a_compensated_one_is_not(moving: StreetScene) -> None:
    assert moving.ego.pace is not None
    rigs = [small_rig(2, 0, compensated=flag, period=0.1, dropout=0.0, noise=0.0) for flag in (True, False)]
    (good, _), (bent, _) = (Drive(moving, rig).single_sweep(TIME) for rig in rigs)
    assert len(good) == len(bent)
    shift = np.linalg.norm(good[:, :3] - bent[:, :3], axis=1)
    travelled = moving.ego.pace.distance(TIME) - moving.ego.pace.distance(TIME - 0.1)
    assert 0.8 * travelled < shift.max() < 1.05 * travelled and shift.min() < 0.1
    static = Drive(replace(moving, actors=()), rigs[0])
    parked = Drive(
        replace(moving, actors=(), ego=replace(moving.ego, pace=Pace(0.0), s=float(moving.ego.place(TIME)[0]))), rigs[0]
    )
    ground = [drive.single_sweep(TIME)[0] for drive in (static, parked)]
    heights = [points[np.hypot(points[:, 0], points[:, 1]) < 12, 2] for points in ground]
    assert abs(np.median(heights[0]) - np.median(heights[1])) < 0.05


def test_rolling_shutter_bends_pictures_of_a_moving_vehicle_only(moving: StreetScene) -> None:
    side = next(camera for camera in draw_rig(0, PICTURE).cameras if camera.name != "front")
    parked = replace(moving, ego=replace(moving.ego, pace=Pace(0.0)))
    for scene, same in ((parked, True), (moving, False)):
        drive = Drive(scene, Rig((), small_rig(1).lidar))
        owners = []
        for readout in (0.0, 0.03):
            camera = replace(side, readout=readout)
            owners.append(Drive(scene, Rig((camera,), drive.rig.lidar)).picture(camera, TIME).image)
        assert np.array_equal(*owners) is same


def test_night_is_dark_but_lamps_shine() -> None:
    pictures = {}
    for time_of_day in ("day", "night"):
        scene = draw_street_scene(14, 1.0, time_of_day=time_of_day, weather="clear")  # type: ignore[arg-type]
        drive = Drive(scene, small_rig(14))
        pictures[time_of_day] = drive.picture(drive.rig.cameras[0], TIME).image
    above = {name: float(np.median(picture[: PICTURE[1] // 3])) for name, picture in pictures.items()}
    assert above["night"] < 0.5 * above["day"] and pictures["night"].mean() < pictures["day"].mean()
    assert pictures["night"].max() > 230


def test_brake_lights_show_which_vehicles_slow_down() -> None:
    pace = Pace(8.0, 5.0, 0.6)
    times = np.linspace(0.0, 10.0, 101)
    speeds = (pace.distance(times + 0.01) - pace.distance(times - 0.01)) / 0.02
    slowing = np.gradient(speeds, times) < -0.5
    braking = np.array([pace.braking(float(time)) for time in times])
    assert 0.2 < braking.mean() < 0.8 and np.mean(slowing == braking) > 0.95
    assert Pace(0.0).braking(0.0) and not Pace(8.0).braking(3.0)
