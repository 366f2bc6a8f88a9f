# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The messages of a frame, and the moment when it is due."""

import math
from dataclasses import replace
from itertools import cycle

import pytest
from helpers.assembler_drive import MS, START, Drive, frames_of, reasons, settings, used
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from message_filters import SimpleFilter

from aqr_perception.nodes.input.frame_request import CameraSettings
from aqr_perception.nodes.stamps import stamp_to_ns
from aqr_perception.options import OptionError


def test_the_sweep_triggers_a_frame_with_every_camera() -> None:
    drive = Drive()
    drive.image("front", 0)
    drive.image("back", 10)
    assert drive.poll(10) is None, "no sweep, no frame"
    drive.sweep(40)
    request = drive.poll(40)
    assert request is not None
    assert request.stamp_ns == START + 40 * MS
    assert used(request) == {"front": 0, "back": 10}
    assert (len(request.sweeps), request.model_frame, request.left_out) == (1, "lidar", {})
    assert drive.poll(41) is None, "one frame a sweep"


def test_a_frame_waits_a_limited_time_for_a_missing_camera() -> None:
    drive = Drive()
    drive.image("front", 0)
    drive.sweep(40)
    assert drive.poll(40) is None
    assert drive.poll(85) is None
    request = drive.poll(91)
    assert request is not None
    assert used(request) == {"front": 0}
    assert reasons(request) == {"back": "no data"}
    assert math.isnan(request.left_out["back"].age)


def test_a_camera_that_arrives_during_the_wait_completes_the_frame() -> None:
    drive = Drive()
    drive.image("front", 0)
    drive.sweep(40)
    assert drive.poll(40) is None
    drive.image("back", 60, stamp=30)
    request = drive.poll(60)
    assert request is not None
    assert used(request) == {"front": 0, "back": 30}


def test_frames_do_not_wait_for_a_dead_camera_until_it_delivers_again() -> None:
    drive = Drive()
    drive.image("front", 0)
    drive.sweep(0)
    assert drive.poll(50) is not None
    drive.image("front", 95)
    drive.sweep(100)
    assert drive.poll(100) is not None, "the second frame does not wait"
    drive.image("back", 150)
    drive.image("front", 195)
    drive.sweep(500)
    drive.image("front", 500)
    assert drive.poll(500) is None, "the camera has delivered again, so the frame waits for it"


def test_images_too_far_from_the_sweep_are_not_used() -> None:
    drive = Drive()
    drive.image("front", 0, stamp=-201)
    drive.image("back", 0, stamp=201)
    drive.sweep(0)
    request = drive.poll(50)
    assert request is not None
    assert reasons(request) == {"front": "too old", "back": "too old"}
    assert request.left_out["front"].age == pytest.approx(0.201)
    assert request.left_out["back"].age == pytest.approx(-0.201)


def test_the_image_nearest_to_the_sweep_is_chosen() -> None:
    drive = Drive()
    for stamp in (0, 50, 100):
        drive.image("front", 110, stamp)
        drive.image("back", 110, stamp + 20)
    drive.sweep(110, stamp=60)
    request = drive.poll(110)
    assert request is not None
    assert used(request) == {"front": 50, "back": 70}


def test_a_cameras_offset_is_subtracted_from_its_stamps() -> None:
    late = CameraSettings("front", "/front/image", "/front/info", offset=0.15)
    drive = Drive(settings(cameras=(late,)))
    drive.image("front", 0, stamp=0)
    drive.sweep(100)
    request = drive.poll(151)
    assert request is not None
    assert reasons(request) == {"front": "too old"}
    assert request.left_out["front"].age == pytest.approx(0.25)
    drive.image("front", 200, stamp=260)
    drive.sweep(210)
    request = drive.poll(210)
    assert request is not None
    assert used(request) == {"front": 110}


def test_a_camera_without_calibration_is_left_out() -> None:
    drive = Drive(calibrated=("front",))
    drive.image("front", 0)
    drive.image("back", 0)
    drive.sweep(0)
    assert drive.poll(0) is None
    request = drive.poll(50)
    assert request is not None
    assert reasons(request) == {"back": "no camera_info"}


