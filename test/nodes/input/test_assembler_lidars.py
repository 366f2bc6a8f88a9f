# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames of several LiDARs: which one triggers them, and which sweeps of the others they have."""

import math
from dataclasses import replace
from typing import Any

import pytest
from helpers.assembler_drive import MS, START, Drive, reasons, settings, used, used_sweeps
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from message_filters import SimpleFilter

from aqr_perception.nodes.input.frame_request import AssemblerSettings, FrameRequest, LidarSettings
from aqr_perception.options import OptionError

NAMES = ("lidar", "lidar_2", "lidar_3")
FURTHER = tuple(LidarSettings(name, f"/{name}") for name in NAMES[1:])


def three(**changes: Any) -> AssemblerSettings:
    """Return settings of three LiDARs and no cameras."""
    return settings(**({"cameras": (), "further_lidars": FURTHER} | changes))


def send(drive: Drive, now: int, *lidars: str, stamp: int | None = None) -> None:
    for name in lidars:
        drive.sweep(now, stamp, f"{name}_frame", name)


def rounds(drive: Drive, begin: int, end: int, *lidars: str) -> list[FrameRequest]:
    """Let LiDARs send every 100 ms, a few milliseconds after each other; poll every 10 ms; return the frames."""
    found = []
    for now in range(begin, end, 10):
        if now % 100 == 0:
            for delay, name in enumerate(lidars):
                drive.sweep(now + delay, now, f"{name}_frame", name)
        found += drive.frames(now + 5)
    return found


