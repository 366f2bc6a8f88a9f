"""Golden values of the published models' image branches on a real keyframe."""

import importlib.util
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.places import REFERENCE
from torch import Tensor, nn

REFERENCE = REFERENCE


class PublishedModel:
    """One published model's weights and golden stages."""

    def __init__(self, name: str) -> None:
        spec = importlib.util.spec_from_file_location("formula_weights", REFERENCE / "formula_weights.py")
        assert spec and spec.loader
        self._formula = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._formula)
        self._shapes = json.loads((REFERENCE / "checkpoints" / f"{name}.keys.json").read_text())
        self._golden = np.load(REFERENCE / "golden" / f"{name}.npz")

    def fill(self, module: nn.Module, prefix: str) -> None:
        """Load the published model's weights below a key prefix strictly into the module."""
        shapes = {key: tuple(shape) for key, (shape, _) in self._shapes.items() if key.startswith(prefix)}
        state = self._formula.formula_state_dict(shapes)
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
def published() -> Callable[[str], PublishedModel]:
    if not REFERENCE.is_dir():
        pytest.skip(f"the published models' outputs are not here: {REFERENCE} is absent")
    return PublishedModel


@pytest.fixture
def front_image(published: Callable[[str], PublishedModel]) -> Tensor:
    """The keyframe's first camera, (1, 3, 320, 800) float32, BGR, normalised."""
    image = np.load(REFERENCE / "golden" / "cmt_voxel0100_r50_800x320.input.npz")["images_bgr"][:1].astype(np.float32)
    normalised = (image - (103.530, 116.280, 123.675)) / (57.375, 57.120, 58.395)
    return torch.from_numpy(normalised.astype(np.float32)).permute(0, 3, 1, 2)