def test_a_newer_sweep_ends_the_wait_of_the_frame_before() -> None:
    drive = Drive()
    drive.image("front", 0)
    drive.sweep(0)
    assert drive.poll(0) is None
    drive.sweep(30)
    first = drive.poll(30)
    assert first is not None
    assert first.stamp_ns == START
    second = drive.poll(31)
    assert second is not None
    assert second.stamp_ns == START + 30 * MS, "the second frame does not wait for the missing camera"


def test_of_several_sweeps_between_two_polls_the_newest_two_make_frames() -> None:
    drive = Drive()
    for now in (0, 10, 20, 30):
        drive.sweep(now)
    stamps = [request.stamp_ns - START for now in (31, 32, 90) if (request := drive.poll(now))]
    assert stamps == [20 * MS, 30 * MS]


def test_disabled_sensors_are_ignored() -> None:
    drive = Drive()
    drive.image("front", 0)
    drive.image("back", 0)
    drive.assembler.settings = settings(enabled=frozenset({"lidar", "front"}))
    drive.sweep(10)
    request = drive.poll(10)
    assert request is not None
    assert used(request) == {"front": 0}
    assert reasons(request) == {"back": "disabled"}


def test_cameras_that_the_model_does_not_use_are_ignored() -> None:
    drive = Drive(settings(unsupported=frozenset({"front", "back"})))
    drive.image("front", 0)
    drive.sweep(10)
    request = drive.poll(10)
    assert request is not None
    assert (len(request.sweeps), request.cameras) == (1, ())
    assert reasons(request) == {"front": "not used by the model", "back": "not used by the model"}
    drive.image("front", 2000)
    assert drive.poll(3000) is None, "such cameras trigger no frames"


def test_a_lidar_that_the_model_does_not_use_is_ignored() -> None:
    drive = Drive(settings(unsupported=frozenset({"lidar"})))
    drive.sweep(0)
    drive.image("front", 0)
    drive.image("back", 5)
    request = drive.poll(5)
    assert request is not None
    assert (request.sweeps, request.stamp_ns, request.model_frame) == ((), START + 5 * MS, "lidar")
    assert reasons(request) == {"lidar": "not used by the model"}


def test_a_sensor_that_is_disabled_and_unused_counts_as_disabled() -> None:
    drive = Drive(settings(enabled=frozenset({"lidar"}), unsupported=frozenset({"front", "back"})))
    drive.sweep(0)
    request = drive.poll(0)
    assert request is not None
    assert reasons(request) == {"front": "disabled", "back": "disabled"}


def test_settings_may_change_while_a_sweep_waits() -> None:
    drive = Drive()
    drive.sweep(0)
    assert drive.poll(0) is None
    drive.assembler.settings = settings(enabled=frozenset({"lidar", "front"}))
    assert frames_of(drive, 10, 100) == [(0, True)]
    drive.sweep(100)
    drive.assembler.settings = settings(enabled=frozenset({"front"}))
    assert drive.poll(200) is None


def test_a_lidar_without_cameras_makes_frames() -> None:
    drive = Drive(settings(cameras=()))
    drive.sweep(0)
    request = drive.poll(0)
    assert request is not None
    assert (len(request.sweeps), request.cameras) == (1, ())


def test_the_model_frame_may_be_set() -> None:
    drive = Drive(settings(model_frame="base_link", cameras=()))
    drive.sweep(0, frame_id="lidar_front")
    request = drive.poll(0)
    assert request is not None
    assert request.model_frame == "base_link"


