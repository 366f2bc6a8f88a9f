# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Reports of sensors, frames, the model and the node in /diagnostics."""

import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from helpers.waiting import PATIENCE

from aqr_perception.decoding.message_error import MessageError
from aqr_perception.frame import CameraView, Frame
from aqr_perception.nodes.clocks.sensor_clocks import ClockReport
from aqr_perception.nodes.diagnostics import Diagnostics
from aqr_perception.nodes.health.event_rate import WINDOW
from aqr_perception.nodes.health.frame_health import AGES_WINDOW
from aqr_perception.nodes.health.time_report import TimeReport
from aqr_perception.nodes.health.topic_links import LinkState
from aqr_perception.nodes.input.frame_request import SensorUse
from aqr_perception.nodes.stamps import ns_to_stamp

LEVELS = {DiagnosticStatus.OK: "ok", DiagnosticStatus.WARN: "warn", DiagnosticStatus.ERROR: "error"}
PERIOD = 0.1


def report(diagnostics: Diagnostics, now: float, active: bool = True) -> dict[str, tuple[str, str, dict[str, str]]]:
    """Return level, text and values by name."""
    message = diagnostics.report(Time(sec=7), now, 5, 1, active)
    return {
        status.name.removeprefix("aqr_perception: "): (
            LEVELS.get(status.level, "stale"),
            status.message,
            {pair.key: pair.value for pair in status.values},
        )
        for status in message.status
    }


def state(diagnostics: Diagnostics, name: str, now: float) -> tuple[str, str]:
    level, text, _ = report(diagnostics, now)[name]
    return level, text


def drive(
    diagnostics: Diagnostics, start: float, end: float, period: float = PERIOD, data: bytes | None = None
) -> None:
    """Add messages of the front camera, and frames that use it; without data, each message has its own."""
    for index in range(round((end - start) / period)):
        now = start + index * period
        content = index.to_bytes(4, "little") if data is None else data
        header = SimpleNamespace(stamp=ns_to_stamp(round(now * 1e9)))
        diagnostics.add_message("front", now, SimpleNamespace(data=content, header=header))
        diagnostics.add_frame([SensorUse("front", True, 0.0)], now)
        diagnostics.add_output(now)


def test_a_sensor_without_messages_is_reported_with_the_cause() -> None:
    diagnostics = Diagnostics(["lidar", "front"])
    statuses = report(diagnostics, 10.0)
    assert statuses["sensor lidar"][:2] == statuses["sensor front"][:2] == ("stale", "no data")
    assert statuses["sensor front"][2]["last_heard"] == "never"
    assert statuses["frames"][:2] == ("stale", "no frames")
    diagnostics.set_links("lidar", LinkState("/points has no publisher", absent=True), LinkState(), 9.9)
    diagnostics.set_links("front", LinkState("/front: wrong type", mismatch=True), LinkState(), 9.9)
    assert state(diagnostics, "sensor lidar", 10.0) == ("stale", "no data: /points has no publisher")
    assert state(diagnostics, "sensor front", 10.0) == ("error", "no data: /front: wrong type")


def test_rates_count_messages_and_the_frames_that_used_them() -> None:
    diagnostics = Diagnostics(["front"])
    for index in range(100):
        now = index / 10
        diagnostics.add_message("front", now)
        if index % 2:
            diagnostics.add_frame([SensorUse("front", True, 0.02)], now)
            diagnostics.add_output(now)
    level, text, values = report(diagnostics, 9.95)["sensor front"]
    assert (level, text, values["age"], values["last_problem"]) == ("ok", "used", "0.020 s", "none")
    assert float(values["rate"]) == pytest.approx(10, abs=0.5) and float(values["used_rate"]) == pytest.approx(
        5, abs=0.5
    )
    assert report(diagnostics, 9.95)["frames"][1] == "5.0 frames/s"


