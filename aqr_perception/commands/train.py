# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Command ``aqr_perception train``: training of a preset's model."""

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aqr_perception.commands.model_option import add_model

if TYPE_CHECKING:
    from aqr_perception.training.plan.training_settings import TrainingSettings

_RUNS = Path("runs")
_INTERRUPTED = 130
"""Exit status of a plan that was stopped, as of programs that Ctrl-C ends."""
_WITH_PLAN = ("--plan", "--output", "--resume", "--status", "--restart")
"""Flags that may stand beside --plan; a plan always resumes."""

_log = logging.getLogger(__name__)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    train = commands.add_parser(
        "train",
        help="train a model",
        description="Train the model of a preset, or all stages of a plan. On several GPUs: "
        "torchrun --nproc-per-node N -m aqr_perception.cli train ...",
    )
    _add_plan(train.add_argument_group("several stages"))
    _add_model(train)
    data = train.add_argument_group("data")
    add_data(data)
    data.add_argument("--no-augmentation", action="store_true", help="no random augmentation of frames")
    data.add_argument(
        "--keep-pictures",
        action="store_true",
        help="augment points, boxes and extrinsics, but pictures only by mirroring whole frames; for --feature-cache",
    )
    data.add_argument(
        "--vary-points",
        action="store_true",
        help="also thin out the points and vary the intensities of objects and points, for LiDARs of other kinds",
    )
    data.add_argument(
        "--feature-cache",
        type=Path,
        metavar="FOLDER",
        help="store the feature maps of a frozen image backbone, or of its frozen early stages, in this folder (about "
        "0.1 MB a picture), so that a picture runs through them once; of use with --keep-pictures or --no-augmentation",
    )
    data.add_argument(
        "--donors",
        type=int,
        default=0,
        metavar="N",
        help="paste objects of N other frames into each point cloud, of classes of which it has few; only for "
        "--train lidar-branch and models without cameras (default: %(default)s)",
    )
    data.add_argument("--no-corruption", action="store_true", help="no simulated sensor failures")
    data.add_argument(
        "--remove-broken",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="remove sensors that failures break as a whole, in this share of the frames, so that the decoder copes "
        "with what a gate leaves (default: %(default)s)",
    )
    data.add_argument(
        "--history", type=int, default=2, help="earlier frames for models with memory (default: %(default)s)"
    )
    data.add_argument("--workers", type=int, default=2, help="processes that prepare frames (default: %(default)s)")
    length = train.add_argument_group("length (one of these)")
    length.add_argument("--steps", type=int, help="optimiser steps")
    length.add_argument("--epochs", type=float, help="passes over the data (default: 20)")
    length.add_argument("--minutes", type=float, help="wall-clock time, including the time before a resume")
    _add_optimisation(train.add_argument_group("optimisation"))
    train.set_defaults(run=_train, training_flags=partial(_given_flags, train))


