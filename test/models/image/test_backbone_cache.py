# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Cache on disk of a frozen image backbone's feature maps."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aqr_perception.models.image.backbone_cache import BackboneCache


class Counted(nn.Module):
    """A backbone of two levels that counts the pictures it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.pictures = 0

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        self.pictures += len(pictures)
        first = self.convolution(pictures)
        return first, first[..., ::2, ::2]


@pytest.fixture
def backbone() -> Counted:
    torch.manual_seed(0)
    frozen = Counted().eval()
    frozen.requires_grad_(False)
    return frozen


def test_a_picture_runs_through_the_backbone_once(backbone: Counted, tmp_path: Path) -> None:
    pictures = torch.rand(3, 3, 8, 10)
    cache = BackboneCache(tmp_path, backbone)
    first = cache(backbone, pictures)
    assert backbone.pictures == 3
    again = BackboneCache(tmp_path, backbone)(backbone, pictures.flip(0))
    assert backbone.pictures == 3
    for level, other, exact in zip(first, again, backbone(pictures), strict=True):
        assert torch.equal(level, other.flip(0)) and level.dtype == torch.float32
        torch.testing.assert_close(level, exact, rtol=2e-3, atol=2e-3)


def test_maps_are_read_under_mixed_precision(backbone: Counted, tmp_path: Path) -> None:
    pictures, cache = torch.rand(2, 3, 8, 8), BackboneCache(tmp_path, backbone)
    with torch.autocast("cpu", torch.bfloat16):
        first, again = cache(backbone, pictures), cache(backbone, pictures)
    assert backbone.pictures == 2
    assert all(torch.equal(level, other) for level, other in zip(first, again, strict=True))


def test_another_picture_shape_or_weight_is_another_entry(backbone: Counted, tmp_path: Path) -> None:
    picture = torch.rand(1, 3, 8, 8)
    cache = BackboneCache(tmp_path, backbone)
    cache(backbone, picture)
    changed = picture.clone()
    changed[0, 0, 0, 0] += 1e-3
    cache(backbone, torch.cat([picture, changed]))
    assert backbone.pictures == 2
    cache(backbone, picture.reshape(1, 3, 4, 16))
    assert backbone.pictures == 3
    backbone.convolution.bias.data += 1
    other = BackboneCache(tmp_path, backbone)
    torch.testing.assert_close(other(backbone, picture)[0], backbone(picture)[0], rtol=2e-3, atol=2e-3)


def test_a_trained_backbone_is_refused(backbone: Counted, tmp_path: Path) -> None:
    cache = BackboneCache(tmp_path, backbone)
    backbone.requires_grad_(True)
    with pytest.raises(ValueError, match="--learning-rate-factor img_backbone=0"):
        cache(backbone, torch.rand(1, 3, 4, 4))
    backbone.requires_grad_(False).train()
    with pytest.raises(ValueError, match="freeze it"):
        cache(backbone, torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no archive"])
def test_a_damaged_entry_is_computed_anew(
    backbone: Counted, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    picture, cache = torch.rand(1, 3, 8, 8), BackboneCache(tmp_path, backbone)
    expected = cache(backbone, picture)
    (stored,) = tmp_path.rglob("*.npz")
    stored.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cache(backbone, picture)[0], expected[0])
    assert str(stored) in caplog.text
    caplog.clear()
    assert torch.equal(cache(backbone, picture)[0], expected[0]) and not caplog.text


def test_a_full_cache_goes_on_without_storing(backbone: Counted, tmp_path: Path) -> None:
    cache = BackboneCache(tmp_path, backbone, max_bytes=0)
    for _ in range(2):
        cache(backbone, torch.ones(1, 3, 8, 8))
    assert backbone.pictures == 2 and not list(tmp_path.rglob("*.npz"))


def test_passing_pictures_are_computed_but_not_stored_and_take_no_maps_of_others(
    backbone: Counted, tmp_path: Path
) -> None:
    clean, cache = torch.rand(2, 3, 8, 8), BackboneCache(tmp_path, backbone)
    cache(backbone, clean)
    failing = clean.clone()
    failing[0] *= 0.3
    for _ in range(2):
        cache.passing = torch.tensor([[True, False]])
        maps = cache(backbone, failing)
        torch.testing.assert_close(maps[0], backbone(failing)[0], rtol=2e-3, atol=2e-3)
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    seen = backbone.pictures
    cache(backbone, clean)  # the marks held for one call
    assert backbone.pictures == seen and cache.passing is None


def test_marks_of_other_pictures_are_refused(backbone: Counted, tmp_path: Path) -> None:
    cache = BackboneCache(tmp_path, backbone)
    cache.passing = torch.tensor([[True, False, False]])
    with pytest.raises(ValueError, match="3 marks, needed one for each of the 2 pictures"):
        cache(backbone, torch.rand(2, 3, 8, 8))


class Divided(Counted):
    """A backbone whose second convolution may be trained while the first is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 2, 1)

    def early(self, images: Tensor) -> tuple[Tensor, ...]:
        return super().forward(images)

    def late(self, early: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return early[0], self.last(early[1])

    def early_modules(self) -> list[nn.Module]:
        return [self.convolution]

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        return self.late(self.early(pictures))


def test_late_stages_are_trained_on_stored_maps_of_the_early_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = Divided()
    backbone.convolution.requires_grad_(False).eval()
    pictures, cache = torch.rand(2, 3, 8, 8), BackboneCache(tmp_path, backbone)
    cache(backbone, pictures)
    with torch.no_grad():
        backbone.last.weight += 1
    maps = cache(backbone, pictures)
    assert backbone.pictures == 2
    for level, exact in zip(maps, backbone(pictures), strict=True):
        torch.testing.assert_close(level, exact, rtol=5e-3, atol=5e-3)
    maps[1].sum().backward()
    assert backbone.last.weight.grad is not None and backbone.convolution.weight.grad is None
    backbone.convolution.requires_grad_(True)
    with pytest.raises(ValueError, match="stages beyond stride 8 may be trained"):
        cache(backbone, pictures)
