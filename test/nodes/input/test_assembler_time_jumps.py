"""Messages older than their sensor's last one: late messages, and bags that start over."""

import pytest
from helpers.assembler_drive import Drive, frames_of, reasons, settings, used

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
    assert drive.image("front", 2100, stamp=0) == pytest.approx(2.0)
    assert drive.sweep(2110, stamp=10) == 0.0, "a jump is reported once"
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
    assert drive.sweep(2100, stamp=0) == pytest.approx(2.0)
    assert drive.poll(2100) is None
    drive.image("front", 2110, stamp=10)
    drive.image("back", 2110, stamp=10)
    assert frames_of(drive, 2110, 2200) == [(0, True)]


def test_a_bag_of_one_frame_can_be_played_repeatedly() -> None:
    drive = Drive()
    for now in range(0, 1000, 100):
        drive.image("front", now, stamp=0)
        drive.image("back", now, stamp=10)
        drive.sweep(now, stamp=20)
        request = drive.poll(now)
        assert request is not None
        assert used(request) == {"front": 0, "back": 10}
        assert len(request.sweeps) == 1
