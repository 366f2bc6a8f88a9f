# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Objects in torch.save files other than tensors: they become inert, and nothing in a file runs."""

import argparse
import collections
import datetime
import enum
import functools
import importlib
import os
import pathlib
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aqr_perception.models.weights.checkpoint_error import CheckpointError
from aqr_perception.models.weights.placeholders import Placeholder, load_without_code
from aqr_perception.models.weights.weight_files import read_file


class Call:
    """An object that unpickling replaces by the result of a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Classes as training frameworks store them, in a module that the reader must not import."""
    module = types.ModuleType("some_framework")

    class Config(dict):
        pass

    class Buffers(list):
        pass

    class Colour(enum.Enum):
        RED = 1

    class Slots:
        __slots__ = ("value",)

        def __init__(self) -> None:
            self.value = 1

    for cls in (Config, Buffers, Colour, Slots):
        cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return types.SimpleNamespace(**vars(module))


def save(path: Path, content: object, zipped: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_weights_are_named_and_not_loaded(
    tmp_path: Path, zipped: bool, framework: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    objects: dict[str, tuple[object, str]] = {
        "score": (np.float64(0.4), "numpy._core.multiarray.scalar"),
        "array": (np.ones(3), "numpy._core.multiarray._reconstruct"),
        "args": (argparse.Namespace(lr=1), "argparse.Namespace"),
        "path": (pathlib.PurePosixPath("/a"), "pathlib.PurePosixPath"),
        "time": (datetime.datetime(2025, 1, 1), "datetime.datetime"),
        "partial": (functools.partial(max, 1), "functools.partial"),
        "colour": (framework.Colour.RED, "some_framework.Colour"),
        "slots": (framework.Slots(), "some_framework.Slots"),
        "optimiser": (optimiser, "torch.optim.sgd.SGD"),
    }
    content = {"state_dict": {"a": torch.ones(3)}, **{key: value for key, (value, _) in objects.items()}}
    path = save(tmp_path / "epoch_1.pth", content, zipped)
    monkeypatch.delitem(sys.modules, "some_framework")
    loaded, names = load_without_code(path)
    assert isinstance(loaded, dict) and torch.equal(loaded["state_dict"]["a"], torch.ones(3))
    for key, (_, name) in objects.items():
        assert isinstance(loaded[key], Placeholder) and not vars(loaded[key]), key
        assert name.replace("_core", "core") in [found.replace("_core", "core") for found in names], key
    assert "some_framework" not in sys.modules
    assert not any(name.startswith("torch._utils") for name in names), "tensors are loaded"


@pytest.mark.parametrize("zipped", [True, False])
def test_configurations_and_buffers_are_read_as_plain_containers(
    tmp_path: Path, zipped: bool, framework: types.SimpleNamespace
) -> None:
    counts: collections.defaultdict[str, list[int]] = collections.defaultdict(list, a=[1])
    config = framework.Config(lr=1, items=2)
    config.hidden = config
    content = {
        "known": counts,
        "deque": collections.deque([1, 2], maxlen=3),
        "config": config,
        "buffers": framework.Buffers([3]),
    }
    loaded, _ = load_without_code(save(tmp_path / "epoch_1.pth", content, zipped))
    assert isinstance(loaded, dict)
    assert dict.__eq__(loaded["known"], {"a": [1]}) and loaded["deque"] == [1, 2] and loaded["buffers"] == [3]
    assert type(loaded["config"]) is collections.OrderedDict and dict.__eq__(loaded["config"], {"lr": 1, "items": 2})


@pytest.mark.parametrize("zipped", [True, False])
def test_calls_in_a_file_are_not_made(tmp_path: Path, zipped: bool) -> None:
    sentinel = tmp_path / "executed"
    command = f"open({str(sentinel)!r}, 'w').close()"
    run = subprocess.check_call
    calls = [
        Call(eval, command),
        Call(exec, command),
        Call(subprocess.Popen, ["touch", str(sentinel)]),
        Call(run, ["touch", str(sentinel)]),
        Call(open, str(sentinel), "w"),
        Call(importlib.import_module, "antigravity"),
        Call(getattr, "text", "upper"),
        Call(functools.partial, eval, command),
        # PyTorch's own function, which calls its first argument.
        Call(
            torch._tensor._rebuild_from_type_v2,
            subprocess.check_call,
            subprocess.check_call,
            (["touch", str(sentinel)],),
            {},
        ),
    ]
    path = save(tmp_path / "evil.pth", {"state_dict": {"a": torch.ones(1)}, "calls": calls}, zipped)
    with path.open("rb") as file, pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    loaded, names = load_without_code(path)
    assert isinstance(loaded, dict) and all(isinstance(item, Placeholder) for item in loaded["calls"])
    assert any(name.endswith(".eval") for name in names)
    assert not sentinel.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_calls_of_the_operating_system_are_refused_by_name(tmp_path: Path, zipped: bool) -> None:
    sentinel = tmp_path / "executed"
    path = save(tmp_path / "evil.pth", {"a": torch.ones(1), "b": Call(os.system, f"touch {sentinel}")}, zipped)
    with pytest.raises(CheckpointError, match=r"evil\.pth: .*could run code \(it calls posix\.system\)"):
        read_file(path)
    assert not sentinel.exists()


def test_a_placeholder_takes_any_arguments_and_state_and_keeps_nothing() -> None:
    placeholder = Placeholder(1, key=2)
    placeholder.__setstate__({"name": "other", "__class__": int})
    assert not vars(placeholder) and placeholder.name == "unknown" and type(placeholder) is Placeholder


def test_the_process_allows_no_more_names_after_reading(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    path = save(tmp_path / "epoch_1.pth", {"args": argparse.Namespace(lr=1)}, True)
    load_without_code(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_weights_that_are_no_tensors_are_refused_with_their_class(tmp_path: Path) -> None:
    from aqr_perception.models.weights.stored_weights import read_weights

    arrays: dict[str, Any] = {"conv.weight": np.ones(3), "conv.bias": torch.ones(3)}
    path = save(tmp_path / "arrays.pth", arrays, True)
    with pytest.raises(CheckpointError, match=r"'conv\.weight' \(numpy\._?core\.multiarray\._reconstruct object"):
        read_weights(path)
