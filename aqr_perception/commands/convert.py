"""``aqr_perception convert``: checkpoints and recordings."""

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
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
    checkpoint.add_argument("--half", action="store_true", help="write matrices and kernels in fp16: half the size")
    checkpoint.set_defaults(run=_convert_checkpoint)
    keyframe = convert.add_parser("keyframe", help="nuScenes-style keyframe folder -> rosbag2")
    keyframe.add_argument("folder", type=Path, help="folder with keyframe.json, pictures and sweep")
    keyframe.add_argument("bag", type=Path, help="rosbag2 to write")
    keyframe.add_argument(
        "--repeats", type=int, default=1, help="how often the keyframe is seen (default: %(default)s)"
    )
    keyframe.add_argument("--period", type=float, default=0.1, help="seconds between two (default: %(default)s)")
    keyframe.set_defaults(run=_convert_keyframe)


def _convert_checkpoint(options: argparse.Namespace) -> int:
    from aqr_perception.models import build_model, load_checkpoint
    from aqr_perception.models.weights.checkpoint import save_checkpoint

    model = build_model(options.model)
    load_checkpoint(model, options.source)
    save_checkpoint(model, options.target, options.half)
    print(options.target)
    return 0


def _convert_keyframe(options: argparse.Namespace) -> int:
    from aqr_perception.bags.keyframe import write_keyframe_bag

    print(write_keyframe_bag(options.folder, options.bag, repeats=options.repeats, period=options.period))
    return 0
