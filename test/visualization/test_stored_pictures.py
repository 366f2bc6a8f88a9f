# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a simulated frame look as the stored ones, which a human has looked at.

To store new ones after a change of the pictures, and look at them: `STORE_PICTURES=1 pytest test/visualization`.
"""

import dataclasses
import functools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from aqr_perception.data.sources.simulated import SimulatedDataset
from aqr_perception.frame import CameraWeightMap, Detections, Frame, GroundTruth, QueryEvidence, WeightMaps
from aqr_perception.visualization.bev_picture import bev_picture
from aqr_perception.visualization.camera_picture import camera_picture
from aqr_perception.visualization.picture_options import Caption, PictureOptions

FOLDER = Path(__file__).parent / "stored_pictures"
RANGE = (-51.2, -51.2, 51.2, 51.2)
MEAN_TOLERANCE, SHARE_TOLERANCE = 4.0, 0.03
"""Levels between pictures in the mean, and share of pixels that differ by over 40: fonts differ by OpenCV version."""


@functools.cache
def simulated() -> tuple[Frame, GroundTruth]:
    labelled = SimulatedDataset([5007], picture=(352, 128), sweeps=1)[0]
    assert labelled.frame.points is not None
    return labelled.frame, labelled.truth


def evidence(signed: bool) -> tuple[Detections, WeightMaps]:
    """Return detections at the true objects: LiDAR alone ahead, cameras alone to the left behind, both elsewhere."""
    frame, truth = simulated()
    ahead, left = truth.boxes[:, 0] > 8, truth.boxes[:, 0] < -8
    lidar = np.where(left, -0.8 if signed else 0.1, 0.9).astype(np.float32)
    camera = np.where(ahead, -0.6 if signed else 0.05, 0.9).astype(np.float32)
    scores = np.linspace(0.9, 0.1, len(truth)).astype(np.float32)
    queries = QueryEvidence(truth.boxes[:, :3], scores, lidar, lidar, camera, (1.6, 1.6))
    of_camera = dataclasses.replace(queries, weights=camera, sigma=(32.0, 32.0))
    maps = {
        view.name: CameraWeightMap(np.ones((8, 22), np.float32), np.diag([1 / 16, 1 / 16, 1.0]), of_camera)
        for view in frame.cameras
    }
    kept = scores > 0.3
    found = Detections(
        *(truth.boxes[kept], scores[kept], truth.labels[kept], lidar[kept], camera[kept]),
        np.repeat(camera[kept, None], len(frame.cameras), axis=1),
    )
    return found, WeightMaps(np.ones((128, 128), np.float32), RANGE, maps, "router", signed, None, queries)


def drawn(name: str) -> np.ndarray:
    """Return a picture by the name of its file, at half its size."""
    place, _, kind = name.partition("_")
    options = PictureOptions("trust" if kind == "trust" else "weights")
    frame, _ = simulated()
    found, maps = evidence(signed=kind == "signed")
    if kind == "without_lidar":
        maps = dataclasses.replace(maps, bev=None)
    caption = Caption(1_500_000_000, ("lidar",) if kind == "without_lidar" else ())
    if place == "bev":
        points = None if kind == "without_lidar" else frame.points
        picture = bev_picture(maps, points, found, 480, options, caption)
    else:
        view = next(view for view in frame.cameras if view.name == place)
        picture = camera_picture(view, maps.cameras[place], found, maps.signed, options, caption, maps.source)
    return cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the mean difference in levels, and the share of pixels that differ clearly."""
    levels = np.abs(one.astype(int) - other).max(axis=-1)
    return float(levels.mean()), float((levels > 40).mean())


NAMES = ("bev_weights", "bev_trust", "bev_signed", "bev_without_lidar", "front_weights", "front_trust", "back_signed")


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_looks_as_the_stored_one(name: str) -> None:
    path, picture = FOLDER / f"{name}.png", drawn(name)
    if os.environ.get("STORE_PICTURES"):
        FOLDER.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture, (cv2.IMWRITE_PNG_COMPRESSION, 9))
    stored = cv2.imread(str(path))
    assert stored is not None and stored.shape == picture.shape
    mean, share = difference(picture, stored)
    assert mean < MEAN_TOLERANCE and share < SHARE_TOLERANCE, f"mean {mean:.1f} levels, {share:.1%} of the pixels"


@pytest.mark.parametrize(("one", "other"), [("bev_weights", "bev_trust"), ("front_weights", "front_trust")])
def test_another_view_is_outside_the_tolerance(one: str, other: str) -> None:
    mean, share = difference(cv2.imread(str(FOLDER / f"{one}.png")), drawn(other))
    assert mean > MEAN_TOLERANCE or share > SHARE_TOLERANCE
