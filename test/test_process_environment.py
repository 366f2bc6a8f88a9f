# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Threads and memory of the process: defaults before torch loads, with priority for the user's environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aqr_perception import process_environment
from aqr_perception.process_environment import openmp_settings, physical_cores, prepare_process

ROOT = Path(__file__).parents[1]


def test_idle_threads_sleep_and_a_core_is_left_only_where_there_are_more_than_two() -> None:
    passive = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
    assert openmp_settings({}, 8, leave_core=False) == passive
    assert openmp_settings({}, 2, leave_core=True) == passive
    assert openmp_settings({}, 8, leave_core=True) == {**passive, "OMP_NUM_THREADS": "7"}


def test_the_first_processor_is_described_by_name_and_nothing_is_known_where_there_is_no_list(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text(
        "processor\t: 0\nmodel name\t: Fast: 3000\nflags\t\t: fpu amx_tile\n\nprocessor\t: 1\nmodel name\t: Slow\n"
    )
    found = process_environment.processor_entries(listing)
    assert found == {"processor": "0", "model name": "Fast: 3000", "flags": "fpu amx_tile"}
    assert process_environment.processor_entries(tmp_path / "none") == {}


@pytest.mark.parametrize("variable", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_the_users_own_waiting_is_kept(variable: str) -> None:
    assert openmp_settings({variable: "5"}, 8, leave_core=True) == {"OMP_NUM_THREADS": "7"}


def test_the_users_own_number_of_threads_is_kept() -> None:
    assert "OMP_NUM_THREADS" not in openmp_settings({"OMP_NUM_THREADS": "3"}, 8, leave_core=True)
    assert "OMP_NUM_THREADS" not in openmp_settings({"MKL_NUM_THREADS": "3"}, 8, leave_core=True)


def test_two_threads_of_a_core_count_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for processor in range(4):
        folder = tmp_path / f"cpu{processor}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{processor % 2},{processor % 2 + 2}\n")
    assert physical_cores(tmp_path) == 2
    assert physical_cores(tmp_path / "absent") == 4


@pytest.mark.parametrize(
    ("variable", "kept"), [("PATH", False), ("MALLOC_TRIM_THRESHOLD_", True), ("LD_PRELOAD", True)]
)
def test_the_users_own_allocator_is_kept(variable: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(process_environment, "_keep_freed_memory", lambda: calls.append(None))
    monkeypatch.setattr(os, "environ", {variable: "0"})
    prepare_process()
    assert (calls == []) == kept


def test_commands_and_node_prepare_the_process_before_torch_loads() -> None:
    program = (
        "import sys, os, aqr_perception.process_environment as environment\n"
        "seen = []\n"
        "environment.prepare_process = lambda **_: seen.append('torch' in sys.modules)\n"
        "from aqr_perception.cli import main\n"
        "main(['presets']); assert seen == [False], seen"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, timeout=60)
    node = (ROOT / "scripts" / "perception_node").read_text()
    assert node.index("prepare_process(leave_core=True)") < node.index("perception_node import main")
