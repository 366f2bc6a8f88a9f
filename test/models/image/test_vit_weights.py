# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""timm's and DINOv2's weights give the features of an independent implementation."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aqr_perception.models.config.presets import VitOptions
from aqr_perception.models.image.vit import VisionTransformer, VitSize
from aqr_perception.models.image.vit_weights import convert_vit_weights, resample_patches
from aqr_perception.models.weights.checkpoint import CheckpointError, require_fit

CHANNELS, DEPTH, HEADS, GRID = 16, 2, 2, 4


def library_weights(
    *, patch: int = 16, grid: int = GRID, prefix: int = 1, scales: bool = False, **tokens: int
) -> dict[str, Tensor]:
    """Return a random state dict as timm and DINOv2 publish it.

    Args:
        patch: side of a patch in pixels.
        grid: patches along a side of the image.
        prefix: positions before those of the patches.
        scales: whether there is layer scale.
        tokens: how many class and register tokens there are, by key.
    """
    shapes: dict[str, tuple[int, ...]] = {
        **{key: (1, count, CHANNELS) for key, count in tokens.items()},
        "pos_embed": (1, prefix + grid**2, CHANNELS),
        "patch_embed.proj.weight": (CHANNELS, 3, patch, patch),
        "patch_embed.proj.bias": (CHANNELS,),
        "norm.weight": (CHANNELS,),
        "norm.bias": (CHANNELS,),
    }
    linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for block in range(DEPTH):
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{block}.{norm}.{kind}": (CHANNELS,) for kind in ("weight", "bias")}
        for name, (out, into) in linear.items():
            shapes[f"blocks.{block}.{name}.weight"] = (out * CHANNELS, into * CHANNELS)
            shapes[f"blocks.{block}.{name}.bias"] = (out * CHANNELS,)
        if scales:
            shapes |= {f"blocks.{block}.{name}.gamma": (CHANNELS,) for name in ("ls1", "ls2")}
    generator = torch.Generator().manual_seed(1)
    return {key: 0.3 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def plain_features(weights: dict[str, Tensor], images: Tensor, prefix: int, *, post_norm: bool = False) -> Tensor:
    """Return a plain Vision Transformer's normalised patch features (N, C, H / 16, W / 16), as published."""

    def norm(features: Tensor, key: str) -> Tensor:
        return F.layer_norm(features, (CHANNELS,), weights[f"{key}.weight"], weights[f"{key}.bias"], 1e-6)

    def linear(features: Tensor, key: str) -> Tensor:
        return features @ weights[f"{key}.weight"].T + weights[f"{key}.bias"]

    def attention(features: Tensor, key: str) -> Tensor:
        parts = linear(features, f"{key}.qkv").split(CHANNELS, dim=-1)
        query, key_, value = (torch.stack(part.split(CHANNELS // HEADS, dim=-1)) for part in parts)
        scores = (query @ key_.transpose(-1, -2) / (CHANNELS // HEADS) ** 0.5).softmax(dim=-1)
        return linear(torch.cat(list(scores @ value), dim=-1), f"{key}.proj")

    def feed_forward(features: Tensor, key: str) -> Tensor:
        return linear(F.gelu(linear(features, f"{key}.fc1")), f"{key}.fc2")

    patches = F.conv2d(images, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=16)
    features = patches.flatten(2).transpose(1, 2)
    tokens = [weights[key] for key in ("cls_token", "reg_token", "register_tokens") if key in weights]
    placed = sum(token.shape[1] for token in tokens) if prefix > 1 else prefix
    if placed == 0:
        features = features + weights["pos_embed"]
    elif "register_tokens" in weights:  # DINOv2 places the class token, and puts the registers after it
        features = torch.cat((tokens[0].expand(len(images), -1, -1), features), dim=1) + weights["pos_embed"]
        registers = tokens.pop().expand(len(images), -1, -1)
        features = torch.cat((features[:, :1], registers, features[:, 1:]), dim=1)
    else:
        everything = (*(token.expand(len(images), -1, -1) for token in tokens), features)
        features = torch.cat(everything, dim=1) + weights["pos_embed"]
    if placed == 0:
        features = torch.cat((*(token.expand(len(images), -1, -1) for token in tokens), features), dim=1)
    for block in range(DEPTH):
        for layer, index, function in (("attn", 1, attention), ("mlp", 2, feed_forward)):
            key, normed = f"blocks.{block}.{layer}", f"blocks.{block}.norm{index}"
            residual = norm(function(features, key), normed) if post_norm else function(norm(features, normed), key)
            features = features + residual * weights.get(f"blocks.{block}.ls{index}.gamma", torch.ones(()))
    return norm(features, "norm")[:, -patches[0, 0].numel() :].transpose(1, 2).reshape(patches.shape)


def loaded(weights: dict[str, Tensor], options: VitOptions) -> VisionTransformer:
    """Return a Vision Transformer with a library's weights, loaded strictly."""
    vit = VisionTransformer(VitSize(CHANNELS, DEPTH, HEADS), options).eval()
    converted = convert_vit_weights("file", weights, vit.state_dict())
    require_fit("file", converted, vit.state_dict())
    vit.load_state_dict(converted)
    return vit


@pytest.mark.parametrize(
    ("weights", "prefix", "options"),
    [
        pytest.param(library_weights(cls_token=1), 1, VitOptions(), id="timm vit_small_patch16_224"),
        pytest.param(library_weights(cls_token=1), 1, VitOptions(norm="post"), id="timm ResPostBlock"),
        pytest.param(library_weights(cls_token=1), 1, VitOptions(layer_scale=0), id="timm, layer scale off"),
        pytest.param(library_weights(prefix=0), 0, VitOptions(class_token=False), id="timm without a class token"),
        pytest.param(library_weights(cls_token=1, prefix=0, scales=True), 0, VitOptions(), id="timm deit3_small"),
        pytest.param(
            library_weights(cls_token=1, reg_token=2, prefix=0, scales=True), 0, VitOptions(registers=2), id="timm reg"
        ),
        pytest.param(
            library_weights(cls_token=1, reg_token=2, prefix=3), 3, VitOptions(registers=2), id="timm, placed reg"
        ),
        pytest.param(library_weights(cls_token=1, scales=True), 1, VitOptions(), id="dinov2"),
        pytest.param(
            library_weights(cls_token=1, register_tokens=2, scales=True),
            1,
            VitOptions(registers=2),
            id="dinov2 reg",
        ),
    ],
)
def test_published_layouts_compute_the_published_features(
    weights: dict[str, Tensor], prefix: int, options: VitOptions
) -> None:
    images = torch.randn(2, 3, 16 * GRID, 16 * GRID, generator=torch.Generator().manual_seed(0))
    expected = plain_features(weights, images, prefix, post_norm=options.norm == "post")
    # Weights of the classifier and of masked training are ignored.
    extras = {
        "head.weight": torch.zeros(5, CHANNELS),
        "head.bias": torch.zeros(5),
        "mask_token": torch.zeros(1, CHANNELS),
    }
    vit = loaded({**weights, **extras}, VitOptions(**{**vars(options), "positions": GRID}))
    with torch.no_grad():
        torch.testing.assert_close(vit(images), expected, atol=1e-5, rtol=1e-5)


def test_dinov2s_chunked_blocks_are_renumbered() -> None:
    weights = library_weights(cls_token=1, scales=True)
    chunked = {key.replace("blocks.", "blocks.0.").replace("0.1.", "1.1."): value for key, value in weights.items()}
    assert "blocks.1.1.attn.qkv.weight" in chunked
    plain, vit = loaded(weights, VitOptions()), loaded(chunked, VitOptions())
    assert all(torch.equal(tensor, plain.state_dict()[key]) for key, tensor in vit.state_dict().items())


@given(size=st.integers(2, 24), enlarged=st.integers(0, 10))
@settings(max_examples=15, deadline=None)
def test_enlarged_patches_get_the_tokens_of_the_original_ones(size: int, enlarged: int) -> None:
    generator = torch.Generator().manual_seed(size)
    kernel, patches = torch.randn(4, 3, size, size, generator=generator), torch.randn(5, 3, size, size)
    larger = F.interpolate(patches, (size + enlarged, size + enlarged), mode="bicubic", antialias=True)
    tokens = F.conv2d(larger, resample_patches(kernel, size + enlarged))
    torch.testing.assert_close(tokens, F.conv2d(patches, kernel), atol=2e-3, rtol=1e-3)


def test_positions_and_patches_of_another_size_are_interpolated() -> None:
    vit = loaded(library_weights(patch=14, grid=6, cls_token=1), VitOptions(positions=3))
    assert vit.pos_embed.shape == (1, 9, CHANNELS) and vit.patch_embed.proj.weight.shape[-2:] == (16, 16)


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (library_weights(cls_token=1, reg_token=4, prefix=0), VitOptions(), "image.vit.registers to 4"),
        (library_weights(cls_token=1), VitOptions(registers=2), "image.vit.registers to 0"),
        (library_weights(cls_token=1), VitOptions(class_token=False), "image.vit.class_token to true"),
        (library_weights(prefix=0), VitOptions(), "image.vit.class_token to false"),
        (library_weights(cls_token=1, scales=True), VitOptions(layer_scale=0), "image.vit.layer_scale above 0"),
        (library_weights(cls_token=1, prefix=4), VitOptions(), "20 positions, needed a square number"),
        ({**library_weights(cls_token=1), "norm_pre.weight": torch.ones(CHANNELS)}, VitOptions(), "norm_pre.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_remedy(
    weights: dict[str, Tensor], options: VitOptions, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message.replace(".", r"\.")) as error:
        loaded(weights, options)
    assert str(error.value).startswith("file: ")
