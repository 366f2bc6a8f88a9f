# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Waiting for another thread, with a limit."""

import time
from collections.abc import Callable

PATIENCE = 5.0
"""Seconds that another thread may take on a busy machine."""


def wait_for(holds: Callable[[], bool]) -> None:
    """Poll until a condition holds; fail after `PATIENCE` seconds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"waited {PATIENCE} s in vain"
        time.sleep(0.001)
