# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Removal of tokens from a model's features and from the decoder's memory: the hardest gating.

A removed cell is no key of the decoder's cross-attention and no proposal. Cells beside it keep features that have seen
it, because the branches run before. A sensor whose cells are all removed is missing, as in a frame without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from aqr_perception.models.aqr.projection import QueryCells
from aqr_perception.models.aqr.window_bias import WindowBias
from aqr_perception.models.model_io import Features, ProposalMaps
from aqr_perception.models.transformer.decoder import Memory


class TokenMask(NamedTuple):
    """Cells of one frame's features that are removed: true is removed.

    Attributes:
        lidar: (H, W) bool over the BEV features, rows y, columns x; None: no cell.
        cameras: camera name -> (h, w) bool over the camera's features; a camera without an entry keeps all cells.
    """

    lidar: NDArray[np.bool_] | None = None
    cameras: Mapping[str, NDArray[np.bool_]] = {}

    def any(self) -> bool:
        """Return whether a cell is removed."""
        return bool((self.lidar is not None and self.lidar.any()) or any(mask.any() for mask in self.cameras.values()))


def without_tokens(features: Features, names: Sequence[str], mask: TokenMask) -> tuple[Features, list[int]]:
    """Return a single frame's features without the mask's cells, and the indices of the cameras that are left.

    Args:
        features: features of one sample.
        names: the cameras' names, in the features' order.
        mask: see `TokenMask`; entries of other cameras have no effect.

    Raises:
        ValueError: a mask has another shape than its sensor's features.
    """
    bev, removed_bev = features.bev, None
    if bev is not None and mask.lidar is not None:
        _check("the LiDAR", mask.lidar, bev)
        bev, removed_bev = (None, None) if mask.lidar.all() else (bev, _tensor(mask.lidar, bev)[None])
    masks, left = [], []
    for index, name in enumerate(names if features.image is not None else ()):
        assert features.image is not None
        cells = mask.cameras.get(name, np.zeros(features.image.shape[-2:], np.bool_))
        _check(name, cells, features.image)
        if not cells.all():
            left.append(index)
            masks.append(cells)
    image, projections, removed_image = features.image, features.lidar_to_image[:, left], None
    if image is not None:
        image = image[:, left] if left else None
    if image is not None and any(cells.any() for cells in masks):
        removed_image = _tensor(np.stack(masks), image)[None]
    proposals = features.proposals
    if proposals is not None:
        of_image = proposals.image
        proposals = ProposalMaps(
            None if bev is None else proposals.bev, of_image[:, left] if of_image is not None and left else None
        )
    kept = Features(
        image,
        bev,
        projections,
        features.image_size if image is not None else (0, 0),
        (bev is not None and features.has_points[0],),
        removed_bev if removed_bev is not None and removed_bev.any() else None,
        removed_image,
        proposals,
    )
    return kept, left


def kept_tokens(memory: Memory, features: Features, bias: WindowBias | None) -> Memory:
    """Return the decoder's memory without the tokens that the features remove.

    Args:
        memory: tokens of all cells.
        features: features of these tokens.
        bias: the bias of the cross-attention, whose windows need all tokens.

    Raises:
        ValueError: tokens are removed from several samples at once, or together with a bias.
    """
    if features.removed_bev is None and features.removed_image is None:
        return memory
    if features.batch_size != 1 or bias is not None:
        raise ValueError(
            f"found removed tokens in {features.batch_size} samples {'with' if bias is not None else 'without'} a "
            "bias, needed one sample without a bias; set aqr.mode to off"
        )
    layout = memory.layout
    parts = []
    for removed, views, grid in (
        (features.removed_bev, 1, layout.bev),
        (features.removed_image, layout.views, layout.image),
    ):
        if removed is None:
            parts.append(memory.keys.new_zeros(views * grid[0] * grid[1], dtype=torch.bool))
        else:
            parts.append(_by_token(removed.flatten(0, -3), grid).flatten())
    kept = ~torch.cat(parts)
    counts = tuple(int(kept[segment].sum()) for segment in layout.segments)
    left = kept.nonzero()[:, 0]
    return Memory(memory.keys[:, left], memory.values[:, left], replace(layout, kept=counts))


def lidar_left(features: Features, cells: QueryCells, grid: tuple[int, int]) -> Tensor:
    """Return (B, Q) bool, whether queries lie in a token of the LiDAR that is left.

    Args:
        features: of B samples.
        cells: cells of the queries among the tokens.
        grid: rows and columns of the LiDAR's tokens.
    """
    if features.removed_bev is None:
        return cells.bev_inside
    removed = _by_token(features.removed_bev, grid)
    sample = torch.arange(len(removed), device=removed.device)[:, None]
    return cells.bev_inside & ~removed[sample, cells.bev[..., 0], cells.bev[..., 1]]


def _by_token(removed: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return (V, R, C) bool, whether tokens are removed: those of which half the cells (V, h, w) or more are."""
    if removed.shape[1:] == grid:
        return removed
    return F.avg_pool2d(removed[:, None].float(), removed.shape[1] // grid[0])[:, 0] >= 0.5


def _check(sensor: str, cells: NDArray[np.bool_], features: Tensor) -> None:
    needed = tuple(features.shape[-2:])
    if cells.shape != needed or cells.dtype != np.bool_:
        raise ValueError(
            f"mask of {sensor}: found {cells.dtype} of shape {cells.shape}, needed bool of shape {needed}, as its "
            "features"
        )


def _tensor(mask: NDArray[np.bool_], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(mask)).to(like.device)
