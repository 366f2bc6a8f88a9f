# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Files of weights: safetensors, and files of torch.save, read without running code in them."""

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
from safetensors import safe_open

from aqr_perception.models.weights.checkpoint_error import CheckpointError
from aqr_perception.models.weights.placeholders import load_without_code

CLASSES_ENTRY = "aqr_perception.classes"
"""Entry with the class names: a JSON list in the metadata of safetensors, a list next to the weights of a training."""

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_MOST_EXPANSION = 20
"""Largest ratio of a zip archive's content to its size: more than that of compressed weights."""
_SMALL = 1 << 26
_UNPICKLER = "WeightsUnpickler error:"
_OTHER_FORMATS = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it first",
    b"\x89HDF": "an HDF5 file; export the weights as safetensors or with torch.save",
    b"\x93NUMPY": "a NumPy array; export the weights as safetensors or with torch.save",
    b"\x08": "an ONNX file or another protocol buffer; choose the checkpoint that it was exported from",
}
"""Formats by their first bytes, with the remedy."""


@dataclass(frozen=True)
class FileContent:
    """Content of a file.

    Attributes:
        format: name of the file's format.
        content: the saved object; tensors are on the CPU.
        classes: names of the classes in the order of the class outputs, in files of this project; None if unknown.
        metadata: texts by name in the header of safetensors.
        not_loaded: modules and names of objects that were replaced by placeholders, sorted.
    """

    format: str
    content: object
    classes: tuple[str, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    not_loaded: tuple[str, ...] = ()


def read_file(path: Path) -> FileContent:
    """Read a file of weights.

    Raises:
        CheckpointError: the file cannot be read, is damaged, is no file of weights, or would run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
        # A safetensors file starts with the length of its header in 8 bytes, then the header, a JSON object.
        if start[8:9] == b"{" or (path.suffix == ".safetensors" and not start.startswith((_ZIP, _PICKLE))):
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
            tensors = safetensors.torch.load_file(path)
            return FileContent("safetensors", tensors, _class_names(metadata.get(CLASSES_ENTRY)), metadata)
        _check_expansion(path)
        content, not_loaded = load_without_code(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: {_unreadable(path, error)}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refused(path, start, error)}") from error
    # Damaged files cause many kinds of errors, in the archive reader, the unpickler and the rebuilding of tensors.
    except Exception as error:
        raise CheckpointError(f"{path}: {_damaged(path, start, error)}") from error
    form = "torch.save (zip)" if start.startswith(_ZIP) else "torch.save (before PyTorch 1.6)"
    names = dict.get(content, CLASSES_ENTRY) if isinstance(content, dict) else None
    return FileContent(form, content, _class_names(names), {}, not_loaded)


def _check_expansion(path: Path) -> None:
    """Check that the members of a zip archive do not expand to far more than the file: torch.save compresses none."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            expanded = sum(member.file_size for member in archive.infolist())
    # A damaged directory causes many kinds of errors; reading the content names them.
    except Exception:
        return
    size = path.stat().st_size
    if expanded > _MOST_EXPANSION * size + _SMALL:
        raise CheckpointError(
            f"{path}: is a zip archive of {size} bytes whose members expand to {expanded}, needed at most "
            f"{_MOST_EXPANSION} times its size; torch.save compresses nothing: download or export it again"
        )


def as_dict(value: object) -> object:
    """Return a mapping as a plain dictionary, and any other object unchanged.

    A file can give an OrderedDict attributes that hide its methods.
    """
    if isinstance(value, dict):
        return dict(dict.items(value))
    return dict(value.items()) if isinstance(value, Mapping) else value


def _class_names(stored: object) -> tuple[str, ...] | None:
    """Return class names from a list or a JSON list; None for anything else."""
    if isinstance(stored, str):
        try:
            stored = json.loads(stored)
        except json.JSONDecodeError:
            return None
    if isinstance(stored, list | tuple) and all(isinstance(name, str) for name in stored):
        return tuple(stored)
    return None


def _unreadable(path: Path, error: OSError) -> str:
    if path.is_dir():
        return "is a directory; choose a file in it (.pth, .pt, .ckpt or .safetensors)"
    return f"cannot be read ({error.strerror or error}); check the path and its permissions"


def _refused(path: Path, start: bytes, error: pickle.UnpicklingError) -> str:
    """Describe a file whose pickle PyTorch refuses."""
    if not start.startswith((_ZIP, _PICKLE)):
        return _damaged(path, start, error)
    return (
        "holds objects other than tensors and plain values, which are not loaded because they could run code "
        f"({_reason(error)}); if you trust the file, load it where it was made and save its state_dict again, with "
        "torch.save and its default pickle protocol or as safetensors"
    )


def _reason(error: pickle.UnpicklingError) -> str:
    """Return the reason in PyTorch's message without its advice to run the file's code."""
    reason = str(error).rpartition(_UNPICKLER)[2].strip().split("\n")[0]
    return reason.split(" Please use")[0].strip(" .") or type(error).__name__


def _damaged(path: Path, start: bytes, error: Exception) -> str:
    """Describe a file that is not a complete file of weights, from its first bytes."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "is empty (0 bytes); download or export it again"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, a text of a few lines in place of the weights; run: git lfs pull"
    if text.startswith(b"<"):
        return "is a web page, not weights: the download needs a login or another link; download the file itself"
    if text.startswith((b"{", b"[")) and b"\x00" not in start:
        return "is a text file (JSON), not weights; choose a .pth, .pt, .ckpt or .safetensors file"
    if _is_text(start):
        line = start.decode().strip().splitlines()[0]
        return f"is a text file ({line[:40]!r}), not weights; download or export the weights again"
    for first, description in _OTHER_FORMATS.items():
        if start.startswith(first):
            return f"is {description}"
    if start.startswith(_ZIP):
        return _damaged_zip(path, error)
    if start[257:262] == b"ustar":
        return (
            "is a tar archive; unpack it first, or load a file of an early PyTorch where it was made and save it again"
        )
    if start[8:9] == b"{":
        size, needed = path.stat().st_size, struct.unpack("<Q", start[:8])[0] + 8
        cause = f"{size} bytes, but its header alone has {needed}" if size < needed else _first_line(error)
        return f"is truncated or corrupt ({cause}); download or export it again"
    if start.startswith(_PICKLE):
        return f"is truncated or corrupt ({_first_line(error)}); download or export it again"
    return (
        f"is truncated or corrupt, or no file of weights: its first bytes are {start[:8]!r} ({_first_line(error)}); "
        "download or export it again (safetensors or torch.save)"
    )


def _is_text(start: bytes) -> bool:
    """Return whether a file begins with readable text."""
    try:
        text = start.decode()
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(character.isprintable() or character in "\t\r\n" for character in text)


def _damaged_zip(path: Path, error: Exception) -> str:
    try:
        if not zipfile.is_zipfile(path):
            return "is truncated: its zip archive has no end; download or copy it again"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    # The standard library raises many kinds of errors on a damaged directory.
    except Exception as broken:
        return f"is truncated or corrupt ({_first_line(broken)}); download or copy it again"
    if any("/code/" in name for name in names):
        return "is a TorchScript program, which cannot be read without running it; choose the checkpoint of its weights"
    if not any(name.endswith("data.pkl") for name in names):
        return f"is a zip archive without a checkpoint (first entry {names[:1]}); unpack it first"
    return (
        f"is corrupt, or holds tensors of a class of its own ({_first_line(error)}); download it again, or save its "
        "state_dict with plain tensors"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
