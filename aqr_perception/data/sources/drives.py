# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Earlier frames of a frame's drive."""

from collections.abc import Hashable, Sequence


def preceding(moments: Sequence[tuple[Hashable, int]], index: int, count: int, step: float) -> tuple[int, ...]:
    """Return the indices of the frames 1 .. count steps before a frame, oldest first.

    Each is the frame nearest to its time, at most half a step away. There are fewer at the start of a drive and
    after a gap.

    Args:
        moments: drive and time in nanoseconds of each frame; a drive's frames are contiguous and in order of time.
        index: index of the frame.
        step: time between two frames in seconds.
    """
    drive, now = moments[index]
    indices: list[int] = []
    candidate = index - 1
    for number in range(1, count + 1):
        wanted = now - number * step * 1e9
        while candidate > 0 and moments[candidate - 1][0] == drive and moments[candidate - 1][1] >= wanted:
            candidate -= 1
        near = [other for other in (candidate, candidate - 1) if other >= 0 and moments[other][0] == drive]
        nearest = min(near, key=lambda other: abs(moments[other][1] - wanted), default=None)
        if nearest is None or abs(moments[nearest][1] - wanted) > step * 1e9 / 2:
            break
        indices.append(nearest)
        candidate = nearest - 1
    return tuple(reversed(indices))
