"""A small BEVFormer in a frame with x forward, its six cameras, and vehicle poses."""

import dataclasses
import math

import torch
from torch import Tensor

from aqr_perception.models.bevformer.bevformer_options import BevFormerOptions
from aqr_perception.models.bevformer.model import BEVFormer
from aqr_perception.models.config.presets import Decoder, ImageBranch, Preset, ProposalOptions
from aqr_perception.models.model_io import History

AZIMUTHS = (0.0, -55.0, 55.0, 180.0, 108.0, -110.0)
SIZE = (64, 96)
"""Height and width of the images in pixels."""
PRESET = Preset(
    name="small",
    description="",
    point_range=(-24.0, -16.0, -5.0, 24.0, 16.0, 3.0),
    image=ImageBranch(size=(96, 64), backbone="resnet18"),
    decoder=Decoder(channels=32, queries=40, layers=2, heads=4, feedforward=48),
    options=BevFormerOptions(
        grid=(12, 8), levels=4, encoder_layers=2, forward=0.0, camera_azimuths=(0.0, -55.0, 55.0, 180.0, 108.0, -110.0)
    ),
    architecture="bevformer",
)


def small_model(proposals: tuple[int, int] = (0, 0), **bevformer: object) -> BEVFormer:
    """Return the model with random weights instead of its initial zeros, so that every parameter has an effect."""
    decoder = dataclasses.replace(PRESET.decoder, proposals=ProposalOptions(*proposals))
    options = dataclasses.replace(PRESET.architecture_options(BevFormerOptions), **bevformer)
    preset = dataclasses.replace(PRESET, decoder=decoder, options=options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BEVFormer(preset).eval()
        with torch.no_grad():
            for parameter in model.pts_bbox_head.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def projections(batch: int = 1) -> Tensor:
    """Return (B, 6, 4, 4), vehicle -> pixels."""
    matrices = torch.zeros(batch, len(AZIMUTHS), 4, 4)
    intrinsics = torch.tensor([[60.0, 0, 48], [0, 60, 32], [0, 0, 1]])
    for view, azimuth in enumerate(torch.tensor(AZIMUTHS).deg2rad()):
        right = torch.stack((azimuth.sin(), -azimuth.cos(), 0 * azimuth))
        forward = torch.stack((azimuth.cos(), azimuth.sin(), 0 * azimuth))
        rotation = torch.stack((right, torch.tensor([0.0, 0.0, -1.0]), forward))
        position = forward + torch.tensor([0.0, 0.0, 1.5])
        matrices[:, view, :3, :3] = intrinsics @ rotation
        matrices[:, view, :3, 3] = -intrinsics @ rotation @ position
    matrices[..., 3, 3] = 1.0
    return matrices


def images(batch: int = 1, seed: int = 0) -> Tensor:
    """Return (B, 6, 3, H, W) of noise."""
    return torch.randn(batch, len(AZIMUTHS), 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def pose(x: float, y: float, yaw: float) -> Tensor:
    """Return (4, 4) float64, vehicle -> world; metres and radians."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    matrix[:2, 3] = torch.tensor([x, y], dtype=torch.float64)
    return matrix


def history(state: object, before: Tensor, now: Tensor, seconds: float = 0.5) -> History:
    """Return the history of a vehicle that moved from one pose to another."""
    return History(state, (torch.linalg.inv(now) @ before).float(), now.float(), seconds)
