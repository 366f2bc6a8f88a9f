# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Comparison of the model frame with the one that the model was trained in: height above the ground and axes."""

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.ground import ground_height
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.frame import Frame, FramePlacement

_SWEEPS = 3
"""Sweeps with clear ground from which the height is taken."""
_TRIALS = 20
"""Sweeps after which the search for clear ground pauses."""
_PAUSE_NS, _LONG_PAUSE_NS = 5_000_000_000, 60_000_000_000
"""Time between two searches, with and without a doubt: the model frame's transform may be corrected at run time."""
_MOST_POINTS = 60_000
HEIGHT_TOLERANCE = 0.4
"""Largest difference in metres of a model frame's height from that of the training."""
_PATH = 5.0
"""Metres that the vehicle must move, straight, before its direction is judged."""
_REVERSE_PATH = 30.0
"""Metres after which the vehicle does not drive backwards any more."""
_LONGEST_GAP = 1.0
_STRAIGHT = 0.9


class PlacementCheck:
    """Estimates of where a model frame lies, compared with a `FramePlacement` as long as frames come.

    The height comes from the ground in the sweeps. The forward axis comes from the vehicle's motion in the fixed
    frame, because a single sweep looks much the same from front and side.
    """

    def __init__(self) -> None:
        self._subject: tuple[str, FramePlacement | None] = ("", None)
        self._restart()

    def _restart(self) -> None:
        self._heights: list[float] = []
        self._trials = 0
        self._search_from = 0
        self._height_doubt: MessageError | None = None
        self._path = np.zeros(3)
        self._path_length = 0.0
        self._last: Frame | None = None
        self._has_driven_ahead = False
        self._direction_doubt: MessageError | None = None

    def doubts(self, frame: Frame, expected: FramePlacement | None, topic: str) -> list[MessageError]:
        """Return what is odd about a frame's model frame, by this frame and the ones before.

        Args:
            expected: where the model's frame lies; None if unknown.
            topic: the LiDAR's topic, for the text.
        """
        if (frame.frame_id, expected) != self._subject:
            self._subject = (frame.frame_id, expected)
            self._restart()
        if expected is None:
            return []
        self._judge_height(frame, expected, topic)
        self._judge_direction(frame, expected)
        return [doubt for doubt in (self._height_doubt, self._direction_doubt) if doubt is not None]

    def _judge_height(self, frame: Frame, expected: FramePlacement, topic: str) -> None:
        if frame.points is None or 0 < self._search_from - frame.stamp_ns < _LONG_PAUSE_NS:
            return
        self._trials += 1
        height = ground_height(frame.points[:: max(1, len(frame.points) // _MOST_POINTS)])
        if height is not None:
            self._heights.append(height)
        if len(self._heights) < _SWEEPS and self._trials < _TRIALS:
            return
        heights, self._heights, self._trials = self._heights, [], 0
        if len(heights) >= _SWEEPS:
            self._height_doubt = _other_height(frame, float(np.median(heights)), expected, topic)
        self._search_from = frame.stamp_ns + (_LONG_PAUSE_NS if self._height_doubt is None else _PAUSE_NS)

    def _judge_direction(self, frame: Frame, expected: FramePlacement) -> None:
        last, self._last = self._last, frame
        if last is None or last.to_fixed is None or frame.to_fixed is None:
            return
        if not 0 < frame.stamp_ns - last.stamp_ns <= _LONGEST_GAP * 1e9:
            return
        step: NDArray[np.float64] = last.to_fixed[:3, :3].T @ (frame.to_fixed[:3, 3] - last.to_fixed[:3, 3])
        self._path += step
        self._path_length += float(np.linalg.norm(step))
        moved = float(np.hypot(*self._path[:2]))
        is_straight = moved >= _STRAIGHT * self._path_length
        if moved < _PATH and (is_straight or self._path_length < _PATH):
            return
        direction = self._path[:2] / max(moved, 1e-9)
        ahead = direction[0 if expected.forward == "x" else 1]
        is_backwards = ahead < -_STRAIGHT and (self._has_driven_ahead or moved < _REVERSE_PATH)
        if is_straight and is_backwards and not self._has_driven_ahead:
            return
        self._path, self._path_length = np.zeros(3), 0.0
        if not is_straight or is_backwards:
            return
        self._has_driven_ahead, self._direction_doubt = ahead > 0.5, None
        if not self._has_driven_ahead:
            self._direction_doubt = _other_axes(frame, direction, expected)


def _other_height(frame: Frame, found: float, expected: FramePlacement, topic: str) -> MessageError | None:
    needed = expected.height
    if abs(found - needed) <= HEIGHT_TOLERANCE:
        return None
    return MessageError(
        topic,
        "model frame at another height",
        f"{frame.frame_id!r} {found:.2f} m above the ground",
        f"about {needed:.2f} m, as in the model's training",
        f"publish a static transform from {frame.frame_id} to a frame {needed - found:+.2f} m along z, and name that "
        "frame in `model_frame`",
    )


def _other_axes(frame: Frame, direction: NDArray[np.float64], expected: FramePlacement) -> MessageError:
    turn = np.degrees(np.arctan2(direction[1], direction[0])) - (0.0 if expected.forward == "x" else 90.0)
    turn = (turn + 180.0) % 360.0 - 180.0
    return MessageError(
        "/tf",
        "model frame with other axes",
        f"motion along ({direction[0]:.2f}, {direction[1]:.2f}) of {frame.frame_id!r}",
        f"motion along +{expected.forward}, as in the model's training",
        f"publish a static transform from {frame.frame_id} to a frame turned by {turn:+.0f} degrees about z, and "
        "name that frame in `model_frame`",
    )
