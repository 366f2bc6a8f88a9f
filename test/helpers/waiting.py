# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Waiting for another thread, with a limit."""

import time
from collections.abc import Callable

PATIENCE = 5.0
"""Seconds that another thread may take on a busy machine."""


def wait_for(holds: Callable[[], bool], seconds: float = PATIENCE, hint: str = "") -> None:
    """Poll until a condition holds; fail with a hint after some seconds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"waited {seconds} s in vain {hint and f'({hint})'}"
        time.sleep(0.001)
