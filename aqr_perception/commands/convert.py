# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception convert``: recorded data to bags, and published checkpoints to safetensors."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

_SUBJECTS = ("checkpoint", "recording")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    convert = commands.add_parser(
        "convert",
        help="recorded data -> rosbag2; checkpoints -> safetensors",
        description="Convert recorded data (SET OUT.mcap) or a published checkpoint.",
        usage="aqr_perception convert SET OUT.mcap [options]\n"
        "       aqr_perception convert checkpoint MODEL SOURCE TARGET [options]",
    ).add_subparsers(required=True, metavar="WHAT")
    _add_recording(convert)
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


def with_subject(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the command line with ``convert SET OUT`` completed to ``convert recording SET OUT``."""
    if list(arguments[:1]) != ["convert"] or len(arguments) < 2 or arguments[1] in (*_SUBJECTS, "-h", "--help"):
        return list(arguments)
    return ["convert", "recording", *arguments[1:]]


def _add_recording(convert: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    recording = convert.add_parser(
        "recording",
        help="recorded drive -> rosbag2 and a parameter file; the word 'recording' may be left out",
        usage="aqr_perception convert SET OUT.mcap [options]",
        description="Write a recorded drive as a rosbag2: images (byte for byte) with calibration, sweeps, the "
        "vehicle's motion and the sensors' places as TF, and the labels as vision_msgs/Detection3DArray on "
        "/ground_truth/detections and with velocities on /ground_truth/objects. Beside it, OUT.yaml holds the node's "
        "parameters for this bag. The layout of SET is recognised by its files.",
        epilog="Then run: ros2 launch aqr_perception bag.launch.py bag:=OUT.mcap config:=OUT.yaml",
    )
    recording.add_argument(
        "source",
        type=Path,
        metavar="SET",
        help="folder of nuScenes tables, of KITTI raw, of a DDAD (DGP) scene, or of keyframes (keyframe.json)",
    )
    recording.add_argument(
        "target", type=Path, metavar="OUT", help="bag to write: .mcap, .db3, or a folder's name; must not exist"
    )
    recording.add_argument("--scene", help="name of the scene, where SET holds several (nuScenes: scene-0103)")
    recording.add_argument("--data-version", help="folder of the nuScenes tables, where SET holds several")
    recording.add_argument(
        "--model",
        default="aqr_tiny",
        help="preset that the parameter file is for; the bag gets a TF frame at the height and with the axes of its "
        "training (default: %(default)s)",
    )
    recording.set_defaults(run=_convert_recording)


def _convert_recording(options: argparse.Namespace) -> int:
    from aqr_perception.data.recordings.node_parameters import node_parameters
    from aqr_perception.data.recordings.recognition import open_recording
    from aqr_perception.data.recordings.recording_bag import vehicle_frames, write_recording
    from aqr_perception.models.config.presets import load_preset

    preset = load_preset(options.model)
    parameters = options.target.with_suffix(".yaml")
    if parameters.exists():
        raise ValueError(f"{parameters}: found an existing file, needed a new name for the parameters; remove it")
    recording = open_recording(options.source, options.scene, options.data_version)
    frames, notes = vehicle_frames(recording, preset.model_frame)
    write_recording(recording, options.target, frames, progress=sys.stderr.isatty())
    parameters.write_text(node_parameters(recording, options.model, preset.sweeps, frames))
    for note in (*recording.notes, *notes):
        print(f"note: {note}", file=sys.stderr)
    print(options.target)
    print(parameters)
    return 0


def _convert_checkpoint(options: argparse.Namespace) -> int:
    from aqr_perception.models import build_model, load_checkpoint
    from aqr_perception.models.weights.checkpoint import save_checkpoint

    model = build_model(options.model)
    load_checkpoint(model, options.source, options.entry)
    save_checkpoint(model, options.target, options.half)
    print(options.target)
    return 0
