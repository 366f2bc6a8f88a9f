# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Stamps of the sensors: against the times of recording, against each other, and as the node judges them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aqr_perception.inspection.finding import Finding, finding
from aqr_perception.inspection.observations import Topic, pairs
from aqr_perception.nodes.clocks.sensor_clocks import SensorClocks
from aqr_perception.nodes.clocks.stamp_sequence import TOLERANCE_NS, Arrival

_SAME_FRAME_NS, _WAIT_NS = 200_000_000, 50_000_000
"""Defaults of `max_camera_age` and `camera_wait`, by which the node compares clocks."""
_DRIFT = 200e-6
"""Drift above which two clocks are not synchronised: a free quartz clock drifts by 10 to 100 parts in a million."""
_SHORTEST_DRIFT_TIME = 20.0
_LEAST_DRIFT = 0.01
_NAMED_SHARE = 0.02
"""Share of a sensor's messages in which the node must find a fault before it is a finding."""
_FEWEST = 5


@dataclass(frozen=True)
class StampOffsets:
    """Stamps of one sensor.

    Attributes:
        latency: median time from the stamp to the recording, in seconds; NaN without stamps.
        latency_spread: from the 5th to the 95th percentile.
        drift: change of the latency, in seconds a second; NaN if too short to tell.
        zero: number of messages without a stamp.
        backwards: number of messages with an earlier stamp than the one before.
        repeated: number of messages with the same stamp as the one before.
        to_lidar: median time from the nearest sweep's stamp to this stamp, in seconds; NaN without LiDAR.
        to_lidar_spread: half the range from the 5th to the 95th percentile.
        to_lidar_worst: 95th percentile of its magnitude.
        faults: number of messages during which the node finds a fault in the stamps, by the fault.
    """

    latency: float = float("nan")
    latency_spread: float = float("nan")
    drift: float = float("nan")
    zero: int = 0
    backwards: int = 0
    repeated: int = 0
    to_lidar: float = float("nan")
    to_lidar_spread: float = float("nan")
    to_lidar_worst: float = float("nan")
    faults: Mapping[str, int] = field(default_factory=dict)


def stamp_offsets(sensors: Sequence[Topic], lidar: Topic | None) -> dict[str, StampOffsets]:
    """Return the offsets of the sensors' stamps, by topic.

    Args:
        lidar: topic with which the others are compared.
    """
    faults = node_faults(sensors)
    sweeps = np.sort(np.array([stamp for stamp, _ in pairs(lidar) if stamp > 0], np.int64)) if lidar else None
    return {topic.name: _offsets(topic, sweeps, faults[topic.name]) for topic in sensors}


def node_faults(sensors: Sequence[Topic]) -> dict[str, Counter[str]]:
    """Return how many messages of each sensor come while the node finds a fault in its stamps, by fault.

    The messages pass through the node's own judge, with their times of recording as times of arrival.
    """
    clocks = SensorClocks([topic.name for topic in sensors], _SAME_FRAME_NS, _SAME_FRAME_NS + _WAIT_NS)
    counts: dict[str, Counter[str]] = {topic.name: Counter() for topic in sensors}
    entries = sorted((recorded, topic.name, stamp) for topic in sensors for stamp, recorded in pairs(topic))
    for recorded, name, stamp in entries:
        arrival = Arrival(recorded / 1e9, recorded)
        if stamp == 0:
            clocks.add_unstamped(name, arrival)
        elif stamp > 0:
            clocks.add(name, stamp, arrival, None)
        fault = clocks.fault(name)
        if fault:
            counts[name][_kind(fault)] += 1
    return counts


def _kind(fault: str) -> str:
    """Return a fault with its seconds rounded, so that equal ones count as one."""
    words = fault.split(" ")
    return " ".join(f"{float(word):.0f}" if _is_number(word) else word for word in words)


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdecimal()


