"""``aqr_perception train``."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aqr_perception.training.training_options import TrainOptions

_RUNS = Path("runs")


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    train = commands.add_parser(
        "train",
        help="train a model",
        description="Train a preset's model. Several GPUs: torchrun --nproc-per-node N -m aqr_perception.cli train ...",
    )
    train.add_argument("--preset", default="aqr_tiny", help="preset name or .yaml path (default: %(default)s)")
    start = train.add_mutually_exclusive_group()
    start.add_argument("--checkpoint", type=Path, help="weights to start from; a router may be missing")
    start.add_argument(
        "--backbone", type=Path, help="pretrained image backbone alone: timm's, DINOv2's, torchvision's or a detector's"
    )
    train.add_argument(
        "--branches",
        type=Path,
        help="another model's weights, of which the image and point branch and their proposals are taken over, those "
        "that this model has too; instead of the same parts of --checkpoint",
    )
    train.add_argument("--output", type=Path, help="folder of the run (default: runs/PRESET)")
    train.add_argument("--resume", action="store_true", help="go on where the run in the folder stopped")
    train.add_argument(
        "--train",
        choices=("all", "aqr", "branches", "camera-branch", "lidar-branch", "head"),
        default="all",
        help="everything; the router alone; the branches with their proposals, without the decoder; one of them, which "
        "sees its own sensor alone; or what comes after the branches (default: all)",
    )
    train.add_argument(
        "--aqr",
        choices=("preset", "off", "modulation", "bias", "both"),
        default="preset",
        help="how the model uses query weights; off trains no router (default: the preset's, both with --train aqr)",
    )

    data = train.add_argument_group("data")
    add_data(data)
    data.add_argument("--no-augmentation", action="store_true", help="frames as they are")
    data.add_argument("--no-corruption", action="store_true", help="no sensor fails on purpose")
    data.add_argument(
        "--history", type=int, default=2, help="earlier frames for models that remember (default: %(default)s)"
    )
    data.add_argument("--workers", type=int, default=2, help="processes that prepare frames (default: %(default)s)")

    length = train.add_argument_group("length (one of them)")
    length.add_argument("--steps", type=int, help="optimiser steps")
    length.add_argument("--epochs", type=float, help="passes over the data (default: 20)")
    length.add_argument("--minutes", type=float, help="of wall clock, those before a resume included")

    how = train.add_argument_group("how")
    how.add_argument("--batch-size", type=int, default=2, help="frames of a process (default: %(default)s)")
    how.add_argument("--accumulate", type=int, default=1, help="batches of one step (default: %(default)s)")
    how.add_argument("--learning-rate", type=float, default=4e-4, help="highest (default: %(default)s)")
    how.add_argument("--backbone-factor", type=float, default=1.0, help="of the image backbone's rate (default: 1)")
    how.add_argument("--schedule", choices=("one_cycle", "cosine", "constant"), default="one_cycle")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    how.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    how.add_argument("--shard", action="store_true", help="split the model over the processes (FSDP)")
    how.add_argument("--overfit", action="store_true", help="one batch again and again: shows that it can learn")
    how.add_argument(
        "--denoising-queries", type=int, help="most denoising queries; 0 for none (default: as many as learned ones)"
    )
    how.add_argument("--router-weight", type=float, default=1.0, help="of the router's own loss (default: 1)")
    how.add_argument("--ema-decay", type=float, default=0.999, help="of the averaged weights (default: %(default)s)")
    how.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    how.add_argument("--checkpoint-every", type=int, default=500, help="steps (default: %(default)s)")
    how.add_argument("--validate-every", type=int, default=0, help="steps; 0 for never (default: %(default)s)")
    how.add_argument("--validation-frames", type=int, default=50, help="(default: %(default)s)")
    train.set_defaults(run=_train)


def add_data(data: argparse._ArgumentGroup) -> None:
    """Add what `training.data.sources.open_data` needs."""
    data.add_argument("--data", default="synthetic", help="synthetic, nuscenes or bags (default: %(default)s)")
    data.add_argument("--data-root", type=Path, help="its folder; for synthetic, where drawn frames are kept")
    data.add_argument("--data-version", default="v1.0-trainval", help="nuScenes version (default: %(default)s)")
    data.add_argument("--frames", type=int, help="use so many at most")


def _train(options: argparse.Namespace) -> int:
    from functools import partial

    from aqr_perception.data.frames import TrainingFrames
    from aqr_perception.data.sequences import TrainingSequences, collate_sequences
    from aqr_perception.data.sources.catalogue import open_data
    from aqr_perception.models import build_model, load_checkpoint
    from aqr_perception.models.image.pretrained import load_backbone
    from aqr_perception.models.weights.branches import load_branches
    from aqr_perception.training.loop import train
    from aqr_perception.training.step import DetectionLoss
    from aqr_perception.training.validation import Validation

    model = build_model(options.preset)
    if options.checkpoint is not None:
        load_checkpoint(model, options.checkpoint)
    if options.backbone is not None:
        load_backbone(model, options.backbone)
    if options.branches is not None:
        load_branches(model, options.branches)
    mode = options.aqr
    if mode == "preset":
        mode = "both" if options.train == "aqr" else model.preset.aqr.mode
    model.aqr_options = dataclasses.replace(model.aqr_options, mode=mode)
    model.router_trained = mode != "off"

    root, version = options.data_root, options.data_version
    data = open_data(options.data, "train", model.preset, root, options.frames, version)
    frames = TrainingFrames(
        data.frames,
        model.preset,
        augment=not options.no_augmentation,
        corrupted=not options.no_corruption,
        grid_mask=not options.no_augmentation,
        cameras=options.train != "lidar-branch",
        lidar=options.train != "camera-branch",
    )
    validate = None
    if options.validate_every:
        held_out = open_data(options.data, "val", model.preset, root, options.validation_frames, version)
        validate = Validation(held_out.frames, options.history)
    outcome = train(
        model,
        TrainingSequences(frames, options.history if model.remembers else 0),
        partial(collate_sequences, preset=model.preset),
        DetectionLoss(options.router_weight, options.denoising_queries, options.train),
        _train_options(options),
        options.output or _RUNS / Path(options.preset).stem,
        resume=options.resume,
        label_sets=data.label_sets,
        validate=validate,
    )
    print(outcome.sentence)
    return 0


def _train_options(options: argparse.Namespace) -> "TrainOptions":
    from aqr_perception.training.training_options import TrainOptions

    names = {field.name for field in dataclasses.fields(TrainOptions)}
    values = {name: value for name, value in vars(options).items() if name in names}
    if values["steps"] is None and values["minutes"] is None and values["epochs"] is None:
        values["epochs"] = 20.0
    return TrainOptions(**values)
