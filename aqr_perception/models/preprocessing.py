# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Preprocessing of camera images: scaled to the model's width, cropped at the top, normalised."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def image_to_model(picture: tuple[int, int], model: tuple[int, int]) -> NDArray[np.float64]:
    """Return the (3, 3) affine transform from a camera image's pixels to the model image's.

    The published models scale the image to their width and keep its bottom rows. Pixel coordinates are scaled without
    a half-pixel shift, as those models were trained.

    Args:
        picture: width and height of the camera image.
        model: width and height of the model's image.
    """
    scale = model[0] / picture[0]
    affine = np.diag([scale, scale, 1.0])
    affine[1, 2] = -_cropped_rows(picture, model)
    return affine


def prepare_image(
    picture: NDArray[np.uint8],
    model: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: torch.device,
) -> Tensor:
    """Return the (3, H, W) float32 normalised model image of an (h, w, 3) uint8 BGR camera image.

    The image is copied to the device as uint8, and resized and normalised there. Zeros fill the bottom if the
    scaled image has too few rows.
    """
    height, width = picture.shape[:2]
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).to(device).permute(2, 0, 1)[None]
    if width != model[0]:
        size = (_scaled_rows((width, height), model), model[0])
        # PyTorch interpolates uint8, and fast, only on the CPU.
        pixels = pixels if device.type == "cpu" else pixels.float()
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    pixels = pixels[0, :, _cropped_rows((width, height), model) :][:, : model[1]]
    # Channel by channel in memory: arithmetic along rows of three values is several times slower.
    image = pixels.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    image.sub_(torch.tensor(mean, device=device)[:, None, None]).div_(torch.tensor(std, device=device)[:, None, None])
    missing = model[1] - image.shape[1]
    return F.pad(image, (0, 0, 0, missing)) if missing else image


def _scaled_rows(picture: tuple[int, int], model: tuple[int, int]) -> int:
    return max(1, round(picture[1] * model[0] / picture[0]))


def _cropped_rows(picture: tuple[int, int], model: tuple[int, int]) -> int:
    return max(0, _scaled_rows(picture, model) - model[1])
