# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The running node under load: its own work by stage, age of its results, memory and CPU time."""

import collections
import datetime
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from aqr_perception.benchmarks.live.node_process import NodeProcess, running_node
from aqr_perception.benchmarks.live.sensor_feed import FeedCase, SensorFeed
from aqr_perception.process_environment import processor_entries

NAMESPACE = "/aqr_perception_benchmark"
STAGES = ("reception", "decode", "rectify", "build", "inspect", "messages", "pictures", "publish")
"""Work of the node, all but the model: reception in the middleware's and the callbacks' threads; the others are the
parts that the node reports in /diagnostics."""

_START_SECONDS = 180.0
_WARM_UP_SHARE, _LONGEST_WARM_UP = 0.25, 120.0
_MEMORY_PERIOD = 1.0


@dataclass(frozen=True)
class StageCost:
    """Median wall time, and CPU time of all threads, of a stage in a frame, in milliseconds; NaN if unknown."""

    stage: str
    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Memory:
    """Resident memory over time.

    Attributes:
        samples: seconds since the start of the measurement, and MB (10^6 bytes).
        warm_up: seconds that the figures leave out.
        median_mb, spread: median, and the range from the 1st to the 99th percentile as a share of it.
        slope_mb_per_minute: of a line through the samples.
        growth: what that slope adds in the measured time, as a share of the median.
    """

    samples: Sequence[tuple[float, float]]
    warm_up: float
    median_mb: float
    spread: float
    slope_mb_per_minute: float
    growth: float

    @classmethod
    def of(cls, samples: Sequence[tuple[float, float]], warm_up: float) -> "Memory":
        """Return the figures of samples, of which at least two come after the warm-up."""
        seconds, megabytes = np.array([sample for sample in samples if sample[0] >= warm_up]).T
        low, median, high = np.percentile(megabytes, (1, 50, 99))
        slope = float(np.polyfit(seconds, megabytes, 1)[0])
        growth = slope * float(seconds[-1] - seconds[0]) / median
        return cls(tuple(samples), warm_up, float(median), float((high - low) / median), 60 * slope, float(growth))


@dataclass(frozen=True)
class NodeLoad:
    """Figures of one run.

    Attributes:
        sent, answered: frames sent, and results received, both while measured.
        complete: results for which the node used every sensor.
        left_out: number of results by sensor and reason; the most frequent.
        stages: work of the node itself; its model is not in it.
        overhead_wall_ms, overhead_cpu_ms: medians of the sums of the stages; the wall time is that of the stages after
            reception, in the order in which the frame passes them, plus reception's CPU time.
        model_ms: median wall time of the model.
        age_p50, age_p95, age_max: seconds from a frame's stamp to the arrival of its result.
        backwards: results with an earlier stamp than the one before.
        cpu_shares: CPU time as a share of one core, by group of threads; see `NodeProcess.cpu_seconds`.
    """

    case: FeedCase
    model: str
    listeners: str
    seconds: float
    date: str
    machine: str
    load_average: tuple[float, float]
    sent: int
    answered: int
    complete: int
    left_out: Mapping[str, int]
    dropped: int
    boxes: float
    stages: Sequence[StageCost]
    overhead_wall_ms: float
    overhead_cpu_ms: float
    model_ms: float
    age_p50: float
    age_p95: float
    age_max: float
    backwards: int
    memory: Memory
    cpu_shares: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def table(self) -> str:
        """Return the figures as a text table."""
        case, memory = self.case, self.memory
        kind = "raw" if case.raw else "JPEG"
        width, height = case.size
        before, after = self.load_average
        lines = [
            f"{self.model}, {case.cameras} {kind} images of {width} x {height} and {case.points} points at "
            f"{case.rate:g} Hz for {self.seconds:.0f} s; {self.listeners}",
            f"{self.date}, {self.machine}; load average {before:.1f} before, {after:.1f} after",
            f"{'stage':<14}{'wall ms':>10}{'CPU ms':>10}",
            *(f"{cost.stage:<14}{cost.wall_ms:>10.1f}{cost.cpu_ms:>10.1f}" for cost in self.stages),
            f"{'all of these':<14}{self.overhead_wall_ms:>10.1f}{self.overhead_cpu_ms:>10.1f}",
            f"{'model':<14}{self.model_ms:>10.1f}",
            f"{self.sent} frames sent, {self.answered} answered ({self.complete} with every sensor), {self.dropped} "
            f"dropped for newer ones, {self.backwards} back in time; {self.boxes:.0f} boxes in the median",
            *(f"left out in {count}: {reason}" for reason, count in self.left_out.items()),
            f"age: median {self.age_p50:.3f} s, 95 % {self.age_p95:.3f} s, largest {self.age_max:.3f} s",
            f"resident memory: {memory.median_mb:.0f} MB, range {100 * memory.spread:.1f} %, "
            f"{memory.slope_mb_per_minute:+.2f} MB a minute after {memory.warm_up:.0f} s",
            "CPU, % of a core: " + ", ".join(f"{name} {100 * share:.1f}" for name, share in self.cpu_shares.items()),
        ]
        return "\n".join(lines)


