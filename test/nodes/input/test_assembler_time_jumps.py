# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Messages older than their sensor's last one: late messages, and bags that start over."""

import pytest
from helpers.assembler_drive import MS, START, Drive, frames_of, reasons, settings, used

from aqr_perception.nodes.input.frame_request import CameraSettings


@pytest.mark.parametrize("late", ["front", "sweep"])
def test_a_late_message_leaves_the_waiting_sweep_its_frame(late: str) -> None:
    drive = Drive()
    drive.image("front", 90)
    drive.sweep(100)
    assert drive.poll(100) is None
    if late == "front":
        assert drive.image("front", 110, stamp=40) == 0.0
        assert frames_of(drive, 110, 200) == [(100, True)]
    else:
        assert drive.sweep(110, stamp=40) == 0.0
        assert frames_of(drive, 110, 200) == [(40, True), (100, True)]


def test_a_late_image_leaves_the_newer_ones_of_its_camera() -> None:
    drive = Drive(settings(cameras=(CameraSettings("front", "/front/image", "/front/info"),)))
    drive.image("front", 100)
    drive.image("front", 110, stamp=60)
    drive.sweep(120, stamp=110)
    request = drive.poll(120)
    assert request is not None and used(request) == {"front": 100}


def test_a_bag_that_starts_over_clears_all_older_messages() -> None:
    drive = Drive(settings(fixed_frame="odom", max_sweeps=10))
    for now in range(0, 2001, 100):
        drive.image("front", now)
        drive.image("back", now)
        drive.sweep(now)
        drive.poll(now)
    assert drive.image("front", 2100, stamp=0) == 0.0, "one sensor's odd stamp is no jump"
    assert drive.sweep(2110, stamp=10) == pytest.approx(2.0), "most sensors went back"
    request = drive.poll(2200)
    assert request is not None
    assert used(request) == {"front": 0}
    assert reasons(request) == {"back": "no data"}
    assert len(request.sweeps) == 1


def test_the_first_sweep_of_a_bag_that_starts_over_survives_the_cameras_jumps() -> None:
    drive = Drive()
    for now in range(0, 2001, 100):
        drive.image("front", now)
        drive.image("back", now)
        drive.sweep(now)
        drive.poll(now)
    assert drive.sweep(2100, stamp=0) == 0.0
    assert drive.poll(2100) is None
    assert drive.image("front", 2110, stamp=10) == pytest.approx(2.0)
    assert drive.image("back", 2110, stamp=10) == 0.0, "a jump is reported once"
    assert frames_of(drive, 2110, 2200) == [(0, True)]


def play_one_frame(drive: Drive, begin: int, end: int) -> list[int]:
    """Play a bag of one frame every 100 ms; return the frames' stamps in milliseconds."""
    found = []
    for now in range(begin, end, 100):
        drive.image("front", now, stamp=0)
        drive.image("back", now, stamp=10)
        drive.sweep(now, stamp=20)
        found += [(request.stamp_ns - START) // MS for request in drive.frames(now)]
    return found


def test_a_bag_of_one_frame_played_in_a_loop_gives_one_frame_and_then_goes_on_by_arrival() -> None:
    drive = Drive(with_clock=True)
    found = play_one_frame(drive, 0, 400)
    assert found == [20], "repetitions are duplicates"
    found = play_one_frame(drive, 400, 1000)
    assert found and found == sorted(set(found)) and set(found) <= set(range(400, 1000)), "times of arrival"
    reports = drive.assembler.clock_reports()
    assert {report.fault for report in reports.values()} == {"constant stamp"}
    assert all(report.by_arrival for report in reports.values())


def test_a_clock_that_goes_back_lets_a_bag_of_one_frame_make_its_frame_again() -> None:
    drive = Drive(with_clock=True)
    for begin in (0, 3000, 6000):
        drive.clock_error = -begin
        if begin:
            drive.assembler.forget(3.0)
        assert play_one_frame(drive, begin, begin + 100) == [20]
    assert drive.jumps == [3.0, 3.0]
