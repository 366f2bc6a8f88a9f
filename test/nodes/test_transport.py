# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The profile of Fast DDS is handed on, and gives way to the user's own."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from aqr_perception.nodes.transport import fast_dds_profile, transport_environment

NEW, OLD = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
BURST = 6 * 300_000 + 35_000 * 32
"""Bytes of six JPEGs of 1600 x 900 and a sweep."""


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [("humble", OLD), ("jazzy", OLD), ("kilted", NEW), ("rolling", NEW), (None, NEW)],
)
def test_the_variable_is_the_one_that_the_distributions_fast_dds_reads(
    distribution: str | None, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {} if distribution is None else {"ROS_DISTRO": distribution}
    assert transport_environment(environment) == {variable: str(fast_dds_profile())}


@pytest.mark.parametrize("variable", [NEW, OLD])
def test_a_profile_of_the_user_is_kept(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert transport_environment({variable: "mine.xml"}) == {}
    assert transport_environment({variable: ""}) != {}


@pytest.mark.parametrize("name", ["DEFAULT_FASTDDS_PROFILES.xml", "DEFAULT_FASTRTPS_PROFILES.xml"])
def test_a_profile_in_the_working_directory_is_kept(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert transport_environment({}) == {}


def test_the_profile_is_the_default_of_participants_and_its_segment_holds_several_bursts() -> None:
    root = ElementTree.parse(fast_dds_profile()).getroot()
    tag = "{http://www.eprosima.com}"
    (participant,) = root.iter(f"{tag}participant")
    assert participant.get("is_default_profile") == "true"
    described = {entry.findtext(f"{tag}transport_id") for entry in root.iter(f"{tag}transport_descriptor")}
    used = {entry.text for transports in participant.iter(f"{tag}userTransports") for entry in transports}
    assert used == described == {"shared_memory", "udp"}
    (segment,) = root.iter(f"{tag}segment_size")
    assert int(segment.text or 0) >= 5 * BURST
