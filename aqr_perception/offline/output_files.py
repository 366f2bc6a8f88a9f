"""Output files of a bag, written from its journal when the bag is finished."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from aqr_perception.bags.writer import BagWriter
from aqr_perception.offline.journal import Journal

BAG_FILE, LINES_FILE, NUSCENES_FILE = "outputs.mcap", "detections.jsonl", "results_nusc.json"


def write_files(folder: Path, journal: Journal, frame_id: str, cameras: bool, lidar: bool) -> list[str]:
    """Write the output files; return their names. Each one replaces its earlier version at once.

    Args:
        frame_id: TF frame of the boxes in the result file of nuScenes; empty: it is not written.
        cameras, lidar: whether the model uses these sensors.
    """
    _write_bag(folder / BAG_FILE, journal)
    with _replacing(folder / LINES_FILE) as file:
        for frame in journal.frames():
            file.write(frame.line + "\n")
    if not frame_id:
        return [BAG_FILE, LINES_FILE]
    _write_nuscenes(folder / NUSCENES_FILE, journal, frame_id, cameras, lidar)
    return [BAG_FILE, LINES_FILE, NUSCENES_FILE]


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
