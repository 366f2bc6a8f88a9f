"""The demo's report stands alone, and shows what happened."""

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.played_drives import BLACK, GONE, played

from aqr_perception.demo.drive_report import MEANINGLESS, chosen, write_report
from aqr_perception.demo.recording import Recording


class Page(HTMLParser):
    """Collects what a page loads, its words, and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.words = ""
        self.elements: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        loading = ("src", "href", "xlink:href", "data", "poster", "action", "srcset")
        self.loads += [value or "" for name, value in attrs if name in loading]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, played(), ["Played <slowly>."])
    return Page(path.read_text(encoding="utf-8"))


def test_the_report_loads_nothing_from_outside(page: Page) -> None:
    assert page.loads and all(target.startswith(("data:image/", "#")) for target in page.loads)
    assert not {"script", "link", "iframe"} & set(page.elements) and "@import" not in page.words
    assert not re.search(r"url\((?!#)", page.words)


def test_the_report_shows_every_chosen_moments_cameras_and_bird_view(page: Page) -> None:
    assert len(chosen(played())) == 6
    assert page.elements.count("img") == 6 * 7 and page.elements.count("svg") == 1


def test_the_reports_pictures_can_be_decoded(page: Page) -> None:
    for target in page.loads:
        if target.startswith("data:"):
            content = np.frombuffer(base64.b64decode(target.split(",")[1]), np.uint8)
            assert cv2.imdecode(content, cv2.IMREAD_COLOR) is not None


def test_the_report_tells_failures_figures_and_facts(page: Page) -> None:
    for told in ("camera front black", "LiDAR gone", "20 of 20", "0.80 before it fails, 0.20 while it does", "400 ms"):
        assert told in page.words
    assert "a model <for tests>" in page.words and "Played <slowly>." in page.words
    assert MEANINGLESS not in page.words


def test_a_report_of_random_weights_says_loudly_that_it_means_nothing(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", played(trained=False))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f'<div class="warning">{MEANINGLESS}' in text


def test_a_report_of_no_answers_still_tells_so(tmp_path: Path) -> None:
    silent = dataclasses.replace(played(), recording=Recording([], "", True))
    write_report(tmp_path / "report.html", silent)
    assert "0 of 20" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_moments_chosen_are_before_in_and_after_the_failures() -> None:
    drive = played()
    times = [drive.truth.seconds(answer.stamp_ns) for answer in chosen(drive).values()]
    assert times[0] < BLACK.begin and times[-1] >= GONE.end
    assert sum(map(BLACK.holds, times)) == 2 and sum(map(GONE.holds, times)) == 2
