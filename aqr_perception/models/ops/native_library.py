# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""C++ kernels compiled on this machine: built once into a cache, for the CPU at hand, and never required.

Wherever a compiler, a writable cache folder or time is missing, the caller uses its torch implementation; the log says
which one runs and why.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch

SWITCH = "AQR_PERCEPTION_NATIVE"
"""Environment variable; ``0`` turns the kernels off."""

_SECONDS = 60.0
"""Longest time of one run of the compiler."""

_FLAGS = ("-O3", "-march=native", "-fopenmp-simd", "-std=c++17", "-shared", "-fPIC")
_log = logging.getLogger(__name__)


_kernels_on = ContextVar("kernels_on", default=True)


@contextmanager
def torch_operations() -> Iterator[None]:
    """Use torch operations in place of compiled kernels, for example to count them, which PyTorch cannot in kernels."""
    token = _kernels_on.set(False)
    try:
        yield
    finally:
        _kernels_on.reset(token)


def is_usable(source: Path, check: Callable[[ctypes.CDLL], bool]) -> bool:
    """Return whether to use the library of a C++ source here and now; see `native_library`."""
    return _kernels_on.get() and native_library(source, check) is not None


class _UnavailableError(Exception):
    """The library cannot be built or used here; the message says why."""


@cache
def native_library(source: Path, check: Callable[[ctypes.CDLL], bool]) -> ctypes.CDLL | None:
    """Return the library of a C++ source, built if the cache lacks it; None if it is off or cannot be used.

    Args:
        source: file with C functions.
        check: runs the functions on a small problem, in fp32, and returns whether the results are right.
    """
    if os.environ.get(SWITCH, "") == "0":
        _log.info("%s: torch operations, because %s=0", source.stem, SWITCH)
        return None
    try:
        library = _load(_built(source))
        with torch.autocast("cpu", enabled=False):  # the first call may come from a frame in bf16
            right = check(library)
        if not right:
            raise _UnavailableError("the compiled functions give wrong results")
    except (_UnavailableError, OSError, AttributeError) as error:
        _log.info("%s: torch operations, which are slower: %s (%s=0 skips the attempt)", source.stem, error, SWITCH)
        return None
    _log.info("%s: compiled for this CPU", source.stem)
    return library


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink(missing_ok=True)  # damaged, for example by a full disk: built again at the next start
        raise


def _built(source: Path) -> Path:
    """Return the path of the compiled library.

    Raises:
        _UnavailableError: there is no compiler or no folder to write to, or the compiler fails or takes too long.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))), None)
    if compiler is None:
        raise _UnavailableError("found no C++ compiler (c++, g++, clang++ or $CXX); install one, for example g++")
    folder = _cache_folder()
    target = folder / f"{source.stem}-{_fingerprint(source, compiler)}.so"
    if target.is_file():
        return target
    handle, name = tempfile.mkstemp(".so", f".{source.stem}-", folder)
    os.close(handle)
    try:
        for openmp in (("-fopenmp",), ()):  # some compilers have no OpenMP; the kernels then use one thread
            error = _compile([compiler, *_FLAGS, *openmp, str(source), "-o", name])
            if not error:
                os.replace(name, target)  # at once, because several processes may build
                return target
        raise _UnavailableError(f"{compiler} failed: {error}")
    finally:
        Path(name).unlink(missing_ok=True)


def _compile(command: list[str]) -> str:
    """Run the compiler; return its last message, empty if it succeeded."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise _UnavailableError(f"{command[0]} took more than {_SECONDS:.0f} s") from None
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it said nothing"])[-1]


def _cache_folder() -> Path:
    """Return the folder of the compiled libraries, which only this user may write to."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "aqr_perception" / "native"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise _UnavailableError(f"cannot write to {folder}: {error}; set XDG_CACHE_HOME") from error
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or not os.access(folder, os.W_OK):
        raise _UnavailableError(f"{folder} must belong to this user alone and be writable; set XDG_CACHE_HOME")
    return folder


def _fingerprint(source: Path, compiler: str) -> str:
    """Return a hash of all that the library depends on; machines with different CPUs may share a home folder."""
    parts = [source.read_bytes(), compiler.encode(), str(os.stat(compiler).st_mtime_ns).encode()]
    parts += [" ".join(_FLAGS).encode(), platform.machine().encode(), _cpu().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _cpu() -> str:
    """Return a description of the CPU's instructions; its name where Linux does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model", "CPU part"))}))
