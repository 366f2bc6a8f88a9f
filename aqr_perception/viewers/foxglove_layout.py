# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Foxglove's layout for a node: 3D scene, pictures of the weight maps, plots of the weights, diagnostics.

The file is what Foxglove imports under "Import from file": `configById` has the settings of each panel by its name
``TYPE!ID``, and `layout` divides the window.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from aqr_perception.viewers.camera_order import camera_rows
from aqr_perception.viewers.node_topics import NodeTopics
from aqr_perception.visualization.colours import CAMERA_COLOUR, LIDAR_COLOUR

_GREEN, _GREY = "#5cc16c", "#9aa4b1"
_CAMERA_PALETTE = ("#4e98e2", "#f5774d", "#f7df71", "#5cd6a9", "#c28ae8", "#ef8fb0")
Node = str | dict[str, Any]
"""A panel's name, or a split of the window."""


class _Series(NamedTuple):
    """One line of a plot: a message path of Foxglove, its label, colour as CSS, and whether points are joined."""

    path: str
    label: str
    colour: str
    joined: bool = False


def foxglove_layout(topics: NodeTopics, fixed_frame: str = "") -> str:
    """Return the layout as JSON.

    Args:
        fixed_frame: TF frame that the 3D view follows; empty: a frame of the node's parameters, if they name one.
    """
    panels: dict[str, dict[str, Any]] = {
        "3D!scene": _scene(topics, fixed_frame or topics.vehicle_frame),
        "Plot!weights": _weights(topics),
        "Plot!cameras": _camera_weights(topics),
        "Plot!time": _times(topics),
        "StateTransitions!sensors": _sensors(topics),
        "DiagnosticSummary!health": {
            "minLevel": 0,
            "pinnedIds": [],
            "topicToRender": "/diagnostics",
            "hardwareIdFilter": "",
            "sortByLevel": True,
        },
    }
    rows = camera_rows([camera.name for camera in topics.cameras])
    for row in rows:
        panels |= {f"Image!{name}": _image(topics, name) for name in row}
    pictures: list[Node] = [_split("row", [f"Image!{name}" for name in row]) for row in rows]
    scene: Node = "3D!scene"
    if topics.lidar_topics:
        panels["Image!bev"] = _image(topics, "bev")
        scene = _split("row", ["3D!scene", "Image!bev"], [62, 38])
    if not topics.cameras:
        del panels["Plot!cameras"]
    plots = [name for name in panels if name.startswith("Plot!") and name != "Plot!time"]
    below = _split("row", [_split("column", plots), _split("column", ["StateTransitions!sensors", "Plot!time"])])
    right: list[Node] = [*pictures, "DiagnosticSummary!health"]
    shares = [22.0] * len(pictures) + [100 - 22.0 * len(pictures)] if len(pictures) < 4 else None
    layout = _split("row", [_split("column", [scene, below], [60, 40]), _split("column", right, shares)], [62, 38])
    content = {
        "configById": panels,
        "globalVariables": {},
        "userNodes": {},
        "playbackConfig": {"speed": 1},
        "layout": layout,
    }
    return json.dumps(content, indent=2) + "\n"


def _scene(topics: NodeTopics, frame: str) -> dict[str, Any]:
    cloud = {
        "visible": True,
        "colorField": "intensity",
        "colorMode": "colormap",
        "colorMap": "turbo",
        "pointSize": 2,
    }
    shown: dict[str, Any] = {topic: dict(cloud) for topic in topics.lidar_topics}
    shown[topics.output("markers")] = {"visible": True}
    shown[topics.output("track_markers")] = {"visible": topics.tracking}
    if topics.lidar_topics:
        shown[topics.output("weights/bev/grid")] = {"visible": True, "colorMode": "costmap", "alpha": 0.5}
    follow = {"followMode": "follow-pose", "followTf": frame} if frame else {"followMode": "follow-pose"}
    return {
        "foxglovePanelTitle": "Detections (orange: LiDAR, blue: cameras)",
        "cameraState": {
            "perspective": True,
            "distance": 70,
            "phi": 50,
            "thetaOffset": 90,
            "targetOffset": [0, 0, 0],
            "target": [0, 0, 0],
            "targetOrientation": [0, 0, 0, 1],
            "fovy": 45,
            "near": 0.5,
            "far": 5000,
        },
        **follow,
        "scene": {"backgroundColor": "#1e1e22", "transforms": {"labelSize": 0.1, "axisScale": 1}},
        "transforms": {},
        "topics": shown,
        "layers": {
            "grid": {
                "layerId": "foxglove.Grid",
                "instanceId": "grid",
                "label": "Grid",
                "visible": True,
                "size": 120,
                "divisions": 12,
                "lineWidth": 1,
                "color": "#5a5a5aff",
                "frameLocked": True,
                "position": [0, 0, 0],
                "rotation": [0, 0, 0],
                "order": 1,
            }
        },
        "publish": {},
        "imageMode": {},
    }


