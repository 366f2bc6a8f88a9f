# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""An inspection as text for people."""

import math
import time
from collections.abc import Iterator, Sequence

from aqr_perception.inspection.assessment import Inspection
from aqr_perception.inspection.camera_checks import Calibration, Camera
from aqr_perception.inspection.cloud_layout import CloudLayout
from aqr_perception.inspection.finding import Finding
from aqr_perception.inspection.tf_tree import Edge, TfTree

_HEADINGS = {
    "stops": "The node cannot run it",
    "loses": "The node leaves data out",
    "odd": "Odd, the node goes on",
}
_MOST_FRAMES = 60


def text_report(found: Inspection) -> Iterator[str]:
    """Yield the lines of the report."""
    yield from _overview(found)
    yield from _topics(found)
    yield from _stamps(found)
    yield from _tf(found.tree)
    yield from _cameras(found)
    yield from _clouds(found)
    yield from _choice(found)
    yield from _findings(found.findings)


def _overview(found: Inspection) -> Iterator[str]:
    heard, bag = found.heard, found.recorded
    start, end = (bag.start_ns, bag.end_ns) if bag is not None else (heard.first_ns, heard.last_ns)
    messages = bag.counts if bag is not None else sum(topic.count for topic in heard.topics.values())
    size = f", {bag.bytes / 1e6:,.1f} MB" if bag is not None else ""
    yield f"{found.source}: {len(heard.topics)} topics, {messages:,} messages{size}"
    if messages:
        begin = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(min(max(start / 1e9, 0), 2**33)))
        yield f"  {max(end - start, 0) / 1e9:.1f} s, from {begin} UTC"
    if found.sampling:
        yield f"  {found.sampling}"
    samples = sum(len(topic.samples) for topic in heard.topics.values())
    yield f"  decoded: all transforms and calibrations, and {samples} samples of pictures and point clouds"


def _topics(found: Inspection) -> Iterator[str]:
    yield from _heading("Topics")
    rows = [("topic", "type", "messages", "rate", "longest gap")]
    for name, topic in sorted(found.heard.topics.items()):
        rate = found.rates.get(name)
        gaps = "" if rate is None or not rate.longest_gap else f"{rate.longest_gap:.2f} s"
        if rate is not None and rate.gaps:
            gaps += f" ({rate.gaps} gaps)"
        hertz = "" if rate is None or math.isnan(rate.hertz) else f"{rate.hertz:.1f} Hz"
        rows.append((name, topic.type, f"{topic.count:,}", hertz, gaps))
    yield from _table(rows)


def _stamps(found: Inspection) -> Iterator[str]:
    if not found.offsets:
        return
    lidar = found.choice.lidars[0].name if found.choice.lidars else ""
    yield from _heading("Stamps of the sensors" + (f" (stagger: against {lidar})" if lidar else ""))
    rows = [("topic", "stagger", "recorded after stamp", "drift", "judgement of the node")]
    for name, one in sorted(found.offsets.items()):
        stagger = "" if math.isnan(one.to_lidar) or name == lidar else _stagger(one.to_lidar, one.to_lidar_spread)
        latency = "" if math.isnan(one.latency) else f"{_seconds(one.latency)} (spread {_seconds(one.latency_spread)})"
        drift = "" if math.isnan(one.drift) else f"{-one.drift * 1e6:+.0f} ppm"
        faults = [f"{fault} ({count} messages)" for fault, count in one.faults.items()]
        counts = {"without stamp": one.zero, "going back": one.backwards, "repeated": one.repeated}
        odd = [f"{count} {what}" for what, count in counts.items() if count]
        rows.append((name, stagger, latency, drift, ", ".join([*faults[:3], *odd]) or "right"))
    yield from _table(rows)


def _stagger(middle: float, spread: float) -> str:
    if abs(middle) < 1:
        return f"{middle * 1e3:+.1f} +- {spread * 1e3:.1f} ms"
    return f"{middle:+,.1f} +- {spread:.1f} s"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if abs(value) < 1 else f"{value:,.1f} s"


def _tf(tree: TfTree) -> Iterator[str]:
    count = len(tree.roots)
    yield from _heading(f"TF: {len(tree.frames)} frames" + (f" in {count} trees" if count != 1 else ""))
    if not tree.edges:
        yield "  no transforms"
    lines = [line for root in tree.roots for line in tree_lines(tree, root)]
    yield from lines[:_MOST_FRAMES]
    if len(lines) > _MOST_FRAMES:
        yield f"  and {len(lines) - _MOST_FRAMES} more frames"


