"""The demo's report stands alone, and shows what happened."""

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_up import BLACK, GONE, boxes, played, truth_at
from PIL import Image

from aqr_perception.demo.recording import BEV, Recording
from aqr_perception.visualization import html_page, report_video
from aqr_perception.visualization.report import MEANINGLESS, chosen, write_report
from aqr_perception.visualization.report_pictures import FOUND_COLOUR, MISSED_COLOUR, Sheets, bird_view
from aqr_perception.visualization.report_plots import pixels, timeline_figure
from aqr_perception.visualization.report_video import write_video


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


def test_true_objects_are_drawn_where_they_are_green_if_found_and_magenta_if_missed() -> None:
    drive = played()
    answer = drive.recording.answers[0]
    truth = truth_at(0, np.concatenate([boxes((10.0, 0.0)), boxes((-20.0, -30.0))]))
    picture = bird_view(answer, truth, drive.bev_range).astype(int)
    for centre, colour in (((10.0, 0.0), FOUND_COLOUR), ((-20.0, -30.0), MISSED_COLOUR)):
        scale = picture.shape[1] / 102.4
        column, row = round((centre[0] + 51.2) * scale), round((51.2 - centre[1]) * scale)
        around = picture[row - 8 : row + 9, column - 8 : column + 9, ::-1]
        assert np.abs(around - colour).sum(axis=-1).min() < 60


def test_without_lidar_the_bird_view_shows_the_detections_alone() -> None:
    drive = played()
    blind = next(answer for answer in drive.recording.answers if BEV not in answer.pictures)
    picture = bird_view(blind, None, drive.bev_range)
    assert picture.shape[0] == picture.shape[1] and picture.any()


def test_the_plots_shade_the_failures() -> None:
    drive = played()
    picture, (first, last) = pixels(timeline_figure(drive.course, (BLACK,), drive.seconds, (9, 4)), 900, 400)
    assert picture.shape == (400, 900, 3) and 0 < first < last <= 900

    def colour(seconds: float) -> list[int]:
        column = round(first + (last - first) * seconds / drive.seconds)
        return np.median(picture[20:80, column], axis=0).astype(int).tolist()

    assert colour(1.55) != colour(3.55) == [255, 255, 255]


def test_a_sheet_is_drawn_for_every_moment_and_an_unanswered_one_says_so() -> None:
    drive = played(moments=6)
    whole = list(Sheets(drive))
    fewer = dataclasses.replace(drive, recording=Recording(drive.recording.answers[1:], "", True))
    assert len(whole) == 6 and all(sheet.shape == (720, 1280, 3) for sheet in whole)
    unanswered = Sheets(fewer).draw(0)
    assert (unanswered[60:160, 100:300] == 24).all() and (whole[0][60:160, 100:300] != 24).any()


def test_a_film_has_all_its_pictures(tmp_path: Path) -> None:
    pictures = [np.full((64, 96, 3), 30 * index, np.uint8) for index in range(6)]
    film = cv2.VideoCapture(str(write_video(pictures, tmp_path / "drive.mp4", 5.0)))
    levels = []
    while (read := film.read())[0]:
        levels.append(float(read[1].mean()))
    np.testing.assert_allclose(levels, [30.0 * index for index in range(6)], atol=12)


def test_without_a_codec_an_animation_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_video, "_CODECS", ())
    pictures = [np.full((32, 48, 3), 40 * index, np.uint8) for index in range(4)]
    written = write_video(pictures, tmp_path / "drive.mp4", 5.0)
    with Image.open(written) as animation:
        assert written.suffix == ".webp" and animation.n_frames == 4


def test_a_film_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no picture"):
        write_video([], tmp_path / "drive.mp4", 5.0)


def test_text_of_a_page_is_escaped() -> None:
    assert html_page.text("<b>") == "&lt;b&gt;"
    assert html_page.figure(None, 'a "b"', missing="<none>").count("&lt;none&gt;") == 1
    assert '"&quot;"' in html_page.element("p", title='"')
