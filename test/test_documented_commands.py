# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The commands in README, documentation and model card work as they stand there, with smaller numbers where needed."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.documents import PAGES, block_lines, inline_code
from helpers.places import ROOT
from helpers.small_bag import write_small_bag

from aqr_perception.cli import _parser, main, with_subjects
from aqr_perception.models import build_model
from aqr_perception.models.weights.checkpoint import save_checkpoint

WEIGHTS = str(ROOT / "aqr_perception" / "weights" / "aqr_tiny.safetensors")
SMALL_MODELS = ("aqr_tiny", "aqr_tiny_sparse", "petr_tiny", "petrv2_tiny", "bevformer_mini")
_CALL = re.compile(r"^(?:aqr_perception|torchrun .*-m aqr_perception\.cli) (.*)$")
SMALLER = {
    "--frames": "2", "--epochs": None, "--minutes": None, "--steps": None, "--batch-size": "1", "--count": "2",
    "--seconds": "0.2", "--workers": "0", "--checkpoint": WEIGHTS, "--branches": "branches.safetensors",
    "--output": None,
    "--validate-every": None, "--accumulate": None,
}  # fmt: skip
"""Options of documented commands with the values of the tests; None leaves them out."""

NOT_RUN = {
    r"(train|evaluate) .*--data (nuscenes|bags|recordings|keyframes)": "needs labelled data; test/data and "
    "test/evaluation run it on small ones",
    r"(train|evaluate|process|convert checkpoint) .*(cmt_|my_model|mine\.yaml)": "needs weights or a preset of "
    "others, or takes minutes",
    r"convert ~/nuscenes": "needs recorded data; test/data/recordings converts small ones",
    r"view ": "needs a window, a running node or data, or takes long; test/viewers shows and writes each",
    r"demo$": "plays a drive of 20 s to the node; test/demo/live runs it",
    r"inspect --live": "listens to a running system; test/inspection/live does",
    r"inspect calibration": "needs pictures with edges; test/calibration draws them",
    r"process (drives/|a\.mcap)": "several bags, workers, machines and outputs; test/offline runs them",
    r"export aqr_tiny": "takes minutes; test/export exports smaller models",
    r"benchmark (frame --model PRESET|node)": "PRESET is a name; test/benchmarks/live runs the node",
    r"benchmark (frame )?.*--compare": "takes minutes; test/benchmarks/test_frame_comparison.py compares small models",
    r"inspect drive --params|process drive --params": "the same as for drive.mcap, which runs",
}
"""Documented calls that do not run here, as patterns, each with the reason. Their options are checked all the same."""


def documented() -> list[str]:
    """Return the arguments of every documented call, without duplicates."""
    calls = [found[1] for page in PAGES for line in block_lines(page) if (found := _CALL.match(line))]
    calls += [call for call in inline_calls() if not is_mention(call)]
    return list(dict.fromkeys(" ".join(shlex.split(call)) for call in calls))


def inline_calls() -> list[str]:
    """Return the arguments of the calls in prose."""
    code = (code for page in PAGES for code in inline_code(page))
    return [call[1] for one in code if (call := re.match(r"aqr_perception (.+)$", one))]


def is_mention(call: str) -> bool:
    """Return whether a call in prose only names a command, such as `aqr_perception simulate`."""
    parser: argparse.ArgumentParser | None = _parser()
    for word in call.split():
        subjects = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)] if parser else []
        if not subjects or word not in subjects[0].choices:
            return False
        parser = subjects[0].choices[word]
    return parser is not None and any(action.required for action in parser._actions)


CALLS = documented()


def arguments_of(call: str) -> list[str]:
    return shlex.split(re.sub(r"(--scenarios) ([\w ]+?)(?= --|$)", r'\1 "\2"', call))


def test_commands_are_found() -> None:
    assert len(CALLS) > 60
    assert "evaluate --workers 2 --output evaluation" in CALLS
    assert "benchmark tracking" in CALLS, "commands without options count, too"
    assert "simulate" not in CALLS, "names of commands are mentioned only"


def test_every_documented_command_runs_or_is_excused_with_a_reason() -> None:
    excused = {call for call in CALLS if any(re.match(pattern, call) for pattern in NOT_RUN)}
    assert [call for call in CALLS if cheap(call) is None and call not in excused] == []
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, call) for call in CALLS)] == []


@pytest.mark.parametrize("call", CALLS)
def test_every_documented_command_is_understood(call: str) -> None:
    _parser().parse_args(with_subjects(arguments_of(call)))  # an unknown option or choice ends the test


def with_smaller_numbers(arguments: list[str]) -> list[str]:
    smaller: list[str] = []
    skip = False
    for name, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if skip:
            skip = False
        elif name in SMALLER:
            skip = True
            smaller += [] if SMALLER[name] is None else [name, str(SMALLER[name])]
            assert value, name
        else:
            smaller.append(name)
    return smaller


