# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice of the TF frames for the node: the fixed frame, the model's, the boxes' and the ground's."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import TransformTree
from aqr_perception.data.ground import ground_height
from aqr_perception.data.recordings.trained_frame import trained_frame
from aqr_perception.frame import FramePlacement
from aqr_perception.geometry import quaternion_xyzw, transform_points
from aqr_perception.inspection.cloud_layout import Sweep
from aqr_perception.inspection.finding import Finding, finding
from aqr_perception.inspection.tf_tree import TfTree
from aqr_perception.nodes.input.placement import HEIGHT_TOLERANCE

_FIXED = ("odom", "map", "world", "earth")
_VEHICLE = ("base_link", "base_footprint", "vehicle", "ego", "ego_vehicle", "body", "imu_link")
_ON_GROUND = 0.15
_SHORTEST_PATH = 2.0
_LARGEST_TURN = 20.0
_MOST_POINTS = 60_000
_COVERED = 0.5
"""Smallest share of the sweeps at which the motion must be known."""


@dataclass(frozen=True)
class VehicleFrames:
    """Frames for the node; empty where none fits.

    Attributes:
        reasons: why each parameter has its value.
        height: of the LiDAR's frame above the ground in metres; NaN if unknown.
        heading: direction of driving in the LiDAR's frame in degrees from x to y; NaN if unknown.
        heading_source: how it is known.
        static_transform: command that publishes a model frame; empty if there is one.
    """

    fixed: str
    model: str
    output: str
    base: str
    reasons: dict[str, str]
    height: float = math.nan
    heading: float = math.nan
    heading_source: str = "the vehicle hardly moves, and no camera is called front"
    static_transform: str = ""
    findings: tuple[Finding, ...] = ()


def vehicle_frames(
    tree: TfTree,
    transforms: TransformTree,
    lidar_frame: str,
    sweeps: Sequence[Sweep],
    stamps: Sequence[int],
    front: tuple[str, int] | None,
    placement: FramePlacement | None,
) -> VehicleFrames:
    """Return the frames for a recording.

    Args:
        lidar_frame: frame of the first LiDAR; empty without one.
        sweeps: some of its sweeps.
        stamps: stamps of its sweeps, ascending; of images without LiDAR.
        front: optical frame of the camera called front, and the stamp of one of its pictures.
        placement: where the model's frame lies.
    """
    anchor = lidar_frame or (front[0] if front else "")
    fixed, why_fixed = _fixed(tree, transforms, anchor, stamps)
    output = _vehicle_frame(tree, anchor)
    height = _height(sweeps)
    heading, source = _heading(transforms, lidar_frame, stamps, fixed, front) if lidar_frame else (math.nan, "")
    model, why_model, command, findings = _model(tree, transforms, lidar_frame, sweeps, height, heading, placement)
    base = _ground_frame(tree, transforms, lidar_frame, sweeps)
    reasons = {
        "fixed_frame": why_fixed,
        "model_frame": why_model,
        "output_frame": f"{output!r} is the vehicle's frame in TF"
        if output
        else "TF has no vehicle's frame; the model frame",
        "base_frame": "its z = 0 is the ground below the sweeps"
        if base
        else "no frame of TF is known to be on the ground",
    }
    if not lidar_frame and not model:
        model = output
        reasons["model_frame"] = "without LiDAR, boxes need a frame; the vehicle's is taken"
    return VehicleFrames(
        fixed, model, output, base, reasons, height, heading, source or VehicleFrames.heading_source, command,
        tuple(findings),
    )  # fmt: skip


def _fixed(tree: TfTree, transforms: TransformTree, frame: str, stamps: Sequence[int]) -> tuple[str, str]:
    """Return the frame in which the vehicle's motion is known, and why."""
    upward = tree.ancestors(frame)
    last_moving = max((index for index, edge in enumerate(upward) if not edge.static), default=None)
    if last_moving is None:
        return (
            "",
            "TF has no moving frame above the sensors: the vehicle's motion is ignored, sweeps are not accumulated",
        )
    first_moving = next(index for index, edge in enumerate(upward) if not edge.static)
    candidates = [edge.parent for edge in upward[first_moving:]]
    ranked = sorted(candidates, key=lambda name: _FIXED.index(name) if name in _FIXED else len(_FIXED))
    for name in ranked:
        covered = _covered(transforms, frame, name, stamps)
        if covered >= _COVERED:
            text = f"the motion in {name!r} is known at {100 * covered:.0f} % of the sweeps"
            others = [other for other in ranked if other != name]
            return name, text + (f"; {', '.join(others)} would be possible, too" if others else "")
    return "", f"the motion in {', '.join(ranked)} is not known at the times of the sweeps (record /tf as long as they)"


