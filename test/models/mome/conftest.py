"""A small MoME and inputs for it."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from aqr_perception.models import build_model
from aqr_perception.models.mome.model import MoME

_PRESET = """\
description: for tests
architecture: mome
point_range: [-12.8, -12.8, -5.0, 12.8, 12.8, 3.0]
image: {size: [96, 64], backbone: resnet18}
points:
  voxel_size: [0.4, 0.4, 0.25]
  grid: [64, 64, 32]
  encoder_channels: [8, 8, 8, 8]
  encoder_output: 8
  backbone_channels: [8, 8]
  backbone_layers: [1, 1]
  neck_channels: 8
decoder: {channels: 32, queries: 60, layers: 3, heads: 4, feedforward: 32, depths: 8}
aqr: {mode: "off"}
"""


class Sensed(NamedTuple):
    """A batch as `MoME.forward` takes it."""

    images: Tensor
    lidar_to_image: Tensor
    points: list[Tensor]

    def of(self, sample: int) -> "Sensed":
        """Return one sample as a batch."""
        one = slice(sample, sample + 1)
        return Sensed(self.images[one], self.lidar_to_image[one], self.points[one])


@pytest.fixture(scope="session")
def preset_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("presets") / "small_mome.yaml"
    path.write_text(_PRESET)
    return str(path)


@pytest.fixture(scope="session")
def new_model(preset_file: str) -> Callable[[], MoME]:
    def build() -> MoME:
        model = build_model(preset_file)
        assert isinstance(model, MoME)
        return model

    return build


@pytest.fixture(scope="session")
def model(new_model: Callable[[], MoME], sensed: Sensed) -> MoME:
    """A model whose router uses all experts: an untrained router gives all queries nearly the same logits."""
    model = new_model()
    last = model.pts_bbox_head.transformer.selected_cls
    said: list[Tensor] = []
    hook = last.register_forward_hook(lambda *call: said.append(call[-1].flatten(0, 1)))
    with torch.no_grad():
        model(*sensed)
        deviation, mean = torch.std_mean(said[0], dim=0)
        last.weight.div_(deviation[:, None])
        last.bias.sub_(mean).div_(deviation)
    hook.remove()
    return model


@pytest.fixture(scope="session")
def sensed() -> Sensed:
    """Three samples: a ring of three cameras with gaps between them, and points all around."""
    random = generator(0)
    lidar_to_image = torch.zeros(3, 3, 4, 4)
    for view in range(3):
        yaw = torch.tensor(-view * 2 * torch.pi / 3)
        right = torch.stack((yaw.cos(), yaw.sin(), torch.tensor(0.0)))
        forward = torch.stack((-yaw.sin(), yaw.cos(), torch.tensor(0.0)))
        intrinsics = torch.tensor([[40.0, 0, 48], [0, 40, 32], [0, 0, 1]])
        rotation = intrinsics @ torch.stack((right, torch.tensor([0.0, 0.0, -1.0]), forward))
        lidar_to_image[:, view, :3, :3] = rotation
        lidar_to_image[:, view, :3, 3] = rotation @ torch.tensor([0.1, 0.2, -0.5])
        lidar_to_image[:, view, 3, 3] = 1.0
    span, lower = torch.tensor([25.0, 25, 6, 255, 0.5]), torch.tensor([-12.5, -12.5, -4, 0, 0])
    points = [torch.rand(400, 5, generator=random) * span + lower for _ in range(3)]
    return Sensed(torch.randn(3, 3, 3, 64, 96, generator=random), lidar_to_image, points)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
