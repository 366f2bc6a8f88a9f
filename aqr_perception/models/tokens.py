# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Layout of the evidence tokens in the decoder's memory."""

from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class TokenLayout:
    """Order of the tokens: the BEV grid's cells (row-major: y, then x), then the cells of each camera (row-major).

    Attributes:
        bev: rows and columns of the BEV grid; (0, 0) without LiDAR.
        views: number of cameras.
        image: rows and columns of one camera's token grid; (0, 0) without cameras.
        kept: number of tokens of the LiDAR and of each camera, where some were removed; see `removed_tokens`. None:
            all. `segments` follow it, the other properties describe the whole grids.
    """

    bev: tuple[int, int] = (0, 0)
    views: int = 0
    image: tuple[int, int] = (0, 0)
    kept: tuple[int, ...] | None = None

    @property
    def bev_tokens(self) -> int:
        return self.bev[0] * self.bev[1]

    @property
    def tokens_per_view(self) -> int:
        return self.image[0] * self.image[1]

    @property
    def total(self) -> int:
        return self.bev_tokens + self.views * self.tokens_per_view

    @property
    def segments(self) -> tuple[slice, ...]:
        """The LiDAR's slice of the memory (possibly empty), then each camera's."""
        sizes = self.kept or (self.bev_tokens, *(self.tokens_per_view,) * self.views)
        ends = tuple(accumulate(sizes))
        return tuple(slice(end - size, end) for end, size in zip(ends, sizes, strict=True))
