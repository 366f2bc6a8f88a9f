"""Comparison of the model frame with the one that the model was trained in: height above the ground and axes."""

import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.ground import ground_height
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.frame import Frame, FramePlacement

_SWEEPS = 3
"""Sweeps with clear ground from which the height is taken."""
_TRIALS = 20
"""Sweeps after which the search for clear ground ends."""
_MOST_POINTS = 60_000
_HEIGHT_TOLERANCE = 0.4
_PATH = 5.0
"""Metres that the vehicle must move, straight, before its direction is judged."""
_REVERSE_PATH = 30.0
"""Metres after which the vehicle does not drive backwards any more."""
_LONGEST_GAP = 1.0
_STRAIGHT = 0.9


class PlacementCheck:
    """Estimates of where a model frame lies, over the first frames, compared with a `FramePlacement` once.

    The height comes from the ground in the sweeps. The forward axis comes from the vehicle's motion in the fixed
    frame, because a single sweep looks much the same from front and side.
    """

    def __init__(self) -> None:
        self._subject: tuple[str, FramePlacement | None] = ("", None)
        self._restart()

    def _restart(self) -> None:
        self._heights: list[float] = []
        self._trials = 0
        self._path = np.zeros(3)
        self._path_length = 0.0
        self._last: Frame | None = None
        self._direction_known = False

    def doubts(self, frame: Frame, expected: FramePlacement | None, topic: str) -> list[MessageError]:
        """Return what is odd about a frame's model frame; each finding comes once.

        Args:
            expected: where the model's frame lies; None if unknown.
            topic: the LiDAR's topic, for the text.
        """
        if (frame.frame_id, expected) != self._subject:
            self._subject = (frame.frame_id, expected)
            self._restart()
        if expected is None:
            return []
        found = [self._height_doubt(frame, expected, topic), self._direction_doubt(frame, expected)]
        return [doubt for doubt in found if doubt is not None]

    def _height_doubt(self, frame: Frame, expected: FramePlacement, topic: str) -> MessageError | None:
        if frame.points is None or self._trials == _TRIALS:
            return None
        self._trials += 1
        height = ground_height(frame.points[:: max(1, len(frame.points) // _MOST_POINTS)])
        if height is None:
            return None
        self._heights.append(height)
        if len(self._heights) < _SWEEPS:
            return None
        self._trials = _TRIALS
        found, needed = float(np.median(self._heights)), expected.height
        if abs(found - needed) <= _HEIGHT_TOLERANCE:
            return None
        return MessageError(
            topic,
            "model frame at another height",
            f"{frame.frame_id!r} {found:.2f} m above the ground",
            f"about {needed:.2f} m, as in the model's training",
            f"publish a static transform from {frame.frame_id} to a frame {needed - found:+.2f} m along z, and name "
            "that frame in `model_frame`",
        )

    def _direction_doubt(self, frame: Frame, expected: FramePlacement) -> MessageError | None:
        last, self._last = self._last, frame
        if self._direction_known or last is None or last.to_fixed is None or frame.to_fixed is None:
            return None
        if not 0 < frame.stamp_ns - last.stamp_ns <= _LONGEST_GAP * 1e9:
            return None
        step: NDArray[np.float64] = last.to_fixed[:3, :3].T @ (frame.to_fixed[:3, 3] - last.to_fixed[:3, 3])
        self._path += step
        self._path_length += float(np.linalg.norm(step))
        moved = float(np.hypot(*self._path[:2]))
        if moved < _PATH:
            return None
        if moved < _STRAIGHT * self._path_length:
            self._path, self._path_length = np.zeros(3), 0.0
            return None
        direction = self._path[:2] / moved
        ahead = direction[0 if expected.forward == "x" else 1]
        if ahead < -_STRAIGHT and moved < _REVERSE_PATH:
            return None
        self._direction_known = True
        if ahead > 0.5:
            return None
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
