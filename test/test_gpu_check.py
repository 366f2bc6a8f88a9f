# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The script for GPUs: without one it says so; with one, a failing step does not end the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import ROOT

SCRIPT = ROOT / "scripts" / "gpu_check.sh"
STUB = "class cuda:\n    get_device_name = staticmethod(lambda: 'made up')\n__version__ = '0'\n"
"""Stands in for torch where the summary is written."""
PYTHON = """#!/bin/bash
case "$*" in
  -c*) exit 0 ;;
  -\\ *) exec {python} "$@" ;;
  "-m pytest"*) exec sleep 60 ;;
  *"benchmark deformable"*) exit 3 ;;
esac
"""


def run(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", str(SCRIPT), str(folder / "out")],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_without_a_gpu_nothing_is_measured_and_that_is_said(tmp_path: Path) -> None:
    done = run(tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["measured"] is False
    assert "no GPU" in done.stdout


@pytest.mark.slow
def test_a_step_that_fails_or_hangs_does_not_end_the_others(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    (tmp_path / "torch.py").write_text(STUB)
    script = tmp_path / "scripts" / "gpu_check.sh"
    script.parent.mkdir()
    script.write_text(SCRIPT.read_text().replace("step tests 90", "step tests 2").replace("limit < 5", "limit < 1"))
    (tmp_path / "config" / "models").mkdir(parents=True)
    (tmp_path / "config" / "models" / "small.yaml").touch()
    done = subprocess.run(
        ["bash", str(script), str(tmp_path / "out")],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    statuses = {step["name"]: step["status"] for step in summary["steps"]}
    assert done.returncode == 1 and summary["measured"] is True
    assert statuses.pop("tests") == "time limit of 2 s" and statuses.pop("deformable") == "3"
    assert set(statuses.values()) == {"0"} and {"goldens_fp16", "attention", "frame_small"} <= statuses.keys()


def test_the_limits_of_the_steps_fit_into_eight_minutes() -> None:
    text = SCRIPT.read_text()
    assert "GPU_CHECK_SECONDS:-470" in text and "left < limit" in text


@pytest.mark.slow
def test_recorded_outputs_are_compared_on_a_device(tmp_path: Path) -> None:
    from helpers import goldens_on_device

    file = tmp_path / "goldens.json"
    assert goldens_on_device.main("cpu", "fp32", str(file), "petr_vov_800x320") == 0
    stages = json.loads(file.read_text())["petr_vov_800x320"]
    assert stages and max(stages.values()) < 0.005
    assert goldens_on_device.main("cpu", "fp16", str(file), "petr_vov_800x320") == 1
    assert "fp16" in json.loads(file.read_text())["petr_vov_800x320"]["error"]