def tree_lines(tree: TfTree, root: str) -> Iterator[str]:
    """Yield the lines of a tree of frames, from its root."""
    yield f"  {root}"
    waiting = [(edge, 1) for edge in reversed(_children(tree, root))]
    while waiting:
        edge, depth = waiting.pop()
        yield f"  {'   ' * depth}{edge.child}  {edge_text(edge)}"
        waiting += [(one, depth + 1) for one in reversed(_children(tree, edge.child))]


def edge_text(edge: Edge) -> str:
    """Return how the transforms of a frame come."""
    if edge.static or edge.rate is None:
        return "static"
    rate = "once" if math.isnan(edge.rate.hertz) else f"{edge.rate.hertz:.3g} Hz"
    gap = f", longest gap {edge.rate.longest_gap:.2f} s" if edge.rate.longest_gap > 2 * edge.rate.period else ""
    return f"moving, {rate}{gap}"


def _children(tree: TfTree, frame: str) -> list[Edge]:
    return [edge for edge in tree.edges if edge.parent == frame]


def _cameras(found: Inspection) -> Iterator[str]:
    cameras = [
        *((one.name, one.camera) for one in found.choice.cameras),
        *(("unusable", c) for c in found.choice.unusable),
    ]
    yield from _heading("Cameras")
    if not cameras:
        yield "  none"
    for name, camera in cameras:
        yield f"  {name}: {camera.image.name}, {_picture(camera)}, frame {camera.frame or 'missing'!r}"
        if camera.info is not None:
            yield f"    {camera.info.name}: {_calibration(camera.calibration)}"
        if camera.usable:
            yield f"    rectified: {str(camera.rectified).lower()} ({camera.why_rectified})"


def _picture(camera: Camera) -> str:
    size = "{} x {}".format(*camera.size) if any(camera.size) else "size unknown"
    return f"{camera.encoding or 'no sample'}, {size}"


def _calibration(calibration: Calibration) -> str:
    view = "" if math.isnan(calibration.view) else f" ({calibration.view:.0f} degrees wide)"
    changes = f", changes {len(calibration.changes)} times" if calibration.changes else ""
    return (
        f"{calibration.size[0]} x {calibration.size[1]}, fx {calibration.focal[0]:.1f}, fy {calibration.focal[1]:.1f}"
        f"{view}, D {calibration.distortion}, {calibration.projection}{changes}"
    )


def _clouds(found: Inspection) -> Iterator[str]:
    yield from _heading("Point clouds")
    if not found.clouds:
        yield "  none"
    for name, layout in sorted(found.clouds.items()):
        yield f"  {name}: frame {found.heard.topics[name].frame!r}, {', '.join(layout.fields) or 'no usable sample'}"
        if layout.fields:
            yield f"    {_cloud(layout)}"
            yield f"    intensity {layout.intensity_kind}; scale to 0..255: {layout.scale:g}"
    frames = found.frames
    if found.choice.lidars:
        ahead = (
            "unknown" if math.isnan(frames.heading) else f"{round(frames.heading) + 0:+d} degrees from its x axis to y"
        )
        yield f"  forward in {found.choice.lidars[0].frame!r}: {ahead} ({frames.heading_source})"


def _cloud(layout: CloudLayout) -> str:
    columns, rows = layout.size
    organised = f"organised, {columns} x {rows}" if rows > 1 else "not organised"
    low, middle, high = layout.points
    points = f"{middle:,} points" + ("" if low == high else f" ({low:,} to {high:,})")
    height = "no clear ground" if math.isnan(layout.height) else f"{layout.height:.2f} m above the ground"
    return (
        f"{points}, {organised}, {100 * layout.without_return:.1f} % without return; {height}, to {layout.reach:.0f} m,"
        f" points in {100 * layout.sectors:.0f} % of the directions"
    )


def _choice(found: Inspection) -> Iterator[str]:
    yield from _heading("For the node")
    yield f"  LiDAR: {', '.join(topic.name for topic in found.lidars) or 'none'}"
    yield f"  cameras: {', '.join(one.name for one in found.cameras) or 'none'}"
    values = {"fixed_frame": found.frames.fixed, "model_frame": found.frames.model, "output_frame": found.frames.output}
    for name, value in (values | {"base_frame": found.frames.base}).items():
        yield f"  {name}: {value or '(empty)'}: {found.frames.reasons[name]}"
    for note in found.choice.notes:
        yield f"  {note}"


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    for severity, heading in _HEADINGS.items():
        some = [one for one in findings if one.severity == severity]
        if some:
            yield from _heading(heading)
            yield from (f"  {one}" for one in some)
    if not findings:
        yield from _heading("Nothing is in the node's way")


def _heading(text: str) -> tuple[str, str]:
    return "", text


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
