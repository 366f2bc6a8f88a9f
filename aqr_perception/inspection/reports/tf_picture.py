# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The TF tree as a picture (SVG): frames as boxes, static transforms grey, moving ones blue, gaps red."""

from collections.abc import Mapping
from dataclasses import dataclass

from aqr_perception.inspection.reports.text_report import edge_text
from aqr_perception.inspection.tf_tree import TfTree
from aqr_perception.visualization.html_page import text

_ROW, _COLUMN_GAP, _BOX = 48, 150, 26
_LETTER = 7.8
"""Width of a letter of 13 px in px."""
_SMALL = 6.2
_MARGIN = 24
_LEGEND = 56
_STATIC, _MOVING, _GAP, _SENSOR = "#7a8594", "#1565c0", "#b3261e", "#e3f2fd"
_LONG_GAP = 5.0
"""A gap of more than so many periods is drawn as one."""
_MOST_FRAMES = 300


@dataclass(frozen=True)
class _Place:
    x: float
    y: float
    width: float


def tf_picture(tree: TfTree, sensors: Mapping[str, str]) -> str:
    """Return the picture as an SVG document.

    Args:
        sensors: what is measured in a frame, by frame: written below its name and coloured.
    """
    places = _places(tree, sensors)
    lines, boxes = [], []
    for edge in tree.edges:
        if edge.parent not in places or edge.child not in places:
            continue
        start, end = places[edge.parent], places[edge.child]
        odd = edge.rate is not None and edge.rate.longest_gap > _LONG_GAP * edge.rate.period
        colour = _STATIC if edge.static else _GAP if odd else _MOVING
        lines.append(_line(start, end, colour, "" if edge.static else edge_text(edge)))
    alone = [name for name in sensors if name and name not in tree.frames]
    for name, place in places.items():
        missing = name in alone
        boxes.append(_box(name, sensors.get(name, ""), place, missing, name in tree.roots))
    width = max([place.x + place.width for place in places.values()], default=200) + _MARGIN
    height = max([place.y for place in places.values()], default=0) + _ROW + _MARGIN
    width = max(width, 640)
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="13">{background}'
        f"{_legend(len(tree.roots))}{''.join(lines)}{''.join(boxes)}</svg>\n"
    )


def _places(tree: TfTree, sensors: Mapping[str, str]) -> dict[str, _Place]:
    """Return the place of each frame: columns by depth, a row for each leaf; frames that TF lacks come last."""
    children: dict[str, list[str]] = {}
    for edge in tree.edges:
        children.setdefault(edge.parent, []).append(edge.child)
    depths: dict[str, int] = {}
    order: list[str] = []
    looped = [edge.child for edge in tree.edges]
    for root in (*tree.roots, *looped):
        waiting = [(root, 0)] if root not in depths else []
        while waiting:
            name, depth = waiting.pop()
            if name in depths or len(depths) >= _MOST_FRAMES:
                continue
            depths[name] = depth
            order.append(name)
            waiting += [(child, depth + 1) for child in sorted(children.get(name, []), reverse=True)]
    rows: dict[str, float] = {}
    row = 0
    for name in order:
        if not any(depths.get(child) == depths[name] + 1 for child in children.get(name, [])):
            rows[name], row = row, row + 1
    for name in sorted(order, key=lambda one: -depths[one]):
        own = [
            rows[child] for child in children.get(name, []) if depths.get(child) == depths[name] + 1 and child in rows
        ]
        rows[name] = sum(own) / len(own) if own else rows.get(name, row)
    widths = {name: max(len(name) * _LETTER + 24, len(sensors.get(name, "")) * _SMALL, 60) for name in order}
    columns: dict[int, float] = {0: _MARGIN}
    for depth in range(max(depths.values(), default=0)):
        widest = max(widths[name] for name in order if depths[name] == depth)
        columns[depth + 1] = columns[depth] + widest + _COLUMN_GAP
    places = {name: _Place(columns[depths[name]], _LEGEND + rows[name] * _ROW, widths[name]) for name in order}
    for name in sensors:
        if name and name not in places:
            places[name] = _Place(_MARGIN, _LEGEND + row * _ROW, max(len(name) * _LETTER + 20, 60))
            row += 1
    return places


def _line(start: _Place, end: _Place, colour: str, label: str) -> str:
    x, y, to_x, to_y = start.x + start.width, start.y + _BOX / 2, end.x, end.y + _BOX / 2
    bend = min(46.0, (to_x - x) / 2)
    dash = ' stroke-dasharray="5 4"' if colour == _STATIC else ""
    path = (
        f'<path d="M{x:.0f} {y:.1f} C{x + bend:.0f} {y:.1f} {x + bend / 2:.0f} {to_y:.1f} {x + bend:.0f} {to_y:.1f} '
        f'L{to_x:.0f} {to_y:.1f}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    )
    if not label:
        return path
    place = f'x="{to_x - 6:.0f}" y="{to_y - 5:.1f}"'
    return path + f'<text {place} text-anchor="end" font-size="11" fill="{colour}">{text(label)}</text>'


def _box(name: str, sensor: str, place: _Place, missing: bool, is_root: bool) -> str:
    fill, stroke = (_SENSOR if sensor else "#ffffff"), (_GAP if missing else "#1c2430")
    weight = ' font-weight="600"' if is_root else ""
    label = f"{sensor}{', not in TF' if missing else ''}"
    note = ""
    if label:
        note = (
            f'<text x="{place.x:.0f}" y="{place.y + _BOX + 12:.1f}" fill="{stroke}" font-size="11">{text(label)}</text>'
        )
    return (
        f'<rect x="{place.x:.0f}" y="{place.y:.1f}" width="{place.width:.0f}" height="{_BOX}" rx="5" fill="{fill}" '
        f'stroke="{stroke}"/><text x="{place.x + 10:.0f}" y="{place.y + 17:.1f}" fill="{stroke}"{weight}>{text(name)}'
        f"</text>{note}"
    )


def _legend(trees: int) -> str:
    entries = ((_STATIC, "static"), (_MOVING, "moving"), (_GAP, "with gaps, or missing"))
    parts, x = [], _MARGIN
    for colour, meaning in entries:
        dash = ' stroke-dasharray="5 4"' if colour == _STATIC else ""
        parts.append(f'<path d="M{x} 22 h26" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{x + 32}" y="26" fill="#1c2430">{meaning}</text>')
        x += 60 + int(len(meaning) * _LETTER)
    if trees > 1:
        parts.append(f'<text x="{x}" y="26" fill="{_GAP}">{trees} trees that are not connected</text>')
    return "".join(parts)
