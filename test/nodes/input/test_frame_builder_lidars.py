# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The sweeps of several LiDARs are decoded, scaled and moved one by one, and joined."""

import math
from typing import Any

import numpy as np
import pytest
import tf2_ros
from helpers.sensor_messages import MS, START, sweep, transform, with_header
from sensor_msgs.msg import PointCloud2

from aqr_perception.geometry import invert, rigid_transform, transform_points
from aqr_perception.nodes.input.frame_builder import AssembledFrame, FrameBuilder
from aqr_perception.nodes.input.frame_request import AssemblerSettings, FrameRequest, LidarSettings, SensorUse
from aqr_perception.nodes.input.transforms import FrameTransforms

MOUNTS = {
    "lidar": rigid_transform([1.0, 0.0, 1.8], [0, 0, 0, 1]),
    "lidar_2": rigid_transform([0.5, 1.0, 1.0], [0, 0, np.sqrt(0.5), np.sqrt(0.5)]),
    "lidar_3": rigid_transform([0.5, -1.0, 1.0], [0, 0.1, -0.7, 0.7]),
}
SCALES = {"lidar": 1.0, "lidar_2": 2.0, "lidar_3": 255.0}
POINTS = {
    "lidar": [[4, 5, 6, 70], [7, 8, 9, 80]],
    "lidar_2": [[1, 2, 3, 40], [5, -2, 1, 60]],
    "lidar_3": [[3, 2, 1, 0.5]],
}


def lidar_sweep(name: str, points: list[list[float]], stamp_ns: int = START, names: str = "xyzi") -> PointCloud2:
    return with_header(sweep(points, stamp_ns, names), f"{name}_frame", stamp_ns)


def in_base(name: str, age: float = 0.0) -> np.ndarray:
    """Return the points of a LiDAR as they should be in the frame, (N, 5)."""
    points = np.array(POINTS[name], np.float32)
    moved = transform_points(MOUNTS[name], points)
    return np.c_[moved, points[:, 3] * SCALES[name], np.full(len(points), age)]


class LidarRig:
    """Three LiDARs on a vehicle whose pose in ``odom`` tests may set."""

    def __init__(self, **changes: Any) -> None:
        further = [
            LidarSettings(name, f"/{name}", SCALES[name], f"lidar.{name[-1]}.scale") for name in list(MOUNTS)[1:]
        ]
        defaults = {"further_lidars": tuple(further), "model_frame": "base_link", "transform_wait": 0.0}
        self.settings = AssemblerSettings(lidar_topic="/lidar", **(defaults | changes))
        self.builder, self.buffer = FrameBuilder(), tf2_ros.Buffer()
        for name, mount in MOUNTS.items():
            self.buffer.set_transform_static(transform("base_link", f"{name}_frame", mount), "test")
        self.sweeps = {name: (lidar_sweep(name, points),) for name, points in POINTS.items()}
        self.left_out: dict[str, SensorUse] = {}

    def drive_to(self, pose: np.ndarray, stamp_ns: int) -> None:
        self.buffer.set_transform(transform("odom", "base_link", pose, stamp_ns), "test")

    def build(self, stamp_ns: int = START, model_frame: str = "base_link") -> AssembledFrame:
        further = {name: sweeps for name, sweeps in self.sweeps.items() if name != "lidar"}
        request = FrameRequest(
            stamp_ns, model_frame, self.sweeps.get("lidar", ()), (), self.settings, self.left_out,
            further_sweeps=further, trigger="lidar",
        )  # fmt: skip
        return self.builder.build(request, FrameTransforms(self.buffer, self.settings.fixed_frame))


def uses(built: AssembledFrame) -> dict[str, str]:
    """Return each sensor's reason; ``used`` for a used one."""
    return {use.name: "used" if use.used else use.reason for use in built.sensors}


def points_of(built: AssembledFrame) -> np.ndarray:
    assert built.frame is not None and built.frame.points is not None
    return built.frame.points


def test_the_sweeps_of_all_lidars_are_joined_in_the_model_frame() -> None:
    built = LidarRig().build()
    np.testing.assert_allclose(points_of(built), np.concatenate([in_base(name) for name in MOUNTS]), atol=1e-5)
    assert points_of(built).dtype == np.float32
    assert (uses(built), built.warnings) == (dict.fromkeys(MOUNTS, "used"), [])


def test_each_sweep_moves_from_its_own_time() -> None:
    rig = LidarRig(fixed_frame="odom")
    poses = {
        -30: rigid_transform([-1, 0, 0], [0, 0, 0.1, 1]),
        0: np.eye(4),
        20: rigid_transform([2, 1, 0], [0, 0, 0, 1]),
    }
    for time, pose in poses.items():
        rig.drive_to(pose, START + time * MS)
    times = {"lidar": 0, "lidar_2": -30, "lidar_3": 20}
    for name, time in times.items():
        rig.sweeps[name] = (lidar_sweep(name, POINTS[name], START + time * MS),)
    built = rig.build()
    found = points_of(built)
    for name, time in times.items():
        expected = in_base(name, age=-time / 1e3)
        expected[:, :3] = transform_points(poses[time], expected)
        own = found[np.isclose(found[:, 4], -time / 1e3)]
        np.testing.assert_allclose(own, expected, atol=1e-4)
    assert {use.name: pytest.approx(-times[use.name] / 1e3) for use in built.sensors} == {
        use.name: use.age for use in built.sensors
    }


