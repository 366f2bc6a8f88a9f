"""Reports of sensors, frames and the model in /diagnostics."""

import math
import threading

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from helpers.waiting import PATIENCE

from aqr_perception.nodes.clocks.sensor_clocks import ClockReport
from aqr_perception.nodes.diagnostics import AGES_WINDOW, WINDOW, Diagnostics, TimeReport
from aqr_perception.nodes.input.frame_request import SensorUse

LEVELS = {DiagnosticStatus.OK: "ok", DiagnosticStatus.WARN: "warn", DiagnosticStatus.ERROR: "error"}


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


def test_a_sensor_without_messages_is_reported() -> None:
    diagnostics = Diagnostics(["lidar", "front"])
    statuses = report(diagnostics, 10.0)
    assert statuses["sensor lidar"][:2] == statuses["sensor front"][:2] == ("stale", "no data")
    assert statuses["sensor front"][2]["last_heard"] == "never"
    assert statuses["frames"][:2] == ("stale", "no frames")


def test_rates_count_messages_and_the_frames_that_used_them() -> None:
    diagnostics = Diagnostics(["front"])
    for index in range(100):
        now = index / 10
        diagnostics.add_message("front", now)
        if index % 2:
            diagnostics.add_frame([SensorUse("front", True, 0.02)], now)
    level, text, values = report(diagnostics, 9.95)["sensor front"]
    assert (level, text, values["age"], values["last_problem"]) == ("ok", "used", "0.020 s", "none")
    assert float(values["rate"]) == pytest.approx(10, abs=0.5) and float(values["used_rate"]) == pytest.approx(
        5, abs=0.5
    )
    assert report(diagnostics, 9.95)["frames"][1] == "5.0 frames/s"


def test_a_silent_sensor_is_reported_without_further_frames() -> None:
    diagnostics = Diagnostics(["front"])
    diagnostics.add_message("front", 1.0)
    diagnostics.add_frame([SensorUse("front", True, 0.0)], 1.0)
    level, text, values = report(diagnostics, 1.0 + WINDOW + 4)["sensor front"]
    assert (level, text, float(values["rate"])) == ("stale", "silent for 6 s", 0)


def test_the_last_problem_is_reported_after_it_is_over() -> None:
    diagnostics = Diagnostics(["front"])
    diagnostics.add_message("front", 1.0)
    diagnostics.add_frame([SensorUse("front", False, 0.0, "truncated image")], 1.0)
    assert report(diagnostics, 1.1)["sensor front"][:2] == ("warn", "truncated image")
    diagnostics.add_frame([SensorUse("front", True, 0.0)], 1.2)
    level, text, values = report(diagnostics, 1.3)["sensor front"]
    assert (level, text, values["last_problem"]) == ("ok", "used", "truncated image")


@pytest.mark.parametrize("reason", ["disabled", "not used by the model"])
def test_a_sensor_that_is_unused_on_purpose_is_healthy(reason: str) -> None:
    diagnostics = Diagnostics(["lidar"])
    diagnostics.add_frame([SensorUse("lidar", False, math.nan, reason)], 1.0)
    assert report(diagnostics, 9.0)["sensor lidar"][:2] == ("ok", reason)
    assert report(diagnostics, 9.0)["sensor lidar"][2]["last_problem"] == "none"


def test_errors_of_frames_and_models_are_reported_but_an_inactive_node_is_healthy() -> None:
    diagnostics = Diagnostics()
    diagnostics.model, diagnostics.model_error = "aqr_tiny", "model.checkpoint: no such file"
    diagnostics.frame_error = "detect: ValueError: bad"
    statuses = report(diagnostics, 1.0)
    assert (
        statuses["model"][0] == "warn"
        and "no such file" in statuses["model"][1]
        and statuses["model"][2]["running"] == "aqr_tiny"
    )
    assert statuses["frames"][:2] == ("error", "detect: ValueError: bad")
    assert statuses["frames"][2] | {"processed": "5", "dropped": "1"} == statuses["frames"][2]
    assert report(diagnostics, 1.0, active=False)["frames"][:2] == ("ok", "not active")


def test_a_used_sensor_with_odd_data_is_a_warning() -> None:
    diagnostics = Diagnostics(["front"])
    diagnostics.add_message("front", 0.9)
    diagnostics.add_frame([SensorUse("front", True, 0.0, doubt="JPEG without an end")], 0.9)
    assert report(diagnostics, 1.0)["sensor front"][:2] == ("warn", "used, but JPEG without an end")


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