def _given_flags(train: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """Return the flags with other values than their defaults."""
    flags: dict[str, str] = {}
    for action in train._actions:
        if action.option_strings:
            flags.setdefault(action.dest, action.option_strings[0])  # other names of an option come after it
    values = vars(options)
    return sorted(flag for name, flag in flags.items() if name in values and values[name] != train.get_default(name))


def _add_plan(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--plan",
        metavar="FILE",
        help="run the stages of a plan one after another: a .yaml file, or the name of one in config/training. After "
        "Ctrl-C, a crash or a power failure, the same command continues. The plan has all settings; only --output, "
        "--status and --restart may be added",
    )
    group.add_argument(
        "--status",
        "--dry-run",
        action="store_true",
        help="check the plan, and show its stages and how far each has come, without running anything",
    )
    group.add_argument(
        "--restart",
        action="append",
        metavar="STAGE",
        help="start a stage anew, with all stages that build on it; their files move to earlier/; repeatable",
    )


def _add_model(train: argparse.ArgumentParser) -> None:
    add_model(train)
    start = train.add_mutually_exclusive_group()
    start.add_argument("--checkpoint", type=Path, help="weights to start from; may lack the router's")
    start.add_argument(
        "--backbone",
        type=Path,
        help="pretrained weights of the image backbone: timm's, DINOv2's, torchvision's or a detector's",
    )
    train.add_argument(
        "--branches",
        type=Path,
        help="weights of another model with the same image or point branch, including proposals; its branches "
        "replace those of --checkpoint",
    )
    train.add_argument("--output", type=Path, help="folder of the run (default: runs/MODEL, or runs/PLAN)")
    train.add_argument("--resume", action="store_true", help="continue the run in the folder")
    train.add_argument(
        "--train",
        choices=("all", "aqr", "branches", "camera-branch", "lidar-branch", "head"),
        default="all",
        help="parameters to train: all; aqr: the router; branches: image and point branch with their proposals, "
        "without the decoder; camera-branch or lidar-branch: one branch, with only its sensor's data; head: all but "
        "the branches (default: all)",
    )
    train.add_argument(
        "--aqr",
        choices=("preset", "off", "modulation", "bias", "both", "gate"),
        default="preset",
        help="how the model uses query weights; off trains no router (default: as in the preset; with --train aqr "
        "both if the preset has none)",
    )


def add_data(data: argparse._ArgumentGroup, also: str = "") -> None:
    """Add the options of `data.sources.catalogue.open_data`; `also` names further data that the command knows."""
    data.add_argument(
        "--data", default="synthetic", help=f"synthetic, nuscenes, recordings{also} or bags (default: %(default)s)"
    )
    data.add_argument("--data-root", type=Path, help="folder of the data; for synthetic, the folder of drawn frames")
    data.add_argument("--data-version", default="v1.0-trainval", help="nuScenes version (default: %(default)s)")
    data.add_argument(
        "--rig",
        type=Path,
        help="rig file: sensors and classes of your own data, in the format of the node's parameter files "
        "(default: what the data shows)",
    )
    data.add_argument("--skip-bad", action="store_true", help="leave out records that cannot be used, and count them")
    add_world(data, default=2)
    data.add_argument("--frames", type=int, help="largest number of frames (default: all; synthetic: 8000)")


def add_world(command: "argparse.ArgumentParser | argparse._ArgumentGroup", default: int) -> None:
    """Add the version of the simulated world; the help names what None stands for."""
    command.add_argument(
        "--world",
        type=int,
        choices=(1, 2),
        help="simulated world: 1, or 2, in which the shipped weights were trained, with weather, night, slopes, random "
        f"sensor rigs and more kinds of objects (default: {default})",
    )


def _add_optimisation(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batch-size", type=int, default=2, help="frames per process (default: %(default)s)")
    group.add_argument("--accumulate", type=int, default=1, help="batches per step (default: %(default)s)")
    group.add_argument("--learning-rate", type=float, default=4e-4, help="highest learning rate (default: %(default)s)")
    group.add_argument(
        "--backbone-factor",
        type=float,
        default=1.0,
        help="learning rate of the image backbone relative to the rest; multiplies the backbone's learning-rate "
        "factors (default: 1)",
    )
    group.add_argument(
        "--learning-rate-factor",
        action="append",
        type=_part_factor,
        dest="learning_rate_factors",
        metavar="PART=F",
        help="learning rate of a part of the model relative to the schedule, in place of the preset's; 0 freezes the "
        "part; repeatable, for example --learning-rate-factor img_neck=0.05",
    )
    group.add_argument(
        "--schedule",
        choices=("one_cycle", "cosine", "constant"),
        default="one_cycle",
        help="schedule of the learning rate (default: %(default)s)",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    group.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    group.add_argument("--overfit", action="store_true", help="repeat one batch, to check that the model can learn")
    group.add_argument(
        "--denoising-queries",
        type=int,
        help="largest number of denoising queries; 0 for none (default: number of learned queries)",
    )
    group.add_argument(
        "--router-weight",
        type=float,
        help="weight of the router loss (default: 1, and 0 for the research code's AQR, which has no such loss)",
    )
    group.add_argument(
        "--router-gradient",
        choices=("both", "health", "detection"),
        default="both",
        help="what the router learns from: health of the sensors (the router loss), detections, or both "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--ema-decay", type=float, default=0.999, help="decay of the averaged weights (default: %(default)s)"
    )
    group.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: %(default)s)")
    group.add_argument(
        "--checkpoint-every", type=int, default=500, help="steps between checkpoints (default: %(default)s)"
    )
    group.add_argument(
        "--validate-every", type=int, default=0, help="steps between validations; 0 for none (default: %(default)s)"
    )
    group.add_argument(
        "--validation-frames", type=int, default=50, help="frames of a validation (default: %(default)s)"
    )


def _train(options: argparse.Namespace) -> int:
    if options.plan is not None:
        return _run_plan(options)
    for name, given in (("--status", options.status), ("--restart", options.restart)):
        if given:
            raise ValueError(f"{name} is for plans only: give --plan, or leave it out")
    # The imports below take seconds.
    _log.info("loading PyTorch and the model %s", options.model)
    from aqr_perception.training.plan.single_training import run_training

    outcome = run_training(
        _settings(options), options.output or _RUNS / Path(options.model).stem, resume=options.resume
    )
    print(outcome.message)
    return 0


def _settings(options: argparse.Namespace) -> "TrainingSettings":
    """Return the settings that flags give."""
    from aqr_perception.training.plan.training_settings import TrainingSettings

    names = {field.name for field in dataclasses.fields(TrainingSettings)}
    values = {name: value for name, value in vars(options).items() if name in names}
    values["learning_rate_factors"] = _by_part(options.learning_rate_factors or ())
    values["augmentation"], values["corruption"] = not options.no_augmentation, not options.no_corruption
    if values["steps"] is None and values["minutes"] is None and values["epochs"] is None:
        values["epochs"] = 20.0
    return TrainingSettings(**values)


def _run_plan(options: argparse.Namespace) -> int:
    from aqr_perception.training.plan.plan_file import plan_path, read_plan

    without_effect = [flag for flag in options.training_flags(options) if flag not in _WITH_PLAN]
    if without_effect:
        raise ValueError(
            f"{', '.join(without_effect)} cannot be given with --plan: write the settings of trainings into the plan"
        )
    plan = read_plan(plan_path(options.plan))
    folder = options.output or _RUNS / plan.name
    # The imports below take seconds.
    _log.info("loading PyTorch and the models of %s", plan.path)
    from aqr_perception.training.plan.plan_run import run_plan, show_plan

    if options.status:
        table, problem = show_plan(plan, folder, options.restart or ())
        print(table)
        if problem is not None:
            raise ValueError(problem)
        return 0
    outcome = run_plan(plan, folder, options.restart or ())
    print(outcome.message)
    return 0 if outcome.finished else _INTERRUPTED


def _part_factor(text: str) -> tuple[str, float]:
    """Return the part and the factor of ``PART=F``."""
    part, separator, factor = text.partition("=")
    try:
        if not (part and separator):
            raise ValueError
        return part, float(factor)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, needed PART=F, as in img_neck=0.05") from None


def _by_part(pairs: Sequence[tuple[str, float]]) -> dict[str, float]:
    by_part = dict(pairs)
    for part, factor in pairs:
        if factor != by_part[part]:
            raise ValueError(
                f"--learning-rate-factor gives {part} the factors {factor:g} and {by_part[part]:g}: give one"
            )
    return by_part
