# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Commands of other programs in README and documentation: what they name in this package exists."""

import ast
import re
import shlex
from collections.abc import Iterator

import pytest
from helpers.documents import PAGES, block_lines, inline_code
from helpers.places import ROOT

PROGRAMS = (
    "make", "ros2", "pip", "python3", "colcon", "rosdep", "sudo", "torchrun", "tensorboard", "export", "cd", ".",
    "trtexec", "bash", "polygraphy", "top", "unzip", "nohup", "rviz2", "pytest",
)  # fmt: skip
NOT_RUN = {
    r"make (setup|demo|test|unit|lint|docs|clean|help)$": ".ci/run, test/test_make_run.py and test/demo/live run "
    "what these targets run",
    r"bash scripts/fetch_efficientnet\.sh": "downloads 17 MB; test/models/image/test_efficientnet_lite.py "
    "loads a file of its kind",
    r"make test DISTRO=jazzy$": "takes long; a job of the workflow of its own runs it",
    r"make train-tiny$": "trains for hours; test/training/plan runs plans like its own",
    r"make run": "test/test_make_run.py runs it with a stand-in for the node, and test/nodes/test_bag_player.py plays",
    r"ros2 (launch|run|param|topic|lifecycle|bag|security)\b": "needs an installed ROS 2; names and arguments are "
    "checked below, and test/test_launch.py runs the launch files",
    r"(sudo apt|rosdep|pip|python3 -c 'import numpy|colcon|unzip)\b": "downloads or changes the machine; CI does it, "
    "and test/test_packaging.py compares names with the manifests",
    r"(export|policy=|cd|\.) ?": "changes the shell only; paths are checked below",
    r"torchrun": "the same command without torchrun is parsed and run by test_documented_commands.py",
    r"tensorboard|top -H": "shows something until it is ended",
    r"trtexec|polygraphy": "needs TensorRT; the page says that it was not tried",
    r"python3 scripts/measure_transport\.py": "takes minutes of a quiet machine; its options are checked below",
    r"python3 scripts/write_reference\.py": "test/test_reference_pages.py runs what it runs, without writing",
    r"nohup nice .*aqr_perception simulate": "the same command runs in test_documented_commands.py",
    r"pytest test/models/petr": "is a part of these tests",
}
"""Commands that no test here runs, as patterns, each with the reason."""


def commands() -> Iterator[str]:
    """Yield the single commands of blocks and prose that are not aqr_perception's own."""
    for page in PAGES:
        for line in [*block_lines(page), *(code for code in inline_code(page) if " " in code)]:
            for command in re.split(r"\s+(?:&&|\|)\s+", line):
                if re.match(r"[A-Z_]+=\S+ \w", command):
                    command = command.split(" ", 1)[1]  # variables of one command
                if command.split(" ")[0] in PROGRAMS or command.startswith("policy="):
                    yield command.removesuffix(" ...")


COMMANDS = tuple(dict.fromkeys(commands()))


def matching(pattern: str) -> list["re.Match[str]"]:
    found = [match for command in COMMANDS if (match := re.match(pattern, command))]
    assert found, f"no documented command is like {pattern}"
    return found


def reference(page: str) -> str:
    return (ROOT / "docs" / "reference" / page).read_text()


def test_every_command_is_excused_with_a_reason_and_no_excuse_is_left_over() -> None:
    assert len(COMMANDS) > 50
    assert [command for command in COMMANDS if not any(re.match(pattern, command) for pattern in NOT_RUN)] == []
    for pattern in NOT_RUN:
        matching(pattern)


def test_blocks_hold_no_programs_that_this_test_does_not_know() -> None:
    known = (*PROGRAMS, "aqr_perception", "policy=$(ros2")
    unknown = [line for page in PAGES for line in block_lines(page) if line.split(" ")[0] not in known]
    assert unknown == []


def test_targets_and_variables_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets, variables = set(re.findall(r"^([\w-]+):", makefile, re.M)), set(re.findall(r"\$\$\{?(\w+)", makefile))
    for command in matching(r"make (.*)"):
        for word in command[1].split():
            name, given, _ = word.partition("=")
            assert name in (variables if given else targets), command[0]


def test_launch_files_and_their_arguments_exist() -> None:
    literals = {
        node.value
        for path in (ROOT / "launch").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
    }
    for command in matching(r"ros2 launch aqr_perception (\S+)(.*)"):
        assert (ROOT / "launch" / command[1]).is_file(), command[0]
        assert [name for name in re.findall(r"(\w+):=", command[2]) if name not in literals] == [], command[0]


def test_parameters_of_ros2_param_exist_and_may_change() -> None:
    pages = reference("parameters.md")
    for command in matching(r"ros2 param (set|get|describe) /aqr_perception (\S+)"):
        if command[2] != "NAME":
            wanted = f"| `{command[2]}`" + ("<br>*at run time*" if command[1] == "set" else "")
            assert wanted in pages, command[0]


def test_topics_and_executables_of_ros2_exist() -> None:
    topics = reference("topics.md").replace("`~/", "`/aqr_perception/")
    for command in matching(r"ros2 topic \w+ (?:--once )?(/\S+)"):
        assert f"`{command[1]}`" in topics, command[0]
    for command in matching(r"ros2 run aqr_perception (\S+)"):
        assert (ROOT / "scripts" / command[1]).is_file(), command[0]
    fields = reference("messages.md")
    for command in matching(r"ros2 topic echo --once /aqr_perception/detections --field (\S+)"):
        assert f"| `{command[1]}` |" in fields.split("## FusedDetectionArray")[1].split("##")[0], command[0]


def test_scripts_and_their_options_exist() -> None:
    code = {one for page in PAGES for one in (*inline_code(page), *block_lines(page))}
    named = [one for one in code if re.match(r"(python3 )?scripts/\w+\.(py|sh)", one)]
    assert len(named) > 5
    for one in named:
        path, *words = one.removeprefix("python3 ").split()
        source = (ROOT / path).read_text()
        for option in re.findall(r"--[\w-]+", " ".join(words)):
            assert f'"{option}"' in source, one


def test_extras_of_pip_and_pinned_files_exist() -> None:
    extras = set(re.findall(r'^\s+"(\w+)": \[', (ROOT / "setup.py").read_text(), re.M))
    for command in matching(r"pip install .*?(?:aqr_perception|\.)\[([\w,]+)\]"):
        assert set(command[1].split(",")) <= extras, command[0]
    for command in matching(r"pip install .*-r (\S+)"):
        assert (ROOT / "ros_from_pip" / command[1]).is_file(), command[0]


@pytest.mark.parametrize("folder", ["config", "scripts", "ros_from_pip"])
def test_paths_in_commands_exist(folder: str) -> None:
    words = [word for command in COMMANDS for word in shlex.split(command.replace("'", ""))]
    named = {match[1] for word in words if (match := re.search(rf"(?:^|/|=)({folder}/[\w./]+)$", word))}
    assert [path for path in named if not (ROOT / path).exists()] == []
