"""The commands in README, documentation and model card work as they stand there, with smaller numbers where needed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import ROOT
from helpers.small_bag import write_small_bag

from aqr_perception.cli import _parser, main, with_subjects
from aqr_perception.models.config.presets import preset_names

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
WEIGHTS = str(ROOT / "aqr_perception" / "weights" / "aqr_tiny.safetensors")
_BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"^(?:\$ )?(?:aqr_perception|torchrun .*-m aqr_perception\.cli) (.*)$", re.MULTILINE)
SMALLER = {
    "--frames": "2", "--epochs": None, "--minutes": None, "--steps": None, "--batch-size": "1", "--count": "2",
    "--seconds": "0.2", "--workers": "0", "--checkpoint": WEIGHTS, "--branches": WEIGHTS, "--output": None,
    "--validate-every": None, "--accumulate": None,
}  # fmt: skip
"""Options of documented commands with the values of the tests; None leaves them out."""


def documented() -> list[str]:
    """Return the arguments of every documented call, without duplicates."""
    calls: list[str] = []
    for page in PAGES:
        text = page.read_text()
        blocks = "\n".join(_BLOCK.findall(text)).replace("\\\n", " ")
        calls += _CALL.findall(blocks)
        prose = _BLOCK.sub("", text)
        calls += [call for call in re.findall(r"`aqr_perception ([^`\n]+)`", prose) if "-" in call]
    return list(dict.fromkeys(" ".join(shlex.split(call, comments=True)) for call in calls if call.strip()))


CALLS = documented()


def arguments_of(call: str) -> list[str]:
    return shlex.split(re.sub(r"(--scenarios) ([\w ]+?)(?= --|$)", r'\1 "\2"', call))


def test_commands_are_found() -> None:
    assert len(CALLS) > 20
    assert "evaluate --workers 2 --output evaluation" in CALLS


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
    if model not in preset_names() or not model.endswith("tiny") or own:
        return None
    smaller = with_smaller_numbers(arguments)
    if arguments[0] == "train":
        smaller = [part for part in smaller if part != "--resume"]
        for option, value in (("--frames", "2"), ("--workers", "0"), ("--batch-size", "1")):
            smaller += [] if option in smaller else [option, value]
        return [*smaller, "--steps", "1", "--data-root", "cache", "--output", "run"]
    if "--tracking" in arguments:
        return ["evaluate", "--tracking", "1", "--drive-seconds", "1"]
    if "--variants" in arguments:
        variants = ["--variants", f"off={WEIGHTS}:off", f"on=aqr_tiny@{WEIGHTS}:bias", "--cost", "off=60.2"]
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
    if arguments[0] == "inspect" and arguments[1] == "drive.mcap":
        return arguments
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
    if "drive.mcap" in arguments and arguments[0] == "inspect":
        write_small_bag(tmp_path / "drive.mcap")
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
