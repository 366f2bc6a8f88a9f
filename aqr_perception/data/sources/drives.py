"""Which frames of a recording come before a frame."""

from collections.abc import Hashable, Sequence


def preceding(moments: Sequence[tuple[Hashable, int]], index: int, count: int, step: float) -> tuple[int, ...]:
    """Return the indices of the frames that lie 1 .. count steps before a frame, oldest first.

    Each is the one nearest to its time, at most half a step away; there are fewer where the drive, or a gap in it,
    begins.

    Args:
        moments: each frame's drive, and its time in nanoseconds; a drive's frames in a row and in order of time.
        index: of the frame.
        step: seconds.
    """
    drive, now = moments[index]
    found: list[int] = []
    place = index - 1
    for number in range(1, count + 1):
        wanted = now - number * step * 1e9
        while place > 0 and moments[place - 1][0] == drive and moments[place - 1][1] >= wanted:
            place -= 1
        near = [other for other in (place, place - 1) if other >= 0 and moments[other][0] == drive]
        nearest = min(near, key=lambda other: abs(moments[other][1] - wanted), default=None)
        if nearest is None or abs(moments[nearest][1] - wanted) > step * 1e9 / 2:
            break
        found.append(nearest)
        place = nearest - 1
    return tuple(reversed(found))
