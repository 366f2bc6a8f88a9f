# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A target with every kind of fault, for the tests of the runner."""

import os
import signal
import time

from fuzz.choices import Choices

_held: list[bytearray] = []


def fuzz_deliberate(choices: Choices) -> bool:
    """Fail in one of several ways, as the first bytes say."""
    if choices.unsigned(1) < 240:
        return True
    kind = choices.unsigned(1) % 5
    if kind == 0:
        raise KeyError("undocumented")
    if kind == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == 2:
        while True:
            pass
    if kind == 3:
        end = time.process_time() + 1.1
        while time.process_time() < end:
            pass
        return False
    _held.append(bytearray(b"\1") * (300 << 20))
    _held.clear()
    return False
