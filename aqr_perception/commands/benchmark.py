"""``aqr_perception benchmark``: speed and memory."""

import argparse
from pathlib import Path

from aqr_perception.commands.output import write_json


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    benchmark = commands.add_parser("benchmark", help="measure speed and memory").add_subparsers(
        required=True, metavar="WHAT"
    )
    frame = benchmark.add_parser(
        "frame",
        help="one frame, stage by stage",
        description="Detect in one frame again and again: median and 95th percentile by stage, and peak memory.",
    )
    frame.add_argument("--model", default="aqr_tiny", help="preset name or .yaml path (default: %(default)s)")
    frame.add_argument(
        "--checkpoint", help="weights, or 'random' (default: those shipped for the preset; without any, random ones)"
    )
    frame.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    frame.add_argument("--aqr", default="auto", help="auto, off, modulation, bias or both (default: %(default)s)")
    _add_measuring(frame, repeats=10)
    frame.set_defaults(run=_benchmark_frame)

    attention = benchmark.add_parser(
        "attention",
        help="the decoder's cross-attention, with and without window bias and attention mass",
        description="Plain attention, window bias, attention mass, dense bias by turns: medians, ratios and memory.",
    )
    attention.add_argument("--queries", type=int, default=900, help="(default: %(default)s)")
    attention.add_argument("--bev", type=int, nargs=2, default=(128, 128), metavar=("ROWS", "COLUMNS"))
    attention.add_argument("--views", type=int, default=6, help="cameras (default: %(default)s)")
    attention.add_argument("--image", type=int, nargs=2, default=(20, 50), metavar=("ROWS", "COLUMNS"))
    attention.add_argument("--heads", type=int, default=8, help="(default: %(default)s)")
    _add_measuring(attention, repeats=5)
    attention.set_defaults(run=_benchmark_attention)

    deformable = benchmark.add_parser(
        "deformable",
        help="BEVFormer's deformable attention, in all the ways that there are",
        description="Grid sampling, one gathering sum and, on CUDA, the fused kernel by turns: medians and ratios.",
    )
    deformable.add_argument("--queries", type=int, default=10_000, help="(default: %(default)s)")
    deformable.add_argument("--image", type=int, nargs=2, default=(928, 1600), metavar=("HEIGHT", "WIDTH"))
    _add_measuring(deformable, repeats=5)
    deformable.set_defaults(run=_benchmark_deformable)


def _add_measuring(command: argparse.ArgumentParser, repeats: int) -> None:
    """Add what every benchmark asks: where it runs, how often, and where its figures go."""
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    command.add_argument("--repeats", type=int, default=repeats, help="measurements of each (default: %(default)s)")
    command.add_argument("--json", type=Path, help="also write the figures to this file")


def _benchmark_frame(options: argparse.Namespace) -> int:
    from aqr_perception.benchmarks import frame_time as frame
    from aqr_perception.benchmarks import inputs
    from aqr_perception.detector import Detector
    from aqr_perception.options import AqrOptions, DetectionOptions

    detector = Detector(options.model, options.checkpoint, options.device, options.precision)
    detection = DetectionOptions(aqr=AqrOptions.of_model(options.aqr))
    measured = frame.run(detector, inputs.made_up_frame(), options.repeats, detection)
    print(measured.table())
    write_json(options.json, measured.as_dict())
    return 0


def _benchmark_attention(options: argparse.Namespace) -> int:
    from aqr_perception.benchmarks import attention_time as attention
    from aqr_perception.devices import choose_device

    case = attention.AttentionCase(
        options.queries, tuple(options.bev), options.views, tuple(options.image), options.heads
    )
    rows = attention.run(case, options.repeats, str(choose_device(options.device)))
    print(attention.table(case, rows))
    write_json(options.json, [row.as_dict() for row in rows])
    return 0


def _benchmark_deformable(options: argparse.Namespace) -> int:
    from aqr_perception.benchmarks import deformable_time as deformable
    from aqr_perception.devices import choose_device

    case = deformable.DeformableCase(options.queries, tuple(options.image))
    rows = deformable.run(case, options.repeats, str(choose_device(options.device)))
    print(deformable.table(case, rows))
    write_json(options.json, [row.as_dict() for row in rows])
    return 0