def run(
    case: FeedCase,
    model: str,
    seconds: float,
    environment: Mapping[str, str],
    listen: bool = False,
    parameters: Sequence[str] = (),
) -> NodeLoad:
    """Start a node, send it sensor data, and measure.

    Args:
        environment: variables for the node and for this process's middleware, set before it starts.
        listen: subscribe to every output, weight images included, not only to detections.
        parameters: further parameters of the node, as ``name:=value``.

    Raises:
        ValueError: ROS 2 is missing, or the node ends or does not become active.
    """
    try:
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        import aqr_perception.msg  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            f"benchmark node needs ROS 2 and the built package: found no {error.name}; source ROS 2's and the "
            "workspace's setup files"
        ) from error
    os.environ.update(environment)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        with tempfile.TemporaryDirectory() as folder:
            arguments = _arguments(Path(folder), case, model, parameters)
            log = Path(folder) / "node.log"
            with running_node(arguments, {**environment, "PYTHONUNBUFFERED": "1"}, log) as process:
                return _measure(rclpy, case, model, seconds, listen, process)
    finally:
        rclpy.try_shutdown()


def _arguments(folder: Path, case: FeedCase, model: str, parameters: Sequence[str]) -> list[str]:
    import yaml

    file = folder / "benchmark.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"model.preset": model, **case.parameters()}}}))
    arguments = ["--ros-args", "--params-file", str(file), "-r", f"__ns:={NAMESPACE}"]
    return arguments + [word for parameter in parameters for word in ("-p", parameter)]


@dataclass
class _Heard:
    """What the node published, with times of a monotonic clock.

    Attributes:
        results: arrival, stamp in seconds, age, sensors left out with their reasons, number of boxes.
        frames: values of the entry `frames` of /diagnostics, and its message.
    """

    results: list[tuple[float, float, float, tuple[str, ...], int]] = field(default_factory=list)
    frames: list[tuple[float, dict[str, str]]] = field(default_factory=list)
    state: str = ""

    def add_result(self, message: Any) -> None:
        stamp = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
        unused = tuple(f"{sensor.name}: {sensor.reason}" for sensor in message.sensors if not sensor.used)
        self.results.append((time.monotonic(), stamp, time.time() - stamp, unused, len(message.detections)))

    def add_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name.startswith(NAMESPACE.lstrip("/")) and status.name.endswith(": frames"):
                self.state = status.message
                self.frames.append((time.monotonic(), {pair.key: pair.value for pair in status.values}))


