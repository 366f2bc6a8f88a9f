# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The node's times for a recording: largest ages and longest waits, from measured stamps and delays."""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aqr_perception.bags.poses import stamp_to_ns
from aqr_perception.inspection.clock_offsets import StampOffsets
from aqr_perception.inspection.observations import Topic, pairs
from aqr_perception.inspection.tf_tree import TfTree
from aqr_perception.inspection.topic_rates import TopicRate

DEFAULTS = {
    "max_camera_age": 0.2, "max_lidar_age": 0.2, "camera_wait": 0.05, "lidar_timeout": 0.5, "camera_only_period": 0.1,
    "transform_wait": 0.1, "marker_lifetime": 0.8,
}  # fmt: skip
"""The node's defaults, in seconds."""

_MARGIN = 1.25
_LONGEST_WAIT = 2.0
_MOST_SWEEPS = 500


@dataclass(frozen=True)
class Time:
    """Value of a parameter in seconds, and the reason."""

    seconds: float
    reason: str


def node_times(
    cameras: Sequence[Topic],
    lidars: Sequence[Topic],
    rates: Mapping[str, TopicRate],
    offsets: Mapping[str, StampOffsets],
    tree: TfTree,
    frame: str,
) -> dict[str, Time]:
    """Return the node's parameters of time.

    Args:
        cameras, lidars: the chosen topics, the LiDAR that triggers frames first.
        rates, offsets: of these topics, by name.
        frame: TF frame of the first LiDAR, or of a camera.
    """
    periods = [rates[topic.name].period for topic in lidars if rates[topic.name].period > 0]
    camera_periods = [rates[topic.name].period for topic in cameras if rates[topic.name].period > 0]
    frame_period = periods[0] if periods else min(camera_periods, default=0.1)
    ages = {topic.name: offsets[topic.name].to_lidar_worst for topic in cameras if not offsets[topic.name].faults}
    lidar_ages = {
        topic.name: offsets[topic.name].to_lidar_worst for topic in lidars[1:] if not offsets[topic.name].faults
    }
    others = [topic for topic in (*cameras, *lidars[1:]) if not offsets[topic.name].faults]
    times = {
        "max_camera_age": _at_least(
            "max_camera_age", ages, "for 95 % of the sweeps, the nearest picture of {} is within"
        ),
        "max_lidar_age": _at_least(
            "max_lidar_age", lidar_ages, "for 95 % of the frames, the nearest sweep of {} is within"
        ),
        "camera_wait": _camera_wait(others, lidars, frame_period),
        "transform_wait": _transform_wait(tree, frame, (lidars or list(cameras))[:1]),
    }
    silence = max([rates[topic.name].period for topic in lidars[:1] if rates[topic.name].period > 0], default=0.0)
    text = f"sweeps come every {silence:.3f} s; two may be missing" if silence else "no LiDAR: without effect"
    times["lidar_timeout"] = Time(_round(max(DEFAULTS["lidar_timeout"], 2.5 * silence)), text)
    shortest = min(camera_periods, default=0.1)
    text = f"pictures come every {shortest:.3f} s" if camera_periods else "no cameras: without effect"
    times["camera_only_period"] = Time(_round(max(DEFAULTS["camera_only_period"], min(shortest, 60.0))), text)
    text = f"frames come every {frame_period:.3f} s"
    times["marker_lifetime"] = Time(_round(min(max(DEFAULTS["marker_lifetime"], 2.5 * frame_period), 60.0)), text)
    return times


def _at_least(name: str, worst: Mapping[str, float], text: str) -> Time:
    """Return the default, or more if measured offsets need it."""
    known = {topic: value for topic, value in worst.items() if not math.isnan(value)}
    if not known:
        return Time(DEFAULTS[name], "the default: there is nothing to compare")
    topic = max(known, key=lambda one: known[one])
    return Time(
        _round(min(max(DEFAULTS[name], _MARGIN * known[topic]), 10.0)), f"{text.format(topic)} {known[topic]:.3f} s"
    )


def _camera_wait(others: Sequence[Topic], lidars: Sequence[Topic], frame_period: float) -> Time:
    """Return the wait for pictures that are recorded after their sweep."""
    sweeps = (
        [entry for entry in pairs(lidars[0]) if entry[0] > 0][:: 1 + len(lidars[0].stamps) // _MOST_SWEEPS]
        if lidars
        else []
    )
    latest = 0.0
    for topic in others:
        entries = sorted(entry for entry in pairs(topic) if entry[0] > 0)
        if not sweeps or not entries:
            continue
        stamps = [stamp for stamp, _ in entries]
        delays = []
        for stamp, recorded in sweeps:
            index = bisect.bisect_left(stamps, stamp)
            near = min((i for i in (index - 1, index) if 0 <= i < len(stamps)), key=lambda i: abs(stamps[i] - stamp))
            delays.append((entries[near][1] - recorded) / 1e9)
        latest = max(latest, float(np.percentile(delays, 95)))
    longest = max(frame_period, DEFAULTS["camera_wait"])
    if latest <= 0:
        return Time(DEFAULTS["camera_wait"], "pictures arrive before their sweep")
    wait = min(max(DEFAULTS["camera_wait"], _MARGIN * latest), longest, _LONGEST_WAIT)
    return Time(_round(wait), f"pictures arrive up to {latest:.3f} s after their sweep; at most the time of a frame")


def _transform_wait(tree: TfTree, frame: str, sensors: Sequence[Topic]) -> Time:
    """Return the wait for the vehicle's motion, which arrives after the sweep of its time."""
    moving = [edge.child for edge in tree.ancestors(frame) if not edge.static]
    sweeps = [entry for topic in sensors for entry in pairs(topic) if entry[0] > 0]
    sweeps = sweeps[:: max(1, len(sweeps) // _MOST_SWEEPS)]
    latest = -math.inf
    for child in moving:
        entries = sorted(
            (stamp_to_ns(one.message.header.stamp), one.recorded_ns)
            for one in tree.usable if not one.static and one.message.child_frame_id.removeprefix("/") == child
        )  # fmt: skip
        stamps = [stamp for stamp, _ in entries]
        found = [
            (entries[index][1] - recorded) / 1e9
            for stamp, recorded in sweeps if (index := bisect.bisect_left(stamps, stamp)) < len(stamps)
        ]  # fmt: skip
        if found:
            latest = max(latest, float(np.percentile(found, 95)))
    if math.isinf(latest):
        return Time(DEFAULTS["transform_wait"], "the default")
    wait = min(max(DEFAULTS["transform_wait"], _MARGIN * latest), _LONGEST_WAIT)
    late = f"up to {latest:.3f} s after" if latest > 0 else "before"
    return Time(_round(wait), f"the motion arrives {late} the sweep of its time")


def _round(seconds: float) -> float:
    """Round up to hundredths."""
    return math.ceil(round(seconds * 100, 6)) / 100
