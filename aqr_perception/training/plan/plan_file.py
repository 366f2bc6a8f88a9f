# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Plans of trainings in several stages, read strictly from YAML."""

import difflib
import math
import re
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from aqr_perception.models.config.presets import preset_directory
from aqr_perception.models.config.typed_values import WrongValueError, read
from aqr_perception.models.config.yaml_file import YamlFileError, read_yaml
from aqr_perception.options import OptionError
from aqr_perception.training.plan.training_settings import TrainingSettings

EARLIER = "earlier"
"""Folder of a run for what was started anew; no stage may have its name."""

_FILES = ("checkpoint", "backbone", "branches")
"""Settings with weights to start from: a file, or the weights of another stage."""
_OF_ONE_STAGE = (*_FILES, "train", "steps", "epochs", "minutes")
"""Settings without a common value for all stages."""
_LEFT_OUT = ("overfit",)
_OTHER_NAMES = {"learning-rate-factor": "learning-rate-factors", "preset": "model"}
_NEGATED = {"no-augmentation": "augmentation", "no-corruption": "corruption"}
_KINDS: Mapping[str, Any] = {
    name.replace("_", "-"): kind
    for name, kind in typing.get_type_hints(TrainingSettings).items()
    if name not in _LEFT_OUT
}
_AT_LEAST = {"frames": 1, "validation_frames": 1, "history": 0, "denoising_queries": 0, "router_weight": 0}
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", re.ASCII)


class PlanError(ValueError):
    """A plan cannot be run; the message names the file, the stage and the entry, what was found and what is needed."""


@dataclass(frozen=True)
class StageWeights:
    """Weights of a stage of the same plan: the final ones, or the best by validation."""

    stage: str
    weights: Literal["final", "best"] = "final"

    def path(self, run: Path) -> Path:
        """Return the file in the folder of a run."""
        return run / self.stage / f"{self.weights}.safetensors"

    def __str__(self) -> str:
        return f"{self.weights} weights of {self.stage}"


@dataclass(frozen=True)
class Stage:
    """One training of a plan.

    Attributes:
        name: also the name of its folder.
        settings: settings of the training, without weights of other stages.
        starts: start weights from other stages, by the setting whose file they are.
    """

    name: str
    settings: TrainingSettings
    starts: Mapping[str, StageWeights]

    def in_run(self, run: Path) -> TrainingSettings:
        """Return the settings with the files of the other stages in the folder of a run."""
        paths: dict[str, Any] = {name: weights.path(run) for name, weights in self.starts.items()}
        return replace(self.settings, **paths)


@dataclass(frozen=True)
class Plan:
    """A training in stages.

    Attributes:
        path: file of the plan.
        stages: the stages in the order in which they run.
        result: the weights that are the plan's result.
    """

    path: Path
    name: str
    description: str
    stages: tuple[Stage, ...]
    result: StageWeights

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def built_on(self, names: Collection[str]) -> list[str]:
        """Return stages and all that build on them, directly or not, in the order in which they run."""
        found = set(names)
        for stage in self.stages:  # a stage runs after those that it builds on
            if any(weights.stage in found for weights in stage.starts.values()):
                found.add(stage.name)
        return [stage.name for stage in self.stages if stage.name in found]


