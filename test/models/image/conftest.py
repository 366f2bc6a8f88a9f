# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Golden values of the published models' image branches on a real keyframe."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.authors_reference import formula_state
from helpers.places import REFERENCE
from torch import Tensor, nn


class PublishedModel:
    """One published model's weights and golden stages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._golden = np.load(REFERENCE / "golden" / f"{name}.npz")

    def fill(self, module: nn.Module, prefix: str) -> None:
        """Load the published model's weights below a key prefix strictly into the module."""
        state = formula_state(self._name, prefix)
        module.load_state_dict({key.removeprefix(prefix): tensor for key, tensor in state.items()})

    def first_view_samples(self, stage: str) -> tuple[Tensor, Tensor]:
        """Return indices into the flattened first view's features of a stage, and the golden values there."""
        shape = tuple(self._golden[f"{stage}/shape"])
        index = np.random.RandomState(0).randint(0, np.prod(shape), 4096)
        first = index < np.prod(shape[1:])
        assert first.sum() > 500
        return torch.from_numpy(index[first]), torch.from_numpy(self._golden[f"{stage}/samples"][first])

    def shape(self, stage: str) -> tuple[int, ...]:
        return tuple(int(size) for size in self._golden[f"{stage}/shape"])


@pytest.fixture
def published(shared_reference: Path) -> Callable[[str], PublishedModel]:
    return PublishedModel


@pytest.fixture
def front_image(published: Callable[[str], PublishedModel]) -> Tensor:
    """The keyframe's first camera, (1, 3, 320, 800) float32, BGR, normalised."""
    image = np.load(REFERENCE / "golden" / "cmt_voxel0100_r50_800x320.input.npz")["images_bgr"][:1].astype(np.float32)
    normalised = (image - (103.530, 116.280, 123.675)) / (57.375, 57.120, 58.395)
    return torch.from_numpy(normalised.astype(np.float32)).permute(0, 3, 1, 2)
