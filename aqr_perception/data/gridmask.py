# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""GridMask (arXiv:2001.04086): random masking of squares on a regular grid, against overfitting to small details."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import LabelledFrame


@dataclass(frozen=True)
class GridMask:
    """Random mask of squares in all images of a frame, for training.

    Attributes:
        ratio: share of the grid's period kept in each direction; (1 - ratio)^2 of an image is masked.
        probability: probability of masking a frame at the end of training; it rises linearly from 0.
        fill: BGR value of the squares; the default is the published models' mean, which normalises to 0.
    """

    ratio: float = 0.5
    probability: float = 0.7
    fill: Sequence[float] = (103.530, 116.280, 123.675)

    def __post_init__(self) -> None:
        for name, value in (("ratio", self.ratio), ("probability", self.probability)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"GridMask's {name} is {value}, but must be in 0..1")

    def __call__(self, labelled: LabelledFrame, progress: float, random: np.random.Generator) -> LabelledFrame:
        """Return the frame with masked images, or unchanged.

        Args:
            progress: progress of the training, 0..1.

        Raises:
            ValueError: `progress` is outside 0..1.
        """
        if not 0.0 <= progress <= 1.0:
            raise ValueError(f"progress is {progress}, but must be in 0..1; pass finished steps / all steps")
        if not labelled.frame.cameras or random.random() >= self.probability * progress:
            return labelled
        # One grid for all cameras, for the image with the fewest rows, as in the published models' training.
        height = min(view.image.shape[0] for view in labelled.frame.cameras)
        period = int(random.integers(2, max(height, 3)))
        phase = random.integers(period, size=2).tolist()
        cameras = []
        for view in labelled.frame.cameras:
            image = view.image.copy()
            image[grid_squares(image.shape[:2], period, self.ratio, phase)] = np.rint(self.fill).astype(np.uint8)
            cameras.append(replace(view, image=image))
        return replace(labelled, frame=replace(labelled.frame, cameras=tuple(cameras)))


def grid_squares(shape: Sequence[int], period: int, ratio: float, phase: Sequence[int]) -> NDArray[np.bool_]:
    """Return the (H, W) mask of the squares: the pixels outside all kept rows and kept columns.

    Args:
        period: distance between two squares in pixels, 2 or more.
        ratio: see `GridMask`; at least one pixel of a period is kept and one masked.
        phase: rows and columns by which the grid is shifted.
    """
    kept = min(max(int(period * ratio + 0.5), 1), period - 1)
    rows, columns = ((np.arange(size) + shift) % period >= kept for size, shift in zip(shape, phase, strict=True))
    return rows[:, None] & columns
