# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The demo's report accounts for every sweep and labels every failure truthfully."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers.recorded_drives import BLACK, GONE, recorded_drive

from aqr_perception.demo.drive_frames import ALL_WORK, report_frames, report_phases
from aqr_perception.demo.drive_report import RANDOM_WEIGHTS_WARNING, write_report
from aqr_perception.demo.recording import BEV, CAMERA_GRID, QueryRecord, Recording
from aqr_perception.report.report_frame import LIDAR, ReportFrame


def frames_by_time() -> dict[float, ReportFrame]:
    drive = recorded_drive()
    return {round(drive.truth.seconds(frame.stamp_ns), 1): frame for frame in report_frames(drive)}


def test_every_sweep_has_a_frame_with_pictures_truth_and_detections() -> None:
    frames = frames_by_time()
    assert len(frames) == 20
    for frame in frames.values():
        assert set(frame.pictures) == {BEV, *CAMERA_GRID} and len(frame.detections) == 2
        assert frame.truth is not None and [each.detected for each in frame.truth] == [True, True]


def test_failures_are_labelled_while_they_last_and_on_their_sensor_only() -> None:
    for seconds, frame in frames_by_time().items():
        labelled = {sensor.name: sensor.failure for sensor in frame.sensors if sensor.failure}
        expected = {"front": str(BLACK)} if BLACK.is_active(seconds) else {LIDAR: str(GONE)}
        assert labelled == (expected if BLACK.is_active(seconds) or GONE.is_active(seconds) else {}), seconds
        (lidar,) = (sensor for sensor in frame.sensors if sensor.name == LIDAR)
        assert (lidar.used, lidar.reason) == ((False, "too old") if GONE.is_active(seconds) else (True, ""))


def test_phases_cover_the_drive_without_gaps() -> None:
    drive = recorded_drive()
    phases = report_phases(drive)
    assert [phase.name for phase in phases] == [ALL_WORK, str(BLACK), str(GONE), ALL_WORK]
    assert all(one.end_ns == other.begin_ns for one, other in itertools.pairwise(phases))
    for sweep in drive.truth.sweeps:
        assert sum(phase.contains(sweep.stamp_ns) for phase in phases) == 1


def test_sweeps_without_answer_are_shown_and_named(tmp_path: Path) -> None:
    drive = recorded_drive()
    kept = [frame for index, frame in enumerate(drive.recording.frames) if index not in (3, 7)]
    drive = dataclasses.replace(drive, recording=dataclasses.replace(drive.recording, frames=kept))
    frames = list(report_frames(drive))
    assert [index for index, frame in enumerate(frames) if frame.unanswered] == [3, 7]
    assert drive.unanswered() == pytest.approx([0.8, 1.6]) and not frames[3].pictures and not frames[3].detections
    assert frames[3].truth is not None and not any(each.detected for each in frames[3].truth)
    text = write_report(tmp_path / "report.html", drive).read_text(encoding="utf-8")
    assert "answered 18 of 20 sweeps; it published nothing for those at 0.8, 1.6 s" in text


def test_windows_and_attention_are_those_of_the_queries() -> None:
    drive = dataclasses.replace(recorded_drive(), model_image=(50, 25))
    first, *others = drive.recording.frames
    count = len(first.detections)
    pixels = np.array([[50.0, 25.0], [np.nan, np.nan]], np.float32)[:count]
    queries = QueryRecord(
        np.array([[10.0, -20.0, 0], [90.0, 0, 0]], np.float32),
        {LIDAR: np.array([0.75, np.nan], np.float32), "front": np.array([0.25, np.nan], np.float32)},
        {"front": pixels},
    )
    first = dataclasses.replace(first, queries=queries, map_shapes={BEV: (128, 128), "front": (5, 10)})
    drive = dataclasses.replace(drive, recording=dataclasses.replace(drive.recording, frames=[first, *others]))
    near, far = next(report_frames(drive)).detections
    assert near.attention == {LIDAR: 0.75, "front": 0.25} and not far.attention and not far.windows
    assert near.windows[BEV] == pytest.approx((61.2 / 102.4, 71.2 / 102.4, 1.6 / 102.4, 1.6 / 102.4))
    # A cell of the map is 5 pixels of the model's image, and 10 of the camera's picture of (100, 50).
    assert near.windows["front"] == pytest.approx((0.5, 0.5, 0.2, 0.4))


def test_the_report_contains_failures_metrics_and_notes(tmp_path: Path) -> None:
    text = write_report(tmp_path / "r.html", recorded_drive(), ["Played <slowly>."]).read_text(encoding="utf-8")
    for expected in (
        "camera front black",
        "LiDAR gone",
        "20 of 20",
        "0.80 before its failure, 0.20 during it",
        "400 ms",
    ):
        assert expected in text
    assert "a model &lt;for tests&gt;" in text and "Played &lt;slowly&gt;." in text
    assert RANDOM_WEIGHTS_WARNING not in text


def test_a_report_of_random_weights_starts_with_a_warning(tmp_path: Path) -> None:
    text = write_report(tmp_path / "report.html", recorded_drive(trained=False)).read_text(encoding="utf-8")
    assert f'<div class="warning">{RANDOM_WEIGHTS_WARNING}' in text


def test_a_report_of_no_frames_says_so(tmp_path: Path) -> None:
    silent = dataclasses.replace(recorded_drive(), recording=Recording([], "", True))
    text = write_report(tmp_path / "report.html", silent).read_text(encoding="utf-8")
    assert "0 of 20" in text and "answered 0 of 20 sweeps" in text
