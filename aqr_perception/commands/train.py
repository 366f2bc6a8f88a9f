"""Command ``aqr_perception train``: training of a preset's model."""

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aqr_perception.commands.model_option import add_model

if TYPE_CHECKING:
    from aqr_perception.data.frames import TrainingFrames
    from aqr_perception.data.sources.catalogue import Data, Split
    from aqr_perception.models.detection_model import DetectionModel
    from aqr_perception.training.training_options import TrainOptions

_RUNS = Path("runs")

_log = logging.getLogger(__name__)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    train = commands.add_parser(
        "train",
        help="train a model",
        description="Train the model of a preset. On several GPUs: torchrun --nproc-per-node N -m aqr_perception.cli "
        "train ...",
    )
    _add_model(train)
    data = train.add_argument_group("data")
    add_data(data)
    data.add_argument("--no-augmentation", action="store_true", help="no random augmentation of frames")
    data.add_argument(
        "--keep-pictures",
        action="store_true",
        help="augment points, boxes and extrinsics, but no picture; mirror no frame with cameras; for --feature-cache",
    )
    data.add_argument(
        "--feature-cache",
        type=Path,
        metavar="FOLDER",
        help="store the feature maps of a frozen image backbone in this folder (about 0.1 MB a picture), so that a "
        "picture runs through it once; of use with --keep-pictures or --no-augmentation",
    )
    data.add_argument("--no-corruption", action="store_true", help="no simulated sensor failures")
    data.add_argument(
        "--history", type=int, default=2, help="earlier frames for models with memory (default: %(default)s)"
    )
    data.add_argument("--workers", type=int, default=2, help="processes that prepare frames (default: %(default)s)")
    length = train.add_argument_group("length (one of these)")
    length.add_argument("--steps", type=int, help="optimiser steps")
    length.add_argument("--epochs", type=float, help="passes over the data (default: 20)")
    length.add_argument("--minutes", type=float, help="wall-clock time, including the time before a resume")
    _add_optimisation(train.add_argument_group("optimisation"))
    train.set_defaults(run=_train)


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
    train.add_argument("--output", type=Path, help="folder of the run (default: runs/MODEL)")
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
    add_world(data)
    data.add_argument("--frames", type=int, help="largest number of frames (default: all; synthetic: 8000)")


