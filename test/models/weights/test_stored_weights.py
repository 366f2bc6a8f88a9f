# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice of the weights in a checkpoint: prefixes, averages and values."""

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from aqr_perception.models.weights.checkpoint_error import CheckpointError
from aqr_perception.models.weights.stored_weights import read_weights, select_weights, values_of

RAW = {"head.weight": torch.ones(2, 3), "head.bias": torch.zeros(2), "norm.num_batches_tracked": torch.tensor(7)}
AVERAGE = {key: value + 1 for key, value in RAW.items()}


def prefixed(prefix: str, weights: dict[str, Tensor] = RAW) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in weights.items()}


def assert_read(content: Any, expected: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "epoch_1.pth")
    for source in (tmp_path / "epoch_1.pth", content):
        found = read_weights(source).tensors
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "_forward_module.",
        "model.",
        "ema_model.",
        "module._orig_mod.",
        "model._orig_mod.module.",
    ],
)
def test_prefixes_of_all_keys_are_removed_and_logged(
    tmp_path: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert_read({"state_dict": prefixed(prefix)}, RAW, tmp_path)
    said = [record.getMessage() for record in caplog.records if "epoch_1.pth" in record.getMessage()]
    assert all(any(part in text for text in said) for part in prefix.split("."))
    assert all("removed" in text for text in said) and said


def test_marks_of_compiled_and_sharded_parts_are_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    marked = {
        "head._orig_mod.weight": RAW["head.weight"],
        "_fsdp_wrapped_module.head.bias": RAW["head.bias"],
        "norm.num_batches_tracked": RAW["norm.num_batches_tracked"],
    }
    assert_read({"state_dict": marked}, RAW, tmp_path)
    assert "_orig_mod and _fsdp_wrapped_module is removed from the keys" in caplog.text
    double = {"a._orig_mod.b": torch.ones(1), "a.b": torch.ones(1)}
    assert_read(double, double, tmp_path)


def test_a_prefix_of_some_keys_stays(tmp_path: Path) -> None:
    mixed = {"model.weight": torch.ones(1), "head.weight": torch.ones(1)}
    assert_read(mixed, mixed, tmp_path)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_weights_are_found_under_the_usual_entries(tmp_path: Path, wrapper: str) -> None:
    assert_read({"epoch": 3, wrapper: RAW, "optimizer": {"state": {0: torch.ones(1)}}}, RAW, tmp_path)


def test_counters_of_averaged_models_are_no_weights(tmp_path: Path) -> None:
    averaged = AveragedModel(nn.Linear(2, 2))
    assert_read(averaged.state_dict(), dict(averaged.module.state_dict()), tmp_path)
    assert_read({"steps": torch.tensor(5), **prefixed("module.")}, RAW, tmp_path)


@pytest.mark.parametrize(
    ("content", "taken", "left", "who"),
    [
        ({"state_dict": RAW, "ema_state_dict": prefixed("module.", AVERAGE)}, RAW, "ema_state_dict", "mmengine stores"),
        ({"state_dict": RAW, "current_model_state": AVERAGE}, RAW, "current_model_state", "Lightning stores"),
        ({"model": RAW, "model_ema": AVERAGE}, RAW, "model_ema", ""),
        ({"model": RAW, "ema": {"module": AVERAGE}}, RAW, "ema", "--entry ema.module"),
        ({"state_dict": RAW, "state_dict_ema": AVERAGE}, RAW, "state_dict_ema", ""),
        ({"step": 5, "model": RAW, "ema": {"average": AVERAGE, "updates": 5}}, AVERAGE, "model", "final.safetensors"),
        ({**prefixed("model."), **prefixed("ema_model.", AVERAGE)}, RAW, "ema_model.", ""),
        ({**RAW, **prefixed("model_ema.", AVERAGE)}, RAW, "model_ema.", ""),
    ],
)  # fmt: skip
def test_the_log_says_which_of_two_sets_is_taken_and_how_to_get_the_other(
    tmp_path: Path,
    content: dict[str, Any],
    taken: dict[str, Tensor],
    left: str,
    who: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    assert_read(content, taken, tmp_path)
    how = f"{left!r} as a file of its own" if left.endswith(".") else f"--entry {left}"
    assert repr(left) in caplog.text and who in caplog.text and how in caplog.text


@pytest.mark.parametrize(
    ("entry", "expected"), [("ema_state_dict", AVERAGE), ("state_dict", RAW), ("ema.average", AVERAGE)]
)
def test_either_set_can_be_chosen_by_its_entry(tmp_path: Path, entry: str, expected: dict[str, Tensor]) -> None:
    content = {"state_dict": RAW, "ema_state_dict": prefixed("module.", AVERAGE), "ema": {"average": AVERAGE}}
    torch.save(content, tmp_path / "epoch_1.pth")
    found = read_weights(tmp_path / "epoch_1.pth", entry).tensors
    assert all(torch.equal(found[key], expected[key]) for key in expected) and len(found) == len(expected)
    with pytest.raises(CheckpointError, match=r"has no entry 'ema_model' .*'ema_state_dict'"):
        read_weights(tmp_path / "epoch_1.pth", "ema_model")
    with pytest.raises(CheckpointError, match=r"has no entry 'x' \(of 'state_dict.x'\)"):
        read_weights(tmp_path / "epoch_1.pth", "state_dict.x")


def test_mmcv_averages_inside_the_state_dict_are_left_out_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    twins = {f"ema_{key.replace('.', '_')}": value for key, value in AVERAGE.items()}
    assert_read({"state_dict": {**RAW, **twins}}, RAW, tmp_path)
    assert "the plain keys are taken, 3 keys ema_* are not" in caplog.text
    alone = {**RAW, "ema_decay": torch.ones(1)}
    assert_read(alone, alone, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"step": 5, "model": RAW, "ema": {"average": AVERAGE, "updates": 5}},
        {"state_dict": RAW, "ema_state_dict": AVERAGE},
        {**RAW, **prefixed("model_ema.", AVERAGE)},
    ],
)
def test_the_choice_between_two_sets_is_a_warning_which_every_program_shows(
    content: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    read_weights(content)  # type: ignore[arg-type]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_one_set_of_weights_gives_no_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    optimiser = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]}
    assert_read({"meta": {"epoch": 1}, "state_dict": RAW, "optimizer": optimiser}, RAW, tmp_path)
    assert not caplog.records


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.float8_e5m2])
def test_values_that_are_not_finite_are_refused_by_key(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    broken = torch.ones(2, 3).to(dtype)
    broken[1, 2] = value
    torch.save({**RAW, "head.weight": broken}, tmp_path / "diverged.pth")
    with pytest.raises(CheckpointError, match=r"diverged\.pth: 1 of 3 tensors hold NaN[\s\S]*not finite: head\.weight"):
        read_weights(tmp_path / "diverged.pth")


def test_many_broken_tensors_give_a_short_error() -> None:
    with pytest.raises(CheckpointError, match="and 90 more") as caught:
        read_weights({f"layer{number}.weight": torch.tensor([float("nan")]) for number in range(100)})
    assert len(str(caught.value).splitlines()) < 15


def test_integer_boolean_and_empty_tensors_are_weights(tmp_path: Path) -> None:
    state = {"a": torch.tensor([1, 2]), "b": torch.tensor([True]), "c": torch.zeros(0, 3), "d": torch.tensor(2.5)}
    assert_read(state, state, tmp_path)


def test_a_small_file_with_a_huge_tensor_needs_no_memory_for_it() -> None:
    huge = torch.ones(3).as_strided((10**6, 10**6), (0, 0))
    assert values_of(huge).numel() == 3
    assert read_weights({"huge": huge}).tensors["huge"].shape == (10**6, 10**6)


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (torch.eye(3).to_sparse(), "sparse, nested or quantised"),
        (torch.nested.nested_tensor([torch.ones(2)]), "sparse, nested or quantised"),
        (torch.empty(2, device="meta"), "without values"),
    ],
)
def test_tensors_that_no_model_takes_are_refused_by_key(tensor: Tensor, problem: str) -> None:
    with pytest.raises(CheckpointError, match=rf"'b' \(tensor .*{problem}"):
        read_weights({"a": torch.ones(1), "b": tensor})


def test_an_unknown_entry_with_weights_is_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "net": RAW}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"weights are under 'net': .*--entry net$"):
        read_weights(tmp_path / "other.pth")


def test_entries_nested_in_themselves_and_hidden_methods_do_no_harm() -> None:
    content: dict[str, Any] = {}
    content["model"] = content["module"] = content
    with pytest.raises(CheckpointError):
        select_weights("cycle", content)
    odd = OrderedDict(RAW)
    odd.__dict__.update(items=1, keys=2, get=3)
    assert select_weights("odd", odd).tensors.keys() == RAW.keys()
