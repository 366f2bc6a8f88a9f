# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Cache on disk of the feature maps of an image backbone, or of its early stages, that training does not change."""

import hashlib
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)

_LEAST_FREE = 2e9
"""Bytes that a cache leaves free on its disk."""

_TRAINED = (
    "the maps of a backbone that is trained cannot be cached: freeze it (--learning-rate-factor img_backbone=0), or "
    "train without --feature-cache"
)


@runtime_checkable
class DividedBackbone(Protocol):
    """A backbone whose early stages can be frozen while its late ones are trained: late(early(x)) are its maps."""

    def early(self, images: Tensor) -> tuple[Tensor, ...]: ...

    def late(self, early: tuple[Tensor, ...]) -> tuple[Tensor, ...]: ...

    def early_modules(self) -> list[nn.Module]: ...


class FrozenPart(NamedTuple):
    """The part of a backbone whose maps are stored.

    Attributes:
        maps: images -> stored maps.
        rest: stored maps -> the backbone's maps.
        modules: the part's modules.
    """

    maps: Callable[[Tensor], tuple[Tensor, ...]]
    rest: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
    modules: Sequence[nn.Module]


class BackboneCache:
    """Feature maps of a frozen backbone, or of its frozen early stages, in fp16 under the hash of their picture.

    The key is the content of the normalised picture, so that a changed picture (another size, a simulated failure,
    an augmentation) is another entry, and the backbone's weights name the folder, so that other weights find none.
    Several processes may share a folder. A picture that is not stored runs through the backbone, and one that is marked
    as `passing` is not stored, because it would fill the disk and never be read.

    Attributes:
        passing: (B, V) bool, the pictures of the next call that will hardly come again; None for none. A call takes it.

    Args:
        folder: folder of the entries; it is made if it does not exist.
        backbone: the backbone, already with its weights and frozen parameters; see `DividedBackbone`.
        max_bytes: bytes that this process writes at most; further pictures run through the backbone each time.
    """

    def __init__(self, folder: Path, backbone: nn.Module, max_bytes: float = 50e9) -> None:
        self._folder = folder / _weights_hash(frozen_part(backbone).modules)
        self._left = max_bytes
        self.passing: Tensor | None = None
        self._folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, backbone: nn.Module, pictures: Tensor) -> tuple[Tensor, ...]:
        """Return the backbone's maps of (N, 3, H, W) normalised pictures, in their dtype and on their device.

        Stored maps have the precision of fp16, whether or not they were stored before. No gradient reaches the frozen
        stages.

        Raises:
            ValueError: the backbone is trained and cannot be divided, or its early stages are trained, so that their
                maps change; `passing` marks another number of pictures.
        """
        passing, self.passing = self.passing, None
        kept = [True] * len(pictures) if passing is None else (~passing).flatten().tolist()
        if len(kept) != len(pictures):
            raise ValueError(f"passing has {len(kept)} marks, needed one for each of the {len(pictures)} pictures")
        part = frozen_part(backbone)
        if any(inner.training for module in part.modules for inner in module.modules()):
            raise ValueError(_TRAINED)
        paths = [self._path(picture) for picture in pictures]
        found = [_read(path) for path in paths]
        missing = [index for index, maps in enumerate(found) if maps is None]
        if missing:
            with torch.no_grad():
                computed = part.maps(pictures[missing])
            for position, index in enumerate(missing):
                maps = [level[position].to(torch.float16).cpu() for level in computed]
                found[index] = maps
                if kept[index]:
                    self._write(paths[index], maps)
        levels = zip(*(maps for maps in found if maps is not None), strict=True)
        return part.rest(tuple(torch.stack([maps.to(pictures) for maps in level]) for level in levels))

    def _path(self, picture: Tensor) -> Path:
        pixels = picture.detach().to(torch.float32).cpu().contiguous().numpy()
        key = hashlib.blake2b(pixels.data, digest_size=16, person=str(tuple(pixels.shape)).encode()[:16]).hexdigest()
        return self._folder / key[:2] / f"{key[2:]}.npz"

    def _write(self, path: Path, maps: Sequence[Tensor]) -> None:
        size = sum(level.numel() * level.element_size() for level in maps)
        if size > self._left:
            return
        try:
            path.parent.mkdir(exist_ok=True)
            if shutil.disk_usage(path.parent).free < _LEAST_FREE + size:
                raise OSError(f"less than {_LEAST_FREE / 1e9:g} GB would be free on the disk")
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                np.savez(file, *(level.numpy() for level in maps))
            os.replace(file.name, path)
        except OSError as error:
            _log.warning("%s: further feature maps are not cached, but computed each time: %s", self._folder, error)
            self._left = 0.0
            return
        self._left -= size


def frozen_part(backbone: nn.Module) -> FrozenPart:
    """Return the whole backbone if it is frozen, else its early stages.

    Raises:
        ValueError: the early stages are trained too, or the backbone cannot be divided.
    """
    if _has_no_gradient(backbone):
        return FrozenPart(backbone, lambda maps: maps, [backbone])
    if not isinstance(backbone, DividedBackbone):
        raise ValueError(_TRAINED)
    if not all(map(_has_no_gradient, modules := backbone.early_modules())):
        raise ValueError(f"{_TRAINED}. The stages beyond stride 8 may be trained")
    return FrozenPart(backbone.early, backbone.late, modules)


def _has_no_gradient(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())


def _weights_hash(modules: Iterable[nn.Module]) -> str:
    """Return a hash of the modules' weights and statistics by key."""
    digest = hashlib.blake2b(digest_size=8)
    for module in modules:
        for key, tensor in sorted(module.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> list[Tensor] | None:
    """Return the stored maps; None if there are none, or if their file is damaged."""
    try:
        with np.load(path) as stored:
            return [torch.from_numpy(stored[name]) for name in stored.files]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("%s: the damaged file is computed anew: %s", path, error)
        return None