def _offsets(topic: Topic, sweeps: NDArray[np.int64] | None, faults: Counter[str]) -> StampOffsets:
    entries = np.array(pairs(topic), np.int64).reshape(-1, 2)
    stamps, recorded = entries[:, 0], entries[:, 1]
    steps = np.diff(stamps)
    stamped = stamps > 0
    found = StampOffsets(
        zero=int((~stamped).sum()),
        backwards=int((steps[stamped[1:]] < 0).sum()),
        repeated=int((steps[stamped[1:]] == 0).sum()),
        faults=dict(faults.most_common()),
    )
    if not stamped.any():
        return found
    latency = (recorded[stamped] - stamps[stamped]) / 1e9
    low, middle, high = np.percentile(latency, (5, 50, 95))
    values = found.__dict__ | {
        "latency": float(middle), "latency_spread": float(high - low),
        "drift": _drift(recorded[stamped], latency, float(high - low)),
    }  # fmt: skip
    if sweeps is not None and len(sweeps):
        offsets = _to_nearest(stamps[stamped], sweeps)
        low, middle, high = np.percentile(offsets, (5, 50, 95))
        values |= {"to_lidar": float(middle), "to_lidar_spread": float(high - low) / 2}
        # As the node does, for each sweep the nearest picture.
        values["to_lidar_worst"] = float(np.percentile(np.abs(_to_nearest(sweeps, np.sort(stamps[stamped]))), 95))
    return StampOffsets(**values)


def _to_nearest(times: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the seconds from the nearest of some sorted times to each time."""
    after = np.clip(np.searchsorted(others, times), 1, max(len(others) - 1, 1))
    earlier, later = others[after - 1], others[np.minimum(after, len(others) - 1)]
    nearest = np.where(np.abs(times - earlier) <= np.abs(times - later), earlier, later)
    return np.asarray((times - nearest) / 1e9, np.float64)


def _drift(recorded: NDArray[np.int64], latency: NDArray[np.float64], spread: float) -> float:
    """Return the change of the latency per second; NaN where jitter or a leap hides it."""
    seconds = (recorded - recorded[0]) / 1e9
    if len(seconds) < _FEWEST or seconds[-1] < _SHORTEST_DRIFT_TIME:
        return float("nan")
    slope, start = np.polyfit(seconds, latency, 1)
    rest = float(np.percentile(np.abs(latency - start - slope * seconds), 90))
    change = abs(float(slope)) * seconds[-1]
    return float(slope) if change > max(2 * rest, _LEAST_DRIFT) or spread < _LEAST_DRIFT else float("nan")


def clock_findings(topics: Sequence[Topic], offsets: Mapping[str, StampOffsets]) -> list[Finding]:
    """Return what is wrong with the sensors' stamps."""
    findings = []
    for topic in topics:
        found = offsets[topic.name]
        for fault, count in found.faults.items():
            if count >= max(_NAMED_SHARE * len(topic.recorded), 2):
                text = f"{fault} at {count} of {len(topic.recorded)} messages"
                remedy = (
                    "set the sensor's clock (PTP), or let the driver stamp with it; until then the node leaves the "
                )
                remedy += "sensor out while others are right (`clock_policy`; `arrival` uses the time of arrival)"
                needed = "stamps that advance with the other sensors'"
                findings.append(finding("loses", topic.name, _problem(fault), text, needed, remedy))
        if found.backwards and not found.faults:
            text = f"{found.backwards} of {len(topic.recorded)} stamps before the one before"
            findings.append(
                finding("odd", topic.name, "stamps go back", text, "stamps that increase", "check driver and recorder")
            )
        if 0 < found.zero < len(topic.recorded) and not found.faults:
            text = f"{found.zero} of {len(topic.recorded)} messages without a stamp"
            findings.append(
                finding("odd", topic.name, "missing stamps", text, "a stamp in each header", "set it in the driver")
            )
        if abs(found.drift) > _DRIFT:
            text = f"stamps that drift by {-found.drift * 1e6:+.0f} parts in a million against the recorder's clock"
            needed, remedy = "one clock for all", "synchronise the sensor's clock (PTP)"
            findings.append(finding("odd", topic.name, "drifting clock", text, needed, remedy))
    known = {name: one.latency for name, one in offsets.items() if one.latency == one.latency and not one.faults}
    far = [name for name, latency in known.items() if abs(latency) > TOLERANCE_NS / 1e9]
    if known and len(far) == len(known):
        middle = sorted(known.values())[len(known) // 2]
        text = (
            f"stamps {abs(middle):.1f} s {'before' if middle > 0 else 'after'} the times of recording, for all sensors"
        )
        remedy = "play without --clock and with use_sim_time false, where the node compares sensors with each other"
        findings.append(finding("odd", "recording", "times of recording of another clock", text, "one clock", remedy))
    return findings


def _problem(fault: str) -> str:
    return fault if fault.startswith(("no stamp", "constant stamp")) else "clock of another time"
