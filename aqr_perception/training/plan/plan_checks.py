# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Checks of a whole plan before anything runs: models, trained parts, files, data."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aqr_perception.data.sources.catalogue import Data
from aqr_perception.devices import choose_device, choose_precision
from aqr_perception.models.config.presets import load_preset
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.weights.checkpoint import save_checkpoint
from aqr_perception.training.plan.plan_file import Plan, PlanError, Stage
from aqr_perception.training.plan.single_training import (
    require_frozen_backbone,
    starting_model,
    training_data,
    training_frames,
)
from aqr_perception.training.plan.training_settings import TrainingSettings
from aqr_perception.training.trainable import freeze, parameter_groups


class CheckedStage:
    """What the check of a stage has opened.

    Attributes:
        model: the stage's model; its weights are not those of the stages that it builds on.
        training: the data of its training.
        validation: the data of its validation; None without one.
    """

    def __init__(self, model: DetectionModel, training: Data, validation: Data | None) -> None:
        self.model, self.training, self.validation = model, training, validation


def check_plan(plan: Plan) -> dict[str, CheckedStage]:
    """Open everything that a plan needs; return it by stage.

    Raises:
        PlanError: a stage cannot run: its preset, trained parts, device, files or data are wrong, or it starts from
            the weights of a stage with another model.
    """
    checked: dict[str, CheckedStage] = {}
    for stage in plan.stages:
        try:
            checked[stage.name] = _checked(plan, stage, checked)
        except (ValueError, OSError) as error:
            raise PlanError(f"{plan.path}: stages: {stage.name}: {error}") from error
    return checked


def _checked(plan: Plan, stage: Stage, checked: Mapping[str, CheckedStage]) -> CheckedStage:
    settings = stage.settings
    options = settings.options()
    choose_precision(settings.precision, choose_device(settings.device))
    with tempfile.TemporaryDirectory() as folder:
        model = starting_model(_with_stand_ins(plan, stage, checked, Path(folder)))
    if settings.feature_cache is not None:
        require_frozen_backbone(settings, model)
    freeze(model, settings.train, settings.learning_rate_factors)
    parameter_groups(model, options)
    if settings.train == "aqr" and model.aqr_options.mode == "off":
        raise ValueError("found train aqr and aqr off, which trains nothing: needed aqr modulation, bias or both")
    training = training_data(settings, "train", model)
    training_frames(settings, training, model)
    if len(training.frames) < 1:
        raise ValueError("the training data holds no frames, needed at least one; check data-root and frames")
    validation = training_data(settings, "val", model) if settings.validate_every else None
    return CheckedStage(model, training, validation)


def _with_stand_ins(plan: Plan, stage: Stage, checked: Mapping[str, CheckedStage], folder: Path) -> TrainingSettings:
    """Return the settings with files of the right shape in place of the weights of stages with other presets."""
    settings, own = stage.settings, _preset(stage.settings)
    paths = {}
    for setting, weights in stage.starts.items():
        other = plan.stage(weights.stage)
        if _preset(other.settings) != own:
            paths[setting] = folder / f"{weights.weights} weights of {other.name}"
            save_checkpoint(checked[other.name].model, paths[setting])
    return replace(settings, **paths)  # type: ignore[arg-type]


def _preset(settings: TrainingSettings) -> object:
    return replace(load_preset(settings.model), name="", description="")