def add_world(command: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Add the version of the simulated world."""
    command.add_argument(
        "--world",
        type=int,
        choices=(1, 2),
        help="simulated world: 1, in which the shipped weights were trained, or 2 (in preparation: no weights yet), "
        "with weather, night, slopes, random sensor rigs and more kinds of objects (default: 1)",
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
    from functools import partial

    # The imports below take seconds.
    _log.info("loading PyTorch and the model %s", options.model)
    from aqr_perception.data.sequences import TrainingSequences, collate_sequences
    from aqr_perception.training.loop import train
    from aqr_perception.training.losses.detection_loss import DetectionLoss
    from aqr_perception.training.validation import Validation

    model = _model(options)
    data = _data(options, "train", model, options.frames)
    if options.feature_cache is not None:
        _cache_features(options, model)
    validate = None
    if options.validate_every:
        held_out = _data(options, "val", model, options.validation_frames)
        validate = Validation(held_out.frames, options.history)
    outcome = train(
        model,
        TrainingSequences(_training_frames(options, data, model), options.history if model.remembers else 0),
        partial(collate_sequences, preset=model.preset),
        DetectionLoss(
            _router_weight(options, model),
            options.denoising_queries,
            options.train,
            router_gradient=options.router_gradient,
        ),
        _train_options(options),
        options.output or _RUNS / Path(options.model).stem,
        resume=options.resume,
        label_sets=data.label_sets,
        validate=validate,
    )
    print(outcome.message)
    return 0


def _model(options: argparse.Namespace) -> "DetectionModel":
    """Return the model with the weights to start from."""
    from aqr_perception.models import build_model, load_checkpoint
    from aqr_perception.models.image.pretrained import load_backbone
    from aqr_perception.models.weights.branches import load_branches

    model = build_model(options.model)
    if options.checkpoint is not None:
        load_checkpoint(model, options.checkpoint)
    if options.backbone is not None:
        load_backbone(model, options.backbone)
    if options.branches is not None:
        load_branches(model, options.branches)
    mode = options.aqr
    if mode == "preset":
        mode = model.preset.aqr.mode
        # Published presets have no mode for a router.
        if options.train == "aqr" and mode == "off" and model.router_supervised:
            mode = "both"
    has_router = any(name.startswith(model.optional_router) for name, _ in model.named_parameters())
    if options.checkpoint is not None and has_router and not model.router_trained and mode != "off":
        _log.info("the training starts with an untrained query router and AQR mode %s", mode)
    model.aqr_options = dataclasses.replace(model.aqr_options, mode=mode)
    model.router_trained = mode != "off"
    problem = model.aqr_problem(model.aqr_options)
    if problem is not None:
        raise ValueError(f"--aqr {options.aqr}: {problem}. To train one, set the mode in a copy of the preset")
    return model


def _cache_features(options: argparse.Namespace, model: "DetectionModel") -> None:
    from aqr_perception.models.fusion_model import FusionModel
    from aqr_perception.models.image.backbone_cache import BackboneCache
    from aqr_perception.options import OptionError
    from aqr_perception.training.trainable import freeze

    if not isinstance(model, FusionModel) or model.preset.image is None:
        raise OptionError(f"--feature-cache needs a model of CMT's kind with cameras, but {options.model} is none")
    freeze(model, options.train, _by_part(options.learning_rate_factors or ()))
    if any(parameter.requires_grad for parameter in model.img_backbone.parameters()):
        raise OptionError(
            "--feature-cache keeps the maps of an image backbone that does not change, but this training changes it: "
            "freeze it (--learning-rate-factor img_backbone=0), or leave --feature-cache out"
        )
    model.backbone_cache = BackboneCache(options.feature_cache, model.img_backbone)


def _router_weight(options: argparse.Namespace, model: "DetectionModel") -> float:
    """Return the weight of the router loss; say once if the model has none although one is asked for."""
    if options.router_gradient == "health" and (options.router_weight == 0 or not model.router_supervised):
        raise ValueError(
            "--router-gradient health: nothing trains the router, because "
            + ("--router-weight is 0" if model.router_supervised else f"{model.preset.name} has no router loss")
            + "; use --router-gradient detection, or another weight or model"
        )
    if model.router_supervised:
        return 1.0 if options.router_weight is None else float(options.router_weight)
    if options.router_weight:
        _log.warning(
            "--router-weight %g has no effect: the query weights of %s are not trained towards the health of the "
            "sensors, but by the detections alone, as in the research code",
            options.router_weight,
            model.preset.name,
        )
    return 0.0


def _data(options: argparse.Namespace, part: "Split", model: "DetectionModel", frames: int | None) -> "Data":
    from aqr_perception.data.sources.catalogue import open_data

    return open_data(
        options.data,
        part,
        model.preset,
        options.data_root,
        frames,
        options.data_version,
        rig=options.rig,
        skip_bad=options.skip_bad,
        world=options.world,
    )


def _training_frames(options: argparse.Namespace, data: "Data", model: "DetectionModel") -> "TrainingFrames":
    """Return the frames with augmentation and sensor failures for training."""
    from aqr_perception.data.frames import TrainingFrames

    return TrainingFrames(
        data.frames,
        model.preset,
        augment=not options.no_augmentation,
        keep_pictures=options.keep_pictures,
        corrupted=not options.no_corruption,
        grid_mask=not options.no_augmentation,
        cameras=options.train != "lidar-branch",
        lidar=options.train != "camera-branch",
    )


def _train_options(options: argparse.Namespace) -> "TrainOptions":
    from aqr_perception.training.training_options import TrainOptions

    names = {field.name for field in dataclasses.fields(TrainOptions)}
    values = {name: value for name, value in vars(options).items() if name in names}
    values["learning_rate_factors"] = _by_part(options.learning_rate_factors or ())
    if values["steps"] is None and values["minutes"] is None and values["epochs"] is None:
        values["epochs"] = 20.0
    return TrainOptions(**values)


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
