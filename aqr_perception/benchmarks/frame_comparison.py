# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Comparison of settings in one run: frames in alternation until the medians are stable."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from aqr_perception.benchmarks.frame_settings import FrameSettings
from aqr_perception.benchmarks.machine_limits import Amount, MachineLimits, amount, measure_limits
from aqr_perception.benchmarks.machine_load import MachineLoad
from aqr_perception.detector import Detector
from aqr_perception.devices import NumberFormats, autocast, format_name
from aqr_perception.frame import Detections, Frame
from aqr_perception.models.model_io import LAST_LAYER, DecodeOptions
from aqr_perception.models.ops.native_library import torch_operations

STABLE = 0.05
"""Largest half width of a median's interval of 95 %, relative to the median."""
_LEAST_ROUNDS = 5
_BUSY_CPUS = 0.2
"""Mean number of CPUs busy with other processes above which a measurement is doubtful."""
_MODEL_STAGES = ("image", "points", "decoder")
_SCORE, _METRES, _SCORE_DIFFERENCE = 0.3, 0.2, 0.02


@dataclass
class Variant:
    """Measurements of one variant.

    Attributes:
        seconds: wall times by stage, with ``total``.
        work: operations and bytes by stage.
        limits: of the machine, with the variant's threads.
        formats: number formats of the model.
        detections: in each frame with objects.
    """

    name: str
    formats: NumberFormats
    limits: MachineLimits
    work: Mapping[str, Amount]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    detections: list[Detections] = field(default_factory=list)

    def median_ms(self, stage: str) -> float:
        return 1e3 * statistics.median(self.seconds[stage])

    def spread(self) -> float:
        """Return the half width of the interval of the total's median, relative to it (McGill et al. 1978, notches)."""
        totals = self.seconds["total"]
        if len(totals) < 2:
            return float("inf")
        quarter, three_quarters = np.percentile(totals, (25, 75))
        return float(1.57 * (three_quarters - quarter) / len(totals) ** 0.5 / statistics.median(totals))

    def distance_to_limit(self, stage: str) -> float | None:
        """Return the time of a stage relative to that of its products and copies at the machine's limits."""
        dtype = self.formats.decoder if stage == "decoder" else self.formats.branches
        work, rate = self.work.get(stage), self.limits.gemm_gflops[format_name(dtype)]
        if work is None or work.flops == 0:
            return None
        return self.median_ms(stage) / (1e3 * max(work.flops / rate / 1e9, 1e-9))

    def as_dict(self) -> dict[str, object]:
        return {
            "variant": self.name,
            "precision": str(self.formats),
            "frames": len(self.seconds["total"]),
            "spread": self.spread(),
            "limits": self.limits.as_dict(),
            "stages": {
                stage: {
                    "median_ms": self.median_ms(stage),
                    "gflop": self.work[stage].flops / 1e9 if stage in self.work else None,
                    "gbytes": self.work[stage].bytes / 1e9 if stage in self.work else None,
                    "ratio_to_products": self.distance_to_limit(stage),
                    "ratio_to_copies": self.median_ms(stage) / (self.work[stage].bytes / self.limits.copy_gbytes / 1e6)
                    if stage in self.work and self.work[stage].bytes
                    else None,
                }
                for stage in self.seconds
            },
        }


@dataclass(frozen=True)
class Comparison:
    """Variants measured in alternation; the first is the reference.

    Attributes:
        other_cpus: mean number of CPUs that other processes kept busy; None if unknown.
    """

    variants: tuple[Variant, ...]
    other_cpus: float | None

    @property
    def stable(self) -> bool:
        return all(variant.spread() <= STABLE for variant in self.variants)

    @property
    def agreements(self) -> dict[str, tuple[int, int]]:
        """Return for each other variant how many of the reference's boxes above the score agree, and their number."""
        first, *others = self.variants
        if not first.detections:
            return {}
        return {variant.name: agreeing_boxes(first.detections, variant.detections) for variant in others}

    def as_dict(self) -> dict[str, object]:
        return {
            "variants": [variant.as_dict() for variant in self.variants],
            "stable": self.stable,
            "other_cpus": self.other_cpus,
            "agreeing_boxes": {name: {"agree": one, "of": all_} for name, (one, all_) in self.agreements.items()},
        }

    def table(self) -> str:
        """Return the comparison as text."""
        first = self.variants[0]
        names = _short([variant.name for variant in self.variants])
        width = max(12, *(len(name) + 3 for name in names))
        head = "".join(f"{name + ' ms':>{width}}{'ratio':>7}{'limit':>7}" for name in names)
        lines = [f"{'stage':<14}{'GFLOP':>8}{'GB':>7}{head}"]
        for stage in first.seconds:
            work = first.work.get(stage)
            line = f"{stage:<14}" + (f"{work.flops / 1e9:>8.1f}{work.bytes / 1e9:>7.2f}" if work else " " * 15)
            for variant in self.variants:
                if stage not in variant.seconds:
                    continue
                distance = variant.distance_to_limit(stage)
                ratio = variant.median_ms(stage) / max(first.median_ms(stage), 1e-6)
                line += f"{variant.median_ms(stage):>{width}.1f}{ratio:>7.2f}" + (
                    f"{distance:>6.1f}x" if distance else " " * 7
                )
            lines.append(line)
        lines.append(
            "limit: time relative to the stage's products at this machine's rate; GB: read and written by operations"
        )
        lines += [str(limits) for limits in dict.fromkeys(map(str, (variant.limits for variant in self.variants)))]
        lines += [
            f"{name}: {agree} of {count} boxes above {_SCORE} agree with {first.name} "
            f"(within {_METRES} m and {_SCORE_DIFFERENCE} of score)"
            for name, (agree, count) in self.agreements.items()
        ]
        busy = "an unknown number of" if self.other_cpus is None else f"{self.other_cpus:.1f}"
        frames = len(first.seconds["total"])
        lines.append(f"{frames} frames each; other processes kept {busy} CPUs busy")
        if not self.stable:
            worst = max(variant.spread() for variant in self.variants)
            lines.append(
                f"THE MACHINE IS TOO NOISY: medians are uncertain by {100 * worst:.0f} %, needed {100 * STABLE:.0f} %; "
                "end other processes or give more --seconds"
            )
        elif self.other_cpus is not None and self.other_cpus > _BUSY_CPUS:
            lines.append("other processes were busy: trust the ratios, not the times")
        return "\n".join(lines)


