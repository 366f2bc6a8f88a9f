# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Preprocessing agrees with its affine transform."""

import numpy as np
import pytest
import torch

from aqr_perception.models.preprocessing import image_to_model, prepare_image

CPU = torch.device("cpu")
NOTHING = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("picture", [(1600, 900), (800, 450), (1920, 1208), (640, 200)])
def test_a_bright_patch_lands_where_the_affine_puts_it(picture: tuple[int, int]) -> None:
    width, height = picture
    image = np.zeros((height, width, 3), dtype=np.uint8)
    u, v = width // 3, height - height // 4
    image[v - 20 : v + 20, u - 20 : u + 20] = 255
    prepared = prepare_image(image, (800, 320), *NOTHING, CPU)
    assert prepared.shape == (3, 320, 800)
    rows, columns = torch.nonzero(prepared[0] > 127, as_tuple=True)
    expected = image_to_model(picture, (800, 320)) @ [u, v, 1]
    assert abs(columns.float().mean() - expected[0]) < 1.5
    assert abs(rows.float().mean() - expected[1]) < 1.5


def test_images_of_the_models_size_are_only_normalised() -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 64, 3), dtype=np.uint8)
    prepared = prepare_image(image, (64, 32), (1.0, 2.0, 3.0), (2.0, 4.0, 8.0), CPU)
    expected = (image.astype(np.float32) - [1, 2, 3]) / [2, 4, 8]
    np.testing.assert_allclose(prepared.permute(1, 2, 0).numpy(), expected, rtol=1e-6)


def test_the_top_is_cropped_and_a_low_image_is_padded_with_zeros_at_the_bottom() -> None:
    tall, flat = np.full((64, 32, 3), 9, dtype=np.uint8), np.full((8, 32, 3), 9, dtype=np.uint8)
    tall[:32] = 1
    assert (prepare_image(tall, (32, 32), *NOTHING, CPU) == 9).all()
    prepared = prepare_image(flat, (32, 32), *NOTHING, CPU)
    assert (prepared[:, :8] == 9).all() and not prepared[:, 8:].any()
