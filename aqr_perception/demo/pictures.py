# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a drive: the published BEV with the ground truth, and the frames of the film."""

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.demo.drive_metrics import detected_objects, evaluated_objects
from aqr_perception.demo.failures import Failure
from aqr_perception.demo.plots import pixels, timeline_figure
from aqr_perception.demo.recorded_drive import RecordedDrive
from aqr_perception.demo.recording import BEV, CAMERA_GRID, FrameRecord
from aqr_perception.demo.truth import TrueObjects
from aqr_perception.frame import WeightMaps
from aqr_perception.geometry import box_corners
from aqr_perception.visualization.bev_picture import bev_picture

DETECTED_COLOUR, MISSED_COLOUR = (120, 230, 120), (235, 70, 235)
"""RGB of true objects: green if detected, magenta if not."""

_RED, _LIGHT_RED, _WHITE, _BACKGROUND = (40, 40, 220), (80, 80, 255), (230, 230, 230), (24, 24, 24)


def bev_with_truth(
    frame: FrameRecord, truth: TrueObjects, bev_range: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    """Return the published BEV, (H, W, 3) BGR, with the evaluated true objects.

    Without LiDAR, the node publishes no BEV, and the detections are drawn on black.
    """
    picture = frame.picture(BEV)
    if picture is None:
        picture = bev_picture(WeightMaps(None, bev_range, {}, "router"), None, frame.detections)
    x_min, _, x_max, y_max = bev_range
    scale = picture.shape[1] / (x_max - x_min)
    corners = box_corners(truth.boxes)[:, :4, :2]
    outlines = np.rint((corners - (x_min, y_max)) * (scale, -scale)).astype(np.int32)
    evaluated, detected = evaluated_objects(truth), detected_objects(frame.detections, truth)
    for outline, is_detected in zip(outlines[evaluated], detected[evaluated], strict=True):
        red, green, blue = DETECTED_COLOUR if is_detected else MISSED_COLOUR
        cv2.polylines(picture, [outline], True, (blue, green, red), 1, cv2.LINE_AA)
    return picture


class FilmFrames:
    """The frames of the film: cameras at the top, the BEV and the plots below.

    Args:
        notice: text in every frame; empty: none.
    """

    size = (1280, 720)
    _tile = (426, 156)
    _top = 38

    def __init__(self, drive: RecordedDrive, notice: str = "") -> None:
        self._drive, self._notice = drive, notice
        self._frames = drive.frames_by_sweep()
        self._below = self._top + 2 * (self._tile[1] + 1)
        self._bev_size = self.size[1] - self._below
        plots = timeline_figure(drive.timeline, drive.failures, drive.seconds, (9.0, 3.6))
        self._plots, self._time_axis = pixels(plots, self.size[0] - self._bev_size, self._bev_size)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield one film frame, (H, W, 3) BGR, for each sweep of the drive."""
        return map(self.draw, range(len(self._drive.truth.sweeps)))

    def draw(self, index: int) -> NDArray[np.uint8]:
        """Return the film frame of a sweep; missing pictures stay empty."""
        frame, truth = self._frames.get(index), self._drive.truth.sweeps[index]
        seconds = self._drive.truth.seconds(truth.stamp_ns if frame is None else frame.stamp_ns)
        canvas = np.full((self.size[1], self.size[0], 3), _BACKGROUND, np.uint8)
        self._draw_title(canvas, frame, seconds)
        self._draw_cameras(canvas, frame, self._drive.active_failures(seconds))
        if frame is not None:
            view = bev_with_truth(frame, truth, self._drive.bev_range)
            edge = self._bev_size
            canvas[self._below :, :edge] = cv2.resize(view, (edge, edge), interpolation=cv2.INTER_AREA)
        self._draw_plots(canvas, seconds)
        return canvas

    def _draw_title(self, canvas: NDArray[np.uint8], frame: FrameRecord | None, seconds: float) -> None:
        colour = _RED if self._drive.active_failures(seconds) else _WHITE
        _write(canvas, f"{seconds:4.1f} s   {self._drive.sensor_state(seconds)}", (12, 26), 0.7, colour)
        notice = self._notice if frame is not None else "no detections for this sweep"
        (width, _), _ = cv2.getTextSize(notice, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
        _write(canvas, notice, (self.size[0] - width - 12, 26), 0.6, _RED)

    def _draw_cameras(
        self, canvas: NDArray[np.uint8], frame: FrameRecord | None, failures: Mapping[str, Failure]
    ) -> None:
        width, height = self._tile
        for place, name in enumerate(CAMERA_GRID):
            row, column = divmod(place, 3)
            left, top = column * (width + 1), self._top + row * (height + 1)
            tile = canvas[top : top + height, left : left + width]
            picture = None if frame is None else frame.picture(name)
            if picture is not None:
                tile[:] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            if name in failures:
                cv2.rectangle(canvas, (left, top), (left + width - 1, top + height - 1), _RED, 2)
            _write(canvas, name, (left + 6, top + height - 8), 0.5, _LIGHT_RED if name in failures else _WHITE)

    def _draw_plots(self, canvas: NDArray[np.uint8], seconds: float) -> None:
        """Draw the plots, with a line at the current time."""
        canvas[self._below :, self._bev_size :] = self._plots
        first, last = self._time_axis
        column = self._bev_size + round(first + (last - first) * seconds / self._drive.seconds)
        cv2.line(canvas, (column, self._below), (column, self.size[1]), (30, 30, 30), 1)


def _write(canvas: NDArray[np.uint8], text: str, at: tuple[int, int], scale: float, colour: Sequence[int]) -> None:
    """Write text with a black shadow."""
    x, y = at
    for shade, offset in (((0, 0, 0), 1), (colour, 0)):
        cv2.putText(canvas, text, (x + offset, y + offset), cv2.FONT_HERSHEY_SIMPLEX, scale, shade, 1, cv2.LINE_AA)
