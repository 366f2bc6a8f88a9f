# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy allows exactly what the running node uses."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.own_domain import DOMAIN
from helpers.places import ROOT

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from helpers.vehicle import RunningNode  # noqa: E402
from rclpy.action.graph import (  # noqa: E402
    get_action_client_names_and_types_by_node,
    get_action_server_names_and_types_by_node,
)

POLICY = ROOT / "config" / "security" / "aqr_perception.policy.xml"
KINDS = {
    "publish": ("topics", "topic"),
    "subscribe": ("topics", "topic"),
    "reply": ("services", "service"),
    "request": ("services", "service"),
    "execute": ("actions", "action"),
    "call": ("actions", "action"),
}


def allowed() -> dict[str, set[str]]:
    """Return the full names that the policy allows, by kind."""
    (profile,) = ElementTree.parse(POLICY).getroot().iter("profile")
    namespace, node = profile.attrib["ns"], profile.attrib["node"]

    def full(name: str) -> str:
        prefix = f"{namespace.rstrip('/')}/"
        return name if name.startswith("/") else prefix + name.replace("~", node, 1)

    return {
        kind: {
            full((entry.text or "").strip())
            for rules in profile.findall(plural)
            if rules.get(kind) == "ALLOW"
            for entry in rules.findall(singular)
        }
        for kind, (plural, singular) in KINDS.items()
    }


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """The names that the running node uses, by kind."""
    # A domain without nodes of other tests, which have the same name.
    context = rclpy.Context()
    context.init(domain_id=DOMAIN)
    observer = rclpy.create_node("observer", context=context)
    log = tmp_path_factory.mktemp("node") / "node.log"
    node = RunningNode(ROOT / "config" / "perception.yaml", "-p", "model.checkpoint:=random", log=log, domain=DOMAIN)
    of_node = ("aqr_perception", "/")
    asked = {
        "publish": observer.get_publisher_names_and_types_by_node,
        "subscribe": observer.get_subscriber_names_and_types_by_node,
        "reply": observer.get_service_names_and_types_by_node,
        "request": observer.get_client_names_and_types_by_node,
        "execute": lambda *name: get_action_server_names_and_types_by_node(observer, *name),
        "call": lambda *name: get_action_client_names_and_types_by_node(observer, *name),
    }

    def found() -> dict[str, set[str]]:
        return {kind: {name for name, _types in ask(*of_node)} for kind, ask in asked.items()}

    try:
        deadline = time.monotonic() + 60.0
        while "aqr_perception" not in observer.get_node_names() or "/lidar/points" not in found()["subscribe"]:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        # The entities of one participant become known within a moment.
        before: dict[str, set[str]] = {}
        while (now := found()) != before:
            before = now
            time.sleep(1.0)
        yield now
    finally:
        observer.destroy_node()
        context.try_shutdown()
        assert node.stop() == 0, log.read_text()


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_policy_allows_exactly_what_the_node_uses(used: dict[str, set[str]], kind: str) -> None:
    expected = allowed()[kind]
    if os.environ.get("ROS_DISTRO") == "humble":
        expected -= {"/aqr_perception/get_type_description"}  # since Jazzy
    assert used[kind] == expected


def test_nothing_is_denied_because_all_else_is_denied_by_default() -> None:
    assert "DENY" not in POLICY.read_text()
    (enclave,) = ElementTree.parse(POLICY).getroot().iter("enclave")
    assert enclave.get("path") == "/aqr_perception"
    assert Path(POLICY).name in (ROOT / "docs" / "security.md").read_text()