def cheap(call: str) -> list[str] | None:
    """Return a call that takes seconds and does the same; None if its data or model is not in the package."""
    arguments = arguments_of(call)
    model = arguments[arguments.index("--model") + 1] if "--model" in arguments else "aqr_tiny"
    own = "--data" in arguments and "synthetic" not in arguments
    if model not in SMALL_MODELS or own:
        return None
    smaller = with_smaller_numbers(arguments)
    if "--plan" in arguments:
        return ["train", "--plan", "plan.yaml", "--status", "--output", "run"]
    if arguments[0] == "train":
        smaller = [part for part in smaller if part != "--resume"]
        for option, value in (("--frames", "2"), ("--workers", "0"), ("--batch-size", "1")):
            smaller += [] if option in smaller else [option, value]
        return [*smaller, "--steps", "1", "--data-root", "cache", "--output", "run"]
    if "--tracking" in arguments:
        return ["evaluate", "--tracking", "1", "--drive-seconds", "1"]
    if "--variants" in arguments:
        variants = ["--variants", f"off={WEIGHTS}:off", f"on=aqr_tiny@{WEIGHTS}:auto", "--cost", "off=60.2"]
        few = ["--scenarios", "LiDAR gone", "--frames", "2", "--data-root", "cache", "--output", "out"]
        return ["evaluate", "--benchmark", "headroom", *variants, *few]
    if arguments[0] == "evaluate":
        # Groups of failures and a benchmark's corruptions are represented by one of them.
        smaller = ["fog" if part in ("further", "all") else part for part in smaller]
        one = "dark" if "multicorrupt" in smaller else "LiDAR gone"
        smaller += [] if "--scenarios" in smaller else ["--scenarios", one]
        smaller += [] if "--frames" in smaller else ["--frames", "2"]
        return [*smaller, "--data-root", "cache", "--output", "out"]
    if arguments[:2] == ["simulate", "frames"]:
        return [*smaller, "--data-root", "cache", "--workers", "0"]
    if arguments[0] == "simulate" and len(arguments) > 2:
        return [*smaller, "--size", "96", "32"]
    if arguments[0] == "layout":
        return ["layout", "--params", str(ROOT / "config" / "nuscenes.yaml"), *arguments[3:]]
    if arguments[:2] == ["inspect", "drive.mcap"] or arguments in (["presets"], ["benchmark", "tracking"]):
        return arguments
    if arguments[:2] == ["process", "drive.mcap"]:
        return [*arguments, "--no-report"]
    if arguments[:2] == ["inspect", "checkpoint"]:
        return ["inspect", "checkpoint", WEIGHTS]
    if arguments[:3] == ["convert", "checkpoint", "aqr_tiny"]:
        return ["convert", "checkpoint", "aqr_tiny", WEIGHTS, "copy.safetensors", *arguments[5:]]
    return None


# Calls that differ only in their numbers run once.
CHEAP = list(
    {" ".join(smaller): call for call in CALLS if (smaller := cheap(call)) and "--workers 2" not in call}.values()
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands run one after the other, with one cache of drawn frames."""
    return tmp_path_factory.mktemp("commands")


@pytest.mark.slow
@pytest.mark.parametrize("call", CHEAP)
def test_every_documented_command_with_the_packages_own_data_runs(
    call: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").symlink_to(folder)
    arguments = cheap(call)
    assert arguments is not None
    if arguments[1:2] == ["drive.mcap"]:
        write_small_bag(tmp_path / "drive.mcap")
    if "--branches" in arguments:
        # The camera-only models have the camera branch of aqr_tiny_sparse.
        other = "aqr_tiny" if "aqr_tiny" in arguments else "aqr_tiny_sparse"
        save_checkpoint(build_model(other), tmp_path / "branches.safetensors")
    if "--plan" in arguments:
        plan = (ROOT / "config" / "training" / "aqr_tiny.yaml").read_text()
        (tmp_path / "plan.yaml").write_text(re.sub(r" +backbone: .*\n", "", plan))  # a download
    if arguments[0] == "process":
        pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")
        assert main(["inspect", "drive.mcap", "--params", "my.yaml"]) == 0
        arguments = ["my.yaml" if part.endswith(".yaml") else part for part in arguments]
    assert main(arguments) == 0, capsys.readouterr().err


@pytest.mark.slow
def test_the_installed_program_evaluates_with_worker_processes(folder: Path, tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "scripts" / "aqr_perception")]
    arguments = ["evaluate", "--workers", "2", "--output", "evaluation", "--frames", "2", "--scenarios", "LiDAR gone"]
    done = subprocess.run(
        [*program, *arguments, "--aqr", "off", "--data-root", str(folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "evaluation" / "robustness.md").is_file() and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[0].startswith("INFO: loading"), "progress is shown from the first second"
