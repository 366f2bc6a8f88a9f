# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice of the LiDAR whose sweeps trigger frames."""

import math
from collections.abc import Callable, Sequence

from aqr_perception.nodes.input.frame_request import LidarSettings


class LidarTrigger:
    """The first LiDAR in use that is not silent triggers frames; without one, the cameras do.

    Times are seconds of a monotonic clock. After a pause of all sensors, each LiDAR may be silent for the full time
    again, so that the first message after a pause does not decide.

    Args:
        lidars: names of all LiDARs, in the order in which they take over.
    """

    def __init__(self, lidars: Sequence[str]) -> None:
        self._silent_since = dict.fromkeys(lidars, -math.inf)
        self._first = lidars[0] if lidars else ""
        self._last_other = -math.inf

    def add(self, sensor: str, now: float, timeout: float) -> None:
        """Take note of a usable message of a LiDAR or a camera; `timeout`: see `current`."""
        if sensor != self._first:
            if now - self._last_other > timeout:
                self._silent_since = dict.fromkeys(self._silent_since, now)
            self._last_other = now
        if sensor in self._silent_since:
            self._silent_since[sensor] = now

    def current(self, now: float, timeout: float, is_used: Callable[[str], bool]) -> str:
        """Return the name of the triggering LiDAR; empty if there is none.

        Args:
            timeout: seconds without a sweep after which a LiDAR is silent.
            is_used: whether a LiDAR takes part.
        """
        living = (name for name, since in self._silent_since.items() if now - since <= timeout and is_used(name))
        return next(living, "")


def trigger_text(lidars: Sequence[LidarSettings], trigger: str) -> str:
    """Return a sentence that names the triggering LiDAR, and those that should trigger but cannot be used."""
    names = [f"{lidar.name} ({lidar.topic})" for lidar in lidars]
    index = [lidar.name for lidar in lidars].index(trigger)
    before = names[:index]
    if not before:
        return f"{names[index]} triggers the frames"
    verb = "is" if len(before) == 1 else "are"
    return (
        f"{names[index]} triggers the frames, because {', '.join(before)} {verb} silent or left out; see /diagnostics"
    )