def _image(topics: NodeTopics, name: str) -> dict[str, Any]:
    return {
        "foxglovePanelTitle": f"Weights {'BEV' if name == 'bev' else name}",
        "imageMode": {"imageTopic": topics.output(f"weights/{name}/image")},
        "topics": {},
        "layers": {},
        "transforms": {},
        "scene": {},
        "publish": {},
    }


def _weights(topics: NodeTopics) -> dict[str, Any]:
    """Return the plot of each detection's weights; a message has many detections, so points are not joined."""
    detections = topics.output("detections") + ".detections[:]"
    return _plot(
        "Weights of the detections",
        _Series(f"{detections}.lidar_weight", "LiDAR", _css(LIDAR_COLOUR)),
        _Series(f"{detections}.camera_weight", "cameras", _css(CAMERA_COLOUR)),
        _Series(f"{detections}.score", "score", _GREY),
    )


def _camera_weights(topics: NodeTopics) -> dict[str, Any]:
    """Return the plot of the weights by camera, which have the order of the cameras in use."""
    detections = topics.output("detections") + ".detections[:]"
    names = [camera.name for camera in topics.cameras]
    series = [
        _Series(f"{detections}.camera_weights[{index}]", name, _CAMERA_PALETTE[index % len(_CAMERA_PALETTE)])
        for index, name in enumerate(names)
    ]
    return _plot("Weights by camera, while all cameras are used", *series)


def _times(topics: NodeTopics) -> dict[str, Any]:
    total = _Series(topics.output("timing") + ".total_milliseconds", "frame [ms]", _GREEN, joined=True)
    return _plot("Time of a frame", total)


def _sensors(topics: NodeTopics) -> dict[str, Any]:
    lidars = ["lidar", *(f"lidar_{number}" for number in range(2, len(topics.lidar_topics) + 1))]
    names = [*lidars[: len(topics.lidar_topics)], *(camera.name for camera in topics.cameras)]
    sensors = topics.output("detections") + ".sensors"
    paths = [
        {"value": f'{sensors}[:]{{name=="{name}"}}.used', "label": name, "timestampMethod": "headerStamp"}
        for name in names
    ]
    return {"foxglovePanelTitle": "Sensors in use", "paths": paths, "isSynced": True}


def _plot(title: str, *series: _Series) -> dict[str, Any]:
    return {
        "foxglovePanelTitle": title,
        "paths": [
            {
                "value": line.path,
                "label": line.label,
                "color": line.colour,
                "enabled": True,
                "showLine": line.joined,
                "timestampMethod": "headerStamp",
            }
            for line in series
        ],
        "showXAxisLabels": True,
        "showYAxisLabels": True,
        "showLegend": True,
        "legendDisplay": "floating",
        "isSynced": True,
        "xAxisVal": "timestamp",
        "sidebarDimension": 240,
    }


def _split(direction: str, parts: Sequence[Node], shares: list[float] | None = None) -> Node:
    """Return a split of the window; Foxglove divides in two, so that the later parts share the second half."""
    first, *others = parts
    if not others:
        return first
    own = shares or [100 / len(parts)] * len(parts)
    rest = sum(own[1:])
    return {
        "direction": direction,
        "first": first,
        "second": _split(direction, others, [100 * share / rest for share in own[1:]]),
        "splitPercentage": own[0],
    }


def _css(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