@pytest.mark.parametrize(("fixed_frame", "expected"), [("odom", [400, 350, 300]), ("", [400])])
def test_past_sweeps_are_in_the_request_if_the_motion_is_known(fixed_frame: str, expected: list[int]) -> None:
    drive = Drive(settings(cameras=(), fixed_frame=fixed_frame, max_sweeps=3))
    for now in range(0, 401, 50):
        drive.sweep(now)
        request = drive.poll(now)
    assert request is not None
    assert [(stamp_to_ns(sweep.header.stamp) - START) // MS for sweep in request.sweeps] == expected


def test_past_sweeps_are_as_far_apart_as_the_model_needs() -> None:
    drive = Drive(settings(cameras=(), fixed_frame="odom", max_sweeps=3, sweep_interval=0.4))
    for now in range(0, 2001, 100):
        drive.sweep(now)
        request = drive.poll(now)
    assert request is not None
    assert [(stamp_to_ns(sweep.header.stamp) - START) // MS for sweep in request.sweeps] == [2000, 1600, 1200]


def test_a_late_sweep_finds_its_image_among_those_of_a_fast_camera() -> None:
    drive = Drive()
    for now in range(0, 500, 20):
        drive.image("front", now)
        drive.image("back", now)
    drive.sweep(500, stamp=280)
    request = drive.poll(500)
    assert request is not None
    assert used(request) == {"front": 280, "back": 280}


@pytest.mark.parametrize("max_sweeps", [1, 3])
def test_a_sweep_makes_its_frame_even_if_the_next_one_is_a_long_time_later(max_sweeps: int) -> None:
    drive = Drive(settings(cameras=(), fixed_frame="odom", max_sweeps=max_sweeps))
    drive.sweep(5000, stamp=0)
    drive.sweep(5001, stamp=5000)
    assert frames_of(drive, 5001, 5100) == [(0, True), (5000, True)]


def test_sweeps_of_a_slow_lidar_are_accumulated_by_time() -> None:
    drive = Drive(settings(cameras=(), fixed_frame="odom", max_sweeps=10))
    counts = []
    for now in range(0, 6000, 1000):
        drive.sweep(now)
        request = drive.poll(now)
        assert request is not None
        counts.append(len(request.sweeps))
    assert counts == [1, 2, 3, 3, 3, 3], "two seconds of sweeps"


events = st.tuples(
    st.sampled_from(["front", "back", "sweep", "enable", "poll"]),
    st.integers(0, 300),  # milliseconds since the last event
    st.integers(-100, 100),  # how far the stamp is off
    st.integers(0, 40).map(lambda n: -5000 if n == 0 else 0),  # now and then a bag starts over
)


@given(st.lists(events, max_size=60), st.booleans())
@hypothesis_settings(max_examples=150, deadline=None)
def test_a_frame_never_has_a_disabled_sensor_or_an_image_out_of_time(
    played: list[tuple[str, int, int, int]], with_lidar: bool
) -> None:
    drive = Drive(settings(lidar_topic="/points" if with_lidar else "", fixed_frame="odom", max_sweeps=10))
    now, bag = 0, 10_000
    subsets = cycle([{"front"}, {"back"}, {"lidar"}, set(), {"lidar", "front", "back"}])
    for event, pause, error, jump in played:
        now, bag = now + pause, bag + pause + jump
        if event in ("front", "back"):
            drive.image(event, now, bag + error)
        elif event == "sweep" and with_lidar:
            drive.sweep(now, bag + error)
        elif event == "enable":
            sensors = drive.assembler.settings.sensors
            drive.assembler.settings = replace(
                drive.assembler.settings, enabled=frozenset(next(subsets)) & frozenset(sensors)
            )
        request = drive.poll(now)
        if request is None:
            continue
        chosen = drive.assembler.settings
        assert request.sweeps or request.cameras, "no empty frames"
        assert {*used(request), *request.left_out} | ({"lidar"} if request.sweeps else set()) == set(chosen.sensors)
        assert all(chosen.is_enabled(name) for name in used(request))
        assert chosen.is_enabled("lidar") or not request.sweeps
        assert all(abs(request.stamp_ns - camera.stamp_ns) <= 200 * MS for camera in request.cameras)
        stamps = [stamp_to_ns(sweep.header.stamp) for sweep in request.sweeps]
        assert stamps == sorted(set(stamps), reverse=True)
        assert not stamps or stamps[0] == request.stamp_ns


def test_an_unknown_camera_is_named() -> None:
    with pytest.raises(KeyError, match="camera 'left' is not configured; use one of: front, back"):
        Drive().assembler.connect_camera("left", SimpleFilter(), SimpleFilter())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_sweeps": 21}, r"max_sweeps is 21, but must be in 1\.\.20"),
        ({"max_camera_age": 0.0}, "max_camera_age is 0.0, but must be a positive number"),
        ({"camera_wait": -1.0}, "camera_wait is -1.0"),
        ({"enabled": frozenset({"radar"})}, r"enabled is \['radar'\], but must be among lidar, front, back"),
        ({"cameras": (), "lidar_topic": ""}, "cameras is"),
        ({"cameras": (CameraSettings("lidar", "a", "b"),)}, "names other than"),
        ({"cameras": (CameraSettings("a", "a", "b"),) * 2}, "distinct names"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        settings(**change)
