# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The runner of the fuzzed inputs finds each kind of fault, keeps its input, and goes on."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import ROOT

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")

from fuzz.choices import random_bytes

SCRIPT = ROOT / "scripts" / "fuzz.py"
SEED, INPUTS = 232, 49
"""A seed of which the first inputs have each kind of fault."""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_every_kind_of_fault_is_kept_and_the_run_goes_on_and_resumes(tmp_path: Path) -> None:
    first = run(f"deliberate={INPUTS}", "--seed", SEED, "--output", tmp_path)
    assert first.returncode == 1, first.stderr
    problems = {path.stem: path.read_text() for path in (tmp_path / "faults").glob("*.txt")}
    for said in ("KeyError: 'undocumented'", "exit -11", "hangs", r"\d\.\d\d s; ", r"^\d+ MB; "):
        assert any(re.search(said, problem, re.MULTILINE) for problem in problems.values()), (said, problems)
    kept = json.loads((tmp_path / "record.json").read_text())
    assert kept["kinds"]["deliberate"]["inputs"] == INPUTS and len(kept["kinds"]["deliberate"]["faults"]) == len(
        problems
    )
    for name in problems:
        index = int(name.rpartition("-")[2])
        assert (tmp_path / "faults" / f"{name}.bin").read_bytes() == random_bytes(SEED, "deliberate", index)
    assert "has a record" in run("deliberate=5", "--seed", SEED, "--output", tmp_path).stderr
    run(f"deliberate={INPUTS + 1}", "--seed", SEED, "--output", tmp_path, "--resume")
    resumed = json.loads((tmp_path / "record.json").read_text())
    assert resumed["next"]["deliberate"] == resumed["kinds"]["deliberate"]["inputs"] == INPUTS + 1


@pytest.mark.slow
def test_a_replay_names_the_outcome_and_fails_with_a_fault(tmp_path: Path) -> None:
    fault, usual = tmp_path / "deliberate-1.bin", tmp_path / "cloud-1.bin"
    fault.write_bytes(b"\xff\0")
    usual.write_bytes(b"")
    replayed = run("--replay", fault, usual)
    assert replayed.returncode == 1 and "undocumented" in replayed.stderr
    assert f"{usual}: accepted" in replayed.stdout and f"{fault}: fault" in replayed.stdout


def test_an_unknown_kind_is_named() -> None:
    refused = run("clouds=5")
    assert refused.returncode == 1 and "'clouds=5' is no kind of input; choose of cloud" in refused.stderr
