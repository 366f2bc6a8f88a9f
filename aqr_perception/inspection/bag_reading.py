# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Reading of a bag for inspection: whole, or of a large one evenly spread parts."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.reader import BagMessage, BagReader
from aqr_perception.inspection.finding import Finding, finding
from aqr_perception.inspection.mcap_repair import repaired_copy
from aqr_perception.inspection.observations import Observations, Topic
from aqr_perception.inspection.recording_times import recording_times

MOST_BYTES = 4 * 10**9
"""Size of a bag up to which every message is read; of a larger one, parts of about this size in all."""
_PARTS = 12
_SHORTEST_PART_NS = 2_000_000_000
_STORAGES = (".mcap", ".db3")


@dataclass(frozen=True)
class ReadBag:
    """A bag after reading.

    Attributes:
        counts: number of messages in the bag, also of those that were not read.
        sampling: a sentence on what was read; empty if it was all.
        parts: begin and end in nanoseconds of the parts that were read.
        problems: what went wrong with the file.
        times: times of recording of all messages by topic, where only parts were read and the bag has an index.
    """

    path: Path
    bytes: int
    observations: Observations
    counts: int
    start_ns: int
    end_ns: int
    sampling: str
    parts: tuple[tuple[int, int], ...]
    problems: tuple[Finding, ...]
    times: dict[str, NDArray[np.int64]] | None = None


def read_bag(path: Path, limit: float | None = None, progress: bool = False) -> ReadBag:
    """Read a bag.

    Args:
        limit: seconds of the bag to read, in parts spread over it; None: all of it, or parts if it is large.

    Raises:
        BagError: there is no bag, or nothing of it can be read.
    """
    if path.is_dir() and not is_bag_like(path):
        needed = "needed a rosbag2's (metadata.yaml, .mcap, .db3)"
        raise BagError(
            f"{path}: found no bag in the folder, {needed}; `aqr_perception convert` makes bags of data sets"
        )
    problems: list[Finding] = []
    size = bag_size(path)
    with ExitStack() as stack:
        bag = stack.enter_context(_opened(path, problems, stack))
        topics = tuple(Topic(one.name, str(one.type), one.count, one.qos) for one in bag.topics)
        length = bag.end_ns - bag.start_ns
        parts = _parts(bag.start_ns, bag.end_ns, _seconds_to_read(length, size, limit))
        if parts != ((bag.start_ns, bag.end_ns + 1),):
            for topic in topics:
                topic.count = 0
        heard = Observations(topics, whole=parts == ((bag.start_ns, bag.end_ns + 1),))
        bar = tqdm(
            total=round(sum(end - begin for begin, end in parts) / 1e9, 1), desc="reading", unit="s",
            disable=not (progress and sys.stderr.isatty()), bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} s of the bag "
            "[{elapsed}<{remaining}]",
        )  # fmt: skip
        for begin, end in parts:
            last = begin
            for message in _until_broken(bag, path, begin, end, problems):
                heard.add(message)
                bar.update(max(message.stamp_ns - last, 0) / 1e9)
                last = max(last, message.stamp_ns)
        bar.close()
        counts = {one.name: one.count for one in bag.topics}
        for name, topic in heard.topics.items():
            topic.count = counts.get(name, topic.count)
        sampling, times = "", None
        read = sum(end - begin for begin, end in parts)
        if read < length:
            part, times = read / len(parts) / 1e9, recording_times(path)
            whole = "counts, rates and gaps" if times is not None else "counts"
            sampling = (
                f"read: {len(parts)} x {part:.1f} s, spread over the {length / 1e9:.1f} s of the bag: "
                f"{whole} are of the whole bag, all other values of these parts"
            )
        said = tuple(problems)
        return ReadBag(path, size, heard, sum(counts.values()), bag.start_ns, bag.end_ns, sampling, parts, said, times)


