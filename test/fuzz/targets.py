# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Table of the fuzzed targets.

A target makes an input from `Choices`, gives it to the package, and checks the result. It returns whether the input was
accepted, false for the documented error, and raises anything else: that is a fault.
"""

import importlib
from collections.abc import Callable, Mapping

from fuzz.choices import Choices

Target = Callable[[Choices], bool]

TARGETS: Mapping[str, str] = {
    "cloud": "message_targets",
    "image": "message_targets",
    "compressed": "message_targets",
    "calibration": "message_targets",
    "transform": "message_targets",
    "frame": "message_targets",
    "parameters": "file_targets",
    "parameter_file": "file_targets",
    "preset": "file_targets",
    "model": "file_targets",
    "checkpoint": "file_targets",
    "inspection": "file_targets",
    "deliberate": "deliberate_faults",
}
"""Modules of the targets by kind; only the module of the chosen kind is imported."""


def load(kind: str) -> Target:
    """Return the target of a kind."""
    target: Target = getattr(importlib.import_module(f"fuzz.{TARGETS[kind]}"), f"fuzz_{kind}")
    return target
