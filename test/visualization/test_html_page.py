# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""HTML pages preserve text and attributes."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.visualization import html_page


class Words(HTMLParser):
    """Collects the words of a page and the values of its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.values = "", [""]
        self.feed(page)
        self.close()

    def handle_data(self, data: str) -> None:
        self.words += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.values += [value or "" for _, value in attrs]


TEXTS = st.text(st.characters(exclude_categories=["C"]))


@given(TEXTS, TEXTS)
def test_text_and_attributes_are_read_back_unchanged(words: str, value: str) -> None:
    read = Words(html_page.element("p", html_page.text(words), title=value))
    assert (read.words, read.values[-1]) == (words, value)


@given(TEXTS)
def test_a_figure_without_a_picture_shows_the_reason(reason: str) -> None:
    assert reason in Words(html_page.figure(None, "front", missing=reason)).words


def test_a_page_has_its_title_and_body_once() -> None:
    page = html_page.page("A & B", [html_page.element("h1", "C")])
    assert page.startswith("<!DOCTYPE html>") and page.count("A &amp; B") == 1 and page.count("<h1>C</h1>") == 1
