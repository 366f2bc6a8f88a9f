# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Files that are no weights, or not all of them: each has its own error."""

import gzip
import io
import resource
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import safetensors.torch
import torch

from aqr_perception.models.weights.checkpoint_error import CheckpointError
from aqr_perception.models.weights.weight_files import CLASSES_ENTRY, read_file

STATE = {"conv.weight": torch.arange(6000.0).view(3, 2000), "conv.bias": torch.ones(3)}


def torch_bytes(content: object = STATE, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("epoch_20.pth", b"weights")
    return buffer.getvalue()


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("epoch_20.pth"))
    return buffer.getvalue()


def script_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 164200000\n"


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: b"", "is empty"),
        (lambda: POINTER, "git lfs pull"),
        (lambda: b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (lambda: b"\n\n<html>404</html>", "is a web page"),
        (lambda: b"<!-- comment --><html>404</html>", "is a web page"),
        (lambda: b"404: Not Found", "is a text file ('404: Not Found'), not weights"),
        (lambda: b"model:\n  name: cmt\n", "is a text file"),
        (lambda: b'{"error": "not found"}', "JSON"),
        (lambda: gzip.compress(torch_bytes()), "gzip"),
        (tar_bytes, "tar archive"),
        (zip_bytes, "zip archive without a checkpoint"),
        (lambda: torch_bytes()[:-3000], "is truncated"),
        (lambda: torch_bytes()[:100], "is truncated"),
        (lambda: torch_bytes(_use_new_zipfile_serialization=False)[:-3000], "truncated or corrupt"),
        (lambda: safetensors.torch.save(STATE)[:-3000], "truncated or corrupt"),
        (lambda: safetensors.torch.save(STATE)[:40], "its header alone has"),
        (script_bytes, "TorchScript"),
        (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (lambda: bytes(range(200, 256)) * 3, "its first bytes are"),
    ],
)  # fmt: skip
def test_the_error_says_what_the_file_is(tmp_path: Path, suffix: str, content: Callable[[], bytes], said: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content())
    with pytest.raises(CheckpointError) as caught:
        read_file(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and said in message and "\n" not in message, message


def test_a_directory_and_an_absent_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a directory; choose a file in it"):
        read_file(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        read_file(tmp_path / "absent.pth")


def test_other_pickle_protocols_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "protocol4.pth"
    torch.save(STATE, path, pickle_protocol=4)
    with pytest.raises(CheckpointError, match="default pickle protocol"):
        read_file(path)


def test_a_whole_model_of_an_early_pytorch_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"\(Only persistent_load of storage is allowed") as caught:
        read_file(path)
    assert "weights_only" not in str(caught.value), "PyTorch's advice to run the file's code is left out"


@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch_save_are_read(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "epoch_20.pth"
    torch.save({**STATE, CLASSES_ENTRY: ["car", "bus"]}, path, _use_new_zipfile_serialization=zipped)
    file = read_file(path)
    assert isinstance(file.content, dict) and torch.equal(file.content["conv.weight"], STATE["conv.weight"])
    assert file.classes == ("car", "bus") and ("zip" in file.format) == zipped


def deflated(data: bytes, factor: int) -> bytes:
    """Return a zip archive with compressed members, the tensor's bytes `factor` times as many."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            with archive.open(name, "w") as member:
                for _ in range(factor if name.endswith("data/0") else 1):
                    member.write(source.read(name))
    return target.getvalue()


@pytest.mark.slow
def test_an_archive_that_expands_to_far_more_than_its_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path, whole = tmp_path / "bomb.pth", torch_bytes({"a": torch.zeros(1 << 20)})
    path.write_bytes(deflated(whole, 80))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        CheckpointError, match=r"bomb\.pth: is a zip archive of \d+ bytes whose members expand to 33\d+,"
    ):
        read_file(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB"


def test_a_long_text_in_a_damaged_file_does_not_flood_the_error(tmp_path: Path) -> None:
    path, target = tmp_path / "damaged.pth", io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_bytes())) as source, zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name) * (20_000 if name.endswith("byteorder") else 1))
    path.write_bytes(target.getvalue())
    with pytest.raises(
        CheckpointError, match=r"Unknown endianness type: little.*characters\).*download it again"
    ) as caught:
        read_file(path)
    assert len(str(caught.value)) < 1100


def test_a_compressed_archive_of_usual_weights_is_read(tmp_path: Path) -> None:
    path = tmp_path / "compressed.pth"
    path.write_bytes(deflated(torch_bytes({"a": torch.arange(1 << 12)}), 1))
    content = read_file(path).content
    assert isinstance(content, dict) and torch.equal(content["a"], torch.arange(1 << 12))


@pytest.mark.parametrize("names", ["[1, 2]", "{}", "no JSON"])
def test_class_names_that_are_no_list_of_names_are_unknown(tmp_path: Path, names: str) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "a.safetensors", metadata={CLASSES_ENTRY: names})
    assert read_file(tmp_path / "a.safetensors").classes is None


@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_damaged_bytes_give_a_checkpoint_error_or_content(tmp_path: Path, form: str) -> None:
    content = {"meta": {"best": np.float64(1.0)}, "state_dict": STATE}
    whole = safetensors.torch.save({"a": torch.ones(9)})
    if form != "safetensors":
        whole = torch_bytes(content, _use_new_zipfile_serialization=form == "zip")
    random, path, refused = Random(0), tmp_path / "damaged.pth", 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            # Most errors are in the first and the last bytes: the pickle, the header, the directory of the archive.
            place = random.choice([random.randrange(900), -random.randrange(1, 500)]) % len(damaged)
            damaged[place] = random.randrange(256)
        path.write_bytes(damaged[: random.choice([len(damaged), random.randrange(len(damaged))])])
        try:
            read_file(path)
        except CheckpointError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert refused > 20
