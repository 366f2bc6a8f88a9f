# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parameters of which the first run in `make unit`, and all in `make test`."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick_first(values: Iterable[Any], quick: int = 1) -> list[Any]:
    """Return parameters, the first of them unmarked, the others as slow: they are further cases of one mechanism.

    Args:
        values: a value or a tuple of values each.
        quick: number of unmarked ones.
    """
    several = (value if isinstance(value, tuple) else (value,) for value in values)
    return [pytest.param(*each, marks=() if index < quick else pytest.mark.slow) for index, each in enumerate(several)]