def test_a_silent_sensor_is_stale_within_a_second_without_further_frames() -> None:
    diagnostics = Diagnostics(["front"])
    drive(diagnostics, 0.0, 3.0)
    assert state(diagnostics, "sensor front", 2.95) == ("ok", "used")
    level, text = state(diagnostics, "sensor front", 2.9 + 0.6)
    assert (level, text) == ("stale", "silent for 0.6 s")
    assert state(diagnostics, "frames", 2.9 + 0.6) == ("stale", "no frames")


def test_a_last_frame_of_the_last_images_does_not_hide_that_all_sensors_are_silent() -> None:
    diagnostics = Diagnostics(["front"])
    drive(diagnostics, 0.0, 3.0)
    diagnostics.add_output(2.9 + 0.5)
    assert state(diagnostics, "frames", 2.9 + 0.6) == ("stale", "no frames")
    diagnostics.add_message("front", 3.6)
    assert state(diagnostics, "frames", 3.6)[1].startswith("slow"), "the sensor is back, after a gap"


def test_a_slow_sensor_is_not_silent_between_its_messages() -> None:
    diagnostics = Diagnostics(["front"])
    drive(diagnostics, 0.0, 20.0, period=0.9)
    assert state(diagnostics, "sensor front", 18.9 + 0.89) == ("ok", "used")
    assert state(diagnostics, "sensor front", 18.9 + WINDOW + 0.1)[0] == "stale"


@pytest.mark.parametrize("period", [0.7, 1.0, 3.0])
def test_a_slow_sensor_is_silent_soon_after_its_next_message_was_due(period: float) -> None:
    diagnostics = Diagnostics(["front"])
    drive(diagnostics, 0.0, 8 * period, period=period)
    last = 7 * period
    assert state(diagnostics, "sensor front", last + period + 0.5) == ("ok", "used")
    assert state(diagnostics, "sensor front", last + period + 0.7)[0] == "stale"


@pytest.mark.parametrize("link", [LinkState("/f has no publisher", absent=True), LinkState("/f: QoS", mismatch=True)])
def test_a_slow_sensor_whose_publisher_is_gone_is_named_at_once(link: LinkState) -> None:
    diagnostics = Diagnostics(["front"])
    drive(diagnostics, 0.0, 8.0, period=2.0)
    diagnostics.set_links("front", link, LinkState(), 5.9)
    assert state(diagnostics, "sensor front", 6.5) == ("ok", "used"), "a message came after the check"
    diagnostics.set_links("front", link, LinkState(), 6.4)
    assert state(diagnostics, "sensor front", 6.5) == ("stale", f"silent for 0.5 s: {link.reason}")
    diagnostics.set_links("front", LinkState("/f: driver is connected, but sends nothing"), LinkState(), 6.6)
    assert state(diagnostics, "sensor front", 6.7) == ("ok", "used")


def info(**changes: object) -> SimpleNamespace:
    roi = SimpleNamespace(x_offset=0, y_offset=0, height=0, width=0)
    values = {"width": 96, "height": 64, "d": [0.0], "k": [1.0] * 9, "r": [0.0] * 9, "p": [0.0] * 12}
    values |= {"binning_x": 0, "binning_y": 0, "distortion_model": "", "roi": roi}
    return SimpleNamespace(**(values | changes))


VOLATILE = LinkState("/front/camera_info: driver is connected", volatile=True)
LATCHED = LinkState("/front/camera_info: server is connected", latched=frozenset({b"1"}))
GONE = LinkState("/front/camera_info has no publisher", absent=True)


def drive_calibrated(diagnostics: Diagnostics, end: float, calibration_end: float) -> None:
    drive(diagnostics, 0.0, end)
    for index in range(round(calibration_end / PERIOD)):
        assert not diagnostics.add_calibration("front", info(), index * PERIOD)


