# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Augmented frames stay consistent: images with calibration, points with boxes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aqr_perception.data.augmentation import (
    BevAugmentation,
    ImageAugmentation,
    PictureChange,
    PointAugmentation,
    change_pictures,
    move,
    picture_affine,
)
from aqr_perception.data.outlines import outline_shares
from aqr_perception.frame import CameraView, Frame, GroundTruth, LabelledFrame
from aqr_perception.geometry import box_corners, invert, project, rigid_transform, transform_points

WIDTH, HEIGHT = 80, 48
STEP = 3
"""Levels of grey between two neighbouring pixels of the ramp image."""
SEEDS = st.integers(0, 2**32 - 1)
# Looks along y of the model frame, as nuScenes' front camera does.
LOOK = np.array([[1.0, 0, 0, 0.1], [0, 0, -1, -0.3], [0, 1, 0, -0.4], [0, 0, 0, 1]])


def ramp() -> NDArray[np.uint8]:
    """Blue encodes the column, green the row; red is full inside and 0 in the outermost rows and columns.

    So pixels interpolated across the border, or averaged over a part of it, lack red.
    """
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    red = np.pad(np.full((HEIGHT - 2, WIDTH - 2), 255), 1)
    return np.stack((u * STEP, v * STEP, red), axis=-1).astype(np.uint8)


def scene(seed: int, boxes: int = 6) -> LabelledFrame:
    random = np.random.default_rng(seed)
    turned = rigid_transform([0, 0, 0], [0, 0, np.sin(0.8), np.cos(0.8)])
    views = tuple(
        CameraView(name, ramp(), np.array([[60.0, 0, 38], [0, 62, 25], [0, 0, 1]]), extrinsics, 0.01)
        for name, extrinsics in (("front", LOOK), ("side", LOOK @ turned))
    )
    centre, size = random.uniform(-20, 20, (boxes, 3)), random.uniform(0.5, 5, (boxes, 3))
    box = np.c_[centre, size, random.uniform(-np.pi, np.pi, boxes), random.normal(0, 5, (boxes, 2))]
    truth = GroundTruth(
        box.astype(np.float32),
        random.integers(0, 10, boxes),
        np.arange(boxes),
        random.integers(1, 9, boxes),
        random.uniform(0, 1, (boxes, 2)).astype(np.float32),
    )
    corners = box_corners(0.98 * box + [0.02, 0.02, 0.02, 0, 0, 0, 0.02, 0, 0] * box)  # same centres, smaller boxes
    points = np.c_[corners.reshape(-1, 3), random.uniform(0, 255, boxes * 8), random.uniform(0, 0.5, boxes * 8)]
    pose = rigid_transform([400.0, 900, 1], [0, 0, np.sin(0.3), np.cos(0.3)])
    return LabelledFrame(Frame(7, points.astype(np.float32), views, "lidar"), truth, pose)


def corner_pixels(labelled: LabelledFrame, view: CameraView) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners = box_corners(labelled.truth.boxes).reshape(-1, 3)
    return project(view.intrinsics, transform_points(view.extrinsics, corners))


