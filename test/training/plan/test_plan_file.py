# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Plans are read strictly: a mistake is named by file, stage, entry, value and need."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.places import ROOT
from helpers.small_plan import STAGES, small_plan, with_stage, write_plan

from aqr_perception.cli import _parser
from aqr_perception.models.config.presets import preset_directory
from aqr_perception.training.plan.plan_file import _KINDS, _NEGATED, PlanError, StageWeights, plan_path, read_plan

NOT_IN_PLANS = {"--help", "--plan", "--status", "--dry-run", "--restart", "--output", "--resume", "--overfit"}


def test_every_flag_of_a_training_is_an_entry_of_stages_under_its_name() -> None:
    (train,) = (
        commands.choices["train"]
        for commands in _parser()._actions
        if isinstance(commands.choices, dict) and "train" in commands.choices
    )
    flags = {flag for action in train._actions for flag in action.option_strings if flag.startswith("--")}
    names = {flag.removeprefix("--") for flag in flags - NOT_IN_PLANS}
    assert names - {"preset", "learning-rate-factor"} == (set(_KINDS) | set(_NEGATED)) - {
        "augmentation",
        "corruption",
        "learning-rate-factors",
    }


def test_entries_of_the_plan_hold_for_all_stages_that_have_none_of_their_own(tmp_path: Path) -> None:
    stages = [{**STAGES[0], "seed": 5, "augmentation": True}, *STAGES[1:]]
    plan = small_plan(tmp_path, stages=stages, seed=3, augmentation=False, world=2, precision="fp32")
    first, second, _ = (stage.settings for stage in plan.stages)
    assert (first.seed, first.augmentation, first.world, first.precision) == (5, True, 2, "fp32")
    assert (second.seed, second.augmentation, second.world, second.precision) == (3, False, 2, "fp32")
    assert plan.name == "small" and plan.result == StageWeights("router")


def test_paths_are_relative_to_the_plan_and_weights_of_stages_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "backbone.pth").touch()
    stages = with_stage("branches", backbone="backbone.pth", **{"data-root": "drawn", "feature-cache": "~/cache"})
    plan = small_plan(tmp_path, stages=stages)
    settings = plan.stages[0].in_run(Path("run"))
    assert settings.model == str(tmp_path / "cameras.yaml")
    assert settings.backbone == tmp_path / "backbone.pth" and settings.data_root == tmp_path / "drawn"
    assert settings.feature_cache == Path.home() / "cache"
    assert plan.stages[1].in_run(Path("run")).checkpoint == Path("run/branches/final.safetensors")


def test_values_that_yaml_1_1_reads_as_something_else_are_understood(tmp_path: Path) -> None:
    path = write_plan(tmp_path)
    path.write_text(
        "stages:\n"
        "  - name: a\n"
        "    learning-rate: 1e-3\n"
        "    learning_rate_factors: {img_backbone: 1e-1}\n"
        "    no-augmentation: yes\n"
        "    corruption: off\n"
        "    aqr: off\n"
        "    minutes: 4e1\n"
    )
    settings = read_plan(path).stages[0].settings
    assert (settings.learning_rate, settings.minutes) == (1e-3, 40.0)
    assert settings.learning_rate_factors == {"img_backbone": 0.1}
    assert (settings.augmentation, settings.corruption, settings.aqr) == (False, False, "off")


def test_a_stage_runs_after_those_that_it_builds_on(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, stages=[STAGES[2], STAGES[0], STAGES[1], {"name": "other", "steps": 1}])
    assert [stage.name for stage in plan.stages] == ["branches", "all", "router", "other"]
    assert plan.built_on(["all"]) == ["all", "router"] and plan.built_on(["other"]) == ["other"]


