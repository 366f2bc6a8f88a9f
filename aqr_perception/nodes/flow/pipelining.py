# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice whether the node works on several frames side by side."""

from functools import cache
from typing import Literal

from aqr_perception.process_environment import physical_cores

Pipelining = Literal["auto", "on", "off"]
"""See `is_on`."""

_cores = cache(physical_cores)


def is_on(pipelining: Pipelining, device: str) -> bool:
    """Return whether a frame is built, and another one published, beside the detection.

    auto: where the model leaves a core to them. It does on another device than the CPU, and on processors with more
    than two cores, see `process_environment.prepare_process`. On fewer, they would only take the model's time.

    Args:
        device: the model's device, as torch names it.
    """
    if pipelining == "auto":
        return device != "cpu" or _cores() > 2
    return pipelining == "on"
