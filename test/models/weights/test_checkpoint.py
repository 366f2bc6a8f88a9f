# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Reading and writing of checkpoints, and the errors for files that do not fit."""

import argparse
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from aqr_perception.models.weights.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


class SparseLayer(nn.Module):
    """Layer with a sparse kernel in the models' layout: (out, kD, kH, kW, in)."""

    def __init__(self, out_channels: int, in_channels: int, size: tuple[int, int, int] = (3, 3, 3)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, *size, in_channels))


class Model(nn.Module):
    def __init__(self, router: bool = False) -> None:
        super().__init__()
        self.input = SparseLayer(16, 5)
        self.middle = SparseLayer(16, 16)
        self.output = SparseLayer(8, 16, (3, 1, 1))
        self.tiny = SparseLayer(3, 3)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 4)
        if router:
            self.aqr = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def assert_equal(model: nn.Module, state: dict[str, Tensor]) -> None:
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[key]), key


def spconv1(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.permute(1, 2, 3, 4, 0) if tensor.dim() == 5 else tensor for key, tensor in state.items()}


def test_saved_weights_load_back_exactly(tmp_path: Path) -> None:
    model, other = Model(router=True), Model(router=True)
    save_checkpoint(model, tmp_path / "model.safetensors")
    assert load_checkpoint(other, tmp_path / "model.safetensors"), "the router is loaded, too"
    assert_equal(other, model.state_dict())


def test_a_half_precision_file_keeps_weights_to_three_digits_and_statistics_exactly(tmp_path: Path) -> None:
    model, again = (
        nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32)),
        nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32)),
    )
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    norm.running_var.fill_(1e6)  # beyond the range of fp16
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_checkpoint(model, whole)
    save_checkpoint(model, half, half=True)
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    load_checkpoint(again, half)
    for key, value in again.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-3 if value.dim() > 1 else 0, atol=1e-6)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("parallel", [False, True])
def test_wrapped_state_dicts_load(tmp_path: Path, wrapper: str | None, parallel: bool) -> None:
    expected = state_of(Model())
    content: dict = {f"module.{key}" if parallel else key: tensor for key, tensor in expected.items()}
    if wrapper:
        content = {"meta": {"epoch": 20}, wrapper: OrderedDict(content), "optimiser": {"state": {0: torch.ones(2)}}}
    path = tmp_path / "epoch_20.pth"
    torch.save(content, path)
    model = Model()
    load_checkpoint(model, str(path))
    assert_equal(model, expected)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "model."])
def test_compiled_parallel_and_lightning_models_load(tmp_path: Path, prefix: str) -> None:
    expected, model = state_of(Model(router=True)), Model(router=True)
    state = {f"{prefix}{key}": tensor for key, tensor in expected.items()}
    torch.save({"epoch": 1, "pytorch-lightning_version": "2.1", "state_dict": state}, tmp_path / "last.ckpt")
    assert load_checkpoint(model, tmp_path / "last.ckpt")
    assert_equal(model, expected)


def test_numpy_values_and_namespaces_beside_the_weights_do_not_hinder_loading(tmp_path: Path) -> None:
    expected, model = state_of(Model()), Model()
    meta = {"hook_msgs": {"best_score": np.float64(0.4)}}
    torch.save({"meta": meta, "args": argparse.Namespace(lr=1), "state_dict": expected}, tmp_path / "best.pth")
    load_checkpoint(model, tmp_path / "best.pth")
    assert_equal(model, expected)


def test_a_training_state_gives_its_average(tmp_path: Path) -> None:
    expected, other, model = state_of(Model()), state_of(Model()), Model()
    torch.save({"model": other, "ema": {"average": expected, "updates": 5}}, tmp_path / "step_5.pt")
    load_checkpoint(model, tmp_path / "step_5.pt")
    assert_equal(model, expected)
    load_checkpoint(model, tmp_path / "step_5.pt", "model")
    assert_equal(model, other)


def test_weights_of_a_diverged_training_are_refused_and_the_model_stays_unchanged() -> None:
    model, state = Model(), state_of(Model())
    before = state_of(model)
    state["head.weight"][0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"1 of 11 tensors[\s\S]*head\.weight[\s\S]*diverged"):
        load_checkpoint(model, state)
    assert_equal(model, before)


def test_safetensors_are_recognised_by_content_under_any_file_name(tmp_path: Path) -> None:
    expected = state_of(Model())
    safetensors.torch.save_file(expected, tmp_path / "weights.bin")
    model = Model()
    load_checkpoint(model, tmp_path / "weights.bin")
    assert_equal(model, expected)


def test_both_sparse_kernel_layouts_give_the_same_model() -> None:
    expected, model = state_of(Model()), Model()
    load_checkpoint(model, spconv1(expected))
    assert_equal(model, expected)  # the kernel of five equal sizes follows the others' layout
    load_checkpoint(model, expected)
    assert_equal(model, expected)


