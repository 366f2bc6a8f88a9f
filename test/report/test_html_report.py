# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The report is one strict, self-contained file with the given numbers and pictures."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.report_frames import START_NS, drive_frames, failing_phases
from hypothesis import given, settings
from hypothesis import strategies as st

from aqr_perception.report.html_report import write_report
from aqr_perception.report.report_frame import BEV, LIDAR, ReportDetection, ReportFrame, ReportSensor


def data_of(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the summary and the frames of a page, read as the page does."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', text, re.DOTALL)
    data = {name: json.loads(content) for name, content in found}
    return data.pop("summary"), list(data.values())


def test_every_frame_is_in_the_file_with_its_numbers_and_pictures(tmp_path: Path) -> None:
    frames = drive_frames()
    path = write_report(tmp_path / "report.html", iter(frames), title="Drive", phases=failing_phases())
    summary, written = data_of(path)
    assert len(written) == len(frames) == len(summary["seconds"])
    for frame, data in zip(frames, written, strict=True):
        assert set(data["pictures"]) == set(frame.pictures)
        assert all(url.startswith("data:image/jpeg;base64,") for url in data["pictures"].values())
        for detection, shown in zip(frame.detections, data["detections"], strict=True):
            assert shown["lidar_weight"] == pytest.approx(detection.lidar_weight, abs=1e-4)
            assert shown["attention"] == pytest.approx(detection.attention, abs=1e-4)
            assert shown["windows"].keys() == detection.windows.keys()
    assert summary["answered"].count(False) == 1
    assert summary["recall"][0] == 0.5 and summary["recall"][2] == 0.0


def test_phases_have_the_figures_of_their_frames_only(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", drive_frames(), title="Drive", phases=failing_phases())
    works, fails = data_of(path)[0]["phases"]
    assert (works["frames"], works["answered"], works["recall"]) == (3, 2, pytest.approx(1 / 3, abs=1e-4))
    assert (fails["frames"], fails["answered"], fails["sensors"]) == (2, 2, ["front"])
    # The weights of the fixture: 0.9 while all sensors work, and 0.1 of the failing camera.
    assert works["camera_weight"] == pytest.approx(0.9) and fails["failing_weight"] == pytest.approx(0.1)


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=30), st.floats(), st.floats(width=32))
def test_any_text_and_any_number_make_a_readable_page(
    tmp_path_factory: pytest.TempPathFactory, text: str, weight: float, age: float
) -> None:
    sensor = ReportSensor(LIDAR, False, text, age=age)
    detection = ReportDetection(text, 0.5, [weight] * 9, weight, weight, {text or "a": weight})
    frame = ReportFrame(0, [sensor], [detection], milliseconds={text: weight}, unanswered=text)
    path = write_report(tmp_path_factory.mktemp("any") / "report.html", [frame], title=text, notes=[text])
    _, (written,) = data_of(path)
    assert written["detections"][0]["class"] == text and written["unanswered"] == text
    shown = written["detections"][0]["lidar_weight"]
    assert shown is None if not math.isfinite(weight) else shown == round(weight, 4)


def test_the_page_cannot_be_left_by_a_text(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><!--"
    frame = ReportFrame(0, [ReportSensor(LIDAR, False, evil)], unanswered=evil)
    text = write_report(tmp_path / "r.html", [frame], title=evil, subtitle=evil, notes=[evil]).read_text()
    assert "alert(1)" in text and "<script>alert" not in text


def test_the_page_loads_nothing_and_holds_the_licence_of_its_library(tmp_path: Path) -> None:
    text = write_report(tmp_path / "report.html", drive_frames(), title="Drive").read_text()
    loads = re.findall(r'<[^>]*\b(?:src|href)="([^"]*)"', text)
    assert loads == ["data:,"]  # no icon
    assert "@import" not in text and "Copyright (c) 2022 Leon Sorokin" in text and "default-src 'none'" in text


def test_fewer_pictures_keep_all_numbers(tmp_path: Path) -> None:
    frames = drive_frames()
    summary, written = data_of(write_report(tmp_path / "r.html", frames, title="Drive", pictures_every=2))
    assert summary["with_pictures"] == [True, False, True, False, True]
    assert [bool(each["pictures"]) for each in written] == [True, False, False, False, True]  # the third is unanswered
    assert all(len(a["detections"]) == len(b.detections) for a, b in zip(written, frames, strict=True))


def test_frames_are_written_one_by_one(tmp_path: Path) -> None:
    alive, most = 0, 0

    class Counted(bytes):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def frames() -> Iterator[ReportFrame]:
        nonlocal alive, most
        jpeg = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
        for index in range(20):
            alive += 1
            most = max(most, alive)
            yield ReportFrame(index, pictures={"front": Counted(jpeg)})

    write_report(tmp_path / "report.html", frames(), title="Drive")
    assert most <= 3


def test_a_failure_leaves_the_report_before_it_and_no_rest(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", drive_frames(), title="first")
    with pytest.raises(ValueError, match="picture 'front' is float64"):
        write_report(path, [ReportFrame(0, pictures={"front": np.zeros((2, 2, 3))})], title="second")  # type: ignore[dict-item]
    assert "<title>first</title>" in path.read_text() and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"pictures_every": 0}, "pictures_every is 0, but must be at least 1"),
        ({"quality": 101}, "quality is 101, but must be in 1..100"),
    ],
)
def test_wrong_arguments_are_refused_and_named(tmp_path: Path, arguments: dict[str, int], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        write_report(tmp_path / "report.html", [], title="Drive", **arguments)  # type: ignore[arg-type]


def test_frames_out_of_order_and_unknown_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frame 1 has the stamp 4 ns, which is before"):
        write_report(tmp_path / "report.html", [ReportFrame(5), ReportFrame(4)], title="Drive")
    with pytest.raises(ValueError, match="picture 'bev' starts with b'GIF8'"):
        write_report(tmp_path / "report.html", [ReportFrame(5, pictures={BEV: b"GIF89a"})], title="Drive")


def test_seconds_count_from_the_given_start(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", drive_frames(), title="Drive", start_ns=START_NS - 10**9)
    assert data_of(path)[0]["seconds"][:2] == [1.0, 1.2]
