# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The report of a bag: all frames of the journal in the order of their stamps, and how many have pictures."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2; run `make test`")
pytest.importorskip("aqr_perception.msg", reason="needs the built package; run `make test`")

from aqr_perception.offline.journal import AnsweredFrame, Blob, Journal
from aqr_perception.offline.output_files import pictures_every, write_files
from aqr_perception.report.report_frame import ReportFrame
from aqr_perception.report.stored_frame import stored


def test_frames_after_a_time_jump_are_in_the_report_in_the_order_of_their_stamps(tmp_path: Path) -> None:
    with Journal(tmp_path / "frames.partial") as journal:
        for number, seconds in enumerate((5, 7, 3, 4, 5), 1):
            numbers, _ = stored(ReportFrame(seconds * 10**9, milliseconds={"number": float(number)}))
            journal.append(AnsweredFrame(number, seconds * 10**9, 0, "{}", blobs=(Blob("report", "json", numbers),)))
        assert write_files(tmp_path, journal, "", True, True, 2)[-1] == "report.html"
    page = (tmp_path / "report.html").read_text()
    assert [int(number) for number in re.findall(r'"number":(\d)', page)] == [3, 4, 1, 5, 2]
    assert '"start_ns":"3000000000"' in page and '"seconds":[0.0,1.0,2.0,2.0,4.0]' in page
    assert "Every 2. frame has pictures" in page


@pytest.mark.parametrize(
    ("chosen", "counts", "every"),
    [
        (None, {"/points": 300, "/image": 9000}, 1),
        (None, {"/points": 301}, 2),
        (None, {"/image": 901}, 4),
        (None, {}, 1),
        (0, {"/points": 9000}, 0),
        (1, {"/points": 9000}, 1),
    ],
)
def test_pictures_are_of_so_many_frames_that_browsers_open_the_page(
    chosen: int | None, counts: dict[str, int], every: int
) -> None:
    bag = SimpleNamespace(topics=[SimpleNamespace(name=name, count=count) for name, count in counts.items()])
    settings = SimpleNamespace(lidar_topic="/points", cameras=[SimpleNamespace(image_topic="/image")])
    assert pictures_every(chosen, cast(Any, bag), cast(Any, settings)) == every