def test_one_error_lists_all_missing_surplus_and_misshapen_keys_and_the_model_stays_unchanged() -> None:
    model, state = Model(), state_of(Model())
    before = state_of(model)
    del state["norm.num_batches_tracked"], state["head.bias"]
    state["img_neck.weight"] = torch.zeros(1)
    state["head.weight"] = torch.zeros(4, 9)
    state["input.weight"] = torch.zeros(16, 3, 3, 5)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, state)
    message = str(caught.value)
    kinds = ("missing", "surplus", "misfit")
    assert [message.count(f"\n  {kind}: ") for kind in kinds] == [2, 1, 2]
    for part in (
        "state dict",
        "missing: norm.num_batches_tracked",
        "missing: head.bias",
        "surplus: img_neck.weight",
        "head.weight has shape [4, 9], needed [4, 8]",
        "input.weight has shape [16, 3, 3, 5], needed [16, 3, 3, 3, 5] (or [3, 3, 3, 5, 16] in spconv 1's layout)",
        "preset",
    ):
        assert part in message
    assert_equal(model, before)


def test_only_the_whole_router_may_be_absent() -> None:
    without, model = state_of(Model()), Model(router=True)
    router = {key: tensor for key, tensor in state_of(model).items() if key.startswith("aqr.")}
    assert not load_checkpoint(model, without)
    assert_equal(model, {**without, **router})
    router.pop("aqr.1.bias")
    with pytest.raises(
        CheckpointError, match=r"missing: aqr\.1\.bias\nA file must hold all of the query router's keys"
    ):
        load_checkpoint(model, {**without, **router})


def test_a_router_that_the_model_does_not_have_is_surplus() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(Model(), state_of(Model(router=True)))
    listed = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert listed == [f"  surplus: aqr.{key}" for key in ("0.weight", "0.bias", "1.weight", "1.bias")]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_are_cast_to_the_models_precision(dtype: torch.dtype) -> None:
    state = {key: t.to(dtype) if t.is_floating_point() else t for key, t in state_of(Model()).items()}
    model = Model()
    load_checkpoint(model, state)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert torch.equal(model.head.weight, state["head.weight"].float())


def test_numbers_that_cannot_be_cast_are_named() -> None:
    state = state_of(Model())
    state["head.weight"] = state["head.weight"].to(torch.int8)
    with pytest.raises(CheckpointError, match=r"head\.weight has torch\.int8"):
        load_checkpoint(Model(), state)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", "truncated"])
def test_the_error_for_an_unreadable_file_names_the_file_and_the_cause(
    tmp_path: Path, suffix: str, content: bytes | str
) -> None:
    path = tmp_path / f"broken{suffix}"
    if content == "truncated":
        save_checkpoint(Model(), path) if suffix == ".safetensors" else torch.save(state_of(Model()), path)
        path.write_bytes(path.read_bytes()[:-4000])
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"broken{suffix}") as caught:
        load_checkpoint(Model(), path)
    assert caught.value.__cause__ is not None


def test_an_absent_file_and_a_directory_are_errors_with_a_cause(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(CheckpointError, match=str(path)) as caught:
            load_checkpoint(Model(), path)
        assert isinstance(caught.value.__cause__, OSError)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"state_dict": state_of(Model()), "meta": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="run code"):
        load_checkpoint(Model(), tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


def test_a_file_without_a_state_dict_says_what_it_holds(tmp_path: Path) -> None:
    for content, found in ((torch.ones(3), "Tensor"), ({"epoch": 3, "weight": torch.ones(3)}, "'epoch' \\(int\\)")):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match=found):
            load_checkpoint(Model(), tmp_path / "other.pth")


def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(Model(), path)
    old = path.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    with pytest.raises(CheckpointError, match="No space left") as caught:
        save_checkpoint(Model(), path)
    assert isinstance(caught.value.__cause__, OSError)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["model.safetensors"]
    with pytest.raises(CheckpointError, match="absent"):
        save_checkpoint(Model(), tmp_path / "absent" / "model.safetensors")


def test_a_saved_file_has_the_permissions_of_a_new_file(tmp_path: Path) -> None:
    save_checkpoint(Model(), tmp_path / "model.safetensors")
    (tmp_path / "plain").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save_checkpoint(model, tmp_path / "tied.safetensors")
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    load_checkpoint(other, tmp_path / "tied.safetensors")
    assert torch.equal(other[1].weight, model[0].weight)


def test_a_file_without_counters_of_batches_loads(tmp_path: Path) -> None:
    """PyTorch before 0.4.1 stored none."""
    model, other = Model(), Model()
    model.norm.num_batches_tracked += 7
    counted = {key: tensor for key, tensor in state_of(model).items() if not key.endswith("num_batches_tracked")}
    load_checkpoint(other, counted)
    assert_equal(other, counted | {"norm.num_batches_tracked": torch.tensor(0)})
    del counted["norm.running_var"]
    with pytest.raises(CheckpointError, match=r"missing: norm\.running_var"):
        load_checkpoint(other, counted)
