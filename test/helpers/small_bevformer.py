"""A small BEVFormer, in a frame with x forward, and inputs of its six cameras."""

import dataclasses

import torch
from torch import Tensor

from aqr_perception.models.bevformer.model import BEVFormer
from aqr_perception.models.config.presets import BevFormerOptions, Decoder, ImageBranch, Preset, ProposalOptions
from helpers import camera_ring

SIZE = (64, 96)
"""Height and width of the images in pixels."""
PRESET = Preset(
    name="small",
    description="",
    point_range=(-24.0, -16.0, -5.0, 24.0, 16.0, 3.0),
    image=ImageBranch(size=(96, 64), backbone="resnet18"),
    decoder=Decoder(channels=32, queries=40, layers=2, heads=4, feedforward=48),
    bevformer=BevFormerOptions(
        grid=(12, 8), levels=4, encoder_layers=2, forward=0.0, camera_azimuths=camera_ring.AZIMUTHS
    ),
    architecture="bevformer",
)


def small_model(proposals: tuple[int, int] = (0, 0), **bevformer: object) -> BEVFormer:
    """Return a model with random weights in place of initial zeros, so that every part has an effect."""
    decoder = dataclasses.replace(PRESET.decoder, proposals=ProposalOptions(*proposals))
    preset = dataclasses.replace(PRESET, decoder=decoder, bevformer=dataclasses.replace(PRESET.bevformer, **bevformer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BEVFormer(preset).eval()
        with torch.no_grad():
            for parameter in model.pts_bbox_head.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def projections(batch: int = 1) -> Tensor:
    """Return (B, 6, 4, 4), vehicle -> pixels."""
    return camera_ring.projections(batch, focal=60.0, centre=(48.0, 32.0))


def images(batch: int = 1, seed: int = 0) -> Tensor:
    """Return (B, 6, 3, H, W) of noise."""
    return camera_ring.images(batch, seed, SIZE)
