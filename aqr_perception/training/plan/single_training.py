# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""One training with its files: from settings to the call of the training loop."""

import dataclasses
import logging
from functools import partial
from pathlib import Path

from aqr_perception.data.frames import TrainingFrames
from aqr_perception.data.sequences import TrainingSequences, collate_sequences
from aqr_perception.data.sources.catalogue import Data, Split, open_data
from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.fusion_model import FusionModel
from aqr_perception.models.image.backbone_cache import BackboneCache, frozen_part
from aqr_perception.models.image.pretrained import load_backbone
from aqr_perception.models.weights.branches import load_branches
from aqr_perception.options import OptionError
from aqr_perception.training import loop
from aqr_perception.training.losses.detection_loss import DetectionLoss
from aqr_perception.training.plan.training_settings import TrainingSettings
from aqr_perception.training.trainable import freeze
from aqr_perception.training.validation import Validation

_log = logging.getLogger(__name__)


def run_training(settings: TrainingSettings, folder: Path, *, resume: bool) -> loop.Outcome:
    """Train with the files and data that settings name; see `loop.train`.

    Args:
        settings: see `TrainingSettings`.
        folder: folder of all files of the training.
        resume: continue from the newest checkpoint in the folder.

    Raises:
        ValueError, OSError: a setting, a file or the data cannot be used; the message says which.
    """
    model = starting_model(settings)
    data = training_data(settings, "train", model)
    if settings.feature_cache is not None:
        model_with_cache = require_frozen_backbone(settings, model)
        model_with_cache.backbone_cache = BackboneCache(settings.feature_cache, model_with_cache.img_backbone)
    validate = None
    if settings.validate_every:
        validate = Validation(training_data(settings, "val", model).frames, settings.history)
    return loop.train(
        model,
        TrainingSequences(training_frames(settings, data, model), settings.history if model.remembers else 0),
        partial(collate_sequences, preset=model.preset),
        DetectionLoss(
            _router_weight(settings, model),
            settings.denoising_queries,
            settings.train,
            router_gradient=settings.router_gradient,
        ),
        settings.options(),
        folder,
        resume=resume,
        label_sets=data.label_sets,
        validate=validate,
    )


def starting_model(settings: TrainingSettings) -> DetectionModel:
    """Return the model with the weights to start from, and its use of the query weights."""
    model = build_model(settings.model)
    if settings.checkpoint is not None:
        load_checkpoint(model, settings.checkpoint)
    if settings.backbone is not None:
        load_backbone(model, settings.backbone)
    if settings.branches is not None:
        load_branches(model, settings.branches)
    mode = settings.aqr
    has_router = any(name.startswith(model.optional_router) for name, _ in model.named_parameters())
    if mode == "preset":
        chosen = model.preset.aqr.mode
        # Published presets have no mode for a router.
        if settings.train == "aqr" and chosen == "off" and model.router_supervised:
            chosen = "both"
    else:
        chosen = mode
    if settings.checkpoint is not None and has_router and not model.router_trained and chosen != "off":
        _log.info("the training starts with an untrained query router and AQR mode %s", chosen)
    model.aqr_options = dataclasses.replace(model.aqr_options, mode=chosen)
    model.router_trained = chosen != "off"
    problem = model.aqr_problem(model.aqr_options)
    if problem is not None:
        raise OptionError(f"--aqr {settings.aqr}: {problem}. To train one, set the mode in a copy of the preset")
    return model


def training_data(settings: TrainingSettings, split: Split, model: DetectionModel) -> Data:
    """Return the data of the training or of its validation."""
    return open_data(
        settings.data,
        split,
        model.preset,
        settings.data_root,
        settings.frames if split == "train" else settings.validation_frames,
        settings.data_version,
        rig=settings.rig,
        skip_bad=settings.skip_bad,
        world=settings.world,
    )


def require_frozen_backbone(settings: TrainingSettings, model: DetectionModel) -> FusionModel:
    """Return the model if the maps of its image backbone, or of its early stages, can be cached.

    Freezes what is not trained.

    Raises:
        OptionError: the model has no image backbone, or the training changes its early stages.
    """
    if not isinstance(model, FusionModel) or model.preset.image is None:
        raise OptionError(f"--feature-cache needs a model of CMT's kind with cameras, but {settings.model} is none")
    freeze(model, settings.train, settings.learning_rate_factors)
    try:
        frozen_part(model.img_backbone)
    except ValueError as error:
        raise OptionError(
            "--feature-cache keeps the maps of an image backbone that does not change, but this training changes it: "
            f"{error}"
        ) from error
    return model


def _router_weight(settings: TrainingSettings, model: DetectionModel) -> float:
    """Return the weight of the router loss; say once if the model has none although one is asked for."""
    if settings.router_gradient == "health" and (settings.router_weight == 0 or not model.router_supervised):
        raise OptionError(
            "--router-gradient health: nothing trains the router, because "
            + ("--router-weight is 0" if model.router_supervised else f"{model.preset.name} has no router loss")
            + "; use --router-gradient detection, or another weight or model"
        )
    if model.router_supervised:
        return 1.0 if settings.router_weight is None else settings.router_weight
    if settings.router_weight:
        _log.warning(
            "--router-weight %g has no effect: the query weights of %s are not trained towards the health of the "
            "sensors, but by the detections alone, as in the research code",
            settings.router_weight,
            model.preset.name,
        )
    return 0.0


def training_frames(settings: TrainingSettings, data: Data, model: DetectionModel) -> TrainingFrames:
    """Return the frames with augmentation and sensor failures for training.

    Raises:
        OptionError: objects are to be pasted, or points are to vary, where that is impossible.
    """
    with_cameras = model.preset.image is not None and settings.train != "lidar-branch"
    if settings.donors < 0:
        raise OptionError(f"--donors is {settings.donors}, but must be 0 or more")
    if settings.donors and (with_cameras or (model.remembers and settings.history)):
        raise OptionError(
            "--donors pastes objects into point clouds, but this training also has "
            + ("pictures" if with_cameras else "earlier frames")
            + ", which would not show them: train the lidar-branch, or leave --donors out"
        )
    with_lidar = model.preset.points is not None and settings.train != "camera-branch"
    if settings.vary_points and not (settings.augmentation and with_lidar):
        without = "augmentation" if with_lidar else "points"
        raise OptionError(f"--vary-points has no effect in a training without {without}: leave it out")
    _check_removal(settings)
    return TrainingFrames(
        data.frames,
        model.preset,
        augment=settings.augmentation,
        keep_pictures=settings.keep_pictures,
        vary_points=settings.vary_points,
        corrupted=settings.corruption,
        removed=settings.remove_broken,
        grid_mask=settings.augmentation,
        cameras=settings.train != "lidar-branch",
        lidar=settings.train != "camera-branch",
        donors=settings.donors,
    )


def _check_removal(settings: TrainingSettings) -> None:
    """Check the share of frames from which broken sensors are removed.

    Raises:
        OptionError: the share is not in 0..1, or the training has no failures, or trains a router alone, which learns
            from broken sensors.
    """
    share = settings.remove_broken
    if not 0 <= share <= 1:
        raise OptionError(f"--remove-broken is {share:g}, but must be 0 to 1")
    if share and not settings.corruption:
        raise OptionError("--remove-broken has no effect in a training without failures: leave out --no-corruption")
    if share and settings.train == "aqr":
        raise OptionError(
            "--remove-broken takes away the broken sensors, from which --train aqr learns: leave it out, or give it "
            "to the training of the head"
        )