def content(picture: NDArray[np.uint8], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (N, 3) colours at pixels whose four neighbours lie in the image; NaN at others."""
    x, y = (pixels - 0.5).T
    usable = (x >= 0) & (y >= 0) & (x < picture.shape[1] - 1) & (y < picture.shape[0] - 1)
    column, row = np.where(usable, x, 0).astype(int), np.where(usable, y, 0).astype(int)
    right, down = (np.where(usable, x, 0) - column)[:, None], (np.where(usable, y, 0) - row)[:, None]
    grey = picture.astype(np.float64)
    upper = grey[row, column] * (1 - right) + grey[row, column + 1] * right
    lower = grey[row + 1, column] * (1 - right) + grey[row + 1, column + 1] * right
    return np.where(usable[:, None], upper * (1 - down) + lower * down, np.nan)


picture_changes = st.builds(
    PictureChange,
    size=st.tuples(st.integers(24, 120), st.integers(16, 80)),
    zoom=st.floats(0.7, 1.8),
    crop=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    flip=st.booleans(),
    rotation=st.floats(-0.5, 0.5),
)


@st.composite
def motions(draw: st.DrawFn) -> NDArray[np.float64]:
    angle, scale = draw(st.floats(-np.pi, np.pi)), draw(st.floats(0.5, 2))
    motion = np.eye(4)
    motion[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    motion[:3, :3] *= scale
    motion[:3, 3] = draw(st.tuples(*[st.floats(-3, 3)] * 3))
    return np.diag([draw(st.sampled_from((-1.0, 1.0))), draw(st.sampled_from((-1.0, 1.0))), 1, 1]) @ motion


@settings(max_examples=25)
@given(SEEDS, picture_changes)
def test_corners_project_onto_their_old_pixels_moved_by_the_change(seed: int, change: PictureChange) -> None:
    before = scene(seed)
    after = change_pictures(before, change)
    affine = picture_affine((WIDTH, HEIGHT), change)
    for old, new in zip(before.frame.cameras, after.frame.cameras, strict=True):
        (pixels, depth), (moved, new_depth) = corner_pixels(before, old), corner_pixels(after, new)
        np.testing.assert_allclose(new_depth, depth, atol=1e-9)
        np.testing.assert_allclose(moved, pixels @ affine[:2, :2].T + affine[:2, 2], rtol=1e-6, atol=1e-6)


@settings(max_examples=25)
@given(SEEDS, picture_changes)
# Shrinks almost fivefold: the average of the outermost pixels lies half a pixel further in than their centres.
@example(0, PictureChange((24, 16), zoom=0.71875, crop=(0.0, 0.0), flip=False, rotation=-0.5))
def test_corners_project_onto_the_same_image_content(seed: int, change: PictureChange) -> None:
    before = scene(seed, boxes=30)
    after = change_pictures(before, change)
    for old, new in zip(before.frame.cameras, after.frame.cameras, strict=True):
        (pixels, depth), (moved, _) = corner_pixels(before, old), corner_pixels(after, new)
        expected, found = content(old.image, pixels), content(new.image, moved)
        # Where red is full, no border of the old image has a part. At the border, averages are one-sided: a reduced
        # image shows there, by up to half an old pixel, what lies further in, however exact its geometry is.
        comparable = (depth > 0.1) & (found[:, 2] > 254.99) & ~np.isnan(expected).any(axis=1)
        difference = np.abs(found[comparable, :2] - expected[comparable, :2])
        # Levels: the image is rounded twice, 0.5 each; 0.25 as averages of few pixels lie off their centre; and what
        # a warp with coordinates of fixed point, as OpenCV's was before version 5, adds.
        assert difference.max(initial=0) < 0.45 * STEP


def test_the_comparison_of_image_content_covers_most_of_the_image() -> None:
    change = PictureChange((70, 40), zoom=1.1, flip=True, rotation=0.2)
    after = change_pictures(scene(0), change).frame.cameras[0]
    u, v = np.meshgrid(np.arange(12.0, WIDTH - 12, 4), np.arange(14.0, HEIGHT - 8, 4))
    pixels = np.c_[u.ravel(), v.ravel()]
    affine = picture_affine((WIDTH, HEIGHT), change)
    found = content(after.image, pixels @ affine[:2, :2].T + affine[:2, 2])
    seen = ~np.isnan(found).any(axis=1)
    assert seen.mean() > 0.8
    np.testing.assert_allclose(found[seen, :2] / STEP + 0.5, pixels[seen], atol=0.45)


def test_a_change_of_nothing_returns_the_same_image() -> None:
    before = scene(1)
    after = change_pictures(before, PictureChange((WIDTH, HEIGHT)))
    for old, new in zip(before.frame.cameras, after.frame.cameras, strict=True):
        assert np.array_equal(new.image, old.image)
        assert np.array_equal(new.intrinsics, old.intrinsics)
    seen = outline_shares(before.truth.boxes, before.frame.cameras) > 0
    assert np.array_equal(after.truth.visibility, np.where(seen, before.truth.visibility, 0))


def test_two_flips_restore_the_image() -> None:
    flip = PictureChange((WIDTH, HEIGHT), flip=True)
    before = scene(2)
    once = change_pictures(before, flip).frame.cameras[0]
    twice = change_pictures(change_pictures(before, flip), flip).frame.cameras[0]
    assert np.array_equal(once.image, before.frame.cameras[0].image[:, ::-1])
    assert np.array_equal(twice.image, before.frame.cameras[0].image)
    np.testing.assert_allclose(twice.intrinsics, before.frame.cameras[0].intrinsics)


def test_a_positive_rotation_turns_the_image_counter_clockwise() -> None:
    affine = picture_affine((WIDTH, HEIGHT), PictureChange((WIDTH, HEIGHT), rotation=0.3))
    right_of_centre = affine @ [WIDTH / 2 + 10, HEIGHT / 2, 1]
    assert right_of_centre[1] < HEIGHT / 2  # up, in pixels


@settings(max_examples=25)
@given(SEEDS, picture_changes)
def test_a_crop_never_makes_an_object_more_visible(seed: int, change: PictureChange) -> None:
    before = scene(seed)
    after = change_pictures(before, change)
    assert (after.truth.visibility <= before.truth.visibility).all()
    assert (after.truth.visibility >= 0).all()
    assert after.truth.visibility.dtype == np.float32


def test_an_object_that_is_cropped_away_is_not_visible() -> None:
    box = np.array([[-5.0, 10, 0, 1, 1, 1, 0, 0, 0]], np.float32)  # left of the middle
    before = scene(0, boxes=1)
    before = replace(before, truth=replace(before.truth, boxes=box, visibility=np.ones((1, 2), np.float32)))
    right = PictureChange((WIDTH // 2, HEIGHT), zoom=2.0, crop=(1.0, 0.0))
    left = replace(right, crop=(0.0, 0.0))
    assert change_pictures(before, right).truth.visibility[0, 0] == 0.0
    assert change_pictures(before, left).truth.visibility[0, 0] == pytest.approx(1.0)


@settings(max_examples=25)
@given(SEEDS, motions())
def test_moved_boxes_and_points_project_to_the_same_place(seed: int, motion: NDArray[np.float64]) -> None:
    before = scene(seed)
    after = move(before, motion)
    assert before.frame.points is not None and after.frame.points is not None
    for old, new in zip(before.frame.cameras, after.frame.cameras, strict=True):
        for source, moved in (
            (before.frame.points, after.frame.points),
            (before.truth.boxes, after.truth.boxes),
        ):
            in_old, in_new = transform_points(old.extrinsics, source), transform_points(new.extrinsics, moved)
            np.testing.assert_allclose(in_new, in_old, atol=1e-4)


@settings(max_examples=25)
@given(SEEDS, motions())
def test_corners_of_moved_boxes_are_the_moved_corners(seed: int, motion: NDArray[np.float64]) -> None:
    before = scene(seed)
    after = move(before, motion)
    expected = transform_points(motion, box_corners(before.truth.boxes).reshape(-1, 3)).reshape(-1, 8, 3)
    found = box_corners(after.truth.boxes)
    if np.linalg.det(motion[:2, :2]) < 0:
        found = found[:, [3, 2, 1, 0, 7, 6, 5, 4]]  # mirrored: left and right of a box change places
    np.testing.assert_allclose(found, expected, atol=1e-4)


@settings(max_examples=25)
@given(SEEDS, motions())
def test_points_inside_a_box_stay_inside(seed: int, motion: NDArray[np.float64]) -> None:
    after = move(scene(seed), motion)
    assert after.frame.points is not None
    points = after.frame.points[:, :3].reshape(len(after.truth), 8, 3)
    for box, inside in zip(after.truth.boxes.astype(np.float64), points, strict=True):
        pose = rigid_transform(box[:3], [0, 0, np.sin(box[6] / 2), np.cos(box[6] / 2)])
        local = transform_points(invert(pose), inside)
        assert (np.abs(local) <= box[3:6] / 2 + 1e-4).all()


@settings(max_examples=25)
@given(SEEDS, motions())
def test_velocity_follows_the_object(seed: int, motion: NDArray[np.float64]) -> None:
    before = scene(seed)
    second = 1.0
    later = before.truth.boxes.copy()
    later[:, :2] += later[:, 7:9] * second
    moved_now = move(before, motion).truth.boxes
    moved_later = move(replace(before, truth=replace(before.truth, boxes=later)), motion).truth.boxes
    np.testing.assert_allclose(moved_later[:, :2] - moved_now[:, :2], moved_now[:, 7:9] * second, atol=1e-4)


@settings(max_examples=25)
@given(SEEDS, motions())
def test_a_motion_keeps_world_positions(seed: int, motion: NDArray[np.float64]) -> None:
    before = scene(seed)
    after = move(before, motion)
    in_world = [transform_points(labelled.model_to_world, labelled.truth.boxes) for labelled in (before, after)]
    np.testing.assert_allclose(in_world[1], in_world[0], atol=1e-4)


@settings(max_examples=25)
@given(SEEDS, motions())
def test_a_motion_and_its_inverse_restore_the_frame(seed: int, motion: NDArray[np.float64]) -> None:
    before = scene(seed)
    after = move(move(before, motion), np.linalg.inv(motion))
    np.testing.assert_allclose(after.frame.points, before.frame.points, atol=1e-4)
    turn = np.r_[6]
    np.testing.assert_allclose(np.delete(after.truth.boxes, turn, 1), np.delete(before.truth.boxes, turn, 1), atol=1e-4)
    np.testing.assert_allclose(np.cos(after.truth.boxes[:, 6] - before.truth.boxes[:, 6]), 1, atol=1e-6)
    np.testing.assert_allclose(after.model_to_world, before.model_to_world, atol=1e-6)


def test_a_motion_keeps_intensities_labels_stamps_and_images() -> None:
    before = scene(3)
    after = BevAugmentation()(before, np.random.default_rng(0))
    assert before.frame.points is not None and after.frame.points is not None
    assert np.array_equal(after.frame.points[:, 3:], before.frame.points[:, 3:])
    for name in ("labels", "tracks", "lidar_points", "visibility"):
        assert np.array_equal(getattr(after.truth, name), getattr(before.truth, name))
    assert (after.frame.stamp_ns, after.frame.frame_id) == (before.frame.stamp_ns, before.frame.frame_id)
    for old, new in zip(before.frame.cameras, after.frame.cameras, strict=True):
        assert new.image is old.image
        assert (new.name, new.age) == (old.name, old.age)


def test_unknown_velocities_stay_unknown_and_missing_sensors_missing() -> None:
    before = scene(4)
    boxes = before.truth.boxes.copy()
    boxes[0, 7:9] = np.nan
    blind = replace(before, frame=Frame(0, None), truth=replace(before.truth, boxes=boxes))
    after = BevAugmentation()(blind, np.random.default_rng(1))
    assert after.frame.points is None and after.frame.cameras == ()
    assert np.isnan(after.truth.boxes[0, 7:9]).all()
    assert np.isfinite(after.truth.boxes[1:]).all()


@settings(max_examples=25)
@given(SEEDS)
def test_the_same_seed_gives_the_same_augmentation(seed: int) -> None:
    image, bev = ImageAugmentation((40, 24), rotation=(-0.1, 0.1)), BevAugmentation()
    first, second = (
        bev(image(scene(0), random), random) for random in (np.random.default_rng(seed), np.random.default_rng(seed))
    )
    for one, other in zip(first.frame.cameras, second.frame.cameras, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.extrinsics, other.extrinsics)
    assert np.array_equal(first.frame.points, second.frame.points)


def test_random_draws_stay_in_their_ranges() -> None:
    random = np.random.default_rng(0)
    bev = BevAugmentation(rotation=(0.2, 0.4), scale=(0.9, 1.1), shift=0.0, flip_x=0.0, flip_y=0.0)
    before = scene(0)
    for _ in range(30):
        motion = np.linalg.inv(bev(before, random).model_to_world) @ before.model_to_world
        assert 0.2 <= np.arctan2(motion[1, 0], motion[0, 0]) <= 0.4
        assert 0.9 <= np.linalg.norm(motion[:3, 0]) <= 1.1
    image = ImageAugmentation((WIDTH // 2, 20), zoom=(1.0, 1.2), flip=1.0)
    for _ in range(30):
        view = image(before, random).frame.cameras[0]
        assert view.image.shape == (20, WIDTH // 2, 3)
        assert -36.5 <= view.intrinsics[0, 0] <= -29.5


def test_without_a_random_bottom_the_lowest_rows_are_kept() -> None:
    after = ImageAugmentation((WIDTH, 20), zoom=(1.0, 1.0), flip=0.0)(scene(0), np.random.default_rng(0))
    assert np.array_equal(after.frame.cameras[0].image, ramp()[-20:])


def box_of_points(intensity: float) -> LabelledFrame:
    """Return a frame with two boxes of 500 points each and 1,000 points elsewhere."""
    random = np.random.default_rng(2)
    boxes = np.array([[10, 0, 0, 4, 2, 2, 0, 0, 0], [-10, 0, 0, 4, 2, 2, 0, 0, 0]], np.float32)
    inside = [random.uniform(-1, 1, (500, 3)) * 0.9 * box[3:6] / 2 + box[:3] for box in boxes]
    places = np.concatenate([*inside, random.uniform(20, 40, (1000, 3))])
    points = np.c_[places, np.full(2000, intensity), np.zeros(2000)].astype(np.float32)
    truth = GroundTruth(boxes, np.zeros(2, np.int64), np.arange(2), np.array([500, 500]), np.zeros((2, 0), np.float32))
    return LabelledFrame(Frame(0, points, (), "lidar"), truth, np.eye(4))


@given(st.integers(0, 2**32 - 1))
def test_varied_points_are_some_of_the_frames_with_their_counts(seed: int) -> None:
    labelled = box_of_points(40.0)
    varied = PointAugmentation()(labelled, np.random.default_rng(seed))
    before, after = labelled.frame.points, varied.frame.points
    assert before is not None and after is not None
    share = len(after) / len(before)
    assert 0.35 < share <= 1.0
    of_places = {tuple(place) for place in before[:, :3]}
    assert all(tuple(place) in of_places for place in after[:, :3])
    for index, x in enumerate((10, -10)):
        assert varied.truth.lidar_points[index] == (np.abs(after[:, 0] - x) < 3).sum()
    assert after[:, 3].min() >= 0 and after[:, 3].max() <= 255
    assert np.array_equal(before, box_of_points(40.0).frame.points)


def test_each_object_has_a_brightness_of_its_own() -> None:
    random, ratios = np.random.default_rng(0), []
    for _ in range(200):
        points = PointAugmentation(kept=(1.0, 1.0), noise=0.0)(box_of_points(40.0), random).frame.points
        assert points is not None
        by_object = [points[np.abs(points[:, 0] - x) < 3, 3] for x in (10, -10)]
        assert all(np.ptp(one) == 0 for one in by_object)
        assert (points[points[:, 0] >= 20, 3] == 40).all()
        ratios.append(np.log(by_object[0][0] / by_object[1][0]))
    assert 0.8 < np.std(ratios) < 1.2  # the root of two times 0.7


def test_without_lidar_points_do_not_vary() -> None:
    labelled = replace(box_of_points(1.0), frame=Frame(0, None, (), "lidar"))
    assert PointAugmentation()(labelled, np.random.default_rng(0)) is labelled
