# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Arrangement of cameras on the screen as on the vehicle."""

from collections.abc import Sequence

_MOST_IN_A_ROW = 4
_BEHIND = ("back", "rear")


def camera_rows(names: Sequence[str]) -> list[list[str]]:
    """Return cameras in rows: those ahead, then those behind; in each row from left to right by their names.

    Names that do not say left or right keep their order in the middle.
    """
    ahead = [name for name in names if not any(word in name.lower() for word in _BEHIND)]
    behind = [name for name in names if name not in ahead]
    rows = []
    for row in (sorted(ahead, key=_side), sorted(behind, key=_side)):
        rows += [row[first : first + _MOST_IN_A_ROW] for first in range(0, len(row), _MOST_IN_A_ROW)]
    return rows


def _side(name: str) -> int:
    return ("right" in name.lower()) - ("left" in name.lower())
