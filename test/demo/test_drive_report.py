"""The report is self-contained and shows the course of the drive."""

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.recorded_drives import BLACK, GONE, recorded_drive

from aqr_perception.demo.drive_report import RANDOM_WEIGHTS_WARNING, selected_frames, write_report
from aqr_perception.demo.recording import Recording


class Page(HTMLParser):
    """Collects the targets that a page loads, its words and its elements."""

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
    write_report(path, recorded_drive(), ["Played <slowly>."])
    return Page(path.read_text(encoding="utf-8"))


def test_the_report_loads_nothing_from_outside(page: Page) -> None:
    assert page.loads and all(target.startswith(("data:image/", "#")) for target in page.loads)
    assert not {"script", "link", "iframe"} & set(page.elements) and "@import" not in page.words
    assert not re.search(r"url\((?!#)", page.words)


def test_the_report_shows_cameras_and_birds_eye_view_of_every_selected_frame(page: Page) -> None:
    assert len(selected_frames(recorded_drive())) == 6
    assert page.elements.count("img") == 6 * 7 and page.elements.count("svg") == 1


def test_the_pictures_of_the_report_can_be_decoded(page: Page) -> None:
    for target in page.loads:
        if target.startswith("data:"):
            content = np.frombuffer(base64.b64decode(target.split(",")[1]), np.uint8)
            assert cv2.imdecode(content, cv2.IMREAD_COLOR) is not None


def test_the_report_contains_failures_metrics_and_notes(page: Page) -> None:
    weights = "0.80 before its failure, 0.20 during it"
    for expected in ("camera front black", "LiDAR gone", "20 of 20", weights, "400 ms"):
        assert expected in page.words
    assert "a model <for tests>" in page.words and "Played <slowly>." in page.words
    assert RANDOM_WEIGHTS_WARNING not in page.words


def test_a_report_of_random_weights_starts_with_a_warning(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", recorded_drive(trained=False))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f'<div class="warning">{RANDOM_WEIGHTS_WARNING}' in text


def test_a_report_of_signed_weights_explains_their_colours(page: Page, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", recorded_drive(black_weight=-0.6))
    signed = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for words in ("blue -1 (suppressed)", "blue means a suppressed sensor", "-0.60 during it"):
        assert words in signed.words and words not in page.words
    for words in ("violet 0 to yellow 1", "dark means little trust"):
        assert words in page.words and words not in signed.words


def test_a_report_of_no_frames_says_so(tmp_path: Path) -> None:
    silent = dataclasses.replace(recorded_drive(), recording=Recording([], "", True))
    write_report(tmp_path / "report.html", silent)
    assert "0 of 20" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_selected_frames_are_before_during_and_after_the_failures() -> None:
    drive = recorded_drive()
    times = [drive.truth.seconds(frame.stamp_ns) for frame in selected_frames(drive).values()]
    assert times[0] < BLACK.begin and times[-1] >= GONE.end
    assert sum(map(BLACK.is_active, times)) == 2 and sum(map(GONE.is_active, times)) == 2
