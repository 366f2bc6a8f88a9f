# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Arrangement of Rerun's window: 3D scene, pictures of the cameras as on the vehicle, BEV, weights over time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import rerun as rr
import rerun.blueprint as rrb

from aqr_perception.viewers import rerun_recording as entities
from aqr_perception.viewers.camera_order import camera_rows

if TYPE_CHECKING:
    from rerun.blueprint import Blueprint, Container, View

_BACKGROUND = (30, 30, 34)
_EYE = (-28.0, -10.0, 30.0)
"""Where the 3D view is seen from, in metres: behind and above, for a frame whose x axis is forward."""


def blueprint(cameras: Sequence[str], lidar: bool = True) -> "Blueprint":
    """Return the arrangement for the cameras of a recording; `lidar`: with a bird's-eye view of its weights."""
    # The view follows the vehicle, as it lies in the origin.
    scene = rrb.Spatial3DView(
        origin=entities.VEHICLE,
        contents=f"{entities.WORLD}/**",
        name="Detections",
        background=_BACKGROUND,
        eye_controls=rrb.EyeControls3D(position=_EYE, look_target=(0.0, 0.0, 0.0), eye_up=(0.0, 0.0, 1.0)),
    )
    above: list[View | Container] = [scene]
    if lidar:
        above.append(rrb.Spatial2DView(origin=entities.BEV, name="LiDAR weights from above"))
    plots = rrb.Tabs(
        rrb.TimeSeriesView(origin=entities.BY_SENSOR, name="Weights of LiDAR and cameras"),
        rrb.TimeSeriesView(origin=entities.BY_CAMERA, name="By camera"),
        rrb.TimeSeriesView(origin=entities.BY_OBJECT, name="By object"),
    )
    below = rrb.Horizontal(plots, rrb.TextDocumentView(origin=entities.STATUS, name="Frame"), column_shares=[3, 1])
    parts: list[View | Container] = [rrb.Horizontal(*above, column_shares=[3, 2][: len(above)])]
    shares = [5.0]
    rows = camera_rows(list(cameras))
    parts += [rrb.Horizontal(*(_camera(name) for name in row)) for row in rows]
    shares += [2.0] * len(rows)
    time = rrb.TimePanel(timeline=entities.TIMELINE, state="collapsed")
    return rrb.Blueprint(
        rrb.Vertical(*parts, below, row_shares=[*shares, 2.5]),
        time,
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        auto_views=False,
    )


def _camera(name: str) -> "View":
    path = f"{entities.VEHICLE}/cameras/{rr.escape_entity_path_part(name)}"
    return rrb.Spatial2DView(origin=path, contents="$origin/**", name=name)
