# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Report frames repeat the detector's numbers, and place windows where the weights are drawn."""

import numpy as np
import pytest

from aqr_perception.frame import CameraView, CameraWeightMap, DetectionQueries, Detections, Frame, Result, WeightMaps
from aqr_perception.report.report_frame import BEV, LIDAR
from aqr_perception.report.result_frame import report_frame

AHEAD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
VIEW = CameraView("front", np.zeros((50, 100, 3), np.uint8), np.array([[50.0, 0, 50], [0, 50, 25], [0, 0, 1]]), AHEAD)
POINTS = np.array([[20.0, 0, 0], [-20.0, 10, 0]], np.float32)


def result(queries: DetectionQueries | None, bev: bool = True) -> Result:
    boxes = np.array([[*point, 4, 2, 1.5, 0, 0, 0] for point in POINTS], np.float32)
    weights = np.array([0.25, 0.75], np.float32)
    found = Detections(boxes, np.array([0.9, 0.5], np.float32), np.array([0, 8]), weights, weights, weights[:, None])
    camera = CameraWeightMap(np.zeros((10, 20), np.float32), np.diag([0.2, 0.2, 1.0]))
    grid = np.zeros((128, 128), np.float32) if bev else None
    return Result(
        found, WeightMaps(grid, (-51.2, -51.2, 51.2, 51.2), {"front": camera}, "router"), {"image": 0.1}, queries
    )


def frame(points: bool = True) -> Frame:
    return Frame(7, np.zeros((3, 5), np.float32) if points else None, (VIEW,))


def test_numbers_windows_and_pictures_are_the_results() -> None:
    shares = np.array([[0.6, 0.4], [1.0, 0.0]], np.float32)
    made = report_frame(frame(), result(DetectionQueries(POINTS, shares)), sigma=2.0)
    first, second = made.detections
    assert (first.class_name, second.class_name) == ("car", "pedestrian") and first.camera_weights == {"front": 0.25}
    assert first.attention == pytest.approx({LIDAR: 0.6, "front": 0.4})
    assert first.windows["front"] == pytest.approx((0.5, 0.5, 2 * 5 / 100, 2 * 5 / 50))
    # A BEV cell is 0.8 m; ahead is right, and left is up.
    assert first.windows[BEV] == pytest.approx((71.2 / 102.4, 0.5, 1.6 / 102.4, 1.6 / 102.4))
    assert second.windows[BEV][:2] == pytest.approx((31.2 / 102.4, 41.2 / 102.4))
    assert "front" not in second.windows and "front" not in second.outlines, "it is behind the camera"
    assert set(made.pictures) == {"front", BEV} and made.latency == pytest.approx(100.0)
    lines = np.array(first.outlines["front"]).reshape(-1, 2)
    assert lines.min() > 0.3 and lines.max() < 0.7


def test_without_lidar_or_queries_nothing_is_made_up() -> None:
    made = report_frame(frame(points=False), result(DetectionQueries(POINTS), bev=False), with_pictures=False)
    assert [sensor.used for sensor in made.sensors] == [False, True] and not made.pictures
    assert all(BEV not in each.windows and not each.attention for each in made.detections)
    assert not any(each.windows for each in report_frame(frame(), result(None), with_pictures=False).detections)


def test_a_window_outside_the_maps_is_left_out() -> None:
    far = np.array([[60.0, 0, 0], [51.19, 0, 0]], np.float32)
    made = report_frame(frame(), result(DetectionQueries(far)), with_pictures=False)
    assert [BEV in each.windows for each in made.detections] == [False, True]
