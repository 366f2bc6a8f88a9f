# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A small model, data set and losses for tests of the training loop."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from aqr_perception.data.batch import Batch
from aqr_perception.training.training_options import TrainOptions

CPU: Mapping[str, Any] = {"device": "cpu", "precision": "fp32", "workers": 0}


class Model(nn.Module):
    """A model with the names of a detector's parts; dropout and batch norm make random numbers and batches matter."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.img_backbone = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(0.2 if norm else 0.0)
        self.aqr = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8) if norm else nn.Identity())
        self.unused = nn.Linear(2, 2)
        self.points_only = nn.Linear(8, 1)
        self.head = nn.Linear(8, 1)

    def forward(self, values: Tensor, with_points: bool) -> Tensor:
        hidden = self.dropout(self.norm(self.img_backbone(values)))
        hidden = hidden + self.aqr(hidden)
        return self.head(hidden) + (self.points_only(hidden) if with_points else 0.0)


def model(norm: bool = True) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model(norm)


class Data:
    """Points of a plane, shifted at random by more and more during the training. Odd samples have LiDAR."""

    def __init__(self, length: int = 10, shift: float = 0.1, broken: Sequence[int] = ()) -> None:
        self.length, self.shift, self.broken = length, shift, broken

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> NDArray[np.float32]:
        assert 0.0 <= progress <= 1.0
        values = np.random.default_rng(index).normal(size=4) + self.shift * (1.0 + progress) * rng.normal(size=4)
        if index in self.broken:
            values[:] = np.nan
        return np.array([*values, index], np.float32)


def collate(samples: Sequence[NDArray[np.float32]]) -> Batch:
    values = torch.from_numpy(np.stack(samples))
    points = [torch.zeros(int(index) % 2, 5) for index in values[:, 4]]
    return Batch(values[:, :4], None, points, [], [], [], [], torch.zeros(0), torch.zeros(0))


def loss(model: Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
    assert batch.images is not None and batch.points is not None
    noise = 0.01 * torch.randn(batch.images.shape, generator=generator) if model.dropout.p else 0.0
    with_points = any(len(cloud) for cloud in batch.points)
    predicted = model(batch.images + noise, with_points).float()
    truth = batch.images.sum(-1, keepdim=True)
    return {"square": (predicted - truth).square().mean(), "size": 0.01 * predicted.square().mean()}


def mean_loss(model: Model, batch: Batch, generator: Generator) -> dict[str, Tensor]:
    """Return a mean over samples that all use the same parts of the model, so that batches can be split."""
    assert batch.images is not None
    return {"square": (model(batch.images, True) - batch.images.sum(-1, keepdim=True)).square().mean()}


def options(**changed: Any) -> TrainOptions:
    return TrainOptions(**{"steps": 6, "batch_size": 3, "learning_rate": 0.01, **CPU, **changed})


def newest_state(folder: Path) -> dict[str, Any]:
    paths = sorted((folder / "checkpoints").glob("step_*.pt"))
    return torch.load(paths[-1], weights_only=True)


def differences(left: Any, right: Any, where: str = "state") -> list[str]:
    """Return the places where two states differ in any bit, except for the elapsed time."""
    if isinstance(left, Tensor):
        same = left.dtype == right.dtype and left.shape == right.shape
        return [] if same and bool(((left == right) | (left.isnan() & right.isnan())).all()) else [where]
    if isinstance(left, dict):
        if left.keys() != right.keys():
            return [f"{where}: {left.keys() ^ right.keys()}"]
        inner = (differences(left[key], right[key], f"{where}.{key}") for key in left if key not in ("elapsed",))
        return [place for part in inner for place in part]
    if isinstance(left, list):
        inner = (differences(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(left, right, strict=True)))
        return [place for part in inner for place in part]
    return [] if left == right else [f"{where}: {left!r}, {right!r}"]