def bag_size(path: Path) -> int:
    """Return the bytes of a bag's file, or of the files in its folder."""
    files = [path] if path.is_file() else [file for file in path.glob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def is_bag_like(path: Path) -> bool:
    """Return whether a path is a bag, or a folder that holds the files of one, perhaps without its metadata."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or any(file.suffix in _STORAGES for file in path.glob("*"))
    return path.suffix in (*_STORAGES, ".bag")


def _opened(path: Path, problems: list[Finding], stack: ExitStack) -> BagReader:
    """Return an open bag; of a folder without metadata, its only file; of an mcap without its end, the rest.

    Args:
        stack: removes temporary files in the end.
    """
    if not path.is_dir() or (path / "metadata.yaml").is_file():
        return _reader_or_rest(path, problems, stack)
    files = sorted(file for file in path.glob("*") if file.suffix in _STORAGES)
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise BagError(
            f"{path}: found no metadata.yaml and the files {names}, needed a rosbag2 folder; run `ros2 bag reindex "
            f"{path}`, or give a single file"
        )
    problems.append(
        finding(
            "odd", str(path), "no metadata.yaml", f"only {files[0].name}, which is read by itself", "a metadata.yaml",
            f"run `ros2 bag reindex {path}`; other programs need it",
        )
    )  # fmt: skip
    return _reader_or_rest(files[0], problems, stack)


def _reader_or_rest(path: Path, problems: list[Finding], stack: ExitStack) -> BagReader:
    try:
        return _reader(path)
    except BagError as error:
        files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
        if len(files) != 1 or files[0].suffix != ".mcap" or not files[0].is_file():
            raise
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aqr_inspect_")))
        repaired = repaired_copy(files[0], folder)
        if repaired is None:
            raise
        rest, lost = repaired
        try:
            bag = _reader(rest)
        except BagError:
            raise error from None
        if not len(bag):
            bag.close()
            raise
        found = f"a file without its end or index ({lost} bytes at its end are no whole record), read up to there"
        problems.append(finding("odd", str(files[0]), "broken bag", found, "a whole file", repair(files[0])))
        return bag


def _reader(path: Path) -> BagReader:
    try:
        return BagReader(path)
    except BagError as error:
        if "broken bag" in str(error):
            raise BagError(f"{error}; or {repair(path)}") from error
        raise
    except Exception as error:  # of broken files, rosbags raises errors of many types
        raise BagError(
            f"{path}: found a broken bag ({type(error).__name__}: {error}), needed a complete one; {repair(path)}"
        ) from error


def repair(path: Path) -> str:
    """Return the command that repairs a bag."""
    if path.suffix == ".mcap":
        return f"run `mcap recover {path} -o repaired.mcap`"
    if path.suffix == ".db3":
        return f"run `sqlite3 {path} .recover | sqlite3 repaired.db3`"
    return f"run `ros2 bag reindex {path}`"


def _until_broken(bag: BagReader, path: Path, begin: int, end: int, problems: list[Finding]) -> Iterator[BagMessage]:
    """Yield messages; where the file is broken, note it and end."""
    try:
        yield from bag.messages(start_ns=begin, stop_ns=end)
    except Exception as error:
        found = str(error) if isinstance(error, BagError) else f"{type(error).__name__}: {error}"
        what = "an error while reading; the report holds what was read before it: "
        problems.append(finding("odd", str(path), "broken bag", what + found, "a whole file", repair(path)))


def _seconds_to_read(length_ns: int, size: int, limit: float | None) -> float:
    seconds = length_ns / 1e9
    if limit is not None:
        return min(limit, seconds)
    return seconds if size <= MOST_BYTES else seconds * MOST_BYTES / size


def _parts(start_ns: int, end_ns: int, seconds: float) -> tuple[tuple[int, int], ...]:
    """Return begin and end of the parts to read, the first at the start of the bag and the last at its end."""
    length = end_ns - start_ns
    wanted = round(seconds * 1e9)
    if wanted >= length:
        return ((start_ns, end_ns + 1),)
    count = max(1, min(_PARTS, wanted // _SHORTEST_PART_NS))
    part = wanted // count
    if count == 1:
        return ((start_ns, start_ns + part),)
    step = (length - part) / (count - 1)
    return tuple((start_ns + round(index * step), start_ns + round(index * step) + part) for index in range(count))