BROKEN: dict[str, tuple[Any, str]] = {
    "an unknown entry": ({"learningrate": 1}, r"small\.yaml: .*'learningrate'; did you mean 'learning-rate'\?"),
    "an unknown entry of a stage": (
        {"stages": with_stage("all", **{"leraning-rate": 1})},
        r"stages: all: .*'leraning-rate'; did you mean 'learning-rate'\?",
    ),
    "an entry like no other": ({"stages": with_stage("all", q7=1)}, "'q7', needed one of model, checkpoint"),
    "an entry of stages": ({"minutes": 5}, "minutes: belongs to a stage"),
    "a wrong type": ({"stages": with_stage("all", workers="two")}, "stages: all: workers: found 'two', needed int"),
    "a truth value for a number": ({"seed": True}, "seed: found True, needed int"),
    "a text for a number": ({"stages": with_stage("all", **{"learning-rate": "fast"})}, "learning-rate: found 'fast'"),
    "a factor that is no number": (
        {"learning-rate-factors": {"img_neck": "slow"}},
        "learning-rate-factors: img_neck: found 'slow', needed float",
    ),
    "an unknown choice": ({"stages": with_stage("all", train="neck")}, "train: found 'neck', needed one of 'all'"),
    "a value out of range": ({"stages": with_stage("all", **{"batch-size": 0})}, "stages: all: .*batch_size is 0"),
    "no frames": ({"frames": 0}, "frames: found 0, needed 1 or more"),
    "a router weight that is no number": ({"router-weight": float("nan")}, "router-weight: found nan, needed 0 or"),
    "no length": ({"stages": [{"name": "all"}]}, "stages: all: .*length.*in no option"),
    "two lengths": ({"stages": with_stage("all", minutes=3)}, "stages: all: .*steps, minutes; give exactly one"),
    "one entry under two names": (
        {"stages": with_stage("all", **{"batch-size": 1, "batch_size": 1})},
        "found the entry 'batch-size' twice",
    ),
    "an entry and its negation": ({"augmentation": True, "no-augmentation": True}, "'augmentation' twice"),
    "a missing stage": (
        {"stages": with_stage("all", checkpoint={"stage": "branchs"})},
        "stages: all: checkpoint: found the stage 'branchs', needed one of branches, all, router",
    ),
    "other weights": (
        {"stages": with_stage("all", checkpoint={"stage": "branches", "weights": "last"})},
        "checkpoint: weights: found 'last', needed one of 'final', 'best'",
    ),
    "best weights without validation": (
        {"stages": with_stage("all", checkpoint={"stage": "branches", "weights": "best"})},
        "best weights of branches.*needed validate-every above 0",
    ),
    "a circle": (
        {"stages": with_stage("branches", checkpoint={"stage": "router"})},
        "start from each other .branches -> router -> all -> branches",
    ),
    "a stage that starts from itself": (
        {"stages": with_stage("branches", checkpoint={"stage": "branches"})},
        "branches -> branches",
    ),
    "a missing file": ({"stages": with_stage("all", checkpoint="w.pth")}, "all: checkpoint: found no file .*w.pth"),
    "a stage as a file": ({"stages": with_stage("all", checkpoint="branches")}, r"write \{stage: branches\}"),
    "two starts": (
        {"stages": with_stage("all", backbone={"stage": "branches"})},
        "stages: all: found checkpoint and backbone, needed at most one",
    ),
    "two stages of one name": ({"stages": [*STAGES, STAGES[0]]}, "stages: found 'branches' 2 times"),
    "a name that is no folder": ({"stages": with_stage("all", name="../all")}, r"stages\[1\]: name: found '../all'"),
    "a name that the run needs": ({"stages": with_stage("all", name="earlier")}, "name: found 'earlier'"),
    "a stage without a name": ({"stages": [{"steps": 1}]}, r"stages\[0\]: has no entry 'name'"),
    "a stage that is no mapping": ({"stages": ["all"]}, r"stages\[0\]: found 'all', needed a mapping"),
    "no stages": ({"stages": None}, "has no entry 'stages'"),
    "an empty list": ({"stages": []}, r"stages: found \[\], needed a list of stages"),
    "a result that is no stage": ({"result": "final"}, "result: found the stage 'final', needed one of branches"),
    "a best result without validation": ({"result": {"stage": "all", "weights": "best"}}, "result: found the best"),
}


@pytest.mark.parametrize("mistake", list(BROKEN))
def test_a_mistake_is_refused_by_its_place(mistake: str, tmp_path: Path) -> None:
    changed, message = BROKEN[mistake]
    with pytest.raises(PlanError, match=message) as caught:
        small_plan(tmp_path, **changed)
    assert str(caught.value).startswith(f"{tmp_path / 'small.yaml'}: ") and "\n" not in str(caught.value)


def test_an_entry_that_stands_twice_is_refused_by_its_line(tmp_path: Path) -> None:
    path = write_plan(tmp_path)
    path.write_text("stages:\n  - name: all\n    minutes: 10\n    minutes: 100\n")
    with pytest.raises(PlanError, match="line 4 has the entry 'minutes' again"):
        read_plan(path)


@pytest.mark.parametrize("text", ["", "- a", "a: [", "stages: &a [*a]"])
def test_a_file_that_is_no_plan_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"plan\.yaml: found "):
        read_plan(path)


def test_a_plan_has_a_name_or_a_path() -> None:
    path = plan_path("aqr_tiny")
    assert path == preset_directory().parent / "training" / "aqr_tiny.yaml"
    assert plan_path("my/plan.yaml") == Path("my/plan.yaml")
    with pytest.raises(PlanError, match="plan 'none' does not exist; choose one of aqr_tiny"):
        plan_path("none")


def test_the_plan_in_the_documentation_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"^```yaml\n(model: .*?)^```", (ROOT / "docs/training.md").read_text(), re.MULTILINE | re.DOTALL
    )
    path = tmp_path / "documented.yaml"
    path.write_text(example)
    plan = read_plan(path)
    assert [stage.name for stage in plan.stages] == ["branches", "all", "router"]
    assert plan.result == StageWeights("router", "best")


def test_the_shipped_plan_ends_with_a_model_with_a_router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    backbone = tmp_path / ".cache/aqr_perception/backbones/efficientnet-lite0-57934424.pth"
    with pytest.raises(PlanError, match=rf"stages: camera: backbone: found no file {backbone}"):
        read_plan(plan_path("aqr_tiny"))
    backbone.parent.mkdir(parents=True)
    backbone.touch()  # `make train-tiny` downloads it
    plan = read_plan(plan_path("aqr_tiny"))
    assert plan.name == "aqr_tiny" and plan.built_on([plan.stages[0].name])[-1] == plan.result.stage
    assert all(stage.settings.world == 2 for stage in plan.stages)
    assert yaml.safe_load(plan.path.read_text())["model"] == "aqr_tiny"
