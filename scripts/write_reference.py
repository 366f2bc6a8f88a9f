#!/usr/bin/env python3
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Write docs/reference/ from the code: parameters, topics, messages and the command line.

Parameters and topics need ROS 2 and the built package: run `make setup` and `. .ros/env.sh` first.
"""

import argparse
import contextlib
import difflib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
CAMERA = "<camera>"
NOTE = "<!-- Written by scripts/write_reference.py from the code; do not edit. -->"

PUBLISHED = {
    "~/detections": "boxes with score, velocity, LiDAR and camera weights; the used sensors and the age of their data",
    "~/detections_3d": "the same boxes, for other tools",
    "~/markers": "boxes, headings, labels; orange: mostly LiDAR evidence, blue: mostly cameras, grey: neither",
    "~/tracks": "with `tracking.enabled`: objects with ids that last, see [tracking](../tracking.md)",
    "~/tracks_3d": "the same tracks, for other tools",
    "~/track_markers": "tracks with trails; predicted ones are faint",
    "~/weights/bev/image": "bird's-eye-view (BEV) picture of the weights, see [weight maps](../weight_maps.md)",
    "~/weights/bev/raw": "the BEV weight map as 32FC1 in [0, 1.5] (signed weights: [-1.5, 1.5]); only with LiDAR",
    "~/weights/bev/grid": "the BEV weight map on the ground: 100 is 1.5, -1 is no evidence (signed: 50 is neutral, 1 "
    "is -1.5, 98 is 1.5); its origin and extent are also those of `~/weights/bev/raw`",
    f"~/weights/{CAMERA}/image": "camera image with weights and boxes",
    f"~/weights/{CAMERA}/raw": "the camera's weight map as 32FC1, in the same range as the BEV map",
    "~/queries": "the query of each detection, in their order: its point in the model frame, the share of its "
    "attention on each sensor (`attention_lidar`, `attention_<camera>`), and its pixel in each image (`u_<camera>`, "
    "`v_<camera>`; NaN: not in view)",
    "~/timing": "milliseconds by stage; numbers of processed and dropped frames",
    "/diagnostics": "twice a second and at each change: state of sensors, frames, model, time and node, see "
    "[reliability](../reliability.md)",
}
"""What each topic of the node holds."""

OPTIONAL = {
    "~/objects": (
        "autoware_perception_msgs/DetectedObjects",
        "with `autoware_objects`: the detections, for Autoware",
    ),
}
"""Type and content of topics that exist only where a parameter asks for them; the SROS 2 policy leaves them out."""

SUBSCRIBED = {
    f"/{CAMERA}/image_raw": (
        "sensor_msgs/Image or CompressedImage",
        "parameters `camera.<camera>.image_topic`, `camera.<camera>.compressed`",
    ),
    f"/{CAMERA}/camera_info": ("sensor_msgs/CameraInfo", "parameter `camera.<camera>.info_topic`"),
    "/lidar/points": ("sensor_msgs/PointCloud2", "parameter `lidar_topic`; `lidar_topics` for several"),
    "/tf": ("tf2_msgs/TFMessage", "moving transforms"),
    "/tf_static": ("tf2_msgs/TFMessage", "fixed transforms"),
}
OF_ROS = {"/parameter_events", "/rosout", "~/transition_event"}
"""Topics of each lifecycle node of ROS 2."""


def parameters_page() -> str:
    """Return the page of the node's parameters."""
    from aqr_perception.nodes.parameters import parameter_table as node

    groups = {
        "Sensors and frames": [one for one in node.PARAMETERS if "." not in one.name],
        "Each camera": node.camera_parameters(CAMERA),
        "Each LiDAR of `lidar_topics`": node.lidar_parameters(1),
        "Model": _of_group(node.PARAMETERS, "model"),
        "Adaptive query routing": _of_group(node.PARAMETERS, "aqr"),
        "Published weights": _of_group(node.PARAMETERS, "weights"),
        "Tracks": _of_group(node.PARAMETERS, "tracking"),
        "Each class of the model": node.class_parameters(("<class>",)),
    }
    listed = [one.name for group in groups.values() for one in group]
    left_out = {one.name for one in node.PARAMETERS} - set(listed)
    assert not left_out and len(listed) == len(set(listed)), f"no group for {left_out}"
    parts = [
        "# Parameters",
        NOTE,
        "The node refuses a value of a wrong type or out of range, with the name, the value and what is needed. "
        "*at run time*: `ros2 param set` changes it while the node runs; the others are fixed at the start. "
        "`ros2 param describe /aqr_perception NAME` shows the same texts.",
    ]
    for title, group in groups.items():
        rows = [
            (f"`{one.name}`{_changeable(one)}", _yaml(one.default), _allowed(one), _text(one.description))
            for one in group
        ]
        parts += [f"## {title}", _table(("parameter", "default", "allowed", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def _of_group(parameters: Any, group: str) -> list[Any]:
    return [one for one in parameters if one.name.startswith(f"{group}.")]


def _changeable(parameter: Any) -> str:
    return "<br>*at run time*" if parameter.run_time else ""


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value if item) or "none"
    return f"`{value}`" if value != "" else "empty"


def _allowed(parameter: Any) -> str:
    if parameter.choices:
        return ", ".join(f"`{choice}`" for choice in parameter.choices)
    if parameter.low is None:
        return {bool: "`true`, `false`", list: "list of texts"}.get(type(parameter.default), "text")
    return f"{_number(parameter.low)} to {_number(parameter.high)}"


def _number(value: float) -> str:
    """Return a number without an exponent."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def topics_page() -> str:
    """Return the page of the node's topics. A test compares the names in the SROS 2 policy with the running node."""
    types = published_types()
    published, subscribed = _allowed_topics("publish"), _allowed_topics("subscribe")
    _require_same("topics that nodes/ publishes", set(types), set(PUBLISHED))
    _require_same("topics that nodes/ publishes on request", topics_in_code() - set(types), set(OPTIONAL))
    _require_same("published topics of the SROS 2 policy", published, {*PUBLISHED, *OF_ROS})
    _require_same("subscribed topics of the SROS 2 policy", subscribed, set(SUBSCRIBED))
    out = [(f"`{topic}`", f"`{types[topic]}`", text) for topic, text in PUBLISHED.items()]
    out += [(f"`{topic}`", f"`{kind}`", text) for topic, (kind, text) in OPTIONAL.items()]
    into = [(f"`{topic}`", kind, text) for topic, (kind, text) in SUBSCRIBED.items()]
    services = sorted(_policy_names("services", "reply", "service"))
    parts = [
        "# Topics",
        NOTE,
        "`~` is the node's name, `/aqr_perception` unless a namespace or another name is given. "
        f"`{CAMERA}` stands for each name in the parameter `cameras`.",
        "## Published",
        _table(("topic", "type", "content"), out),
        "Pictures, maps, queries and markers are made only for topics with subscribers. `/rosout`, `/parameter_events` "
        "and `~/transition_event` are those of every lifecycle node.",
        "## Subscribed",
        "Topics of sensors have these names unless parameters give others. Their QoS reliability is "
        "`sensor_reliability`.",
        _table(("topic", "type", "content"), into),
        "## Services",
        "Those of every lifecycle node: " + ", ".join(f"`{service}`" for service in services) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def topics_in_code() -> set[str]:
    """Return the private topics that nodes/output/ names in calls of `create_publisher`, executed or not."""
    code = "".join(path.read_text() for path in sorted((ROOT / "aqr_perception" / "nodes" / "output").glob("*.py")))
    return set(re.findall(r'create_publisher\([^"()]*"(~/[^"{]+)"', code))


def published_types() -> dict[str, str]:
    """Return the type of each topic for which nodes/ creates a publisher, recorded with a stand-in for the node."""
    from aqr_perception.nodes.health.health_publisher import HealthPublisher
    from aqr_perception.nodes.output.publishers import Publishers
    from aqr_perception.nodes.output.track_publisher import TrackPublisher
    from aqr_perception.tracking.track_options import TrackingOptions

    node = _RecordingNode()
    stand_in: Any = node
    Publishers(stand_in, [CAMERA], 1.0)
    TrackPublisher(stand_in, TrackingOptions(), iter(()), "", 1.0, print)
    with contextlib.suppress(_StoppedError):  # before its thread starts
        HealthPublisher(stand_in, _stopped)
    return node.types


class _StoppedError(Exception):
    """End of the construction of a publisher, after its topic is known."""


def _stopped(_: float) -> Any:
    raise _StoppedError


class _RecordingNode:
    """Stand-in for the node that records the types of its publishers."""

    def __init__(self) -> None:
        self.types: dict[str, str] = {}

    def create_publisher(self, kind: type, topic: str, *_: Any) -> None:
        package = kind.__module__.split(".")[0]
        self.types[topic] = f"{package}/{kind.__name__}"


def _policy_names(plural: str, kind: str, singular: str) -> set[str]:
    policy = ElementTree.parse(ROOT / "config" / "security" / "aqr_perception.policy.xml").getroot()
    rules = [rule for rule in policy.iter(plural) if rule.get(kind) == "ALLOW"]
    return {(entry.text or "").strip() for rule in rules for entry in rule.findall(singular)}


def _allowed_topics(kind: str) -> set[str]:
    """Return the policy's topics, where each camera's name is replaced by `CAMERA`."""
    cameras = "front_right|front_left|front|back_left|back_right|back"
    return {re.sub(f"/({cameras})/", f"/{CAMERA}/", name) for name in _policy_names("topics", kind, "topic")}


def _require_same(what: str, found: set[str], described: set[str]) -> None:
    if found != described:
        missing, surplus = sorted(found - described), sorted(described - found)
        raise ValueError(
            f"{what}: no description of {missing}, and no such topic {surplus}; "
            "change PUBLISHED, OPTIONAL or SUBSCRIBED in scripts/write_reference.py"
        )


def messages_page() -> str:
    """Return the page of the package's messages."""
    parts = ["# Messages", NOTE, "The messages of this package, from `msg/`."]
    for path in sorted((ROOT / "msg").glob("*.msg")):
        text = "".join(line for line in path.read_text().splitlines(True) if not line.startswith("# SPDX-")).lstrip()
        about = " ".join(line[1:].strip() for line in text.split("\n\n")[0].splitlines() if line.startswith("#"))
        rows = [_field(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]
        parts += [f"## {path.stem}", about, _table(("field", "type", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def _field(line: str) -> tuple[str, str, str]:
    declared, _, comment = line.partition("#")
    kind, name = declared.split()
    return f"`{name}`", f"`{kind}`", _text(comment.strip())


def command_line_page() -> str:
    """Return the page of all commands with their options."""
    from aqr_perception.cli import _parser

    parts = [
        "# Command line",
        NOTE,
        "`aqr_perception COMMAND --help` shows the same. The exit status is 0, or 1 after an error, which is printed "
        "in one line, or 2 if the arguments are wrong.",
    ]
    for names, about, parser in _commands(_parser(), ()):
        parts.append(f"## {' '.join(names)}")
        description = parser.description or f"{about[:1].upper()}{about[1:]}."
        parts.append(_text(description))
        own = [one for one in parser._actions if not isinstance(one, argparse._SubParsersAction)]
        own = [one for one in own if argparse.SUPPRESS not in (one.dest, one.help) and one.dest != "help"]
        rows = [_option(one) for one in own]
        if rows:
            usage = [*names, *(_usage(one) for one in own if not one.option_strings), "[options]"]
            parts += [f"```text\naqr_perception {' '.join(usage)}\n```"]
            parts += [_table(("argument", "meaning"), rows)]
        if parser.epilog:
            parts.append(_text(parser.epilog))
    return "\n\n".join(parts) + "\n"


def _commands(
    parser: argparse.ArgumentParser, names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, argparse.ArgumentParser]]:
    """Yield the names, the line in the list and the parser of each command and of its subjects."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {one.dest: one.help or "" for one in action._choices_actions}
            for name, command in action.choices.items():
                full = (*names, name)
                yield full, lines.get(name, ""), command
                yield from _commands(command, full)


def _usage(action: argparse.Action) -> str:
    shown = _metavar(action)
    return {"*": f"[{shown} ...]", "+": f"{shown} [{shown} ...]", "?": f"[{shown}]"}.get(str(action.nargs), shown)


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.choices is not None and action.metavar is None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.metavar or (action.dest.upper() if action.option_strings else action.dest)


def _option(action: argparse.Action) -> tuple[str, str]:
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    if action.nargs in ("+", "*"):
        value += " ..."
    names = ", ".join(f"`{name}{value}`" for name in action.option_strings) or f"`{_metavar(action)}`"
    if action.required and action.option_strings:
        names += "<br>*required*"
    return names, _text(argparse.HelpFormatter(prog="aqr_perception")._expand_help(action) if action.help else "")


def _text(text: str) -> str:
    """Return a text for a table or a paragraph, where angle brackets, bars and asterisks stand for themselves."""
    plain = re.sub(r"\s+", " ", text)
    parts = plain.split("`")
    for index in range(0, len(parts), 2):
        parts[index] = parts[index].replace("<", "&lt;").replace("*", r"\*")
    return "`".join(parts).replace("|", r"\|")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


PAGES: dict[str, Callable[[], str]] = {
    "parameters.md": parameters_page,
    "topics.md": topics_page,
    "messages.md": messages_page,
    "command_line.md": command_line_page,
}
"""Pages with the functions that make their texts. All but the messages and the command line need ROS 2."""


def difference(page: str) -> str:
    """Return how a committed page differs from the code, as a diff; empty: not at all."""
    path = FOLDER / page
    stored = path.read_text() if path.is_file() else ""
    lines = difflib.unified_diff(
        stored.splitlines(), PAGES[page]().splitlines(), f"docs/reference/{page}", "the code", lineterm=""
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; print how pages differ from the code")
    options = parser.parse_args()
    if not options.check:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for page, text in PAGES.items():
            (FOLDER / page).write_text(text())
        return 0
    found = [diff for page in PAGES if (diff := difference(page))]
    if found:
        print(*found, "docs/reference/ differs from the code; run: python3 scripts/write_reference.py", sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