def test_a_calibration_that_ceases_while_images_go_on_is_a_doubt() -> None:
    diagnostics = Diagnostics(["front"])
    drive_calibrated(diagnostics, 4.0, 3.0)
    diagnostics.set_links("front", LinkState(), VOLATILE, 2.9)
    assert state(diagnostics, "sensor front", 2.95) == ("ok", "used")
    level, text = state(diagnostics, "sensor front", 3.9)
    assert level == "warn"
    assert text == f"used, but calibration silent for 1.0 s, the last one stays in use: {VOLATILE.reason}"
    diagnostics.add_calibration("front", info(), 3.95)
    assert state(diagnostics, "sensor front", 4.0) == ("ok", "used")


def test_a_calibration_whose_publisher_is_gone_is_a_doubt_unless_it_was_latched() -> None:
    for before, expected in ((VOLATILE, "warn"), (LATCHED, "ok")):
        diagnostics = Diagnostics(["front"])
        drive_calibrated(diagnostics, 4.0, 1.0)
        diagnostics.set_links("front", LinkState(), before, 1.0)
        diagnostics.set_links("front", LinkState(), GONE, 1.2)
        level, text = state(diagnostics, "sensor front", 1.3)
        assert level == expected and ("has no publisher" in text) is (expected == "warn")


def test_a_calibration_that_changes_is_a_doubt_for_a_while_and_counted() -> None:
    diagnostics = Diagnostics(["front"])
    drive_calibrated(diagnostics, 30.0, 2.0)
    assert diagnostics.add_calibration("front", info(k=[2.0] * 9, width=48), 2.0) == "width, k"
    for index in range(21, 300):
        assert not diagnostics.add_calibration("front", info(k=[2.0] * 9, width=48), index * PERIOD)
    level, text, values = report(diagnostics, 3.0)["sensor front"]
    assert (level, text) == ("warn", "used, but calibration changed once, 1.0 s ago")
    assert values["calibration_changes"] == "1"
    assert state(diagnostics, "sensor front", 29.95) == ("ok", "used")


def test_doubts_about_the_model_frame_stand_with_frames_and_their_sensor_as_long_as_they_hold() -> None:
    diagnostics = Diagnostics(["lidar", "front"], topics={"lidar": "/points", "front": "/front"})
    height = MessageError("/points", "model frame at another height", "0.1 m", "1.8 m", "lift it")
    turned = MessageError("/tf", "model frame with other axes", "+y", "+x", "turn it")
    uses = [SensorUse("lidar", True), SensorUse("front", True)]
    for index in range(5):
        for name in ("lidar", "front"):
            diagnostics.add_message(name, index * PERIOD)
        diagnostics.add_frame(uses, index * PERIOD, [height, turned])
        diagnostics.add_output(index * PERIOD)
    assert state(diagnostics, "sensor lidar", 0.45) == ("warn", f"used, but {height.summary}")
    assert state(diagnostics, "sensor front", 0.45) == ("ok", "used")
    assert state(diagnostics, "frames", 0.45) == ("warn", f"{height}; {turned}")
    diagnostics.add_frame(uses, 0.5)
    assert state(diagnostics, "sensor lidar", 0.55) == ("ok", "used")
    assert state(diagnostics, "frames", 0.55)[0] == "ok"


def test_a_doubt_about_frames_is_a_warning_as_long_as_it_is_set() -> None:
    diagnostics = Diagnostics()
    for index in range(5):
        diagnostics.add_output(index * PERIOD)
    diagnostics.set_frame_doubt("grid", "no ~/weights/bev/grid: no transform")
    assert state(diagnostics, "frames", 0.45) == ("warn", "no ~/weights/bev/grid: no transform")
    diagnostics.set_frame_doubt("grid", "")
    assert state(diagnostics, "frames", 0.45)[0] == "ok"


