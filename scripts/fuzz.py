#!/usr/bin/env python3
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Fuzz the package's readers of messages, parameters and files: fuzz.py [KIND=COUNT ...] [--seed N] [--resume].

Each input is made from random bytes, which depend on the seed, the kind and the input's number only. It runs in another
process. An input is a fault if that process dies, needs more than a second of its processor's time, needs more than
256 MB, or raises anything but the documented error. The bytes of each fault are kept in OUTPUT/faults.

    scripts/fuzz.py                            all kinds, a million inputs together
    scripts/fuzz.py cloud=20000 preset         20,000 point clouds, and presets
    scripts/fuzz.py --replay OUTPUT/faults/*   run kept inputs again
    scripts/fuzz.py --coverage cloud=100000    let atheris (pip install atheris) choose bytes by the code they reach
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "test"), str(ROOT)]

# The targets are imported in the other process only: a run without them starts at once.
COUNTS = {
    "cloud": 250_000,
    "image": 250_000,
    "compressed": 150_000,
    "calibration": 60_000,
    "transform": 80_000,
    "frame": 15_000,
    "parameters": 150_000,
    "parameter_file": 25_000,
    "preset": 6_000,
    "model": 1_000,
    "checkpoint": 12_000,
    "inspection": 1_000,
}
"""Inputs of a whole run by kind."""
MOST_SECONDS = 1.0
MOST_BYTES = 256 << 20
_HANG = 10.0
"""Seconds after which an input that needs no processor's time hangs."""
_POLL = 0.05
_SAVE = 10.0
_TOO_MUCH_MEMORY = 3
_FAULTS_OF_A_KIND = 20
"""A kind with more faults ends: they are mostly the same one."""


@dataclass
class Record:
    """Result of the inputs of a kind. Seconds are of the clock, slowest of the processor."""

    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    memory: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)


def run_inputs(kind: str, seed: int, first: int, last: int, shared: Any, folder: str) -> None:
    """Run inputs in this process; note the progress in `shared`: the number, inputs, accepted, microseconds, bytes."""
    target = _prepared(kind)
    from fuzz.choices import Choices, random_bytes

    base = _memory()
    for index in range(first, last):
        data = random_bytes(seed, kind, index)
        shared[0] = index
        start = time.process_time()
        problem = ""
        try:
            shared[2] += bool(target(Choices(data)))
        except MemoryError:
            problem = "memory"
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())[:300]
            problem = f"{type(error).__name__}: {text} ({Path(place.filename).name}:{place.lineno})"
        seconds = time.process_time() - start
        shared[1] += 1
        shared[3] = max(shared[3], int(1e6 * seconds))
        shared[4] = max(shared[4], peak := _peak() - base)
        if seconds > MOST_SECONDS:
            problem = f"{seconds:.2f} s; {problem}"
        if peak > MOST_BYTES:
            problem = f"{peak >> 20} MB; {problem}"
        if problem:
            keep_fault(Path(folder), kind, index, data, problem)
        if peak > MOST_BYTES:
            os._exit(_TOO_MUCH_MEMORY)  # the peak hides those of later inputs
    shared[0] = last


def _prepared(kind: str, quiet: bool = True) -> Any:
    """Return a kind's target after its first run; limit threads, output and address space of this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(OMP_NUM_THREADS="1", RCUTILS_LOGGING_MIN_SEVERITY="FATAL")
    from fuzz.choices import Choices
    from fuzz.targets import load

    target = load(kind)
    for name, limit_threads in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
        if name in sys.modules:
            getattr(sys.modules[name], limit_threads)(1)
    target(Choices(b""))
    if quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries report each wrong input
    limit = 16 * MOST_BYTES + 1024 * int(Path("/proc/self/statm").read_text().split()[0]) * 4
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return target


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def keep_fault(folder: Path, kind: str, index: int, data: bytes, problem: str) -> None:
    """Write the bytes of an input, and the problem next to them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{index}.bin"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{problem}\n")


class Watched:
    """A process that runs inputs of a kind, watched from outside."""

    def __init__(self, kind: str, seed: int, folder: Path) -> None:
        self.kind, self.seed, self.folder = kind, seed, folder
        self._context = multiprocessing.get_context("spawn")

    def run(self, first: int, last: int, record: Record) -> Iterator[int]:
        """Run inputs, in a new process after each that was ended by one; yield the number of the next input."""
        while first < last and len(record.faults) < _FAULTS_OF_A_KIND:
            shared = self._context.Array("q", [-1, 0, 0, 0, 0], lock=False)
            process = self._context.Process(
                target=run_inputs, args=(self.kind, self.seed, first, last, shared, str(self.folder)), daemon=True
            )
            before, start, problem = asdict(record), time.monotonic(), ""
            process.start()
            index, since, begun, used = -1, start, 0.0, 0.0
            while process.is_alive():
                process.join(_POLL)
                now, seconds = time.monotonic(), _seconds_used(process.pid)
                if shared[0] != index:
                    index, since, begun, used = shared[0], now, seconds, seconds
                    yield min(index, last)
                elif seconds > used:
                    since, used = now, seconds  # on a busy machine an input may take long
                if 0 <= index < last and (used - begun > 2 * MOST_SECONDS or now - since > _HANG):
                    problem = f"hangs: no end after {used - begun:.1f} s, idle for {now - since:.1f} s"
                    process.kill()
                    process.join()
                self._read(record, before, shared, start)
            self._read(record, before, shared, start)
            index = shared[0]
            if index < 0:
                raise SystemExit(f"fuzz.py: the target {self.kind} does not start (exit {process.exitcode})")
            if not problem and process.exitcode not in (0, _TOO_MUCH_MEMORY):
                problem = f"the process died: exit {process.exitcode}"
            if problem:
                from fuzz.choices import random_bytes

                keep_fault(self.folder, self.kind, index, random_bytes(self.seed, self.kind, index), problem)
                record.inputs += 1
            record.faults = faults_in(self.folder, self.kind)
            first = min(index + 1, last)
            yield first

    def _read(self, record: Record, before: dict[str, Any], shared: Any, start: float) -> None:
        record.inputs, record.accepted = before["inputs"] + shared[1], before["accepted"] + shared[2]
        record.slowest = max(before["slowest"], shared[3] / 1e6)
        record.memory = max(before["memory"], shared[4])
        record.seconds = before["seconds"] + time.monotonic() - start


def _seconds_used(pid: int | None) -> float:
    """Return a process's time of the processor; 0 if it has ended."""
    try:
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def faults_in(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the kept faults of a kind."""
    paths = sorted(folder.glob(f"{kind}-*.txt")) if folder.is_dir() else []
    return [{"file": path.with_suffix(".bin").name, "problem": path.read_text().strip()} for path in paths]


def fuzz(counts: dict[str, int], seed: int, output: Path, resume: bool) -> int:
    """Run inputs of each kind; write OUTPUT/record.json; return the number of faults."""
    from tqdm import tqdm

    path, folder = output / "record.json", output / "faults"
    state: dict[str, Any] = {"seed": seed, "next": {}, "kinds": {}}
    if resume and path.is_file():
        state = json.loads(path.read_text())
        if state["seed"] != seed:
            raise SystemExit(f"fuzz.py: {path} is of seed {state['seed']}, not {seed}; give --seed {state['seed']}")
    elif path.is_file() or folder.is_dir():
        raise SystemExit(f"fuzz.py: {output} has a record; give --resume, or another --output")
    output.mkdir(parents=True, exist_ok=True)
    done = sum(min(state["next"].get(kind, 0), count) for kind, count in counts.items())
    bar = tqdm(total=sum(counts.values()), initial=done, unit="input", smoothing=0.05)
    saved = time.monotonic()
    try:
        for kind, count in counts.items():
            record = Record(**state["kinds"].get(kind, {}))
            first = state["next"].get(kind, 0)
            bar.set_description(kind)
            for reached in Watched(kind, seed, folder).run(first, count, record):
                bar.update(reached - state["next"].get(kind, 0))
                state["next"][kind], state["kinds"][kind] = reached, asdict(record)
                if time.monotonic() > saved + _SAVE:
                    saved = time.monotonic()
                    save(state, path)
                bar.set_postfix(faults=sum(len(entry["faults"]) for entry in state["kinds"].values()))
    finally:
        bar.close()
        save(state, path)
    print(summary({kind: Record(**entry) for kind, entry in state["kinds"].items()}))
    return sum(len(entry["faults"]) for entry in state["kinds"].values())


def save(state: dict[str, Any], path: Path) -> None:
    """Replace the record's file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({**state, "commit": commit()}, indent=1) + "\n")
    partial.replace(path)


def commit() -> str:
    found = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def summary(records: dict[str, Record]) -> str:
    """Return a table of all kinds."""
    lines = ["| kind | inputs | accepted | slowest | most memory | faults |", "|---|---:|---:|---:|---:|---:|"]
    for kind, record in records.items():
        share, most = f"{100 * record.accepted / max(record.inputs, 1):.0f} %", f"{record.memory / 2**20:.0f} MB"
        slowest = f"{1e3 * record.slowest:.0f} ms"
        lines.append(f"| {kind} | {record.inputs:,} | {share} | {slowest} | {most} | {len(record.faults)} |")
    total, faults = (sum(values) for values in zip(*((r.inputs, len(r.faults)) for r in records.values()), strict=True))
    lines.append(f"| all | {total:,} | | | | {faults} |")
    return "\n".join(lines)


def replay(paths: list[Path]) -> int:
    """Run kept inputs, whose names start with their kind; show what they do; return the number of faults."""
    from fuzz.choices import Choices
    from fuzz.targets import load

    outcomes: Counter[str] = Counter()
    for path in paths:
        start = time.process_time()
        try:
            accepted = load(path.name.rpartition("-")[0])(Choices(path.read_bytes()))
            outcome = "accepted" if accepted else "refused"
        except Exception:
            outcome = "fault"
            traceback.print_exc()
        outcomes[outcome] += 1
        print(f"{path}: {outcome} after {time.process_time() - start:.3f} s, peak {_peak() >> 20} MB", flush=True)
    return outcomes["fault"]


def cover(kind: str, count: int, seed: int, output: Path) -> int:
    """Run atheris in another process on one kind; return its exit status."""
    corpus, faults = output / "corpus" / kind, output / "faults"
    corpus.mkdir(parents=True, exist_ok=True)
    faults.mkdir(parents=True, exist_ok=True)
    limits = [f"-timeout={_HANG:.0f}", "-rss_limit_mb=2048", "-max_len=400", "-len_control=0", "-print_final_stats=1"]
    limits += [f"-runs={count}", f"-seed={seed}", f"-artifact_prefix={faults}/{kind}-", "-close_fd_mask=2"]
    return subprocess.run([sys.executable, __file__, "--atheris", kind, *limits, str(corpus)]).returncode


def run_atheris(kind: str, arguments: list[str]) -> None:
    """Let atheris run a target in this process; it exits at the end."""
    import atheris

    with atheris.instrument_imports(include=["aqr_perception"]):
        from fuzz.choices import Choices

        target = _prepared(kind, quiet=False)
    base = _memory()

    def run(data: bytes) -> None:
        start = time.process_time()
        target(Choices(data))
        seconds, peak = time.process_time() - start, _peak() - base
        assert seconds <= MOST_SECONDS, f"{seconds:.2f} s"
        assert peak <= MOST_BYTES, f"{peak >> 20} MB"

    atheris.Setup(["fuzz.py", *arguments], run)
    atheris.Fuzz()


def _kinds(words: list[str]) -> dict[str, int]:
    chosen = {}
    for word in words or list(COUNTS):
        kind, _, count = word.partition("=")
        if (kind not in COUNTS and kind != "deliberate") or (count and not count.isdecimal()):
            raise SystemExit(f"fuzz.py: {word!r} is no kind of input; choose of {', '.join(COUNTS)}, or KIND=COUNT")
        chosen[kind] = int(count) if count else COUNTS[kind]
    return chosen


def main() -> int:
    if sys.argv[1:2] == ["--atheris"]:
        run_atheris(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", metavar="KIND[=COUNT]", help=f"of {', '.join(COUNTS)}; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the random bytes (default 0)")
    parser.add_argument("--output", type=Path, default=Path("runs/fuzz"), help="folder (default runs/fuzz)")
    parser.add_argument("--resume", action="store_true", help="go on after an interrupted run in the same folder")
    parser.add_argument("--coverage", action="store_true", help="choose bytes by the code they reach, with atheris")
    parser.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="run kept inputs again")
    options = parser.parse_args()
    if options.replay:
        return min(replay([path for path in options.replay if path.suffix != ".txt"]), 1)
    counts = _kinds(options.inputs)
    for asked in (signal.SIGINT, signal.SIGTERM):  # a shell in the background ignores the first
        signal.signal(asked, signal.default_int_handler)
    if options.coverage:
        return max(cover(kind, count, options.seed, options.output) for kind, count in counts.items())
    with contextlib.suppress(KeyboardInterrupt):
        return min(fuzz(counts, options.seed, options.output, options.resume), 1)
    print("stopped; --resume goes on", file=sys.stderr)
    return 130


if __name__ == "__main__":
    sys.exit(main())
