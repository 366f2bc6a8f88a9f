# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the page of troubleshooting quotes is what the node says."""

import re

import pytest
from helpers.documents import texts_of_the_code
from helpers.places import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def quoted() -> list[str]:
    """Return the quotations in the first column of the tables."""
    rows = re.findall(r"^\| ([^|]*) \|", PAGE, re.MULTILINE)
    return [text for row in rows if row.startswith("`") for text in re.findall(r"`([^`]+)`", row)]


def is_said(text: str) -> bool:
    """Return whether some text in the code holds a quotation; `...` is what the code fills in, never its own words."""
    return any(text in said for said in texts_of_the_code())


def test_quotations_are_found() -> None:
    assert len(quoted()) > 45


@pytest.mark.slow
def test_every_quoted_text_is_in_the_code() -> None:
    assert [text for text in quoted() if not is_said(text)] == []


@pytest.mark.slow
@pytest.mark.parametrize("text", ["silent for ages", "slow: ... Hz, generally ...", "no camera info"])
def test_texts_that_the_node_never_says_are_found(text: str) -> None:
    assert not is_said(text)


def test_every_parameter_and_topic_that_the_page_names_exists() -> None:
    reference = "".join((ROOT / "docs" / "reference" / f"{name}.md").read_text() for name in ("parameters", "topics"))
    named = set(re.findall(r"`((?:camera\.<name>|lidar\.<number>|model|aqr|weights|tracking)\.\w+)`", PAGE))
    named |= set(re.findall(r"`(~/[\w/]+|\w+_(?:frame|age|wait|latency|scale|lifetime|policy|threshold))`", PAGE))
    assert len(named) > 12
    forms = {name: name.replace("<name>", "<camera>").replace("<number>", "1") for name in named}
    assert {name for name, form in forms.items() if f"`{form}`" not in reference} == set()