def test_a_sensor_at_half_its_usual_rate_is_slow_until_it_recovers() -> None:
    diagnostics = Diagnostics(["front"])
    drive(diagnostics, 0.0, 4.0)
    drive(diagnostics, 4.0, 4.8, period=2 * PERIOD)
    assert state(diagnostics, "sensor front", 4.7) == ("warn", "used, but slow: 5.0 Hz, usually 10.0 Hz")
    drive(diagnostics, 4.8, 5.5)
    assert state(diagnostics, "sensor front", 5.5) == ("ok", "used")
    drive(diagnostics, 5.5, 5.7, period=2 * PERIOD)
    diagnostics.forget_rates()
    drive(diagnostics, 5.7, 12.0, period=2 * PERIOD)
    assert state(diagnostics, "sensor front", 12.0) == ("ok", "used")


def test_messages_in_bursts_are_not_slow() -> None:
    diagnostics = Diagnostics(["front"])
    for burst in range(20):
        for _ in range(3):
            now = burst * 3 * PERIOD
            diagnostics.add_message("front", now)
            diagnostics.add_frame([SensorUse("front", True)], now)
        assert "slow" not in state(diagnostics, "sensor front", now)[1]


def test_the_same_data_under_new_stamps_is_frozen() -> None:
    diagnostics = Diagnostics(["front"])
    drive(diagnostics, 0.0, 2.0)
    drive(diagnostics, 2.0, 3.0, data=b"abcd")
    level, text = state(diagnostics, "sensor front", 3.0)
    assert level == "warn" and "frozen: the same data under new stamps for 1.0 s" in text
    drive(diagnostics, 3.0, 3.2)
    assert state(diagnostics, "sensor front", 3.2) == ("ok", "used")


