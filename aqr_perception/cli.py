"""The command line: ``aqr_perception presets | benchmark | convert``."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the process's exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"aqr_perception: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aqr_perception", description="Camera + LiDAR 3D detection with adaptive query routing."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    presets = commands.add_parser("presets", help="list the model presets")
    presets.set_defaults(run=_presets)

    benchmark = commands.add_parser("benchmark", help="measure speed and memory").add_subparsers(
        required=True, metavar="WHAT"
    )
    frame = benchmark.add_parser(
        "frame",
        help="one frame, stage by stage",
        description="Detect in one frame again and again: median and 95th percentile by stage, and peak memory.",
    )
    frame.add_argument("--model", default="aqr_tiny", help="preset name or .yaml path (default: %(default)s)")
    frame.add_argument("--checkpoint", help="weights; random ones are as fast")
    frame.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    frame.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    frame.add_argument("--aqr", default="auto", help="auto, off, modulation, bias or both (default: %(default)s)")
    frame.add_argument("--keyframe", type=Path, help="folder with keyframe.json (default: a made-up frame)")
    frame.add_argument("--repeats", type=int, default=10, help="frames measured (default: %(default)s)")
    frame.add_argument("--json", type=Path, help="also write the figures to this file")
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
    attention.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    attention.add_argument("--repeats", type=int, default=5, help="(default: %(default)s)")
    attention.add_argument("--json", type=Path, help="also write the figures to this file")
    attention.set_defaults(run=_benchmark_attention)

    convert = commands.add_parser("convert", help="convert checkpoints and recordings").add_subparsers(
        required=True, metavar="WHAT"
    )
    checkpoint = convert.add_parser(
        "checkpoint",
        help="published .pth -> .safetensors",
        description="Read a checkpoint strictly into a preset's model and write it as safetensors.",
    )
    checkpoint.add_argument("model", help="preset name")
    checkpoint.add_argument("source", type=Path, help="checkpoint to read (.pth or .safetensors)")
    checkpoint.add_argument("target", type=Path, help=".safetensors file to write")
    checkpoint.set_defaults(run=_convert_checkpoint)
    keyframe = convert.add_parser("keyframe", help="nuScenes-style keyframe folder -> rosbag2")
    keyframe.add_argument("folder", type=Path, help="folder with keyframe.json, pictures and sweep")
    keyframe.add_argument("bag", type=Path, help="rosbag2 to write")
    keyframe.add_argument(
        "--repeats", type=int, default=1, help="how often the keyframe is seen (default: %(default)s)"
    )
    keyframe.add_argument("--period", type=float, default=0.5, help="seconds between two (default: %(default)s)")
    keyframe.set_defaults(run=_convert_keyframe)
    return parser


# Imports that take seconds stay inside the commands that need them, so that --help answers at once.


def _presets(_: argparse.Namespace) -> int:
    from aqr_perception.models.presets import load_preset, preset_names

    for name in preset_names():
        print(f"{name:<28}{load_preset(name).description}")
    return 0


def _benchmark_frame(options: argparse.Namespace) -> int:
    from aqr_perception.benchmarks import frame, inputs
    from aqr_perception.detector import Detector
    from aqr_perception.options import AqrOptions, DetectionOptions

    detector = Detector(options.model, options.checkpoint, options.device, options.precision)
    seen = inputs.keyframe(options.keyframe) if options.keyframe else inputs.made_up_frame()
    measured = frame.run(detector, seen, options.repeats, DetectionOptions(aqr=AqrOptions(mode=options.aqr)))
    print(measured.table())
    _write_json(options.json, measured.as_dict())
    return 0


def _benchmark_attention(options: argparse.Namespace) -> int:
    from aqr_perception.benchmarks import attention
    from aqr_perception.detector import choose_device

    case = attention.AttentionCase(
        options.queries, tuple(options.bev), options.views, tuple(options.image), options.heads
    )
    rows = attention.run(case, options.repeats, str(choose_device(options.device)))
    print(attention.table(case, rows))
    _write_json(options.json, [row.as_dict() for row in rows])
    return 0


def _convert_checkpoint(options: argparse.Namespace) -> int:
    from aqr_perception.models import build_model, load_checkpoint
    from aqr_perception.models.checkpoint import save_checkpoint

    model = build_model(options.model)
    load_checkpoint(model, options.source)
    save_checkpoint(model, options.target)
    print(options.target)
    return 0


def _convert_keyframe(options: argparse.Namespace) -> int:
    from aqr_perception.bags.keyframe import write_keyframe_bag

    print(write_keyframe_bag(options.folder, options.bag, repeats=options.repeats, period=options.period))
    return 0


def _write_json(path: Path | None, figures: object) -> None:
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
