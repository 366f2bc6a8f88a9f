"""One nuScenes keyframe as a data set."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from aqr_perception.data.outlines import outline_shares
from aqr_perception.data.sources.nuscenes_tables import truth_arrays
from aqr_perception.frame import CLASSES, GroundTruth, LabelledFrame
from aqr_perception.keyframe import KeyframeError, read_keyframe


class KeyframeDataset(Dataset[LabelledFrame]):
    """A keyframe's folder (see `read_keyframe`) with ``objects`` in its keyframe.json, as a set of one frame.

    As `NuScenesDataset`, but for a single sweep, and visibility that knows of the pictures' borders only.

    Raises:
        KeyframeError: a file is missing or not as it should be.
    """

    def __init__(self, folder: str | Path) -> None:
        keyframe = read_keyframe(folder)
        frame = keyframe.frame()
        assert frame.to_fixed is not None  # a keyframe knows its ego pose
        try:
            if keyframe.objects is None:
                raise KeyError("objects")
            truth = _truth(keyframe.objects)
        except (KeyError, TypeError, ValueError) as error:
            needed = "class, box, velocity, lidar_points and radar_points of each of its objects"
            found = f"{type(error).__name__}: {error}"
            raise KeyframeError(f"{Path(folder) / 'keyframe.json'}: found {found}, needed {needed}") from error
        truth = replace(truth, visibility=outline_shares(truth.boxes, frame.cameras))
        self._labelled = LabelledFrame(frame, truth, frame.to_fixed)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> LabelledFrame:
        return (self._labelled,)[index]

    def label_sets(self) -> list[frozenset[int]]:
        """Return the labels that the frame shows."""
        return [frozenset(self._labelled.truth.labels.tolist())]


def _truth(objects: Any) -> GroundTruth:
    kept = [
        (track, entry)
        for track, entry in enumerate(objects)
        if entry["class"] in CLASSES and entry["lidar_points"] + entry["radar_points"] > 0
    ]
    return truth_arrays(
        [np.array([*entry["box"], *entry["velocity"]], np.float64) for _, entry in kept],
        [CLASSES.index(entry["class"]) for _, entry in kept],
        [track for track, _ in kept],
        [entry["lidar_points"] for _, entry in kept],
    )