def test_a_message_that_comes_twice_is_not_frozen() -> None:
    diagnostics = Diagnostics(["front"])
    for index in range(20):
        header = SimpleNamespace(stamp=ns_to_stamp(index // 5 * 500_000_000))
        diagnostics.add_message("front", index * PERIOD, SimpleNamespace(data=bytes([index // 5]), header=header))
        diagnostics.add_frame([SensorUse("front", True)], index * PERIOD)
    assert state(diagnostics, "sensor front", 1.95) == ("ok", "used")


@pytest.mark.parametrize(("grey", "fault"), [(0, "black picture"), (255, "blown-out picture"), (None, "")])
def test_pictures_are_checked(grey: int | None, fault: str) -> None:
    diagnostics = Diagnostics(["front"])
    drive(diagnostics, 0.0, 1.0)
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    if grey is not None:
        picture[:] = grey
    view = CameraView("front", picture, np.eye(3), np.eye(4))
    diagnostics.inspect(Frame(1, None, (view,)), 1.0)
    expected = ("warn", f"used, but {fault}") if fault else ("ok", "used")
    assert state(diagnostics, "sensor front", 1.0) == expected


def test_the_last_problem_is_reported_after_it_is_over() -> None:
    diagnostics = Diagnostics(["front"])
    diagnostics.add_message("front", 1.0)
    diagnostics.add_frame([SensorUse("front", False, 0.0, "truncated image")], 1.0)
    assert report(diagnostics, 1.1)["sensor front"][:2] == ("warn", "truncated image")
    diagnostics.add_frame([SensorUse("front", True, 0.0)], 1.2)
    level, text, values = report(diagnostics, 1.3)["sensor front"]
    assert (level, text, values["last_problem"], values["drops"]) == ("ok", "used", "truncated image", "1")


def test_a_sensor_that_stays_unusable_is_an_error_with_the_detail() -> None:
    diagnostics = Diagnostics(["front"])
    unused = SensorUse("front", False, 0.0, "no transform", detail="/tf: no transform: needed mast -> lidar")
    for index in range(30):
        diagnostics.add_message("front", index * PERIOD)
        diagnostics.add_frame([unused], index * PERIOD)
    assert state(diagnostics, "sensor front", 2.9) == ("error", unused.detail)


def test_a_message_dropped_at_its_arrival_is_an_error() -> None:
    diagnostics = Diagnostics(["front"])
    drive(diagnostics, 0.0, 1.0)
    diagnostics.add_dropped("front", "/front: negative stamp", 1.05)
    assert state(diagnostics, "sensor front", 1.1) == ("error", "messages are dropped: /front: negative stamp")


@pytest.mark.parametrize("reason", ["disabled", "not used by the model"])
def test_a_sensor_that_is_unused_on_purpose_is_healthy(reason: str) -> None:
    diagnostics = Diagnostics(["lidar"])
    diagnostics.add_frame([SensorUse("lidar", False, math.nan, reason)], 1.0)
    assert report(diagnostics, 9.0)["sensor lidar"][:2] == ("ok", reason)
    assert report(diagnostics, 9.0)["sensor lidar"][2]["last_problem"] == "none"


def test_errors_of_frames_and_models_are_reported_but_an_inactive_node_is_healthy() -> None:
    diagnostics = Diagnostics()
    diagnostics.model, diagnostics.model_error = "aqr_tiny", "model.checkpoint: no such file"
    diagnostics.frames.error = "detect: ValueError: bad"
    statuses = report(diagnostics, 1.0)
    assert (
        statuses["model"][0] == "warn"
        and "no such file" in statuses["model"][1]
        and statuses["model"][2]["running"] == "aqr_tiny"
    )
    assert statuses["frames"][:2] == ("error", "detect: ValueError: bad")
    assert statuses["frames"][2] | {"processed": "5", "dropped": "1"} == statuses["frames"][2]
    assert report(diagnostics, 1.0, active=False)["frames"][:2] == ("ok", "not active")
    diagnostics.frames.stuck = "stuck: a frame has been in stage detect for 2.0 s"
    assert state(diagnostics, "frames", 1.0) == ("error", diagnostics.frames.stuck)


def test_a_node_that_cannot_be_configured_or_does_not_run_its_callbacks_is_an_error() -> None:
    diagnostics = Diagnostics()
    assert report(diagnostics, 1.0, active=False)["node"][:2] == ("ok", "unconfigured")
    diagnostics.callbacks_stuck = 1.5
    assert state(diagnostics, "node", 1.0) == ("error", "stuck: callbacks have not run for 1.5 s")
    diagnostics.state_error = "cannot configure: no such file"
    statuses = report(diagnostics, 1.0, active=False)
    assert statuses["frames"][:2] == ("error", "cannot configure: no such file")
    assert statuses["node"][:2] == ("error", "unconfigured: cannot configure: no such file")


def test_names_hold_the_namespace_and_hardware_ids_the_topics() -> None:
    diagnostics = Diagnostics(["front"], "/robot/perception", {"front": "/front/image_raw"})
    statuses = diagnostics.report(Time(), 1.0, 0, 0).status
    assert [status.name for status in statuses] == [
        f"robot/perception: {subject}" for subject in ("frames", "model", "sensor front", "time", "node")
    ]
    assert statuses[2].hardware_id == "/front/image_raw" and all(status.hardware_id for status in statuses)


def test_frames_may_be_added_while_another_thread_reports() -> None:
    diagnostics, stop, failures = Diagnostics(["front"]), threading.Event(), []

    def add() -> None:
        now = 0.0
        while not stop.is_set():
            now += 1e-4
            diagnostics.add_frame([SensorUse("front", True, 0.0)], now)

    adding = threading.Thread(target=add, daemon=True)
    adding.start()
    try:
        for _ in range(50):
            report(diagnostics, 1.0)
    except RuntimeError as error:
        failures.append(error)
    finally:
        stop.set()
        adding.join(PATIENCE)
    assert not failures and not adding.is_alive()


def test_the_ages_of_the_last_seconds_are_in_every_report() -> None:
    diagnostics = Diagnostics()
    assert report(diagnostics, 0.0)["frames"][2]["age_max"] == "unknown"
    diagnostics.add_age(9.0, 0.0)
    for index in range(100):
        diagnostics.add_age(0.01 * (index + 1), AGES_WINDOW + 1 + index / 100)
    values = report(diagnostics, AGES_WINDOW + 2)["frames"][2]
    found = [float(values[key].removesuffix(" s")) for key in ("age_p50", "age_p95", "age_max")]
    assert found == pytest.approx([0.505, 0.95, 1.0], abs=0.01)


def test_results_that_are_dropped_for_their_age_are_an_error_until_one_is_in_time() -> None:
    diagnostics = Diagnostics()
    diagnostics.add_late(1.5, 1.0, 10.0)
    level, text, values = report(diagnostics, 10.1)["frames"]
    assert level == "error" and "1.50 s old, at most max_latency = 1 s" in text and values["too_old"] == "1"
    diagnostics.add_age(0.1, 10.2)
    assert "max_latency" not in report(diagnostics, 10.3)["frames"][1]


@pytest.mark.parametrize(
    ("by_arrival", "use"), [(False, "left out (clock_policy)"), (True, "used by its time of arrival")]
)
def test_wrong_stamps_are_a_warning_of_their_sensor_and_of_the_time(by_arrival: bool, use: str) -> None:
    diagnostics = Diagnostics(["lidar", "front"])
    for name in ("lidar", "front"):
        diagnostics.add_message(name, 1.0)
    wrong = ClockReport("stamps 37.0 s ahead of the other sensors", 36.95, 37.0, 4, by_arrival)
    diagnostics.time = TimeReport({"lidar": wrong, "front": ClockReport("", -0.05, 0.0)}, -0.05, True)
    statuses = report(diagnostics, 1.1)
    level, text, values = statuses["sensor lidar"]
    assert (level, text) == ("warn", f"stamps 37.0 s ahead of the other sensors: {use}")
    assert (values["stamps_to_clock"], values["stamps_to_others"], values["odd_stamps"]) == (
        "36.950 s",
        "37.000 s",
        "4",
    )
    assert statuses["sensor front"][0] == "ok" and statuses["sensor front"][2]["stamps"] == "right"
    assert statuses["time"][:2] == ("warn", "lidar: stamps 37.0 s ahead of the other sensors")


def test_a_sensor_used_by_its_arrival_still_shows_what_is_odd_about_its_data() -> None:
    diagnostics = Diagnostics(["front"])
    diagnostics.add_message("front", 1.0)
    diagnostics.add_frame([SensorUse("front", True, doubt="odd pixels")], 1.0)
    diagnostics.time = TimeReport({"front": ClockReport("no stamps", by_arrival=True)})
    assert report(diagnostics, 1.1)["sensor front"][:2] == (
        "warn",
        "no stamps: used by its time of arrival, odd pixels",
    )
    diagnostics.time = TimeReport({"front": ClockReport("no stamps")})
    assert report(diagnostics, 1.1)["sensor front"][:2] == ("warn", "no stamps: left out (clock_policy)")
    assert report(diagnostics, 9.0)["sensor front"][1].startswith("silent"), "silence comes before wrong stamps"


@pytest.mark.parametrize(
    ("time", "level", "named"),
    [
        (TimeReport(stamps_to_clock=-0.05, in_clock_time=True), "ok", "agree"),
        (TimeReport(), "ok", "no stamps"),
        (TimeReport(stamps_to_clock=-9e7), "warn", "90000000 s behind the node's clock; play a recording with /clock"),
        (TimeReport(stamps_to_clock=3600.0), "warn", "3600 s ahead of the node's clock"),
        (TimeReport(clock_runs=False), "warn", "use_sim_time is true, but /clock shows no time"),
        (TimeReport(transforms=["transforms of odom are refused"]), "warn", "transforms of odom are refused"),
    ],
)
def test_the_time_of_stamps_clock_and_transforms_is_reported(time: TimeReport, level: str, named: str) -> None:
    diagnostics = Diagnostics()
    diagnostics.time = time
    found = report(diagnostics, 1.0)["time"]
    assert found[0] == level and named in found[1]
