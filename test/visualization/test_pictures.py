# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pictures show weights, points and boxes at their projected positions."""

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aqr_perception.frame import CLASSES, CameraView, CameraWeightMap, Detections, WeightMaps
from aqr_perception.geometry import box_corners, project, transform_points
from aqr_perception.visualization.bev_picture import POINT_COLOUR, bev_picture
from aqr_perception.visualization.camera_picture import camera_picture
from aqr_perception.visualization.colours import CAMERA_COLOUR, LIDAR_COLOUR, heat_colours, modality_colour
from aqr_perception.visualization.picture_options import Caption, PictureOptions

RANGE = (-50.0, -50.0, 50.0, 50.0)


def detections(boxes: np.ndarray, lidar: float = 1.0, camera: float = 0.0) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=np.asarray(boxes, np.float32).reshape(count, 9),
        scores=np.full(count, 0.5, np.float32),
        labels=np.zeros(count, np.int64),
        lidar_weight=np.full(count, lidar, np.float32),
        camera_weight=np.full(count, camera, np.float32),
        camera_weights=np.zeros((count, 0), np.float32),
    )


def looking_along_y() -> CameraView:
    extrinsics = np.eye(4)
    extrinsics[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    intrinsics = np.array([[300.0, 0, 200], [0, 300, 100], [0, 0, 1]])
    return CameraView("front", np.zeros((200, 400, 3), np.uint8), intrinsics, extrinsics)


NOTHING = np.zeros((0, 9))


def test_heat_colours_increase_in_brightness_and_saturate_at_the_limit() -> None:
    ramp = heat_colours(np.linspace(0, 1, 20, dtype=np.float32)).astype(int).sum(axis=-1)
    assert (np.diff(ramp) > 0).all() and ramp[0] > 200, "weight 0 is brighter than the ground, where nothing is"
    np.testing.assert_array_equal(heat_colours(np.float32([[70.0]])), heat_colours(np.float32([[1.0]])))


def test_the_supporting_modality_determines_the_colour() -> None:
    assert modality_colour(0.9, 0.0) == LIDAR_COLOUR and modality_colour(0.0, 0.2) == CAMERA_COLOUR
    assert modality_colour(0.0, 0.0) == (128, 128, 128)
    assert modality_colour(0.5, 0.5) == modality_colour(0.1, 0.1) == (235, 235, 235), "both alike is white, not grey"
    (red, _, blue), (camera_red, _, camera_blue) = modality_colour(0.6, 0.3), modality_colour(0.3, 0.6)
    assert red > blue and camera_blue > camera_red


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_suppressed_sensor_counts_as_one_without_weight(lidar: float, camera: float) -> None:
    colour = modality_colour(lidar, camera)
    assert colour == modality_colour(max(lidar, 0.0), max(camera, 0.0))
    assert all(0 <= level <= 255 for level in colour)
    if lidar <= 0 or camera <= 0:
        alone = LIDAR_COLOUR if lidar > 0 else CAMERA_COLOUR if camera > 0 else (128, 128, 128)
        assert colour == alone


def test_a_weight_that_is_not_a_number_gives_grey() -> None:
    assert modality_colour(np.nan, 0.5) == modality_colour(0.5, np.nan) == (128, 128, 128)


def hues(picture: np.ndarray) -> np.ndarray:
    """Return where a picture is bluish (-1), reddish (1) or neither (0)."""
    return np.sign(picture[..., 2].astype(int) - picture[..., 0])


@pytest.mark.parametrize("weight", [-1.5, -0.4, 0.4, 1.5])
def test_the_sign_of_a_weight_decides_the_hue_of_its_cell_in_both_pictures(weight: float) -> None:
    values = np.zeros((10, 20), np.float32)
    values[4, 6:9] = weight
    ground = bev_picture(WeightMaps(values, RANGE, {}, "router", True), None, detections(NOTHING), size=400)
    assert hues(ground)[400 - 180, 150] == np.sign(weight)
    weights = CameraWeightMap(values, np.diag([20 / 400, 10 / 200, 1.0]))
    view = looking_along_y()
    grey = dataclasses.replace(view, image=np.full_like(view.image, 128))
    picture = camera_picture(grey, weights, detections(NOTHING), signed=True)
    assert hues(picture)[90, 150] == np.sign(weight)
    np.testing.assert_array_equal(picture[:60], 128, "where the weight is neutral, the image is unchanged")


@pytest.mark.parametrize(("weight", "signed"), [(60.0, False), (60.0, True), (-60.0, True)])
def test_weights_beyond_the_limit_look_like_the_limit(weight: float, signed: bool) -> None:
    view = looking_along_y()
    grey = dataclasses.replace(view, image=np.full_like(view.image, 128))
    beyond, limit = (
        camera_picture(
            grey,
            CameraWeightMap(np.full((10, 20), value, np.float32), np.diag([20 / 400, 10 / 200, 1.0])),
            detections(NOTHING),
            signed,
        )[20:180, 20:380]
        for value in (weight, np.copysign(1.5, weight))
    )
    np.testing.assert_array_equal(beyond, limit)


def test_opposite_weights_tint_a_camera_image_alike() -> None:
    view = looking_along_y()
    grey = dataclasses.replace(view, image=np.full_like(view.image, 128))
    changes = []
    for weight in (-1.0, 1.0):
        weights = CameraWeightMap(np.full((10, 20), weight, np.float32), np.diag([20 / 400, 10 / 200, 1.0]))
        picture = camera_picture(grey, weights, detections(NOTHING), signed=True)
        changes.append(float(np.linalg.norm(picture[90, 100].astype(int) - 128)))
    assert min(changes) > 20 and abs(changes[0] - changes[1]) < 15


def test_a_published_map_has_the_colours_of_its_weights() -> None:
    values = np.zeros((10, 20), np.float32)
    values[:5] = np.linspace(0.4, 1.0, 20)
    values[5:, 10:] = 0.9
    maps = WeightMaps(values, RANGE, {}, "router")
    picture = bev_picture(maps, None, detections(NOTHING), size=400, options=PictureOptions(by_score=False))
    for row, column in ((300, 30), (230, 330), (130, 330)):
        weight = values[round(9.5 - row / 40), round(column / 20 - 0.5)]
        expected = heat_colours(np.float32([weight]))[0].astype(int)
        assert np.abs(picture[row, column] - expected).max() <= 12, "between two cells, weights are interpolated"
    assert not picture[130, 100].any(), "the ground without evidence is black"


def test_a_signed_picture_has_a_legend_and_box_labels_leave_it_free() -> None:
    view = looking_along_y()
    weights = CameraWeightMap(np.zeros((10, 20), np.float32), np.diag([20 / 400, 10 / 200, 1.0]))
    without_boxes = camera_picture(view, weights, detections(NOTHING), signed=True)
    assert not camera_picture(view, None, detections(NOTHING), signed=True).any(), "no map, no legend"
    rows, columns = without_boxes.any(axis=-1).nonzero()
    assert rows.min() > 100 and columns.min() > 100
    label_on_legend = detections(np.array([[x, 10, z, 0.5, 0.5, 0.5, 0, 0, 0] for x, z in ((2.5, -2.5), (-3, 2))]))
    with_boxes = camera_picture(view, weights, label_on_legend, signed=True)
    legend = (slice(rows.min(), rows.max()), slice(columns.min(), columns.max()))
    orange = np.abs(with_boxes[legend].astype(int) - LIDAR_COLOUR[::-1]).sum(axis=-1) < 5
    assert (with_boxes != without_boxes).any() and orange.mean() < 0.01


def test_the_ground_has_a_legend_if_it_has_a_map_or_a_caption() -> None:
    values = np.zeros((20, 20), np.float32)
    plain, signed, missing = (
        bev_picture(WeightMaps(bev, RANGE, {}, "router", flag), None, detections(NOTHING), size=400)
        for bev, flag in ((values, False), (values, True), (None, True))
    )
    corner = (slice(-30, None), slice(-150, None))  # no ring of the ground gets there
    np.testing.assert_array_equal(missing[corner], 0)
    assert plain[corner].max() > 150 and signed[corner].max() > 150
    assert set(np.unique(hues(signed)[250:])) == {-1, 0, 1}
    empty = WeightMaps(None, RANGE, {}, "router")
    captioned = bev_picture(empty, None, detections(NOTHING), 400, caption=Caption(5, ("lidar",)))
    assert captioned[corner].max() > 150 and captioned[:40, :100].max() > 200


@given(st.floats(-45, 45), st.floats(-45, 45))
@example(4.0, 11.0)
@settings(max_examples=25, deadline=None)
def test_a_weight_and_a_point_are_drawn_at_their_position_in_the_bev_picture(x: float, y: float) -> None:
    bev = np.zeros((100, 100), np.float32)
    bev[int(y + 50), int(x + 50)] = 1.5
    picture = bev_picture(WeightMaps(bev, RANGE, {}, "router"), None, detections(NOTHING), size=200)
    row, column = 200 - int(y + 50) * 2 - 1, int(x + 50) * 2 + 1
    place = slice(row - 1, row + 1), slice(column - 1, column + 1)
    without = bev_picture(WeightMaps(np.zeros_like(bev), RANGE, {}, "router"), None, detections(NOTHING), size=200)
    if without[place].max() == without[place].min():  # rings and their numbers are drawn over weights
        assert picture[place].sum() > 500
    empty = WeightMaps(None, RANGE, {}, "router")
    bare = bev_picture(empty, None, detections(NOTHING), size=200)
    dotted = bev_picture(empty, np.float32([[x, y]]), detections(NOTHING), size=200)
    pixels = (dotted != bare).any(axis=-1).nonzero()
    assert len(pixels[0]) in (0, 1)  # rings are drawn over points
    if len(pixels[0]):
        assert abs(pixels[1][0] - (x + 50) * 2) <= 1 and abs(pixels[0][0] - (50 - y) * 2) <= 1


@given(
    st.floats(-49.9, 49.9),
    st.floats(-49.9, 49.9),
    st.sampled_from([(-50.0, -50.0, 30.0, 40.0), (-60.0, -50.0, 62.0, 70.0)]),
)
@settings(max_examples=25, deadline=None)
def test_a_picture_shows_the_whole_scene_with_the_map_in_its_place(
    x: float, y: float, bev_range: tuple[float, float, float, float]
) -> None:
    x_min, y_min, x_max, y_max = bev_range
    assume(x < -10 or y > 5)  # elsewhere, the legend may cover it
    even = np.full((int(y_max - y_min) // 2, int(x_max - x_min) // 2), 0.3, np.float32)
    maps = WeightMaps(even, bev_range, {}, "router", scene_range=RANGE)
    picture = bev_picture(maps, None, detections(NOTHING), size=400)
    assert picture.shape == (400, 400, 3)
    assert (not picture[2, -3].any()) == (x_max < 50), "without a map, the ground is black"
    if x < x_max and y < y_max:
        peak = even.copy()
        peak[int(y - y_min) // 2, int(x - x_min) // 2] = 1.5
        with_peak = bev_picture(dataclasses.replace(maps, bev=peak), None, detections(NOTHING), size=400)
        change = np.abs(with_peak.astype(int) - picture).sum(axis=-1)
        row, column = np.unravel_index(change.argmax(), change.shape)
        found = ((column + 0.5) / 4 - 50, 50 - (row + 0.5) / 4)
        assert np.abs(np.subtract(found, (x, y))).max() <= 2.0 + 0.25, "a cell is 2 m, a pixel 0.25 m"
    beyond = bev_picture(maps, np.float32([[45.0, 45.0]]), detections(NOTHING), size=400)
    assert (beyond[20, 380] == POINT_COLOUR).all(), "points outside the map are shown"


def test_a_box_is_drawn_around_its_object_in_the_bev_picture() -> None:
    box = np.array([[20.0, 10.0, 0, 10, 4, 2, 0.0, 0, 0]])
    empty = WeightMaps(None, RANGE, {}, "router")
    changed = (
        bev_picture(empty, None, detections(box), 400) != bev_picture(empty, None, detections(NOTHING), 400)
    ).any(axis=-1)
    rows, columns = changed.nonzero()
    assert abs(columns.min() - 4 * 65) <= 4 and abs(columns.max() - 4 * 75) <= 4
    assert abs(rows.min() - 4 * 38) <= 4 and abs(rows.max() - 4 * 42) <= 4


@given(st.floats(-4, 4), st.floats(6, 40), st.floats(-1, 1), st.floats(-3.1, 3.1))
@settings(max_examples=25, deadline=None)
def test_a_box_is_drawn_at_its_projected_corners(x: float, y: float, z: float, yaw: float) -> None:
    view, box = looking_along_y(), np.array([[x, y, z, 3.0, 1.5, 1.5, yaw, 0, 0]])
    drawn = camera_picture(view, None, detections(box)).any(axis=-1)
    pixels, depths = project(view.intrinsics, transform_points(view.extrinsics, box_corners(box)[0]))
    for (u, v), depth in zip(pixels, depths, strict=True):
        if depth > 1 and 3 < u < 396 and 3 < v < 196:
            assert drawn[int(v) - 2 : int(v) + 3, int(u) - 2 : int(u) + 3].any()


@given(arrays(np.float64, (2, 7), elements=st.floats(-20, 20)))
@settings(max_examples=40, deadline=None)
def test_boxes_at_any_position_can_be_drawn(boxes: np.ndarray) -> None:
    boxes = np.c_[boxes, np.zeros((2, 2))]
    boxes[:, 3:6] = np.abs(boxes[:, 3:6]) + 0.1
    assert camera_picture(looking_along_y(), None, detections(boxes)).shape == (200, 400, 3)


def test_boxes_behind_the_camera_draw_nothing() -> None:
    behind = np.array([[0.0, -10.0, 0, 2, 2, 2, 0, 0, 0]])
    assert not camera_picture(looking_along_y(), None, detections(behind)).any()


@pytest.mark.parametrize("cell", [(0, 0), (4, 9), (9, 19)])
def test_heat_is_drawn_on_the_pixels_of_its_cell(cell: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aqr_perception.visualization.camera_picture.draw_legend", lambda *_: None)
    values = np.zeros((10, 20), np.float32)
    values[cell] = 1.5
    weights = CameraWeightMap(values, np.diag([20 / 400, 10 / 200, 1.0]))
    heat = camera_picture(looking_along_y(), weights, detections(NOTHING)).sum(axis=-1)
    rows, columns = (heat > heat.max() * 0.6).nonzero()
    assert abs(rows.mean() - (cell[0] + 0.5) * 20) < 4 and abs(columns.mean() - (cell[1] + 0.5) * 20) < 4


def test_labels_in_a_picture_have_the_models_class_names() -> None:
    box = detections(np.array([[0, 10, 0, 2, 2, 2, 0, 0, 0]]))
    pictures = [
        camera_picture(looking_along_y(), None, dataclasses.replace(box, classes=classes))
        for classes in (CLASSES, ("car",), ("forklift",))
    ]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


LINES = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7), (0, 7), (3, 4)]


def drawn_line_by_line(view: CameraView, boxes: np.ndarray) -> np.ndarray:
    """Draw the lines of boxes one after the other, from the definition of a pinhole camera."""
    picture, near = view.image.copy(), 0.3
    for box in boxes:
        corners = transform_points(view.extrinsics, box_corners(box[None])[0])
        for one, other in LINES:
            low, high = sorted((corners[one], corners[other]), key=lambda corner: corner[2])
            if high[2] < near:
                continue
            start, end = corners[one], corners[other]
            if low[2] < near:
                start, end = high, high + (low - high) * (high[2] - near) / (high[2] - low[2])
            pixels = [view.intrinsics @ point for point in (start, end)]
            ends = [(pixel[:2] / pixel[2]).clip(-1e6, 1e6).round().astype(int).tolist() for pixel in pixels]
            inside, *clipped = cv2.clipLine((0, 0, picture.shape[1], picture.shape[0]), *ends)
            if inside:
                cv2.line(picture, *clipped, LIDAR_COLOUR[::-1], 1, cv2.LINE_AA)
    return picture


@pytest.mark.parametrize("seed", range(12))
def test_boxes_around_the_camera_are_drawn_as_each_line_alone(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aqr_perception.visualization.camera_picture._label", lambda *_: None)
    random = np.random.default_rng(seed)
    boxes = random.uniform(-12, 12, (12, 9)) * [1, 1, 0.2, 0, 0, 0, 1, 0, 0]  # many surround or pass the camera
    boxes[:, 3:6] = random.uniform(0.1, 6, (12, 3))
    found = detections(boxes)
    picture = camera_picture(looking_along_y(), None, found)
    np.testing.assert_array_equal(picture, drawn_line_by_line(looking_along_y(), found.boxes))
    assert picture.any()


@pytest.mark.parametrize("signed", [False, True])
def test_one_value_has_the_colour_that_it_has_in_a_map(signed: bool) -> None:
    np.testing.assert_array_equal(heat_colours(np.float32(0.7), signed), heat_colours(np.float32([0.7]), signed)[0])