def _covered(transforms: TransformTree, frame: str, fixed: str, stamps: Sequence[int]) -> float:
    """Return the share of some stamps at which a frame's place in the fixed frame is known."""
    sample = stamps[:: max(1, len(stamps) // 50)]
    known = [_lookup(transforms, fixed, stamp, frame, stamp) is not None for stamp in sample]
    return sum(known) / len(known) if known else 0.0


def _vehicle_frame(tree: TfTree, frame: str) -> str:
    """Return the vehicle's frame: one of the usual names, or the parent frame of the sensor."""
    rigid = tree.rigid(frame)
    usual = next((name for name in _VEHICLE if name in rigid), "")
    if usual:
        return usual
    above = [edge.parent for edge in tree.ancestors(frame) if edge.static]
    return above[-1] if above else ""


def _height(sweeps: Sequence[Sweep]) -> float:
    heights = [_ground(sweep.points) for sweep in sweeps[:3]]
    known = [height for height in heights if height is not None]
    return float(np.median(known)) if known else math.nan


def _ground(points: NDArray[np.float32]) -> float | None:
    return ground_height(points[:: max(1, len(points) // _MOST_POINTS)])


def _heading(
    transforms: TransformTree, frame: str, stamps: Sequence[int], fixed: str, front: tuple[str, int] | None
) -> tuple[float, str]:
    """Return the direction of driving in the LiDAR's frame in degrees, and how it is known."""
    if fixed and stamps:
        path, length = np.zeros(3), 0.0
        sample = stamps[:: max(1, len(stamps) // 200)]
        poses = [_lookup(transforms, fixed, stamp, frame, stamp) for stamp in sample]
        known = [pose for pose in poses if pose is not None]
        for before, after in itertools.pairwise(known):
            step = before[:3, :3].T @ (after[:3, 3] - before[:3, 3])
            path += step
            length += float(np.linalg.norm(step))
        if np.hypot(path[0], path[1]) >= max(_SHORTEST_PATH, 0.8 * length):
            return float(np.degrees(np.arctan2(path[1], path[0]))), f"{length:.0f} m of driving in {fixed!r}"
    if front is not None:
        optical, stamp = front
        pose = _lookup(transforms, frame, stamp, optical, stamp)
        if pose is not None and np.hypot(pose[0, 2], pose[1, 2]) > 0.5:
            return float(np.degrees(np.arctan2(pose[1, 2], pose[0, 2]))), f"view of the camera {optical!r}"
    return math.nan, ""


def _model(
    tree: TfTree, transforms: TransformTree, frame: str, sweeps: Sequence[Sweep], height: float, heading: float,
    placement: FramePlacement | None,
) -> tuple[str, str, str, list[Finding]]:  # fmt: skip
    """Return the model frame, why, a command that publishes one if none fits, and findings."""
    if placement is None or not frame or not sweeps:
        return "", "the frame of the first LiDAR", "", []
    if math.isnan(height) and math.isnan(heading):
        return (
            "",
            "the frame of the first LiDAR; neither ground nor direction are visible, so it is not checked",
            "",
            [],
        )
    stamp = sweeps[0].stamp_ns
    rigid = sorted(tree.rigid(frame) - {frame}, key=lambda name: (name != "model", name))
    for name in (frame, *rigid):
        pose = _lookup(transforms, name, stamp, frame, stamp)
        if pose is None or not _fits(pose, sweeps[0].points, height, heading, placement):
            continue
        if name == frame:
            return (
                "",
                f"the LiDAR's frame {frame!r} has about the height and axes of the model's training",
                "",
                [],
            )
        return name, "it has about the height and axes of the model's training", "", []
    pose = np.eye(4) if math.isnan(height) else trained_frame(height, placement, np.eye(4))
    turn = 0.0 if math.isnan(heading) else math.radians(heading)
    around = np.eye(4)
    around[:2, :2] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    x, y, z, w = quaternion_xyzw(around @ pose)
    command = (
        f"ros2 run tf2_ros static_transform_publisher --z {pose[2, 3]:.2f} --qx {x:.4f} --qy {y:.4f} --qz {z:.4f} "
        f"--qw {w:.4f} --frame-id {frame} --child-frame-id model"
    )
    at = "an unknown height" if math.isnan(height) else f"{height:.2f} m above the ground"
    ahead = "driving in an unknown direction" if math.isnan(heading) else f"driving along {heading:+.0f} degrees"
    problem = finding(
        "odd", frame, "model frame unlike the training's", f"{frame!r} {at}, {ahead} from its x axis",
        f"{placement.height:.2f} m, driving along {placement.forward}", f"run `{command}` and set model_frame: model",
    )  # fmt: skip
    return "", "no frame of TF has the height and axes of the model's training", command, [problem]


def _fits(
    pose: NDArray[np.float64], points: NDArray[np.float32], height: float, heading: float, placement: FramePlacement
) -> bool:
    """Return whether a frame lies as in the training; pose: LiDAR -> frame, (4, 4)."""
    if not math.isnan(height):
        own = _ground(transform_points(pose, points[:, :3]).astype(np.float32))
        if own is None or abs(own - placement.height) > HEIGHT_TOLERANCE:
            return False
    if math.isnan(heading):
        return True
    ahead = pose[:2, :2] @ (math.cos(math.radians(heading)), math.sin(math.radians(heading)))
    off = math.degrees(math.atan2(ahead[1], ahead[0])) - (0.0 if placement.forward == "x" else 90.0)
    return abs((off + 180.0) % 360.0 - 180.0) <= _LARGEST_TURN


def _ground_frame(tree: TfTree, transforms: TransformTree, frame: str, sweeps: Sequence[Sweep]) -> str:
    """Return a frame on the ground; empty if none is known to be."""
    usual = [name for name in ("base_footprint", "ground", *_VEHICLE) if name in tree.rigid(frame)]
    for name in usual if sweeps and frame else ():
        pose = _lookup(transforms, name, sweeps[0].stamp_ns, frame, sweeps[0].stamp_ns)
        height = None if pose is None else _ground(transform_points(pose, sweeps[0].points[:, :3]).astype(np.float32))
        if height is not None and abs(height) <= _ON_GROUND:
            return name
    return ""


def _lookup(
    transforms: TransformTree, target: str, target_ns: int, source: str, source_ns: int
) -> NDArray[np.float64] | None:
    try:
        return transforms.lookup(target, target_ns, source, source_ns)
    except BagError:
        return None
