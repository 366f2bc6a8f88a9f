# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Places of dock widgets in a window, in the format of Qt's QMainWindow::saveState (Qt 5 and 6)."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Area = Literal["left", "right", "top", "bottom"]
_AREAS: Mapping[Area, int] = {"left": 0, "right": 1, "top": 2, "bottom": 3}

_WINDOW, _DOCKS, _WIDGET, _SEQUENCE, _TOOL_BARS = 0xFF, 0xFD, 0xFB, 0xFC, 0xFC
_VISIBLE = 1
_LARGEST = 0xFFFFFF  # QWIDGETSIZE_MAX: no limit of the size
_CORNERS = (4, 4, 8, 8)
"""Areas of the four corners, as Qt::DockWidgetArea: the upper ones top, the lower ones bottom."""


@dataclass(frozen=True)
class Dock:
    """A dock widget by the name of its object, with its width or height in its group, in pixels."""

    name: str
    size: int


@dataclass(frozen=True)
class Group:
    """Dock widgets and groups side by side (`across`) or one below the other; `size` as of `Dock`."""

    across: bool
    parts: "tuple[Dock | Group, ...]"
    size: int = 0


@dataclass(frozen=True)
class DockArea:
    """The docks at one side of a window, with their width and height in pixels."""

    group: Group
    size: tuple[int, int]


def window_state(areas: Mapping[Area, DockArea], centre: tuple[int, int], tool_bar: str) -> bytes:
    """Return the state of a window.

    Args:
        centre: width and height of the central widget in pixels.
        tool_bar: object name of the tool bar at the top.
    """
    shown = sorted((_AREAS[side], area) for side, area in areas.items() if area.group.parts)
    state = struct.pack(">iiBi", _WINDOW, 0, _DOCKS, len(shown))
    for number, area in shown:
        state += struct.pack(">iii", number, *area.size) + _group(area.group)
    state += struct.pack(">ii4i", *centre, *_CORNERS)
    state += struct.pack(">Bii", _TOOL_BARS, 1, 2) + struct.pack(">i", 1) + _text(tool_bar)
    return state + struct.pack(">Biiii", _VISIBLE, 0, -1, 0, 0)


def _group(group: Group) -> bytes:
    data = struct.pack(">BBi", _SEQUENCE, 1 if group.across else 2, len(group.parts))
    place = 0
    for part in group.parts:
        limits = struct.pack(">iiii", place, part.size, 0, _LARGEST)
        if isinstance(part, Dock):
            data += struct.pack(">B", _WIDGET) + _text(part.name) + struct.pack(">B", _VISIBLE) + limits
        else:
            data += struct.pack(">B", _SEQUENCE) + limits + _group(part)
        place += part.size
    return data


def _text(text: str) -> bytes:
    """Return a text as QDataStream writes it: the number of bytes, then UTF-16, big-endian."""
    data = text.encode("utf-16-be")
    return struct.pack(">i", len(data)) + data
