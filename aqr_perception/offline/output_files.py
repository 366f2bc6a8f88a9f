# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Output files of a bag, written from its journal when the bag is finished."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from aqr_perception.bags.reader import BagReader
from aqr_perception.bags.writer import BagWriter
from aqr_perception.nodes.input.frame_request import AssemblerSettings
from aqr_perception.offline.answers import reported
from aqr_perception.offline.journal import Journal
from aqr_perception.report.html_report import write_report

BAG_FILE, LINES_FILE, NUSCENES_FILE = "outputs.mcap", "detections.jsonl", "results_nusc.json"
REPORT_FILE = "report.html"

_MOST_WITH_PICTURES = 300
"""Frames with pictures in a report, at about 0.3 MB each, that a browser opens without trouble."""


def pictures_every(chosen: int | None, bag: BagReader, settings: AssemblerSettings) -> int:
    """Return n where every n-th frame of a report has pictures; 0: there is no report.

    Args:
        chosen: n; None: as small as makes a file that browsers open.
    """
    if chosen is not None:
        return chosen
    counts = {topic.name: topic.count for topic in bag.topics}
    sweeps = counts.get(settings.lidar_topic, 0)
    frames = sweeps or max((counts.get(camera.image_topic, 0) for camera in settings.cameras), default=0)
    return max(1, -(-frames // _MOST_WITH_PICTURES))


def write_files(
    folder: Path,
    journal: Journal,
    frame_id: str,
    cameras: bool,
    lidar: bool,
    report_every: int = 0,
    facts: Sequence[tuple[str, str]] = (),
) -> list[str]:
    """Write the output files; return their names. Each one replaces its earlier version at once.

    Args:
        frame_id: TF frame of the boxes in the result file of nuScenes; empty: it is not written.
        cameras, lidar: whether the model uses these sensors.
        report_every: see `pictures_every`.
        facts: names and values on top of the report.
    """
    _write_bag(folder / BAG_FILE, journal)
    with _replacing(folder / LINES_FILE) as file:
        for frame in journal.frames():
            file.write(frame.line + "\n")
    files = [BAG_FILE, LINES_FILE]
    if frame_id:
        _write_nuscenes(folder / NUSCENES_FILE, journal, frame_id, cameras, lidar)
        files.append(NUSCENES_FILE)
    if report_every:
        _write_report(folder / REPORT_FILE, journal, report_every, facts)
        files.append(REPORT_FILE)
    return files


def token(bag: str, stamp_ns: int) -> str:
    """Return the token of a frame in a result file of nuScenes: no table of nuScenes knows the frames of a bag."""
    return f"{bag}-{stamp_ns}"


def _write_bag(path: Path, journal: Journal) -> None:
    """Write the published messages as a bag; they are recorded when their frame became due in the input."""
    path.unlink(missing_ok=True)
    with BagWriter(path) as writer:
        for frame in journal.frames():
            for message in frame.messages:
                writer.write_raw(message.name, message.type, message.data, frame.due_ns)


def _write_nuscenes(path: Path, journal: Journal, frame_id: str, cameras: bool, lidar: bool) -> None:
    meta: dict[str, Any] = {
        "use_camera": cameras,
        "use_lidar": lidar,
        "use_radar": False,
        "use_map": False,
        "use_external": False,
        "frame_id": frame_id,
    }
    with _replacing(path) as file:
        file.write(f'{{"meta": {json.dumps(meta)}, "results": {{')
        separator = ""
        for frame in journal.frames():
            if frame.boxes is not None:
                name = token(path.parent.name, frame.stamp_ns)
                file.write(f"{separator}\n{json.dumps(name)}: {json.dumps(frame.boxes)}")
                separator = ","
        file.write("}}\n")


def _write_report(path: Path, journal: Journal, every: int, facts: Sequence[tuple[str, str]]) -> None:
    notes = ["Boxes are in the model's frame; detections.jsonl has them in the output frame."]
    if every > 1:
        notes.append(f"Every {every}. frame has pictures; all frames have their numbers.")
    frames = (shown for frame in journal.frames_by_stamp() if (shown := reported(frame)) is not None)
    # The frames without pictures have none in the journal either.
    write_report(path, frames, title=path.parent.name, facts=facts, notes=notes, pictures_every=1)


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """Open a file that replaces another one when it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w") as file:
            yield file
        os.replace(partial, path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
