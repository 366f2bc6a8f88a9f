# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""RViz's configuration for a node: its sensors, detections, tracks and weight maps, and the places of the panels."""

from typing import Any

import yaml

from aqr_perception.viewers.camera_order import camera_rows
from aqr_perception.viewers.node_topics import NodeTopics, ViewError
from aqr_perception.viewers.window_state import Area, Dock, DockArea, Group, window_state

_WIDTH, _HEIGHT = 1900, 1040
_LEFT, _RIGHT, _TIME = 300, 840, 70
"""Width of the panels at the left, width of the pictures at the right, and height of the time panel, in pixels."""
_BARS = 60
"""Height of menu, tool bar and status bar in pixels."""
_IMAGE_ASPECT = 16 / 9

_MAP_NAME = "LiDAR weights on the ground (blue: weak or suppressed, red: strong or trusted)"


def rviz_config(topics: NodeTopics, fixed_frame: str = "", header: str = "") -> str:
    """Return RViz's configuration file (.rviz, YAML).

    Args:
        fixed_frame: TF frame of the view; empty: a frame of the node's parameters.
        header: comment at the top, without its signs.

    Raises:
        ViewError: neither the argument nor the parameters name a TF frame.
    """
    frame = fixed_frame or topics.vehicle_frame
    if not frame:
        raise ViewError(
            f"{topics.node}: found no output_frame, base_frame, model_frame or fixed_frame among the parameters, "
            "needed a TF frame for the view; set output_frame, or name a frame of the vehicle with --fixed-frame"
        )
    pictures = _pictures(topics)
    config = {
        "Panels": [
            {"Class": "rviz_common/Displays", "Name": "Displays"},
            {"Class": "rviz_common/Views", "Name": "Views"},
            {"Class": "rviz_common/Time", "Name": "Time"},
        ],
        "Visualization Manager": {
            "Class": "",
            "Displays": [*_ground(), *_scene(topics), *(_picture(name, topic) for name, topic in pictures)],
            "Enabled": True,
            "Global Options": {"Fixed Frame": frame, "Background Color": "30; 30; 34", "Frame Rate": 30},
            "Tools": [{"Class": f"rviz_default_plugins/{tool}"} for tool in ("MoveCamera", "Select", "Measure")],
            "Views": {"Current": _orbit(), "Saved": None},
        },
        "Window Geometry": _window(topics, [name for name, _ in pictures]),
    }
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + yaml.safe_dump(config, sort_keys=False, width=10_000)


def _ground() -> list[dict[str, Any]]:
    grid: dict[str, Any] = {"Cell Size": 10, "Plane Cell Count": 12, "Color": "90; 90; 90", "Alpha": 0.4}
    axes: dict[str, Any] = {"Show Names": True, "Show Axes": True, "Show Arrows": False, "Marker Scale": 2}
    return [_display("Grid", "Grid", **grid), _display("TF", "TF", **axes)]


def _scene(topics: NodeTopics) -> list[dict[str, Any]]:
    displays, look = list[dict[str, Any]](), dict[str, Any]()
    if topics.lidar_topics:
        look = {"Alpha": 0.5, "Color Scheme": "costmap", "Draw Behind": True}
        displays.append(_display("Map", _MAP_NAME, topics.output("weights/bev/grid"), **look))
    for number, topic in enumerate(topics.lidar_topics, start=1):
        name = "LiDAR" if number == 1 else f"LiDAR {number}"
        look = {"Style": "Points", "Size (Pixels)": 2, "Color Transformer": "Intensity"}
        # A best-effort subscription also receives what a reliable publisher sends.
        displays.append(_display("PointCloud2", name, topic, reliability="Best Effort", **look))
    boxes, tracks = topics.output("markers"), topics.output("track_markers")
    displays.append(_display("MarkerArray", "Detections (orange: LiDAR, blue: camera)", boxes))
    return [*displays, _display("MarkerArray", "Tracks (tracking.enabled)", tracks, enabled=topics.tracking)]


def _pictures(topics: NodeTopics) -> list[tuple[str, str]]:
    """Return the names and topics of the weight maps' pictures, in the order in which they are shown."""
    names = [camera for row in camera_rows([camera.name for camera in topics.cameras]) for camera in row]
    bev = [("Weights BEV", topics.output("weights/bev/image"))] if topics.lidar_topics else []
    return [*((f"Weights {name}", topics.output(f"weights/{name}/image")) for name in names), *bev]


def _picture(name: str, topic: str) -> dict[str, Any]:
    return _display("Image", name, topic)


def _display(
    kind: str, name: str, topic: str = "", *, enabled: bool = True, reliability: str = "Reliable", **properties: Any
) -> dict[str, Any]:
    profile = {"Depth": 5, "Reliability Policy": reliability, "Durability Policy": "Volatile"}
    profile["History Policy"] = "Keep Last"
    subscribed = {"Topic": {"Value": topic, **profile}} if topic else {}
    plugin = f"rviz_default_plugins/{kind}"
    return {"Class": plugin, "Name": name, "Enabled": enabled, "Value": enabled, **subscribed, **properties}


def _orbit() -> dict[str, Any]:
    return {
        "Class": "rviz_default_plugins/Orbit",
        "Name": "Current View",
        "Distance": 70,
        "Pitch": 0.9,
        "Yaw": 3.14,
        "Focal Point": {"X": 0, "Y": 0, "Z": 0},
        "Target Frame": "<Fixed Frame>",
    }


def _window(topics: NodeTopics, pictures: list[str]) -> dict[str, Any]:
    """Return size and state of the window: panels left, cameras as on the vehicle and the BEV right, time below."""
    upper = _HEIGHT - _BARS - _TIME
    rows = camera_rows([camera.name for camera in topics.cameras])
    groups: list[Dock | Group] = []
    left_over = upper
    for row in rows:
        width = _RIGHT // len(row)
        # Rows keep the images' shape as long as they leave room for the others; the last picture fills the rest.
        height = min(round(width / _IMAGE_ASPECT), upper // (len(rows) + bool(topics.lidar_topics)))
        height = left_over if row is rows[-1] and not topics.lidar_topics else height
        groups.append(Group(True, tuple(Dock(f"Weights {name}", width) for name in row), height))
        left_over -= height
    if topics.lidar_topics:
        groups.append(Dock("Weights BEV", left_over))
    panels = Group(False, (Dock("Displays", round(upper * 0.7)), Dock("Views", upper - round(upper * 0.7))))
    areas: dict[Area, DockArea] = {
        "left": DockArea(panels, (_LEFT, upper)),
        "right": DockArea(Group(False, tuple(groups)), (_RIGHT, upper)),
        "bottom": DockArea(Group(True, (Dock("Time", _WIDTH),)), (_WIDTH, _TIME)),
    }
    centre = (_WIDTH - _LEFT - (_RIGHT if groups else 0), upper)
    # Older RViz reads the two "Hide" entries into variables without a value: they must not be missing.
    shown = {name: {"collapsed": False} for name in ("Displays", "Views", "Time", *pictures)}
    state = window_state(areas, centre, "Tools").hex()
    return {
        "Width": _WIDTH,
        "Height": _HEIGHT,
        "X": 0,
        "Y": 0,
        "Hide Left Dock": False,
        "Hide Right Dock": False,
        "QMainWindow State": state,
        **shown,
    }
