# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A whole plan is checked before anything runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.small_plan import CAMERAS, small_plan, with_stage

from aqr_perception.models import build_model
from aqr_perception.training.plan.plan_checks import check_plan
from aqr_perception.training.plan.plan_file import PlanError

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown preset": ({"stages": with_stage("all", model="aqr_tinny")}, "all: model preset 'aqr_tinny' does not"),
    "a missing preset's file": (
        {"stages": with_stage("all", model="none.yaml")},
        "all: model preset .*none.yaml' does",
    ),
    "a part without parameters": (
        {"stages": with_stage("all", **{"learning-rate-factors": {"img_nek": 0.5}})},
        "all: .*'img_nek'.*did you mean 'img_neck'",
    ),
    "a part that the model lacks": (
        {"stages": with_stage("all", train="lidar-branch")},
        "all: train is 'lidar-branch'",
    ),
    "nothing left to train": (
        {"stages": with_stage("router", **{"learning-rate-factors": {"aqr": 0}})},
        "router: .*give one of its parts a factor",
    ),
    "a router that is off": ({"stages": with_stage("router", aqr="off")}, "router: found train aqr and aqr off"),
    "a cache for a backbone that is trained": ({"feature-cache": "cache"}, "branches: --feature-cache keeps the maps"),
    "an unknown device": ({"stages": with_stage("router", device="tpu")}, "router: model.device is 'tpu'"),
    "an unknown precision": ({"stages": with_stage("router", precision="fp8")}, "router: model.precision is 'fp8'"),
    "unknown data": ({"stages": with_stage("all", data="kitti")}, "all: data is 'kitti'"),
    "data without a folder": ({"stages": with_stage("all", data="bags")}, "all: data 'bags' needs a folder"),
    "a missing folder of data": (
        {"stages": with_stage("all", data="bags", **{"data-root": "nowhere"})},
        "all: .*nowhere",
    ),
    "an unknown world": ({"stages": with_stage("all", world=3)}, "all: world is 3, but must be one of 1, 2"),
    "a world of recorded data": (
        {"world": 2, "stages": with_stage("all", data="bags", **{"data-root": "."})},
        "all: data 'bags' has no worlds",
    ),
    "weights that are none": ({"stages": with_stage("branches", checkpoint="small.yaml")}, "branches: .*small.yaml"),
    "weights of another model": (
        {"stages": with_stage("branches", backbone="other.pth")},
        "branches: .*other.pth",
    ),
    "a stage with another model": ({"stages": with_stage("all", model="wider.yaml")}, "all: .*final weights of branch"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", list(WRONG))
def test_a_stage_that_cannot_run_is_named_with_the_reason(mistake: str, tmp_path: Path) -> None:
    changed, message = WRONG[mistake]
    wider = {**CAMERAS, "decoder": {**CAMERAS["decoder"], "queries": 16}}  # type: ignore[dict-item]
    (tmp_path / "wider.yaml").write_text(yaml.safe_dump(wider))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    plan = small_plan(tmp_path, **changed)
    with pytest.raises(PlanError, match=f"stages: {message}") as caught:
        check_plan(plan)
    assert str(caught.value).startswith(f"{plan.path}: stages: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cameras.yaml", "other.pth", "small.yaml", "wider.yaml"]


def test_branches_fit_another_model_of_the_same_branches(tmp_path: Path) -> None:
    wider = {**CAMERAS, "decoder": {**CAMERAS["decoder"], "layers": 2}}  # type: ignore[dict-item]
    (tmp_path / "wider.yaml").write_text(yaml.safe_dump(wider))
    stages = with_stage("all", model="wider.yaml", checkpoint=None, branches={"stage": "branches"}, name="other")
    checked = check_plan(small_plan(tmp_path, stages=stages[:2]))
    assert checked.keys() == {"branches", "other"} and checked["branches"].validation is None


def test_files_of_start_weights_are_loaded(tmp_path: Path) -> None:
    small_plan(tmp_path)
    model = build_model(str(tmp_path / "cameras.yaml"))
    torch.save({name: tensor + 1 for name, tensor in model.state_dict().items()}, tmp_path / "start.pth")
    checked = check_plan(small_plan(tmp_path, stages=with_stage("branches", checkpoint="start.pth")[:1]))
    loaded = checked["branches"].model.state_dict()
    assert all(torch.equal(loaded[name], tensor + 1) for name, tensor in model.state_dict().items())
