# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception simulate``: the simulated world as bags, pictures or training frames."""

import argparse
import logging
from pathlib import Path

from aqr_perception.commands.model_option import add_alias, add_model
from aqr_perception.commands.train import add_world

_log = logging.getLogger(__name__)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    simulate = commands.add_parser(
        "simulate",
        help="drive through a simulated world",
        description="Render scenes of a small simulated world with six cameras and a 32-beam LiDAR, or with --world 2 "
        "with a random rig of one to six cameras and a LiDAR of 16 to 128 beams.",
    ).add_subparsers(required=True, metavar="WHAT")

    bag = simulate.add_parser("bag", help="a drive as a rosbag2 file, with the true objects")
    bag.add_argument("path", type=Path, help="NAME.mcap, NAME.db3, or the name of a folder")
    bag.add_argument("--seconds", type=float, default=20.0, help="length of the drive (default: %(default)s)")
    bag.add_argument("--rate", type=float, default=10.0, help="sweeps, and images per camera, per second (default: 10)")
    bag.add_argument("--raw", action="store_true", help="sensor_msgs/Image instead of CompressedImage")
    bag.add_argument(
        "--storage", choices=("mcap", "sqlite3"), default="mcap", help="storage of a folder (default: mcap)"
    )
    _add_scene(bag)
    bag.set_defaults(run=_bag)

    picture = simulate.add_parser("picture", help="one frame with its true boxes, as a PNG")
    picture.add_argument("path", type=Path, help="PNG file to write")
    picture.add_argument("--time", type=float, default=1.0, help="seconds since the start (default: %(default)s)")
    _add_scene(picture)
    picture.set_defaults(run=_picture)

    frames = simulate.add_parser(
        "frames",
        help="render training frames in advance",
        description="Render and cache training frames, which a training would otherwise render at their first use.",
    )
    frames.add_argument("--count", type=int, default=2000, help="number of training frames (default: %(default)s)")
    add_world(frames, default=2)
    add_model(frames, ", for the image size")
    frames.add_argument(
        "--data-root",
        type=Path,
        help="folder of the drawn frames, as in train and evaluate (default: ~/.cache/aqr_perception/synthetic)",
    )
    add_alias(frames, "--cache", "data_root")
    frames.add_argument("--workers", type=int, default=2, help="worker processes (default: %(default)s)")
    frames.set_defaults(run=_frames)


def _add_scene(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=int, default=0, help="seed of the scene (default: %(default)s)")
    command.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(704, 256),
        metavar=("WIDTH", "HEIGHT"),
        help="size of the images in pixels (default: 704 256)",
    )
    add_world(command, default=1)
    command.add_argument("--samples", type=int, default=1, help="rays along a pixel's edge (default: %(default)s)")


def _bag(options: argparse.Namespace) -> int:
    from aqr_perception.simulator.bag import write_bag
    from aqr_perception.simulator.drive import draw_drive, world_rig

    world = options.world or 1
    rig = world_rig(world, options.seed, tuple(options.size))
    drive = draw_drive(options.seed, options.seconds, rig, world, samples=options.samples)
    written = write_bag(
        drive, options.path, options.seconds, rate=options.rate, raw=options.raw, storage=options.storage
    )
    print(written)
    return 0


def _picture(options: argparse.Namespace) -> int:
    import cv2

    from aqr_perception.simulator.drive import draw_drive, world_rig
    from aqr_perception.visualization.truth_picture import truth_picture

    world = options.world or 1
    rig = world_rig(world, options.seed, tuple(options.size))
    labelled = draw_drive(options.seed, options.time + 1.0, rig, world, samples=options.samples).frame(options.time)
    if not cv2.imwrite(str(options.path), truth_picture(labelled)):
        raise OSError(f"{options.path}: cannot be written; give a name ending in .png in an existing folder")
    print(options.path)
    return 0


def _frames(options: argparse.Namespace) -> int:
    # The imports below take seconds.
    _log.info("loading PyTorch")
    from aqr_perception.data.sources.simulated import (
        TRAINING_WORLD,
        SimulatedDataset,
        accumulated_sweeps,
        default_cache,
        training_seeds,
    )
    from aqr_perception.models.config.presets import load_preset
    from aqr_perception.training.plan.frame_drawing import draw_frames

    preset = load_preset(options.model)
    if preset.image is None:
        raise ValueError(
            f"model {options.model!r} has no cameras, but training frames need an image size; choose another model"
        )
    cache = Path(options.data_root) if options.data_root else default_cache()
    sweeps, interval = accumulated_sweeps(preset)
    data = SimulatedDataset(
        training_seeds(options.count),
        preset.image.size,
        sweeps,
        cache,
        world=options.world or TRAINING_WORLD,
        sweep_interval=interval,
    )
    draw_frames(data, options.workers)
    print(cache)
    return 0
