"""Reports of sensors, frames and the model in /diagnostics."""

import math
import threading

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from helpers.waiting import PATIENCE

from aqr_perception.nodes.diagnostics import WINDOW, Diagnostics
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