def stamps(frames: list[FrameRequest]) -> list[int]:
    return [(frame.stamp_ns - START) // MS for frame in frames]


def test_a_frame_has_a_sweep_of_every_lidar() -> None:
    drive = Drive(three())
    send(drive, 0, "lidar")
    assert drive.poll(0) is None, "the frame waits for the other LiDARs"
    send(drive, 5, "lidar_2", "lidar_3", stamp=0)
    request = drive.poll(5)
    assert request is not None
    assert (request.stamp_ns, request.model_frame, request.trigger) == (START, "lidar_frame", "lidar")
    assert used_sweeps(request) == {"lidar": [0], "lidar_2": [0], "lidar_3": [0]}
    assert (request.left_out, drive.poll(6)) == ({}, None)


def test_a_frame_waits_for_the_sweep_of_its_time_though_the_one_before_is_near_enough() -> None:
    drive = Drive(three())
    frames = rounds(drive, 0, 500, *NAMES)
    assert stamps(frames) == [0, 100, 200, 300, 400]
    for stamp, frame in zip(stamps(frames), frames, strict=True):
        assert used_sweeps(frame) == {name: [stamp] for name in NAMES}


@pytest.mark.parametrize(("phase", "delay", "chosen"), [(-30, 0, 970), (-50, 0, 950), (30, 30, 1030), (48, 48, 1048)])
def test_a_frame_takes_the_nearest_sweep_of_a_lidar_out_of_phase_and_waits_for_no_farther_one(
    phase: int, delay: int, chosen: int
) -> None:
    drive = Drive(three(further_lidars=FURTHER[:1]))
    for now in range(0, 1100, 2):
        if now % 100 == 0:
            send(drive, now, "lidar")
        if now % 100 == phase % 100:
            send(drive, now, "lidar_2")
        for frame in drive.frames(now):
            last, waited = frame, now - stamps([frame])[0]
    assert used_sweeps(last) == {"lidar": [1000], "lidar_2": [chosen]}
    assert waited == delay


def test_a_dead_lidar_is_named_and_delays_one_frame_only() -> None:
    drive = Drive(three())
    rounds(drive, 0, 300, *NAMES)
    drive.frames(290)
    delays = {}
    for begin in range(300, 1000, 100):
        send(drive, begin, "lidar", "lidar_2")
        now = next(now for now in range(begin, begin + 100, 10) if (frame := drive.poll(now)))
        delays[begin] = now - begin
    assert frame is not None and frame.left_out["lidar_3"].age == pytest.approx(0.7)
    assert reasons(frame) == {"lidar_3": "too old"}
    assert set(used_sweeps(frame)) == {"lidar", "lidar_2"}
    assert 50 <= delays[300] <= 60 and set(list(delays.values())[1:]) == {0}


def test_a_lidar_that_never_sent_is_named() -> None:
    drive = Drive(three())
    send(drive, 0, "lidar", "lidar_2")
    request = drive.poll(50)
    assert request is not None and reasons(request) == {"lidar_3": "no data"}
    assert math.isnan(request.left_out["lidar_3"].age)


def test_a_lidar_that_comes_back_is_waited_for_again() -> None:
    drive = Drive(three(further_lidars=FURTHER[:1]))
    rounds(drive, 0, 500, "lidar")
    frames = rounds(drive, 500, 1000, "lidar", "lidar_2")
    assert used_sweeps(frames[-1]) == {"lidar": [900], "lidar_2": [900]}


def test_a_lidar_that_is_always_late_gives_its_last_sweep_and_delays_no_frame() -> None:
    drive = Drive(three(further_lidars=FURTHER[:1]))
    delays, frames = [], []
    for begin in range(0, 1000, 100):
        send(drive, begin, "lidar")
        for now in range(begin, begin + 100, 10):
            if now == begin + 80:
                send(drive, now, "lidar_2", stamp=begin)
            if (frame := drive.poll(now)) is not None:
                delays.append(now - begin)
                frames.append(frame)
    assert used_sweeps(frames[-1]) == {"lidar": [900], "lidar_2": [800]}
    assert delays[3:] == [0] * 7


def test_a_sweep_later_than_the_limit_is_left_out() -> None:
    drive = Drive(three(further_lidars=FURTHER[:1], max_lidar_age=0.05))
    send(drive, 0, "lidar_2")
    send(drive, 60, "lidar")
    request = drive.poll(110)
    assert request is not None
    assert reasons(request) == {"lidar_2": "too old"}
    assert request.left_out["lidar_2"].age == pytest.approx(0.06)


def test_the_next_living_lidar_triggers_while_the_first_is_silent() -> None:
    drive = Drive(three())
    rounds(drive, 0, 500, *NAMES)
    frames = rounds(drive, 500, 1500, "lidar_2", "lidar_3")
    assert stamps(frames) == [1000, 1100, 1200, 1300, 1400], "from 0.5 s after the last sweep"
    for frame in frames:
        assert (frame.trigger, frame.model_frame) == ("lidar_2", "lidar_frame")
        assert frame.sweeps == () and set(used_sweeps(frame)) == {"lidar_2", "lidar_3"}
        assert reasons(frame) == {"lidar": "too old"}
    frames = rounds(drive, 1500, 2500, "lidar_3")
    assert {frame.trigger for frame in frames} == {"lidar_3"} and len(frames) == 5
    frames = rounds(drive, 2500, 3000, *NAMES)
    assert {frame.trigger for frame in frames} == {"lidar"}
    assert stamps(frames) == [2500, 2600, 2700, 2800, 2900]


def test_cameras_trigger_only_when_every_lidar_is_silent() -> None:
    drive = Drive(settings(further_lidars=FURTHER))
    found: list[tuple[int, str]] = []
    for now in range(0, 3000, 50):
        drive.image("front", now)
        drive.image("back", now)
        if now < 1000:
            send(drive, now, "lidar")
        if now < 2000:
            send(drive, now, "lidar_2")
        found += [(now, frame.trigger) for frame in drive.frames(now)]
    assert {trigger for now, trigger in found if now < 1000} == {"lidar"}
    assert {trigger for now, trigger in found if 1500 < now < 2000} == {"lidar_2"}
    assert {trigger for now, trigger in found if now > 2600} == {""}


def test_a_first_lidar_that_never_sends_does_not_stop_the_others() -> None:
    drive = Drive(three())
    frames = rounds(drive, 0, 1200, "lidar_2", "lidar_3")
    assert stamps(frames)[-3:] == [900, 1000, 1100]
    assert frames[-1].model_frame == "lidar_2_frame"
    drive = Drive(three(output_frame="base_link"))
    assert rounds(drive, 0, 1200, "lidar_2")[-1].model_frame == "base_link"


def test_the_first_message_after_a_start_does_not_decide_which_lidar_triggers() -> None:
    drive = Drive(three(further_lidars=FURTHER[:1]))
    send(drive, 0, "lidar_2")
    assert drive.poll(0) is None
    send(drive, 10, "lidar", stamp=0)
    request = drive.poll(10)
    assert request is not None and request.trigger == "lidar"
    assert set(used_sweeps(request)) == {"lidar", "lidar_2"}


@pytest.mark.parametrize("left", [("lidar",), ("lidar_2", "lidar_3"), ("lidar_3",)])
def test_lidars_can_be_disabled_one_by_one(left: tuple[str, ...]) -> None:
    drive = Drive(three(enabled=frozenset(left)))
    frame = rounds(drive, 0, 1000, *NAMES)[-1]
    assert set(used_sweeps(frame)) == set(left) and frame.trigger == left[0]
    assert reasons(frame) == {name: "disabled" for name in NAMES if name not in left}
    assert frame.model_frame == "lidar_frame", "also while the first LiDAR is disabled"


def test_disabling_the_lidars_leaves_the_cameras() -> None:
    drive = Drive(settings(further_lidars=FURTHER))
    drive.assembler.settings = replace(drive.assembler.settings, enabled=frozenset({"front", "back"}))
    send(drive, 0, *NAMES)
    drive.image("front", 0)
    drive.image("back", 0)
    request = drive.poll(0)
    assert request is not None and not request.has_sweeps
    assert (used(request), reasons(request)) == ({"front": 0, "back": 0}, dict.fromkeys(NAMES, "disabled"))


def test_past_sweeps_of_all_lidars_are_in_the_request() -> None:
    drive = Drive(three(fixed_frame="odom", max_sweeps=3))
    frame = rounds(drive, 0, 500, *NAMES)[-1]
    assert used_sweeps(frame) == {name: [400, 300, 200] for name in NAMES}


def test_a_lidar_with_a_wrong_clock_is_left_out_and_named() -> None:
    drive = Drive(three(), with_clock=True)
    frames = []
    for now in range(0, 2000, 100):
        send(drive, now, "lidar", "lidar_2")
        send(drive, now, "lidar_3", stamp=now + 37_000)
        frames += drive.frames(now) + drive.frames(now + 60)
    assert stamps(frames)[-1] == 1900
    assert set(used_sweeps(frames[-1])) == {"lidar", "lidar_2"}
    assert "37.0 s ahead" in reasons(frames[-1])["lidar_3"]
    assert "37.0 s ahead" in drive.assembler.clock_reports()["lidar_3"].fault


def test_a_first_lidar_with_a_wrong_clock_does_not_trigger() -> None:
    drive = Drive(three(), with_clock=True)
    frames = []
    for now in range(0, 2000, 100):
        send(drive, now, "lidar", stamp=now + 37_000)
        send(drive, now, "lidar_2", "lidar_3")
        frames += drive.frames(now) + drive.frames(now + 60)
    assert stamps(frames)[-1] == 1900
    assert frames[-1].trigger == "lidar_2" and "37.0 s ahead" in reasons(frames[-1])["lidar"]


sending = st.tuples(st.sampled_from([*NAMES, "front", "poll"]), st.integers(0, 150), st.integers(-120, 120))


@given(st.lists(sending, max_size=80))
@hypothesis_settings(max_examples=100, deadline=None)
def test_frames_have_near_sweeps_only_and_account_for_every_sensor(played: list[tuple[str, int, int]]) -> None:
    drive = Drive(settings(further_lidars=FURTHER, fixed_frame="odom", max_sweeps=4))
    now, last = 0, 0
    for name, pause, error in played:
        now += pause
        if name in NAMES:
            send(drive, now, name, stamp=now + error)
        elif name == "front":
            drive.image(name, now, now + error)
        for frame in drive.frames(now):
            found = used_sweeps(frame)
            assert {*found, *used(frame), *frame.left_out} == set(frame.settings.sensors)
            assert frame.stamp_ns > last and bool(found) == bool(frame.trigger)
            last = frame.stamp_ns
            for lidar, sweeps in found.items():
                assert sweeps == sorted(set(sweeps), reverse=True) and len(sweeps) <= 4
                assert abs(START + sweeps[0] * MS - frame.stamp_ns) <= (0 if lidar == frame.trigger else 200 * MS)


def test_an_unknown_lidar_is_named() -> None:
    with pytest.raises(KeyError, match="LiDAR 'lidar_9' is not configured; use one of: lidar, lidar_2, lidar_3"):
        Drive(three()).assembler.connect_lidar(SimpleFilter(), "lidar_9")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lidar_topic": "", "output_frame": "x"}, "lidar_topic is ''"),
        ({"further_lidars": (LidarSettings("lidar_2", "/points"),)}, r"further_lidars is \['/points', '/points'\]"),
        ({"further_lidars": (LidarSettings("lidar_2", ""),)}, "further_lidars is"),
        ({"further_lidars": (LidarSettings("lidar", "/a"),)}, "distinct names"),
        ({"further_lidars": (LidarSettings("lidar_2", "/a", 0.0),)}, "intensity_scale is 0.0"),
        ({"max_lidar_age": 0.0}, "max_lidar_age is 0.0, but must be a positive number"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        settings(**({"further_lidars": FURTHER} | change))
