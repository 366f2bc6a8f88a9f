# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Time of one frame by stage, and peak memory."""

import resource
import statistics
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from tqdm import tqdm

from aqr_perception.detector import Detector
from aqr_perception.frame import Frame
from aqr_perception.options import DetectionOptions


@dataclass(frozen=True)
class StageTime:
    """Median and 95th percentile of the wall time of a stage in milliseconds."""

    stage: str
    median_ms: float
    p95_ms: float


@dataclass(frozen=True)
class FrameBenchmark:
    """Times of one frame by stage, and the conditions of the measurement.

    Attributes:
        peak_memory_mib: peak of the GPU memory for a model on a GPU, otherwise of the process since its start.
    """

    preset: str
    device: str
    precision: str
    threads: int
    frames: int
    stages: tuple[StageTime, ...]
    peak_memory_mib: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def table(self) -> str:
        """Return the figures as a text table."""
        lines = [
            f"{self.preset} on {self.device}, {self.precision}, {self.threads} threads, {self.frames} frames",
            f"{'stage':<14}{'median ms':>12}{'p95 ms':>12}",
            *(f"{stage.stage:<14}{stage.median_ms:>12.1f}{stage.p95_ms:>12.1f}" for stage in self.stages),
            f"peak memory {self.peak_memory_mib:.0f} MiB",
        ]
        return "\n".join(lines)


def run(detector: Detector, frame: Frame, repeats: int, options: DetectionOptions | None = None) -> FrameBenchmark:
    """Measure repeated detection in one frame, after two warm-up runs."""
    cuda = detector.device.type == "cuda"
    for _ in range(2):
        detector.detect(frame, options)
    if cuda:
        torch.cuda.reset_peak_memory_stats(detector.device)
    seconds: dict[str, list[float]] = {}
    for _ in tqdm(range(repeats), desc=detector.preset_name, unit="frame", leave=False):
        start = time.perf_counter()
        result = detector.detect(frame, options)
        for stage, duration in {**result.seconds, "total": time.perf_counter() - start}.items():
            seconds.setdefault(stage, []).append(duration)
    return FrameBenchmark(
        preset=detector.preset_name,
        device=torch.cuda.get_device_name(detector.device) if cuda else "cpu",
        precision=str(detector.formats),
        threads=torch.get_num_threads(),
        frames=repeats,
        stages=tuple(
            StageTime(stage, 1e3 * statistics.median(durations), 1e3 * float(np.percentile(durations, 95)))
            for stage, durations in seconds.items()
        ),
        peak_memory_mib=torch.cuda.max_memory_allocated(detector.device) / 2**20
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
    )