def _measure(rclpy: Any, case: FeedCase, model: str, seconds: float, listen: bool, process: NodeProcess) -> NodeLoad:
    from aqr_perception.benchmarks.live.spinning import spinning

    node = rclpy.create_node("benchmark", namespace=NAMESPACE)
    heard = _Heard()
    _listen(node, heard, case if listen else None)
    feed = SensorFeed(node, case)
    with spinning(node):
        _wait(lambda: len(heard.results) > 0, process, heard, feed)
        warm_up = min(_WARM_UP_SHARE * seconds, _LONGEST_WARM_UP)
        load = os.getloadavg()[0]
        samples: list[tuple[float, float]] = []
        start = measured_from = time.monotonic()
        cpu, sent, next_sample = process.cpu_seconds(), 0, 0.0
        with tqdm(total=round(seconds), unit="s", leave=False) as bar:
            for count in range(round(seconds * case.rate)):
                time.sleep(max(0.0, start + count / case.rate - time.monotonic()))
                feed.send()
                passed = time.monotonic() - start
                if measured_from == start and passed >= warm_up:
                    measured_from, cpu, sent = time.monotonic(), process.cpu_seconds(), 0
                sent += 1
                if passed >= next_sample:
                    process.check()
                    samples.append((round(passed, 2), round(process.resident_mb(), 2)))
                    next_sample = passed + _MEMORY_PERIOD
                    bar.update(round(passed) - bar.n)
        end = time.monotonic()
        used = {name: spent - cpu[name] for name, spent in process.cpu_seconds().items()}
    node.destroy_node()
    results = [result for result in heard.results if measured_from <= result[0] <= end]
    frames = [values for moment, values in heard.frames if measured_from <= moment and values["model_ms"] != "unknown"]
    if not results or not frames:
        raise ValueError(f"the node answered no frame while measured; it says: {heard.state}")
    reception = 1e3 * (used["callbacks"] + used["dds"]) / sent
    stages = [StageCost("reception", reception, reception)]
    for part in STAGES[1:]:
        stages.append(StageCost(part, _median(frames, f"{part}_ms"), _median(frames, f"{part}_cpu_ms")))
    ages = np.array([age for _, _, age, _, _ in results])
    dropped = [int(values["dropped"]) for values in (frames[0], frames[-1])]
    return NodeLoad(
        case=case,
        model=model,
        listeners="all outputs subscribed" if listen else "only detections subscribed",
        seconds=seconds,
        date=datetime.date.today().isoformat(),
        machine=machine(),
        load_average=(load, os.getloadavg()[0]),
        sent=sent,
        answered=len(results),
        complete=sum(not unused for *_, unused, _ in results),
        left_out=dict(collections.Counter(reason for *_, unused, _ in results for reason in unused).most_common(8)),
        dropped=dropped[1] - dropped[0],
        boxes=statistics.median(count for *_, count in results),
        stages=stages,
        overhead_wall_ms=reception + _median(frames, "overhead_ms"),
        overhead_cpu_ms=reception + _median(frames, "overhead_cpu_ms"),
        model_ms=_median(frames, "model_ms"),
        age_p50=float(np.percentile(ages, 50)),
        age_p95=float(np.percentile(ages, 95)),
        age_max=float(ages.max()),
        backwards=sum(later[1] < earlier[1] for earlier, later in itertools.pairwise(results)),
        memory=Memory.of(samples, warm_up),
        cpu_shares={name: spent / (end - measured_from) for name, spent in used.items()},
    )


def _median(frames: Sequence[Mapping[str, str]], name: str) -> float:
    return statistics.median(float(values[name]) for values in frames)


def _listen(node: Any, heard: _Heard, everything: FeedCase | None) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from nav_msgs.msg import OccupancyGrid
    from sensor_msgs.msg import Image
    from vision_msgs.msg import Detection3DArray
    from visualization_msgs.msg import MarkerArray

    from aqr_perception.msg import FusedDetectionArray

    name = f"{NAMESPACE}/aqr_perception"
    node.create_subscription(FusedDetectionArray, f"{name}/detections", heard.add_result, 20)
    node.create_subscription(DiagnosticArray, "/diagnostics", heard.add_diagnostics, 20)
    if everything is None:
        return
    topics = {"markers": MarkerArray, "detections_3d": Detection3DArray, "weights/bev/grid": OccupancyGrid}
    maps = ["weights/bev", *(f"weights/{camera}" for camera in everything.camera_names)]
    topics |= {f"{place}/{kind}": Image for place in maps for kind in ("image", "raw")}
    for topic, kind in topics.items():
        node.create_subscription(kind, f"{name}/{topic}", lambda _: None, 5, raw=True)


def _wait(answered: Callable[[], bool], process: NodeProcess, heard: _Heard, feed: SensorFeed) -> None:
    """Send slowly until the node answers."""
    deadline = time.monotonic() + _START_SECONDS
    while not answered():
        process.check()
        if time.monotonic() > deadline:
            raise ValueError(f"the node has answered nothing for {_START_SECONDS:.0f} s; it says: {heard.state}")
        feed.send()
        time.sleep(0.5)


def machine() -> str:
    """Return cores and processor of this machine, in a few words."""
    processor = processor_entries()
    name, flags = processor.get("model name", platform.machine()), processor.get("flags", "")
    known = {"AVX-512": "avx512f", "AVX-512-BF16": "avx512_bf16", "AMX": "amx_tile"}
    has = [label for label, flag in known.items() if flag in flags.split()]
    return f"{os.cpu_count()} cores, {name}" + (f", {', '.join(has)}" if has else "")
