# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A small BEVFormer in a frame with x forward, and its six cameras."""

import dataclasses
from functools import partial

import torch
from torch import Tensor

from aqr_perception.models.bevformer.bevformer_options import BevFormerOptions
from aqr_perception.models.bevformer.model import BEVFormer
from aqr_perception.models.config.presets import Decoder, ImageBranch, Preset, ProposalOptions
from aqr_perception.models.model_io import History
from helpers import camera_ring

SIZE = (64, 96)
"""Height and width of the images in pixels."""
PRESET = Preset(
    name="small",
    description="",
    point_range=(-24.0, -16.0, -5.0, 24.0, 16.0, 3.0),
    image=ImageBranch(size=(96, 64), backbone="resnet18"),
    decoder=Decoder(channels=32, queries=40, layers=2, heads=4, feedforward=48),
    options=BevFormerOptions(
        grid=(12, 8), levels=4, encoder_layers=2, forward=0.0, camera_azimuths=camera_ring.AZIMUTHS
    ),
    architecture="bevformer",
)
projections = partial(camera_ring.projections, size=SIZE, focal=60.0)
images = partial(camera_ring.images, size=SIZE)


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


def history(state: object, before: Tensor, now: Tensor, seconds: float = 0.5) -> History:
    """Return the history of a vehicle that moved from one pose to another."""
    return History(state, (torch.linalg.inv(now) @ before).float(), now.float(), seconds)
