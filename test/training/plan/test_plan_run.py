# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A plan runs its stages once each, continues after any interruption, and refuses changed settings."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from helpers.small_plan import STAGES, StandInTrainings, StopTraining, small_plan, with_stage

from aqr_perception.training.plan import atomic_file, plan_card, plan_run, plan_state
from aqr_perception.training.plan.plan_file import Plan, PlanError
from aqr_perception.training.plan.plan_run import PlanOutcome, run_plan, show_plan
from aqr_perception.training.plan.plan_state import PlanState

ALL_STEPS = [("branches", 1), ("branches", 2), ("all", 1), ("all", 2), ("all", 3), ("router", 1), ("router", 2)]


class Killed(BaseException):
    """The end of the process: nothing handles it."""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return small_plan(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def result(run: Path) -> str:
    return (run / "result.safetensors").read_text()


def test_stages_run_one_after_another_and_the_result_is_that_of_the_last(
    plan: Plan, run: Path, stand_ins: StandInTrainings
) -> None:
    outcome = run_plan(plan, run)
    assert outcome.finished and str(run / "result.safetensors") in outcome.message
    assert stand_ins.trained == ALL_STEPS
    assert result(run) == (run / "router/final.safetensors").read_text()
    assert len({(run / stage / "final.safetensors").read_text() for stage in ("branches", "all", "router")}) == 3


def test_a_finished_plan_trains_nothing_again_and_its_result_can_be_another_stages(
    tmp_path: Path, plan: Plan, run: Path, stand_ins: StandInTrainings
) -> None:
    run_plan(plan, run)
    assert run_plan(plan, run).finished
    assert stand_ins.trained == ALL_STEPS
    run_plan(small_plan(tmp_path, result="all"), run)
    assert stand_ins.trained == ALL_STEPS and result(run) == (run / "all/final.safetensors").read_text()


@pytest.mark.parametrize(
    ("where", "stop"),
    [*((step, StopTraining) for step in ALL_STEPS), (("all", 1), KeyboardInterrupt), (("all", 3), KeyboardInterrupt)],
)
def test_an_interrupted_plan_continues_where_it_stopped(
    where: tuple[str, int], stop: type[BaseException], plan: Plan, run: Path, stand_ins: StandInTrainings
) -> None:
    run_plan(plan, run.with_name("uninterrupted"))
    stand_ins.trained.clear()

    def interrupt(*step: object) -> None:
        if step == where:
            raise stop

    stand_ins.before_step = interrupt
    outcome = run_plan(plan, run)
    assert not outcome.finished and not (run / "result.safetensors").exists()
    assert outcome.message.endswith(f"continue with: aqr_perception train --plan {plan.path} --output {run}")
    assert stand_ins.trained == ALL_STEPS[: ALL_STEPS.index(where)]
    stand_ins.before_step = lambda *_: None
    assert run_plan(plan, run).finished
    assert stand_ins.trained == ALL_STEPS
    assert result(run) == result(run.with_name("uninterrupted"))


def test_a_plan_killed_before_any_file_that_it_writes_ends_with_the_same_result(
    plan: Plan, tmp_path: Path, stand_ins: StandInTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_plan(plan, tmp_path / "uninterrupted")
    writes_left = 0

    def write(path: Path, content: bytes) -> None:
        nonlocal writes_left
        writes_left -= 1
        if writes_left == 0:
            raise Killed
        atomic_file.write_atomically(path, content)

    for module in (plan_state, plan_card, plan_run):
        monkeypatch.setattr(module, "write_atomically", write)
    kills = 0
    while True:
        run = tmp_path / f"killed_{kills}"
        writes_left = kills + 1
        stand_ins.trained.clear()
        try:
            run_plan(plan, run)
            break
        except Killed:
            kills += 1
        assert run_plan(plan, run).finished
        assert stand_ins.trained == ALL_STEPS, "a kill between two steps repeats none"
        assert result(run) == result(tmp_path / "uninterrupted")
    assert kills > 8  # the state twice and the card once for each stage, the result and the last card


def test_a_kill_during_a_restart_leaves_no_old_stage_in_use(
    plan: Plan, run: Path, stand_ins: StandInTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_plan(plan, run)
    stand_ins.trained.clear()
    moved: list[Path] = []

    def move_one(path: Path) -> None:
        if moved:
            raise Killed
        moved.append(path)
        plan_state_set_aside(path)

    plan_state_set_aside = plan_state.set_aside
    monkeypatch.setattr(plan_state, "set_aside", move_one)
    with pytest.raises(Killed):
        run_plan(plan, run, ["all"])
    monkeypatch.setattr(plan_state, "set_aside", plan_state_set_aside)
    assert run_plan(plan, run).finished
    assert stand_ins.trained == ALL_STEPS[2:]


CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "a stage's entry": ({"stages": with_stage("all", **{"learning-rate": 1e-3})}, r"learning-rate 0\.0004 -> 0\.001"),
    "its length": ({"stages": with_stage("all", steps=4)}, "steps 3 -> 4"),
    "its start weights": ({"stages": with_stage("all", checkpoint={"stage": "other"})}, "final weights of branches"),
    "factors": ({"stages": with_stage("all", **{"learning-rate-factors": {"img_neck": 0.5}})}, "learning-rate-factors"),
}


@pytest.mark.parametrize("change", list(CHANGED))
def test_a_stage_with_changed_settings_is_refused_by_name_and_entry(
    change: str, tmp_path: Path, run: Path, stand_ins: StandInTrainings
) -> None:
    other = {"name": "other", "steps": 1}
    run_plan(small_plan(tmp_path, stages=[*STAGES, other]), run)
    changed, message = CHANGED[change]
    plan = small_plan(tmp_path, stages=[*changed["stages"], other])
    remedy = r"start it anew with --restart all, which also starts router anew"
    with pytest.raises(PlanError, match=rf"stages: all: was started with other settings .*{message}.*{remedy}"):
        run_plan(plan, run)
    table, problem = show_plan(plan, run)
    assert "done: step 2 of 2" in table and problem is not None and "all" in problem
    stand_ins.trained.clear()
    assert run_plan(plan, run, ["all"]).finished
    assert {name for name, _ in stand_ins.trained} == {"all", "router"}
    assert sorted(path.name for path in (run / "earlier").iterdir()) == ["all_1", "result_1.safetensors", "router_1"]


def test_a_changed_preset_or_file_of_start_weights_is_a_changed_setting(
    tmp_path: Path, run: Path, stand_ins: StandInTrainings
) -> None:
    (tmp_path / "start.pth").write_text("one")
    stages = [{"name": "all", "branches": "start.pth", "steps": 1}]
    run_plan(small_plan(tmp_path, stages=stages), run)
    (tmp_path / "start.pth").write_text("two")
    with pytest.raises(PlanError, match=r"all: was started with other settings .branches .a file with the hash"):
        run_plan(small_plan(tmp_path, stages=stages), run)
    (tmp_path / "start.pth").write_text("one")
    plan = small_plan(tmp_path, stages=stages)
    preset = tmp_path / "cameras.yaml"
    preset.write_text(preset.read_text().replace("queries: 8", "queries: 9"))
    with pytest.raises(PlanError, match=r"model\.decoder\.queries 8 -> 9"):
        run_plan(plan, run)


def test_settings_that_do_not_change_the_weights_may_change(
    tmp_path: Path, run: Path, stand_ins: StandInTrainings
) -> None:
    run_plan(small_plan(tmp_path), run)
    more = {"name": "more", "checkpoint": {"stage": "router"}, "steps": 1}
    changed = {"workers": 3, "checkpoint-every": 7, "data-root": "elsewhere", "description": "text"}
    plan = small_plan(tmp_path, stages=[*STAGES, more], **changed)
    assert run_plan(plan, run).finished
    assert (
        stand_ins.trained == [*ALL_STEPS, ("more", 1)] and result(run) == (run / "more/final.safetensors").read_text()
    )


def test_entries_that_an_earlier_version_did_not_have_count_with_their_defaults(
    tmp_path: Path, run: Path, stand_ins: StandInTrainings
) -> None:
    plan = small_plan(tmp_path)
    run_plan(plan, run)
    path = run / "plan_state.json"
    content = json.loads(path.read_text())
    for stage in content["stages"].values():
        del stage["settings"]["history"], stage["settings"]["model"]["decoder"]["head_kernel"]
    path.write_text(json.dumps(content))
    assert run_plan(plan, run).finished and stand_ins.trained == ALL_STEPS
    with pytest.raises(PlanError, match=r"branches: .*history 2 -> 1"):
        run_plan(small_plan(tmp_path, history=1), run)
    preset = tmp_path / "cameras.yaml"
    preset.write_text(preset.read_text().replace("depths: 4", "depths: 4\n  head_kernel: 3"))
    with pytest.raises(PlanError, match=r"branches: .*model\.decoder\.head_kernel 1 -> 3"):
        run_plan(plan, run)


def test_an_old_result_is_not_kept_for_an_unfinished_plan(
    tmp_path: Path, plan: Plan, run: Path, stand_ins: StandInTrainings
) -> None:
    run_plan(plan, run)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    stand_ins.before_step = interrupt
    assert not run_plan(plan, run, ["router"]).finished
    assert not (run / "result.safetensors").exists() and (run / "earlier/result_1.safetensors").is_file()
    table, problem = show_plan(plan, run)
    assert problem is None and table.splitlines()[-1].endswith("waiting")


def test_the_status_shows_how_far_each_stage_has_come_and_writes_nothing(
    plan: Plan, run: Path, stand_ins: StandInTrainings
) -> None:
    table, _ = show_plan(plan, run)
    assert not run.exists() and [line.split()[-1] for line in table.splitlines()[1:]] == ["waiting"] * 4

    def interrupt(*step: object) -> None:
        if step == ("all", 3):
            raise StopTraining

    stand_ins.before_step = interrupt
    run_plan(plan, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    first, second, third, last = show_plan(plan, run, ["router"])[0].splitlines()[1:]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert first.endswith("done: step 2 of 2, minute 0.2, 0.33 samples/s, best score 0.2000")
    assert second.endswith("started: step 2 of 3, minute 0.2, 0.33 samples/s, best score 0.2000")
    assert "checkpoint from final weights of branches, 3 steps" in second
    assert third.endswith("starts anew") and last.split()[0] == "result"


def test_the_card_tells_commands_seeds_time_samples_machine_and_settings(
    plan: Plan, run: Path, stand_ins: StandInTrainings
) -> None:
    run_plan(plan, run)
    card = json.loads((run / "card.json").read_text())
    assert card["finished"] and card["samples"] == 14 and card["minutes"] == 0.7
    assert card["command"] == f"aqr_perception train --plan {plan.path} --output {run}"
    assert card["result"]["stage"] == "router" and len(card["result"]["sha256"]) == 64
    stage = card["stages"][1]
    assert stage["command"].startswith(f"aqr_perception train --model {plan.path.parent}/cameras.yaml --checkpoint ")
    assert f"--checkpoint {run}/branches/final.safetensors" in stage["command"]
    assert (stage["steps"], stage["samples"], stage["samples_per_second"], stage["seed"]) == (3, 6, 0.333, 0)
    (machine,) = stage["machines"]
    assert machine["processor"] and machine["cores"] >= 1 and machine["torch"] and isinstance(machine["amx"], bool)
    assert stage["settings"]["learning-rate"] == 4e-4 and stage["sessions"] == 1


def test_a_run_belongs_to_one_plan(tmp_path: Path, run: Path, stand_ins: StandInTrainings) -> None:
    run_plan(small_plan(tmp_path), run)
    with pytest.raises(PlanError, match="belongs to the plan 'small', but this plan is 'other': choose another"):
        run_plan(small_plan(tmp_path, name="other"), run)


def test_checkpoints_whose_settings_are_unknown_are_not_continued(
    plan: Plan, run: Path, stand_ins: StandInTrainings
) -> None:
    run_plan(plan, run)
    (run / "plan_state.json").unlink()
    with pytest.raises(PlanError, match=r"branches/checkpoints/step_00000002\.pt: .*--restart branches"):
        run_plan(plan, run)
    assert run_plan(plan, run, ["branches"]).finished


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 2}', '{"format": 1, "stages": {"a": 1}}'])
def test_a_damaged_state_is_refused(text: str, plan: Plan, run: Path, stand_ins: StandInTrainings) -> None:
    run.mkdir()
    (run / "plan_state.json").write_text(text)
    with pytest.raises(PlanError, match=r"plan_state\.json: (is damaged|has format)"):
        run_plan(plan, run)


def test_missing_weights_of_a_finished_stage_and_unknown_stages_are_named(
    plan: Plan, run: Path, stand_ins: StandInTrainings
) -> None:
    run_plan(plan, run)
    (run / "all/final.safetensors").unlink()
    with pytest.raises(PlanError, match=r"all/final\.safetensors: found no file.*--restart all"):
        run_plan(plan, run, ["router"])
    with pytest.raises(PlanError, match=r"--restart: found 'al', needed a stage of .*branches, all, router"):
        run_plan(plan, run, ["al"])


def _held(run: Path, holds: Any, may_end: Any) -> None:
    with plan_state.locked(run):
        holds.set()
        may_end.wait(60)


def test_two_processes_do_not_run_in_one_folder(plan: Plan, run: Path, stand_ins: StandInTrainings) -> None:
    fork = multiprocessing.get_context("fork")
    holds, may_end = fork.Event(), fork.Event()
    other = fork.Process(target=_held, args=(run, holds, may_end))
    other.start()
    try:
        assert holds.wait(60)
        with pytest.raises(PlanError, match="another process that runs a plan"):
            run_plan(plan, run)
        assert "waiting" in show_plan(plan, run)[0]
    finally:
        may_end.set()
        other.join(60)
    assert run_plan(plan, run).finished


def test_torchrun_is_refused(plan: Plan, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setitem(os.environ, name, value)
    with pytest.raises(PlanError, match="several processes"):
        run_plan(plan, run)


def test_the_reason_of_a_failed_training_names_its_stage(plan: Plan, run: Path, stand_ins: StandInTrainings) -> None:
    def fail(name: str, step: int) -> None:
        if name == "all":
            raise ValueError("the loss is nan")

    stand_ins.before_step = fail
    with pytest.raises(PlanError, match="stage all: the loss is nan"):
        run_plan(plan, run)


def test_a_state_is_the_same_after_it_is_read(plan: Plan, run: Path, stand_ins: StandInTrainings) -> None:
    outcome: PlanOutcome = run_plan(plan, run)
    assert outcome.finished
    content = (run / "plan_state.json").read_text()
    state: PlanState = plan_state.read_plan_state(run, "small")
    state.save()
    assert (run / "plan_state.json").read_text() == content
