# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The report in headless Chromium: what it shows are the data, whatever is chosen, without a network."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.report_frames import drive_frames, failing_phases

from aqr_perception.report.html_report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright; pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,  # test_html_report.py checks the same data without a browser
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; apt-get install chromium"),
]

FRAMES = drive_frames()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    return write_report(path, FRAMES, title="Drive", phases=failing_phases(), notes=["A note."])


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert not said, said
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()], "nothing else is requested"


def shown_detections(page: Any) -> list[list[str]]:
    rows: list[list[str]] = page.eval_on_selector_all(
        "#detections tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )
    return rows


def sensor_cell(page: Any, kind: str, sensor: str) -> str:
    text: str = page.text_content(f'#query [data-{kind}="{sensor}"]')
    return text


def move_slider(page: Any, frame: int) -> None:
    page.evaluate("frame => { const s = document.getElementById('slider'); s.value = frame;"
                  " s.dispatchEvent(new Event('input')) }", frame)  # fmt: skip


def test_the_slider_shows_each_frames_own_detections_and_pictures(page: Any) -> None:
    sources = set()
    for index, frame in enumerate(FRAMES):
        move_slider(page, index)
        rows = shown_detections(page)
        assert len(rows) == len(frame.detections)
        for row, detection in zip(rows, frame.detections, strict=True):
            weights = [f"{detection.lidar_weight:.2f}", f"{detection.camera_weight:.2f}"]
            assert row[1:4] == ["car", f"{detection.score:.2f}", f"{detection.box[0]:.1f} m"] and row[4:6] == weights
        if frame.unanswered:
            assert page.is_visible("#unanswered") and page.text_content("#unanswered") == frame.unanswered
            assert page.get_attribute("#picture-front img", "src") is None, "no picture of another frame stays"
        else:
            sources.add(page.get_attribute("#picture-front img", "src"))
        assert f"{0.2 * index:.2f} s" in page.text_content("#time")
    assert len(sources) == 4


def test_a_chosen_query_shows_its_weights_attention_and_windows(page: Any) -> None:
    for index in (1, 4):
        move_slider(page, index)
        for place, detection in enumerate(FRAMES[index].detections):
            page.click(f'#detections tr[data-detection="{place}"]')
            assert sensor_cell(page, "weight", "lidar") == f"{detection.lidar_weight:.2f}"
            assert sensor_cell(page, "weight", "front") == f"{detection.camera_weights['front']:.2f}"
            assert sensor_cell(page, "weight", "back") == "not in view"
            for sensor, share in detection.attention.items():
                assert sensor_cell(page, "attention", sensor) == f"{share:.2f}"
            for picture, window in detection.windows.items():
                ellipse = page.query_selector(f"#picture-{picture} ellipse.ring")
                values = [float(ellipse.get_attribute(name)) for name in ("cx", "cy", "rx", "ry")]
                assert values == pytest.approx(window, abs=1e-4)
            assert page.query_selector("#picture-back ellipse") is None
            page.keyboard.press("Escape")
            assert page.query_selector("#picture-front ellipse") is None


def test_keys_move_through_frames_and_detections(page: Any) -> None:
    page.keyboard.press("ArrowDown")
    assert page.get_attribute('#detections tr[aria-selected="true"]', "data-detection") == "0"
    page.keyboard.press("ArrowRight")
    assert "2 of 5" in page.text_content("#time")
    chosen = page.get_attribute('#detections tr[aria-selected="true"]', "data-detection")
    assert chosen == "0", "the object stays chosen"
    page.keyboard.press("End")
    assert "5 of 5" in page.text_content("#time")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert "1 of 5" in page.text_content("#time") and "#frame=0&" in page.url


def test_a_click_into_a_picture_chooses_the_nearest_query(page: Any) -> None:
    area = page.query_selector("#picture-bev .picture").bounding_box()
    x, y, *_ = FRAMES[0].detections[1].windows["bev"]
    page.mouse.click(area["x"] + x * area["width"], area["y"] + y * area["height"])
    assert page.get_attribute('#detections tr[aria-selected="true"]', "data-detection") == "1"


def test_sensors_state_and_phase_are_told(page: Any) -> None:
    assert page.text_content("#phase") == "all sensors working" and not page.query_selector("figure.bad")
    move_slider(page, 4)
    assert page.text_content("#phase") == "camera front black"
    assert "camera front black" in page.text_content("#picture-front .state")
    assert "doubted: late" in page.text_content("#query") and len(page.query_selector_all(".uplot")) == 4
    assert page.text_content("#phase-table tbody tr:nth-child(2) td:nth-child(3)") == "2 of 2"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1500, "light")])
def test_the_page_fits_phones_and_desktops_in_both_colour_schemes(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    opened = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    opened.goto(f"{report.as_uri()}#frame=4&detection=0")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    ink, ground = opened.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    light = {name: sum(map(int, colour[4:-1].split(","))) for name, colour in (("ink", ink), ("ground", ground))}
    assert (light["ink"] > light["ground"]) == (scheme == "dark") and abs(light["ink"] - light["ground"]) > 400
    opened.close()