def test_past_sweeps_of_all_lidars_follow_the_newest_ones() -> None:
    rig = LidarRig(fixed_frame="odom", max_sweeps=2)
    for time in (-100, 0):
        rig.drive_to(np.eye(4), START + time * MS)
    rig.sweeps = {
        name: tuple(lidar_sweep(name, POINTS[name], START + time * MS) for time in (0, -100)) for name in MOUNTS
    }
    found = points_of(rig.build())
    np.testing.assert_allclose(found[:, 4], [0.0] * 5 + [0.1] * 5, atol=1e-6)
    np.testing.assert_allclose(found[5:, :4], found[:5, :4], atol=1e-5)


def without_x(name: str) -> PointCloud2:
    return lidar_sweep(name, [[1, 2, 3]], names="yzi")


def empty(name: str) -> PointCloud2:
    return lidar_sweep(name, [[math.nan] * 4])


def in_millimetres(name: str) -> PointCloud2:
    return lidar_sweep(name, [[4000, 5000, 0, 7]])


def without_frame(name: str) -> PointCloud2:
    return with_header(lidar_sweep(name, POINTS[name]), "", START)


def without_tf(name: str) -> PointCloud2:
    return with_header(lidar_sweep(name, POINTS[name]), "nowhere", START)


@pytest.mark.parametrize("broken", MOUNTS)
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_x, "point cloud without x"),
        (empty, "empty point cloud"),
        (in_millimetres, "implausible distances"),
        (without_frame, "empty frame_id"),
        (without_tf, "no transform"),
    ],
)
def test_a_broken_lidar_is_named_and_costs_no_other(broken: str, spoil: Any, reason: str) -> None:
    rig = LidarRig()
    rig.sweeps[broken] = (spoil(broken),)
    built = rig.build()
    assert uses(built) == dict.fromkeys(MOUNTS, "used") | {broken: reason}
    others = [in_base(name) for name in MOUNTS if name != broken]
    np.testing.assert_allclose(points_of(built), np.concatenate(others), atol=1e-5)
    assert len(built.warnings) == 1 and (f"/{broken}: " in built.warnings[0] or "nowhere" in built.warnings[0])


def test_a_lidar_with_only_broken_sweeps_is_not_used_though_past_ones_are_kept() -> None:
    rig = LidarRig(fixed_frame="odom", max_sweeps=2)
    for time in (0, 100, 200):
        rig.drive_to(np.eye(4), START + time * MS)
    states = []
    for time in (0, 100, 200):
        stamp_ns = START + time * MS
        good = {name: lidar_sweep(name, POINTS[name], stamp_ns) for name in MOUNTS}
        broken = with_header(without_x("lidar_2"), "lidar_2_frame", stamp_ns)
        newest = good | ({"lidar_2": broken} if time else {})
        rig.sweeps = {name: (newest[name], *(rig.sweeps[name][:1] if time else ())) for name in MOUNTS}
        built = rig.build(stamp_ns)
        states.append((uses(built)["lidar_2"], len(points_of(built))))
    reason = "point cloud without x"
    assert states == [("used", 5), (reason, 6), (reason, 6)]


def test_where_every_lidar_is_broken_there_is_no_frame() -> None:
    rig = LidarRig()
    rig.sweeps = {name: (without_x(name),) for name in MOUNTS}
    built = rig.build()
    assert built.frame is None and set(uses(built).values()) == {"point cloud without x"}


def test_a_wrong_intensity_range_is_named_with_the_parameter_of_its_lidar() -> None:
    rig = LidarRig()
    random = np.random.default_rng(0)
    for name, top in (("lidar", 200), ("lidar_2", 30_000), ("lidar_3", 0.9)):
        points = np.c_[random.uniform(-20, 20, (200, 3)), random.uniform(0, top, 200)]
        rig.sweeps[name] = (lidar_sweep(name, points.tolist()),)
    built = rig.build()
    assert {use.name: use.doubt for use in built.sensors} == {
        "lidar": "", "lidar_2": "intensity out of range", "lidar_3": ""
    }  # fmt: skip
    (warning,) = built.warnings
    assert warning.startswith("/lidar_2: ") and "`lidar.2.scale` 0.0085" in warning


def test_a_model_frame_that_will_change_is_said_once() -> None:
    rig = LidarRig(model_frame="")
    del rig.sweeps["lidar"]
    rig.left_out = {"lidar": SensorUse("lidar", False, reason="no data")}
    first, second = rig.build(model_frame="lidar_2_frame"), rig.build(model_frame="lidar_2_frame")
    (warning,) = first.warnings
    assert warning.startswith("/lidar: model frame may change: found 'lidar_2_frame'") and "`model_frame`" in warning
    assert second.warnings == []
    np.testing.assert_allclose(
        points_of(second)[2, :3], transform_points(invert(MOUNTS["lidar_2"]), in_base("lidar_3"))[0], atol=1e-5
    )
