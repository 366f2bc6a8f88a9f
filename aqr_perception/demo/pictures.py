"""A moment of a drive in pictures: what the node published, and the truth over it."""

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.demo.failures import Failure
from aqr_perception.demo.figures import counted, found
from aqr_perception.demo.played import PlayedDrive
from aqr_perception.demo.plots import pixels, timeline_figure
from aqr_perception.demo.recording import BEV, RING, Answer
from aqr_perception.demo.truth import TrueObjects
from aqr_perception.frame import WeightMaps
from aqr_perception.geometry import box_corners
from aqr_perception.visualization.bev_picture import bev_picture

FOUND_COLOUR, MISSED_COLOUR = (120, 230, 120), (235, 70, 235)
"""RGB of true objects: green where detected, magenta where not."""

_RED = (40, 40, 220)


def bird_view(
    answer: Answer, truth: TrueObjects | None, bev_range: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    """Return the published bird's-eye view (H, W, 3) BGR with the true objects that count over it.

    Without LiDAR the node publishes none; the detections are then drawn here, on black.
    """
    picture = answer.picture(BEV)
    if picture is None:
        picture = bev_picture(WeightMaps(None, bev_range, {}, "router"), None, answer.detections)
    if truth is None:
        return picture
    x_min, _, x_max, y_max = bev_range
    scale = picture.shape[1] / (x_max - x_min)
    counts, hit = counted(truth), found(answer.detections, truth)
    corners = box_corners(truth.boxes)[:, :4, :2]
    outlines = np.rint(np.stack(((corners[..., 0] - x_min) * scale, (y_max - corners[..., 1]) * scale), -1)).astype(int)
    for outline, was_found in zip(outlines[counts], hit[counts], strict=True):
        red, green, blue = FOUND_COLOUR if was_found else MISSED_COLOUR
        cv2.polylines(picture, [outline.astype(np.int32)], True, (blue, green, red), 1, cv2.LINE_AA)
    return picture


class Sheets:
    """Pictures of whole moments, for a film: cameras above, the bird's-eye view and the course of things below.

    Args:
        notice: written into every picture; empty: nothing.
    """

    size = (1280, 720)
    _tile = (426, 156)
    _top = 38

    def __init__(self, drive: PlayedDrive, notice: str = "") -> None:
        self._drive, self._notice = drive, notice
        self._answers = drive.answers_by_moment()
        self._below = self._top + 2 * (self._tile[1] + 1)
        self._edge = self.size[1] - self._below
        plots = timeline_figure(drive.course, drive.failures, drive.seconds, (9.0, 3.6))
        self._plots, self._ends = pixels(plots, self.size[0] - self._edge, self._edge)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Give the sheet (H, W, 3) BGR of every moment of the drive."""
        return map(self.draw, range(len(self._drive.truth.moments)))

    def draw(self, moment: int) -> NDArray[np.uint8]:
        """Return a moment's sheet; without an answer, places stay empty."""
        drive, answer = self._drive, self._answers.get(moment)
        truth = drive.truth.moments[moment]
        seconds = drive.truth.seconds(truth.stamp_ns if answer is None else answer.stamp_ns)
        sheet = np.full((self.size[1], self.size[0], 3), 24, np.uint8)
        states = drive.failing(seconds)
        for place, name in enumerate(RING):
            row, column = divmod(place, 3)
            left, top = column * (self._tile[0] + 1), self._top + row * (self._tile[1] + 1)
            self._draw_camera(sheet, left, top, name, answer, states)
        below, edge = self._below, self._edge
        if answer is not None:
            view = bird_view(answer, truth, drive.bev_range)
            sheet[below:, :edge] = cv2.resize(view, (edge, edge), interpolation=cv2.INTER_AREA)
        sheet[below:, edge:] = self._plots
        first, last = self._ends
        cursor = edge + round(first + (last - first) * seconds / drive.seconds)
        cv2.line(sheet, (cursor, below), (cursor, self.size[1]), (30, 30, 30), 1)
        title_colour = _RED if states else (230, 230, 230)
        _write(sheet, f"{seconds:4.1f} s   {drive.state(seconds)}", (12, 26), 0.7, title_colour)
        told = self._notice if answer is not None else "no answer to this frame"
        (width, _), _ = cv2.getTextSize(told, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
        _write(sheet, told, (self.size[0] - width - 12, 26), 0.6, _RED)
        return sheet

    def _draw_camera(
        self,
        sheet: NDArray[np.uint8],
        left: int,
        top: int,
        name: str,
        answer: Answer | None,
        states: Mapping[str, Failure],
    ) -> None:
        width, height = self._tile
        picture = None if answer is None else answer.picture(name)
        if picture is not None:
            scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            sheet[top : top + height, left : left + width] = scaled
        colour = (230, 230, 230)
        if name in states:
            colour = (80, 80, 255)
            cv2.rectangle(sheet, (left, top), (left + width - 1, top + height - 1), _RED, 2)
        _write(sheet, name, (left + 6, top + height - 8), 0.5, colour)


def _write(sheet: NDArray[np.uint8], words: str, at: tuple[int, int], scale: float, colour: Sequence[int]) -> None:
    for shade, shift in (((0, 0, 0), 1), (colour, 0)):
        cv2.putText(
            sheet, words, (at[0] + shift, at[1] + shift), cv2.FONT_HERSHEY_SIMPLEX, scale, shade, 1, cv2.LINE_AA
        )
