# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Groups of points and of pixels that look alike: the joint statistics of LiDAR and camera compare them.

A surface has a typical intensity, slope and height in the LiDAR, and a typical colour in the image. Which belongs to
which is unknown and differs from place to place; mutual information needs to know only that they belong together.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

GROUPS = 24
"""Groups of points, and groups of pixels."""
GROUPINGS = 4
"""Ways to group: by all features from three starts, because k-means depends on them, and by intensity alone."""
_NEIGHBOURS = 8
_INTENSITY_NEIGHBOURS = 3
_SAMPLE = 20_000
_CHUNK = 100_000
_POINT_WEIGHTS = np.array([4.0, 0.6, 0.3, 0.2])
"""Weights of a point's rank of intensity, slope, height and log range."""
_PIXEL_WEIGHTS = np.array([1.5, 1.0, 1.0, 0.3, 1.0])
"""Weights of a pixel's L, a, b, texture and contrast with its surroundings, each in standard deviations."""
_TEXTURE, _SURROUNDINGS = 3.0, 12.0
"""Standard deviations in pixels of the areas of texture and of surroundings."""


class CloudFeatures:
    """Features of the points of one cloud, computed for the points that are asked for.

    Args:
        points: (N, 5).
    """

    def __init__(self, points: NDArray[np.float32]) -> None:
        self._points = points
        self._xyz = points[:, :3].astype(np.float64)
        self._tree = cKDTree(self._xyz) if len(points) else None
        self._ranks = np.zeros(0)
        if self._tree is not None:
            near = self._neighbours(self._xyz, _INTENSITY_NEIGHBOURS)
            intensity = points[near, 3].mean(axis=1)
            self._ranks = np.argsort(np.argsort(intensity, kind="stable"), kind="stable") / len(points)

    def at(self, indices: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return (M, 4) weighted features of M points: rank of intensity, slope, height and log range."""
        if not len(indices):
            return np.zeros((0, 4))
        xyz = self._xyz[indices]
        near = self._xyz[self._neighbours(xyz, _NEIGHBOURS)]
        offsets = near - near.mean(axis=1, keepdims=True)
        _, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", offsets, offsets))
        log_range = np.log(np.linalg.norm(xyz, axis=1))
        features = np.c_[self._ranks[indices], np.abs(axes[:, 2, 0]), np.clip(xyz[:, 2], -3, 4), log_range]
        weighted: NDArray[np.float64] = features * _POINT_WEIGHTS
        return weighted

    def _neighbours(self, xyz: NDArray[np.float64], count: int) -> NDArray[np.intp]:
        assert self._tree is not None
        _, near = self._tree.query(xyz, k=[*range(1, min(count, len(self._xyz)) + 1)])
        return np.asarray(near, np.intp)


def pixel_features(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (H, W, 5) features of a (H, W, 3) BGR image: L, a, b, texture, contrast with the surroundings."""
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 1.0), cv2.COLOR_BGR2LAB).astype(np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    mean = cv2.GaussianBlur(grey, (0, 0), _TEXTURE)
    variance = np.maximum(cv2.GaussianBlur(grey * grey, (0, 0), _TEXTURE) - mean**2, 0.0)
    contrast = lab[..., 0] - cv2.GaussianBlur(lab[..., 0], (0, 0), _SURROUNDINGS)
    return np.concatenate([lab, np.log1p(np.sqrt(variance))[..., None], contrast[..., None]], axis=2)


def point_groups(features: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the groups (`GROUPINGS`, N) of points from their features, see `CloudFeatures`."""
    return np.stack([*(_groups(features, seed) for seed in range(GROUPINGS - 1)), _ranks(features[:, 0])])


def pixel_groups(features: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the groups (`GROUPINGS`, N) of (N, 5) pixels, see `pixel_features`."""
    weighted = features / np.maximum(features.std(axis=0), 1e-6) * _PIXEL_WEIGHTS
    return np.stack([*(_groups(weighted, seed) for seed in range(GROUPINGS - 1)), _ranks(features[:, 0])])


def _ranks(values: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Return the groups (N,) of equal size of values by rank."""
    limits = np.quantile(values, np.linspace(0, 1, GROUPS + 1)[1:-1])
    return np.searchsorted(limits, values).astype(np.intp)


def _groups(features: NDArray[np.floating[Any]], seed: int) -> NDArray[np.intp]:
    """Return the group (N,) of each feature vector by k-means over a sample of them."""
    rng = np.random.default_rng(seed)
    sample = features[rng.choice(len(features), min(_SAMPLE, len(features)), replace=False)].astype(np.float32)
    cv2.setRNGSeed(seed + 1)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.1)
    start = np.zeros((len(sample), 1), np.int32)
    _, _, centres = cv2.kmeans(sample, min(GROUPS, len(sample)), start, stop, 1, cv2.KMEANS_PP_CENTERS)
    groups = np.empty(len(features), np.intp)
    lengths = (centres**2).sum(axis=1)
    for begin in range(0, len(features), _CHUNK):
        part = features[begin : begin + _CHUNK].astype(np.float32)
        groups[begin : begin + _CHUNK] = (lengths - 2 * part @ centres.T).argmin(axis=1)
    return groups