def plan_path(name: str) -> Path:
    """Return the file of a plan by its path, ending in ``.yaml``, or the name of one in ``config/training/``.

    Raises:
        PlanError: there is no such plan.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    folder = preset_directory().parent / "training"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise PlanError(
            f"plan {name!r} does not exist; choose one of {', '.join(names)}, or give the path of a .yaml file"
        )
    return folder / f"{name}.yaml"


def read_plan(path: Path) -> Plan:
    """Read a plan. Paths in it are relative to its folder; ``~`` is the home folder.

    Raises:
        PlanError: the file is missing or not YAML, an entry is unknown, missing or of the wrong type, a stage names a
            stage that is missing, or stages build on each other in a circle.
    """
    try:
        values = read_yaml(path, unique=True)
    except YamlFileError as error:
        raise PlanError(str(error)) from error
    if not isinstance(values, dict):
        raise PlanError(f"{path}: found {values!r}, needed a mapping with the entry 'stages'")
    try:
        return _Reader(path).plan(values)
    except WrongValueError as error:
        raise PlanError(str(error)) from error


class _Reader:
    """Conversion of a plan's YAML values."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def plan(self, values: Mapping[Any, Any]) -> Plan:
        where = str(self._path)
        common = [key for key in _KINDS if key.replace("-", "_") not in _OF_ONE_STAGE]
        entries = self._entries(values, ["name", "description", "result", "stages", *common], where)
        if "stages" not in entries:
            raise WrongValueError(f"{where}: has no entry 'stages', needed a list of stages")
        name = self._name(entries.pop("name", self._path.stem), f"{where}: name")
        description = read(str, entries.pop("description", ""), f"{where}: description")
        listed, result = entries.pop("stages"), entries.pop("result", None)
        if not isinstance(listed, list) or not listed:
            raise WrongValueError(f"{where}: stages: found {listed!r}, needed a list of stages")
        defaults = self._settings(entries, where)
        stages = [self._stage(stage, defaults, f"{where}: stages[{number}]") for number, stage in enumerate(listed)]
        names = [stage.name for stage in stages]
        for other in names:
            if names.count(other) > 1:
                raise WrongValueError(
                    f"{where}: stages: found {other!r} {names.count(other)} times, needed other names"
                )
        self._check_references(stages)
        last = StageWeights(stages[-1].name)
        weights = last if result is None else self._result(result, stages, f"{where}: result")
        return Plan(self._path, name, description, tuple(self._in_order(stages)), weights)

    def _stage(self, values: Any, defaults: Mapping[str, Any], where: str) -> Stage:
        if not isinstance(values, dict):
            raise WrongValueError(f"{where}: found {values!r}, needed a mapping with the entry 'name'")
        if "name" not in values:
            raise WrongValueError(f"{where}: has no entry 'name', needed the name of the stage")
        name = self._name(values["name"], f"{where}: name")
        where = f"{self._path}: stages: {name}"
        entries = self._entries({key: value for key, value in values.items() if key != "name"}, _KINDS, where)
        starts = {
            key: read(StageWeights, entries.pop(key), f"{where}: {key}")
            for key in _FILES
            if isinstance(entries.get(key), dict)
        }
        settings = TrainingSettings(**{**defaults, **self._settings(entries, where)})
        given = [key for key in _FILES if key in starts or getattr(settings, key) is not None]
        if {"checkpoint", "backbone"} <= set(given):
            raise WrongValueError(f"{where}: found checkpoint and backbone, needed at most one of them")
        try:
            settings.options()
        except OptionError as error:
            raise WrongValueError(f"{where}: {error}") from error
        for setting, least in _AT_LEAST.items():
            value = getattr(settings, setting)
            if value is not None and not least <= value < math.inf:
                raise WrongValueError(f"{where}: {setting.replace('_', '-')}: found {value!r}, needed {least} or more")
        return Stage(name, settings, starts)

    def _name(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not _NAME.fullmatch(value) or value == EARLIER:
            raise WrongValueError(
                f"{where}: found {value!r}, needed a name of a folder in letters, digits, '_', '-' and '.', and not "
                f"{EARLIER!r}"
            )
        return value

    def _entries(self, values: Mapping[Any, Any], known: Collection[str], where: str) -> dict[str, Any]:
        """Return values under the names of flags; underscores stand for hyphens."""
        entries: dict[str, Any] = {}
        for written, value in values.items():
            key = written.replace("_", "-") if isinstance(written, str) else written
            key = _OTHER_NAMES.get(key, key)
            target = _NEGATED.get(key, key)
            if target not in known:
                raise WrongValueError(f"{where}: {_unknown(written, known)}")
            if target in entries:
                raise WrongValueError(f"{where}: {written}: found the entry {target!r} twice, needed it once")
            if key in _NEGATED:
                value = not read(bool, value, f"{where}: {written}")
            entries[target] = value
        return entries

    def _settings(self, entries: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return typed values by the names of `TrainingSettings`."""
        return {key.replace("-", "_"): self._value(key, value, f"{where}: {key}") for key, value in entries.items()}

    def _value(self, key: str, value: Any, where: str) -> Any:
        kind = _KINDS[key]
        if kind == Path | None:
            text = read(str | None, value, where)
            return None if text is None else self._resolved(text)
        if key == "model":
            name = read(str, value, where)
            return str(self._resolved(name)) if name.endswith(".yaml") else name
        if key == "aqr" and value is False:  # YAML 1.1 reads off as a truth value
            value = "off"
        if kind in (float, float | None):
            value = _number(value)
        if key == "learning-rate-factors" and isinstance(value, dict):
            value = {part: _number(factor) for part, factor in value.items()}
        return read(kind, value, where)

    def _resolved(self, text: str) -> Path:
        return (self._path.parent / Path(text).expanduser()).absolute()

    def _result(self, value: Any, stages: Sequence[Stage], where: str) -> StageWeights:
        weights: StageWeights = StageWeights(value) if isinstance(value, str) else read(StageWeights, value, where)
        self._check_weights(weights, stages, where)
        return weights

    def _check_references(self, stages: Sequence[Stage]) -> None:
        for stage in stages:
            for key, weights in stage.starts.items():
                self._check_weights(weights, stages, f"{self._path}: stages: {stage.name}: {key}")
            for key in _FILES:
                self._check_file(stage, key, stages)

    def _check_weights(self, weights: StageWeights, stages: Sequence[Stage], where: str) -> None:
        names = [stage.name for stage in stages]
        if weights.stage not in names:
            raise WrongValueError(f"{where}: found the stage {weights.stage!r}, needed one of {', '.join(names)}")
        trained = next(stage for stage in stages if stage.name == weights.stage)
        if weights.weights == "best" and not trained.settings.validate_every:
            raise WrongValueError(
                f"{where}: found the best weights of {weights.stage}, which has no validation: needed validate-every "
                "above 0 in that stage, or its final weights"
            )

    def _check_file(self, stage: Stage, key: str, stages: Sequence[Stage]) -> None:
        path: Path | None = getattr(stage.settings, key)
        if path is None or path.is_file():
            return
        where = f"{self._path}: stages: {stage.name}: {key}"
        hint = ""
        if path.name in [other.name for other in stages]:
            hint = f"; for the weights of that stage write {{stage: {path.name}}}"
        raise WrongValueError(f"{where}: found no file {path}, needed a file of weights{hint}")

    def _in_order(self, stages: Sequence[Stage]) -> list[Stage]:
        """Return the stages in their order, each after those that it builds on."""
        by_name = {stage.name: stage for stage in stages}
        ordered: dict[str, Stage] = {}

        def add(stage: Stage, waiting: tuple[str, ...]) -> None:
            if stage.name in waiting:
                circle = " -> ".join([*waiting[waiting.index(stage.name) :], stage.name])
                raise WrongValueError(
                    f"{self._path}: stages: found stages that start from each other ({circle}), needed one that starts "
                    "without the others"
                )
            for weights in stage.starts.values():
                if weights.stage not in ordered:
                    add(by_name[weights.stage], (*waiting, stage.name))
            ordered.setdefault(stage.name, stage)

        for stage in stages:
            add(stage, ())
        return list(ordered.values())


def _unknown(written: Any, known: Collection[str]) -> str:
    if str(written).replace("_", "-") in _KINDS:
        return f"{written}: belongs to a stage, because stages have no common value of it"
    similar = difflib.get_close_matches(str(written).replace("_", "-"), known, 1)
    if similar:
        return f"found the unknown entry {written!r}; did you mean {similar[0]!r}?"
    return f"found the unknown entry {written!r}, needed one of {', '.join(known)}"


def _number(value: Any) -> Any:
    """Return a number such as 4e-4, which YAML 1.1 reads as text, and other values unchanged."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value
