# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Tracks of a running node over DDS: switched on and off at run time, with one identity while an object is missed."""

from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.msg import TrackArray
from helpers.faulty_sensors import RAW, CheapDetector, FaultySensors, running_sensors
from rclpy.parameter import Parameter


@pytest.fixture(scope="module")
def sensors() -> Iterator[FaultySensors]:
    with running_sensors() as sensors:
        yield sensors


def test_tracking_is_switched_at_run_time_and_keeps_an_identity_through_failures(sensors: FaultySensors) -> None:
    arrays: list[TrackArray] = sensors.listen(TrackArray, "/aqr_perception/tracks")
    assert sensors.run(20, sensors.is_healthy)
    sensors.run(0.5)
    assert not arrays, "tracking is off by default"

    (result,) = sensors.node.set_parameters([Parameter("tracking.enabled", value=True)])
    assert result.successful, result.reason
    assert sensors.run(5, lambda: len(arrays) > 3)
    (first,) = arrays[-1].tracks
    assert (first.id, first.class_name, first.predicted) == (1, "car", False)
    assert arrays[-1].header.frame_id == "base_link" and first.pose.position.x == pytest.approx(10.0, abs=0.1)

    sensors.remove_publisher(RAW)  # a camera dies: the object is followed on
    sensors.run(1.0)
    (later,) = arrays[-1].tracks
    assert later.id == 1 and later.hits > first.hits and later.age > first.age
    sensors.repair()

    sensors.node.set_parameters([Parameter("tracking.enabled", value=False)])
    sensors.run(0.5)
    count = len(arrays)
    sensors.run(0.5)
    assert len(arrays) == count

    sensors.node.set_parameters([Parameter("tracking.enabled", value=True)])
    assert sensors.run(5, lambda: len(arrays) > count + 1)
    assert [track.id for track in arrays[-1].tracks] == [2], "an identity is never given twice"


def test_a_missed_object_is_predicted_and_ends_after_max_age(
    sensors: FaultySensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays: list[TrackArray] = sensors.listen(TrackArray, "/aqr_perception/tracks")
    sensors.node.set_parameters([Parameter("tracking.enabled", value=True), Parameter("tracking.max_age", value=0.8)])
    assert sensors.run(20, lambda: bool(arrays) and len(arrays[-1].tracks) == 1)
    identity = arrays[-1].tracks[0].id
    monkeypatch.setattr(CheapDetector, "sees_the_car", False)
    assert sensors.run(5, lambda: [track.predicted for track in arrays[-1].tracks] == [True])
    assert arrays[-1].tracks[0].id == identity and arrays[-1].tracks[0].missed > 0
    assert sensors.run(5, lambda: not arrays[-1].tracks)
    (result,) = sensors.node.set_parameters([Parameter("tracking.max_age", value=-1.0)])
    assert not result.successful and "tracking.max_age" in result.reason
