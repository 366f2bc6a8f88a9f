# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the running node: its figures, its made-up sensors, and a short run."""

import builtins
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aqr_perception.benchmarks.live import node_load
from aqr_perception.benchmarks.live.node_load import Memory
from aqr_perception.benchmarks.live.node_process import running_node
from aqr_perception.benchmarks.live.sensor_feed import FeedCase
from aqr_perception.cli import main

SMALL = ["--cameras", "2", "--size", "352x198", "--points", "3000"]


def test_memory_that_grows_is_told_from_memory_that_varies() -> None:
    seconds = np.arange(0.0, 600.0)
    noise = np.random.default_rng(0).normal(0, 1.0, len(seconds))
    start = np.where(seconds < 60, 3 * (seconds - 60), 0.0)  # the warm-up is not growth
    flat = Memory.of(list(zip(seconds, 500 + start + noise, strict=True)), 60.0)
    leak = Memory.of(list(zip(seconds, 500 + start + noise + 0.05 * seconds, strict=True)), 60.0)
    assert abs(flat.slope_mb_per_minute) < 0.1 and flat.spread < 0.02 and abs(flat.growth) < 0.002
    assert flat.median_mb == pytest.approx(500, abs=0.5)
    assert leak.slope_mb_per_minute == pytest.approx(3.0, abs=0.1)
    assert leak.growth == pytest.approx(0.05 * 540 / leak.median_mb, rel=0.05) and leak.spread > 0.04


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"cameras": 7}, "cameras"), ({"size": (8, 900)}, "width"), ({"points": 0}, "points"), ({"rate": 0.0}, "rate")],
)
def test_sensors_that_cannot_be_made_up_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named}: found .*needed"):
        FeedCase(**changes)


@pytest.mark.parametrize("raw", [False, True])
def test_the_nodes_parameters_name_the_topics_of_the_sensors(raw: bool) -> None:
    case = FeedCase(cameras=2, raw=raw)
    parameters = case.parameters()
    assert len(parameters["cameras"]) == 2
    for name in parameters["cameras"]:
        assert parameters[f"camera.{name}.compressed"] is not raw
        assert parameters[f"camera.{name}.image_topic"].endswith("image_raw" if raw else "compressed")


def test_without_ros_the_command_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without_ros(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == "rclpy":
            raise ModuleNotFoundError("No module named 'rclpy'", name="rclpy")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_ros)
    assert main(["benchmark", "node", *SMALL]) == 1
    error = capsys.readouterr().err
    assert "needs ROS 2" in error and "rclpy" in error and "setup files" in error and error.count("\n") == 1


def test_a_command_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="perception_node"), running_node([], {}, tmp_path / "log"):
        pass


def test_a_node_that_ends_is_reported_with_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = tmp_path / "perception_node"
    command.write_text("#!/bin/sh\necho first\necho it is broken >&2\nexit 3\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    ended = pytest.raises(ValueError, match="status 3: it is broken")
    with ended, running_node([], {}, tmp_path / "log") as process:
        for _ in range(200):
            process.check()
            time.sleep(0.02)


def test_memory_and_cpu_time_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = tmp_path / "perception_node"
    command.write_text(f"#!{sys.executable}\ndata = b'x' * 100_000_000\nwhile True: pass\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with running_node([], {}, tmp_path / "log") as process:
        deadline = time.monotonic() + 20
        while process.cpu_seconds()["callbacks"] < 0.3 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.check()
        assert process.cpu_seconds()["callbacks"] >= 0.3
        assert 100 < process.resident_mb() < 160 and process.threads() == 1


@pytest.mark.slow
def test_a_short_run_measures_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
    pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")
    figures = tmp_path / "node.json"
    options = ["--rate", "3", "--seconds", "4", "--raw", "--listen", "--json", str(figures)]
    parameters = ["-p", "score_threshold:=0.05", "-p", "max_latency:=10.0"]
    assert main(["benchmark", "node", *SMALL, *options, *parameters]) == 0
    measured = json.loads(figures.read_text())
    stages = {stage["stage"]: stage["cpu_ms"] for stage in measured["stages"]}
    assert tuple(stages) == node_load.STAGES
    assert all(stages[stage] > 0 for stage in ("reception", "build", "messages", "pictures", "publish"))
    assert measured["overhead_cpu_ms"] > 0 and measured["model_ms"] > 0
    assert 0 < measured["complete"] <= measured["answered"] and measured["backwards"] == 0
    assert 0 < measured["age_p50"] <= measured["age_p95"] <= measured["age_max"]
    assert measured["memory"]["median_mb"] > 100 and len(measured["memory"]["samples"]) >= 3
    assert measured["cpu_shares"]["callbacks"] > 0 and measured["cpu_shares"]["health"] > 0
    printed = capsys.readouterr().out
    assert "reception" in printed and "resident memory" in printed and measured["machine"] in printed
