# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Order of the cameras' pictures on the page."""

from collections.abc import Iterable


def in_rows(names: Iterable[str]) -> list[str]:
    """Return camera names for rows from left to right: those that look ahead, to the sides, then back.

    Directions come from words in the names, such as ``front_left`` or ``CAM_BACK``. Names without a direction keep
    their order, at the end.
    """
    return sorted(names, key=_place)


def _place(name: str) -> tuple[int, int]:
    words = name.lower()
    row = 0 if "front" in words else 2 if "back" in words or "rear" in words else 1
    column = 0 if "left" in words else 2 if "right" in words else 1
    if row == 1 and column == 1:
        return 3, 0
    return row, column
