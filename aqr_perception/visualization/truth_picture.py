"""A labelled frame for people: all cameras and the bird's-eye view, with the true boxes."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import Detections, GroundTruth, LabelledFrame, WeightMaps
from aqr_perception.visualization.bev_picture import bev_picture
from aqr_perception.visualization.camera_picture import camera_picture

_ROW = ("front_left", "front", "front_right", "back_left", "back", "back_right")


def truth_picture(labelled: LabelledFrame, reach: float = 55.0) -> NDArray[np.uint8]:
    """Return a BGR picture: the cameras in rows of three, the bird's-eye view of +-`reach` metres below them."""
    frame, truth = labelled.frame, labelled.truth
    order = {name: place for place, name in enumerate(_ROW)}
    columns = {view.name: column for column, view in enumerate(frame.cameras)}
    tiles = []
    for view in sorted(frame.cameras, key=lambda view: order.get(view.name, len(order))):
        shown = truth.keep(truth.visibility[:, columns[view.name]] > 0)
        tiles.append(camera_picture(view, None, _as_detections(shown, len(frame.cameras))))
    height = max((tile.shape[0] for tile in tiles), default=0)
    width = max((tile.shape[1] for tile in tiles), default=300)
    sheet = np.zeros((math.ceil(len(tiles) / 3) * height, 3 * width, 3), np.uint8)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, 3)
        sheet[row * height :, column * width :][: tile.shape[0], : tile.shape[1]] = tile
    maps = WeightMaps(None, (-reach, -reach, reach, reach), {}, "router")
    from_above = bev_picture(maps, frame.points, _as_detections(truth, len(frame.cameras)))
    scale = sheet.shape[1] / from_above.shape[1]
    below = cv2.resize(
        from_above, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    return np.concatenate([sheet, below.astype(np.uint8, copy=False)])


def _as_detections(truth: GroundTruth, views: int) -> Detections:
    ones = np.ones(len(truth), np.float32)
    return Detections(truth.boxes, ones, truth.labels, ones, ones, np.ones((len(truth), views), np.float32))
