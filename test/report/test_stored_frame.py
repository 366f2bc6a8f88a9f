# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Report frames that were stored and restored make the same page."""

import math
from dataclasses import replace
from pathlib import Path

from helpers.report_frames import drive_frames

from aqr_perception.report.html_report import write_report
from aqr_perception.report.report_frame import ReportSensor
from aqr_perception.report.stored_frame import restored, stored


def test_the_page_of_restored_frames_is_the_same(tmp_path: Path) -> None:
    frames = list(drive_frames())
    frames[0] = replace(frames[0], sensors=[*frames[0].sensors, ReportSensor("rear", False, "no data", age=math.nan)])
    again = [restored(*stored(frame)) for frame in frames]
    first, second = (
        write_report(tmp_path / name, made, title="Drive") for name, made in {"a": frames, "b": again}.items()
    )
    assert any(frame.pictures for frame in frames) and any(frame.truth for frame in frames)
    assert any(detection.windows and detection.attention for frame in frames for detection in frame.detections)
    assert first.read_bytes() == second.read_bytes()
