# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Camera-only frames: when they are due, and when they wait for a sweep."""

from itertools import pairwise

import pytest
from helpers.assembler_drive import MS, START, Drive, frames_of, reasons, settings, used


def test_a_silent_lidar_leads_to_camera_only_frames() -> None:
    drive = Drive()
    drive.sweep(0)
    requests = []
    for now in range(0, 1000, 10):
        if now % 50 == 0:
            drive.image("front", now)
            drive.image("back", now + 5, stamp=now)
        if request := drive.poll(now + 5):
            requests.append((now, request))
    times = [now for now, request in requests if not request.sweeps]
    assert times[0] == 500
    assert all(later - earlier >= 100 for earlier, later in pairwise(times))
    assert len(times) >= 4
    newest = requests[-1][1]
    assert newest.stamp_ns == START + times[-1] * MS, "the newest image's stamp"
    assert (newest.left_out["lidar"].reason, newest.model_frame) == ("too old", "lidar")
    assert newest.left_out["lidar"].age == pytest.approx(times[-1] / 1e3)

    drive.image("front", 1000)
    drive.image("back", 1000)
    drive.sweep(1010)
    request = drive.poll(1010)
    assert request is not None
    assert request.stamp_ns == START + 1010 * MS, "the LiDAR is back"


def test_camera_only_frames_need_new_images() -> None:
    drive = Drive(settings(lidar_topic="", output_frame="base_link"))
    drive.image("front", 0)
    drive.image("back", 0)
    request = drive.poll(0)
    assert request is not None
    assert (request.model_frame, "lidar" in request.left_out) == ("base_link", False)
    assert [drive.poll(now) for now in range(10, 2000, 50)] == [None] * 40


def test_camera_only_frames_wait_for_the_other_cameras_too() -> None:
    drive = Drive(settings(enabled=frozenset({"front", "back"})))
    drive.image("front", 0)
    assert drive.poll(0) is None
    drive.image("back", 30)
    request = drive.poll(30)
    assert request is not None
    assert used(request) == {"front": 0, "back": 30}
    assert reasons(request) == {"lidar": "disabled"}


def test_a_camera_only_frame_without_any_frame_id_has_none() -> None:
    drive = Drive(settings(lidar_topic=""))
    drive.image("front", 0)
    request = drive.poll(100) or drive.poll(200)
    assert request is not None
    assert request.model_frame == ""


def test_after_a_pause_the_first_images_wait_for_their_sweep() -> None:
    drive = Drive()
    for begin in (0, 5000):
        drive.poll(begin)
        drive.image("front", begin + 3000)
        drive.image("back", begin + 3020)
        assert drive.poll(begin + 3100) is None, "the LiDAR may be alive"
        drive.sweep(begin + 3110)
        request = drive.poll(begin + 3110)
        assert request is not None
        assert len(request.sweeps) == 1


def test_a_sweep_that_arrives_after_a_camera_only_frame_of_its_time_makes_none_and_is_counted() -> None:
    drive = Drive()
    drive.sweep(0)
    drive.poll(50)
    for now in range(100, 601, 100):
        drive.image("front", now)
        drive.image("back", now)
    assert frames_of(drive, 600, 640) == [(600, False)], "the LiDAR counts as dead"
    drive.sweep(640, stamp=600)
    assert frames_of(drive, 640, 700) == [], "outputs never go back in time"
    assert drive.assembler.late_sweeps == 1
    drive.sweep(740, stamp=700)
    assert frames_of(drive, 740, 800) == [(700, True)]


def test_images_newer_than_a_late_sweep_still_trigger_their_own_frame() -> None:
    drive = Drive()
    drive.image("front", 0)
    drive.image("back", 0)
    assert drive.poll(0) is None
    for camera in ("front", "back"):
        drive.image(camera, 100)
    drive.sweep(150, stamp=0)
    assert frames_of(drive, 150, 200) == [(0, True)]
    assert frames_of(drive, 200, 1000) == [(100, False)], "their sweep never arrives"


def test_an_image_used_by_a_sweep_triggers_no_camera_only_frame() -> None:
    drive = Drive()
    drive.sweep(0)
    drive.image("front", 10)
    drive.image("back", 20)
    assert frames_of(drive, 20, 2000) == [(0, True)]


def test_images_too_late_for_their_frame_make_no_camera_only_frame_of_the_same_moment() -> None:
    drive = Drive()
    drive.image("front", 0)
    drive.sweep(10)
    assert drive.poll(100) is not None
    drive.image("back", 900, stamp=5)
    assert drive.poll(1500) is None
    drive.image("back", 1600, stamp=120)
    request = drive.poll(2200)
    assert request is not None and request.stamp_ns == START + 120 * MS