def _short(names: Sequence[str]) -> list[str]:
    """Return names of which paths of presets are shortened to the file's name without its end, if all stay unique."""
    short = [Path(name).stem if name.endswith((".yaml", ".yml")) else name for name in names]
    return short if len(set(short)) == len(names) else list(names)


def compare(
    settings: Mapping[str, FrameSettings], whole: Frame, seconds: float, scenes: Sequence[Frame] = ()
) -> Comparison:
    """Measure variants in alternation until the medians are stable.

    Args:
        settings: of the variants, by name; the first is the reference.
        whole: the frame that is measured, before the settings change it.
        seconds: longest time, without preparation; five rounds take as long as they take.
        scenes: frames with objects, in which the variants' boxes are compared.
    """
    detectors, frames, variants = {}, {}, {}
    for name, setting in tqdm(settings.items(), desc="prepare", leave=False):
        with _threads(setting.threads):
            detectors[name], frames[name] = setting.detector(), setting.frame(whole)
            formats = detectors[name].formats
            limits = measure_limits(detectors[name].device, (torch.float32, *formats))
            variants[name] = Variant(name, formats, limits, stage_amounts(detectors[name], frames[name], setting))
            for scene in scenes:
                found = detectors[name].detect(setting.frame(scene), setting.options())
                variants[name].detections.append(found.detections)
                detectors[name].forget()
            for _ in range(2):
                detectors[name].detect(frames[name], setting.options())
    load, start, rounds = MachineLoad(), time.perf_counter(), 0
    with tqdm(desc="compare", unit="round", leave=False) as progress:
        while rounds < _LEAST_ROUNDS or (
            time.perf_counter() - start < seconds and any(variant.spread() > STABLE for variant in variants.values())
        ):
            for name, variant in variants.items():
                with _threads(settings[name].threads):
                    _measure(variant, detectors[name], frames[name], settings[name])
            rounds += 1
            progress.update()
    return Comparison(tuple(variants.values()), load.others())


def _measure(variant: Variant, detector: Detector, frame: Frame, setting: FrameSettings) -> None:
    start = time.perf_counter()
    result = detector.detect(frame, setting.options())
    for stage, duration in {**result.seconds, "total": time.perf_counter() - start}.items():
        variant.seconds.setdefault(stage, []).append(duration)


def stage_amounts(detector: Detector, frame: Frame, setting: FrameSettings) -> dict[str, Amount]:
    """Return the operations and bytes of the model's stages."""
    model, branch = detector.model, detector.model.preset.image
    features = detector.extract(frame)
    images = None
    if branch is not None and frame.cameras:
        images = torch.zeros(1, len(frame.cameras), 3, branch.size[1], branch.size[0], device=detector.device)
    points = None
    if detector.uses_lidar and frame.points is not None:
        points = [torch.from_numpy(frame.points).to(detector.device)]
    options = DecodeOptions(setting.options().aqr, layers=LAST_LAYER)
    nothing = features.maps._replace(image=None, bev=None)

    def image_branch() -> None:
        model.branch_proposals(nothing._replace(image=model.image_features(images)))

    def point_branch() -> None:
        model.branch_proposals(nothing._replace(bev=model.bev_features(points)))

    # In inference mode, a composite operation would be taken apart below autocast, which then casts none of its parts.
    with torch.no_grad(), torch_operations():
        with autocast(detector.device, detector.formats.branches):
            work = (amount(image_branch), amount(point_branch))
        return dict(zip(_MODEL_STAGES, (*work, amount(lambda: detector.decode(features.maps, options))), strict=True))


def agreeing_boxes(reference: Sequence[Detections], other: Sequence[Detections]) -> tuple[int, int]:
    """Return how many of the reference's boxes above `_SCORE` have an equal one of their class, and their number.

    Args:
        reference, other: detections in the same frames, in the same order.
    """
    counts = [_agreeing_in_frame(*pair) for pair in zip(reference, other, strict=True)]
    return sum(agree for agree, _ in counts), sum(count for _, count in counts)


def _agreeing_in_frame(reference: Detections, other: Detections) -> tuple[int, int]:
    """Return `agreeing_boxes` of one frame; each of the other's boxes serves once, the nearest first."""
    count, agree, used = 0, 0, set[int]()
    for box, score, label in zip(reference.boxes, reference.scores, reference.labels, strict=True):
        if score < _SCORE:
            continue
        count += 1
        distance = np.linalg.norm(other.boxes[:, :3] - box[:3], axis=1)
        near = (other.labels == label) & (distance <= _METRES) & (np.abs(other.scores - score) <= _SCORE_DIFFERENCE)
        found = [int(index) for index in np.argsort(distance) if near[index] and int(index) not in used]
        agree += bool(found)
        used.update(found[:1])
    return agree, count


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use a number of threads; 0 for the current one."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
