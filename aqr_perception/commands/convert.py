"""Command ``aqr_perception convert``: conversion of checkpoints."""

import argparse
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    convert = commands.add_parser("convert", help="convert checkpoints").add_subparsers(required=True, metavar="WHAT")
    checkpoint = convert.add_parser(
        "checkpoint",
        help="published .pth -> .safetensors",
        description="Load a checkpoint strictly into a preset's model and write it as safetensors.",
    )
    checkpoint.add_argument("model", help="preset name")
    checkpoint.add_argument("source", type=Path, help="checkpoint to read (.pth or .safetensors)")
    checkpoint.add_argument("target", type=Path, help=".safetensors file to write")
    checkpoint.add_argument("--half", action="store_true", help="write matrices and kernels in fp16: half the size")
    checkpoint.add_argument(
        "--entry",
        default="",
        help="entry of the file that holds the weights, such as ema_state_dict (default: the usual ones; "
        "'inspect checkpoint' lists entries)",
    )
    checkpoint.set_defaults(run=_convert_checkpoint)


def _convert_checkpoint(options: argparse.Namespace) -> int:
    from aqr_perception.models import build_model, load_checkpoint
    from aqr_perception.models.weights.checkpoint import save_checkpoint

    model = build_model(options.model)
    load_checkpoint(model, options.source, options.entry)
    save_checkpoint(model, options.target, options.half)
    print(options.target)
    return 0
