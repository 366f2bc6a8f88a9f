# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Compiled kernels: built once, and replaced by torch operations wherever that is not possible."""

import ctypes
import logging
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from aqr_perception.models.aqr import native_windows
from aqr_perception.models.ops import native_library as module
from aqr_perception.models.ops.native_library import SWITCH, is_usable, native_library, torch_operations
from aqr_perception.models.points import native_sparse
from aqr_perception.models.transformer import native_correction

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)


def right(library: ctypes.CDLL) -> bool:
    return bool(library.answer() == 42)


def wrong(library: ctypes.CDLL) -> bool:
    return bool(library.answer() == 43)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(SWITCH, raising=False)
    native_library.cache_clear()
    path = tmp_path / "answers.cpp"
    path.write_text('extern "C" int answer() { return 42; }')
    return path


def libraries(source: Path) -> list[Path]:
    return sorted((source.parent / "cache").rglob("*.so"))


@needs_compiler
def test_a_library_is_built_once_and_then_read_from_the_cache(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native_library(source, right) is not None
    assert len(libraries(source)) == 1
    native_library.cache_clear()
    monkeypatch.setattr(module, "_compile", lambda command: pytest.fail("compiled again"))
    assert native_library(source, right) is not None


@needs_compiler
def test_a_changed_source_is_built_again(source: Path) -> None:
    assert native_library(source, right) is not None
    source.write_text('extern "C" int answer() { return 43; }')
    native_library.cache_clear()
    assert native_library(source, wrong) is not None
    assert len(libraries(source)) == 2


@needs_compiler
@pytest.mark.parametrize(
    "kernels", [native_sparse, native_correction, native_windows], ids=lambda kernels: kernels.__name__
)
def test_a_first_call_within_autocast_finds_the_kernels_right(kernels: ModuleType) -> None:
    native_library.cache_clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert native_library(kernels._SOURCE, kernels._is_right) is not None


@needs_compiler
def test_within_torch_operations_no_kernel_is_used(source: Path) -> None:
    assert is_usable(source, right)
    with torch_operations():
        assert not is_usable(source, right)
    assert is_usable(source, right)


def assert_falls_back(source: Path, caplog: pytest.LogCaptureFixture, reason: str, check=right) -> None:
    with caplog.at_level(logging.INFO):
        assert native_library(source, check) is None
    assert "torch operations" in caplog.text and reason in caplog.text


def test_the_switch_turns_the_kernels_off(source, caplog, monkeypatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    assert_falls_back(source, caplog, f"{SWITCH}=0")
    assert libraries(source) == []


def test_without_a_compiler_torch_operations_run(source, caplog, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert_falls_back(source, caplog, "no C++ compiler")


@needs_compiler
def test_a_source_that_does_not_compile_is_reported(source, caplog) -> None:
    source.write_text("this is no C++")
    assert_falls_back(source, caplog, "failed")
    assert libraries(source) == []


@needs_compiler
def test_a_library_with_wrong_results_is_not_used(source, caplog) -> None:
    assert_falls_back(source, caplog, "wrong results", wrong)


def test_a_compiler_that_hangs_is_stopped(source, caplog, monkeypatch) -> None:
    hanging = source.parent / "slow++"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("CXX", str(hanging))
    monkeypatch.setattr(module, "_SECONDS", 0.2)
    assert_falls_back(source, caplog, "took more than")


def test_a_cache_that_cannot_be_made_is_reported(source, caplog, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))  # a file
    assert_falls_back(source, caplog, "cannot write")


def test_a_cache_that_others_may_write_to_is_not_used(source, caplog) -> None:
    folder = source.parent / "cache" / "aqr_perception" / "native"
    folder.mkdir(parents=True)
    os.chmod(folder, 0o777)
    assert_falls_back(source, caplog, "this user alone")


@needs_compiler
def test_a_damaged_library_is_removed_and_built_at_the_next_start(source, caplog) -> None:
    module._built(source).write_bytes(b"damaged")
    assert_falls_back(source, caplog, "torch operations")
    native_library.cache_clear()
    assert native_library(source, right) is not None
