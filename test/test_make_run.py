# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""`make run` and its script take paths as they are, and end when the node or the player does."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.places import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

HOSTILE = (
    "drive $(shell touch made)$(touch made).mcap",
    "`touch made`",
    '"; touch made; "',
    "a$b$$c.mcap",
    "two words",
    "--loop",
    "*",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile, an empty set-up, and a script that prints its arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in (".ros", "scripts", "ros_from_pip"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".ros" / "env.sh").touch()
    (tmp_path / "ros_from_pip" / "setup.sh").touch()
    (tmp_path / "scripts" / "run_bag.sh").write_text("printf '<%s>\\n' \"$@\"\n")
    return tmp_path


def make(folder: Path, *values: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "DISTRO"))}
    variables |= environment
    return subprocess.run(
        ["make", "-s", "run", *values], cwd=folder, env=variables, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_values_reach_the_script_exactly_as_given(checkout: Path, value: str, way: str) -> None:
    names = ("BAG", "CONFIG", "MODEL")
    if way == "argument":
        done = make(checkout, *(f"{name}={value}" for name in names))
    else:
        done = make(checkout, **dict.fromkeys(names, value))
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"<{value}>"] * 3), done.stderr
    assert not (checkout / "made").exists()


@pytest.mark.parametrize(("distro", "folder"), [("", ".ros"), ("kilted", ".ros"), ("jazzy", ".ros-jazzy")])
def test_each_distribution_has_its_own_environment(checkout: Path, distro: str, folder: str) -> None:
    (checkout / ".ros-jazzy").mkdir()
    for name in (".ros", ".ros-jazzy"):
        (checkout / name / "env.sh").write_text(f"export SOURCED={name}\n")
    (checkout / "scripts" / "run_bag.sh").write_text('echo "$SOURCED"\n')
    assert make(checkout, "BAG=a", f"DISTRO={distro}").stdout == f"{folder}\n"
    assert make(checkout, "BAG=a", DISTRO=distro).stdout == f"{folder}\n"


def test_defaults_apply_and_a_bag_is_required(checkout: Path) -> None:
    assert make(checkout, "BAG=drive.mcap").stdout.splitlines() == ["<drive.mcap>", "<config/nuscenes.yaml>", "<>"]
    missing = make(checkout)
    assert missing.returncode != 0 and "BAG is empty" in missing.stderr


def run_bag(folder: Path, *arguments: str, node: str, player: str) -> subprocess.CompletedProcess[str]:
    """Run the script with stand-ins for the node and the player, given as lines of a shell script."""
    for name, lines in (("perception_node", node), ("bag_player", player)):
        program = folder / name
        program.write_text(f"#!/usr/bin/env bash\n{lines}\n")
        program.chmod(0o755)
    variables = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    script = str(ROOT / "scripts" / "run_bag.sh")
    return subprocess.run(
        ["bash", script, *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=30
    )


FOREVER = "trap 'echo stopped $0; exit 0' INT TERM; while :; do sleep 0.05; done"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for name in ("my drive.mcap", "my config.yaml"):
        (tmp_path / name).touch()
    return "my drive.mcap", "my config.yaml"


def test_the_node_is_stopped_when_the_bag_has_been_played(tmp_path: Path, files: tuple[str, str]) -> None:
    done = run_bag(tmp_path, *files, "aqr_tiny", node=f'printf "<%s>" "$@"; {FOREVER}', player="sleep 0.5")
    assert done.returncode == 0 and "stopped" in done.stdout
    assert "<--params-file><my config.yaml>" in done.stdout and "<model.preset:=aqr_tiny>" in done.stdout


def test_a_node_that_cannot_start_ends_the_run_with_its_status(tmp_path: Path, files: tuple[str, str]) -> None:
    done = run_bag(tmp_path, *files, node="sleep 0.5; exit 3", player=f'printf "<%s>" "$@"; {FOREVER}')
    assert done.returncode == 3
    assert "<--clock><--wait><30><--><my drive.mcap>" in done.stdout


@pytest.mark.parametrize(("missing", "position"), [("no.mcap", 0), ("no.yaml", 1)])
def test_a_missing_file_is_named(tmp_path: Path, files: tuple[str, str], missing: str, position: int) -> None:
    arguments = list(files)
    arguments[position] = missing
    done = run_bag(tmp_path, *arguments, node="echo started", player="echo started")
    assert done.returncode == 2 and missing in done.stderr and "started" not in done.stdout


def test_help_lists_every_target_that_has_a_description() -> None:
    described = {line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if "  ## " in line}
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    assert "train-tiny" in described and {line.split()[0] for line in listed.splitlines()} == described
