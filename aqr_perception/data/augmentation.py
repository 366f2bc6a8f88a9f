# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Random augmentation of labelled frames that keeps images, points, boxes and calibration consistent.

Each call draws one change for the whole frame, the same for all cameras, as in the published models' training. The
defaults follow CMT's camera + LiDAR models. Intrinsics and `model_to_world` change by the same matrices as the content;
`transfer_health` derives the change from them.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from aqr_perception.data.corruption.changed_frame import with_points
from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.data.outlines import outline_shares
from aqr_perception.frame import CameraView, Frame, GroundTruth, LabelledFrame
from aqr_perception.geometry import transform_points

_Range = tuple[float, float]
_Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class PictureChange:
    """One change of an image: resize, then crop, then flip, then rotate.

    Attributes:
        size: width and height of the new image.
        zoom: 1 makes the image as wide as `size`; more enlarges it.
        crop: position of the crop in 0..1: (0, 0) keeps the resized image's left and top, (1, 1) its right and bottom,
            as in `image_to_model`. Black fills the right and the bottom if the resized image is too small.
        flip: swap left and right.
        rotation: radians, counter-clockwise in the image, about its centre.
    """

    size: tuple[int, int]
    zoom: float = 1.0
    crop: tuple[float, float] = (0.5, 1.0)
    flip: bool = False
    rotation: float = 0.0


@dataclass(frozen=True)
class ImageAugmentation:
    """Random resize, crop, horizontal flip and rotation of the images, folded into the intrinsics.

    Attributes:
        size: width and height of the new images; the model's image size avoids a second resizing.
        zoom: range of `PictureChange.zoom`.
        bottom: range of the share of surplus rows cropped at the bottom; the others are cropped at the top.
        flip: probability of a flip.
        rotation: range in radians.
    """

    size: tuple[int, int]
    zoom: _Range = (0.94, 1.25)
    bottom: _Range = (0.0, 0.0)
    flip: float = 0.5
    rotation: _Range = (0.0, 0.0)

    def __call__(self, labelled: LabelledFrame, random: np.random.Generator) -> LabelledFrame:
        """Return the frame with changed images, intrinsics and visibility."""
        change = PictureChange(
            size=self.size,
            zoom=random.uniform(*self.zoom),
            crop=(random.uniform(), 1.0 - random.uniform(*self.bottom)),
            flip=bool(random.random() < self.flip),
            rotation=random.uniform(*self.rotation),
        )
        return change_pictures(labelled, change)


@dataclass(frozen=True)
class BevAugmentation:
    """Random rotation about z, scale, shift and mirroring of the model frame, folded into the extrinsics.

    Attributes:
        rotation: range in radians.
        scale: range of the factor on all lengths.
        shift: standard deviation in metres, x, y and z.
        flip_x, flip_y: probability that x, or y, changes its sign.
    """

    rotation: _Range = (-np.pi / 4, np.pi / 4)
    scale: _Range = (0.9, 1.1)
    shift: float = 0.5
    flip_x: float = 0.5
    flip_y: float = 0.5

    def __call__(self, labelled: LabelledFrame, random: np.random.Generator) -> LabelledFrame:
        """Return the frame in the changed model frame; see `move`."""
        signs = np.where(random.random(2) < (self.flip_x, self.flip_y), -1.0, 1.0)
        angle, scale = random.uniform(*self.rotation), random.uniform(*self.scale)
        motion = np.eye(4)
        motion[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        motion[:3, :3] *= scale
        motion[:3, 3] = random.normal(0.0, self.shift, 3)
        return move(labelled, np.diag([*signs, 1.0, 1.0]) @ motion)


@dataclass(frozen=True)
class PointAugmentation:
    """Random thinning of the points, and random intensities of objects and points, as other LiDARs would see them.

    Attributes:
        kept: range of the share of the points that stay.
        surfaces, noise: standard deviations of the logarithms of a factor on the intensities of each object, because
            LiDARs of other wavelengths see other materials brighter, and of one on each point's.
    """

    kept: _Range = (0.4, 1.0)
    surfaces: float = 0.7
    noise: float = 0.3

    def __call__(self, labelled: LabelledFrame, random: np.random.Generator) -> LabelledFrame:
        """Return the frame with changed points, and with the point counts of its objects; without points, unchanged."""
        points = labelled.frame.points
        if points is None:
            return labelled
        points = points[random.random(len(points)) < random.uniform(*self.kept)]  # a copy
        factors = self.noise * random.standard_normal(len(points))
        for box in labelled.truth.boxes:
            factors[points_in_box(points, box)] += self.surfaces * random.standard_normal()
        points[:, 3] = np.clip(points[:, 3] * np.exp(factors), 0.0, 255.0)
        return with_points(labelled, points)


def mirror(labelled: LabelledFrame) -> LabelledFrame:
    """Return the mirrored world: y changes its sign, and the pictures swap left and right, exactly.

    The focal length along x becomes negative, as in `change_pictures`.
    """
    views = tuple(map(_mirrored, labelled.frame.cameras))
    return move(replace(labelled, frame=replace(labelled.frame, cameras=views)), np.diag([1.0, -1.0, 1.0, 1.0]))


def change_pictures(labelled: LabelledFrame, change: PictureChange) -> LabelledFrame:
    """Return the frame with changed images, and with intrinsics that project points onto the same content.

    A flip makes the focal length along x negative, and a rotation fills the entry below the diagonal, so use intrinsics
    as a full matrix. Visibility decreases by the cropped part of each object.
    """
    views = labelled.frame.cameras
    changed = tuple(_changed(view, change) for view in views)
    truth = labelled.truth
    old, new = outline_shares(truth.boxes, views), outline_shares(truth.boxes, changed)
    kept = np.divide(new, old, out=np.zeros_like(old), where=old > 0)
    visibility = truth.visibility * np.minimum(kept, 1.0)
    frame = replace(labelled.frame, cameras=changed)
    return replace(labelled, frame=frame, truth=replace(truth, visibility=visibility))


def move(labelled: LabelledFrame, motion: _Matrix) -> LabelledFrame:
    """Return the frame in another model frame: points, boxes, velocities, extrinsics and pose are transformed.

    If `motion` scales or mirrors, extrinsics and `model_to_world` are not rigid: use and invert them as general
    matrices. Depths along the optical axis do not change. `Frame.to_fixed` stays rigid, because the fixed frame changes
    by the same motion. Static objects therefore stay static in all frames of a drive with the same motion.

    Args:
        motion: (4, 4), old -> new model frame: a rotation about z, one scale for all axes, mirrored x or y, a shift.
    """
    back = np.linalg.inv(motion)
    frame = labelled.frame
    cameras = tuple(replace(view, extrinsics=view.extrinsics @ back) for view in frame.cameras)
    return LabelledFrame(
        frame=Frame(
            frame.stamp_ns,
            _moved_points(frame.points, motion),
            cameras,
            frame.frame_id,
            None if frame.to_fixed is None else motion @ frame.to_fixed @ back,
        ),
        truth=_moved_truth(labelled.truth, motion),
        model_to_world=labelled.model_to_world @ back,
    )


def picture_affine(picture: tuple[int, int], change: PictureChange) -> _Matrix:
    """Return the (3, 3) affine from an image's pixels to the changed image's.

    Pixel centres are at half-integers, as in the whole package, so scaling needs no half-pixel shift.

    Args:
        picture: width and height of the image.
    """
    return _placement(picture, change) @ np.diag([*np.divide(_resized(picture, change), picture), 1.0])


def _mirrored(view: CameraView) -> CameraView:
    size = (view.image.shape[1], view.image.shape[0])
    # Resampling, as in `_changed`, could round.
    image = np.ascontiguousarray(view.image[:, ::-1])
    return replace(view, image=image, intrinsics=picture_affine(size, PictureChange(size, flip=True)) @ view.intrinsics)


def _changed(view: CameraView, change: PictureChange) -> CameraView:
    height, width = view.image.shape[:2]
    columns, rows = _resized((width, height), change)
    # Resize as `prepare_image` does at inference: without aliasing, and faster than OpenCV's INTER_AREA.
    pixels = torch.from_numpy(np.ascontiguousarray(view.image)).permute(2, 0, 1)[None]
    resized = F.interpolate(pixels, (rows, columns), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV's pixel centres are at integers
    onto = np.linalg.inv(half) @ _placement((width, height), change) @ half
    image: NDArray[Any] = cv2.warpAffine(
        np.ascontiguousarray(resized.numpy()), onto[:2], change.size, flags=cv2.INTER_LINEAR
    )
    intrinsics = picture_affine((width, height), change) @ view.intrinsics
    return replace(view, image=image.astype(np.uint8, copy=False), intrinsics=intrinsics)


def _resized(picture: tuple[int, int], change: PictureChange) -> tuple[int, int]:
    scale = change.zoom * change.size[0] / picture[0]
    return max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))


def _placement(picture: tuple[int, int], change: PictureChange) -> _Matrix:
    """Return the (3, 3) affine from the resized image to the new one: crop, flip, rotation."""
    (width, height), resized = change.size, _resized(picture, change)
    crop = np.eye(3)
    crop[:2, 2] = (
        -round(change.crop[0] * max(0, resized[0] - width)),
        -round(change.crop[1] * max(0, resized[1] - height)),
    )
    flip = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) if change.flip else np.eye(3)
    cos, sin = np.cos(change.rotation), np.sin(change.rotation)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    centre = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    placement: _Matrix = centre @ turn @ np.linalg.inv(centre) @ flip @ crop
    return placement


def _moved_points(points: NDArray[np.float32] | None, motion: _Matrix) -> NDArray[np.float32] | None:
    if points is None:
        return None
    moved = points.astype(np.float32)
    moved[:, :3] = transform_points(motion, points)
    return moved


def _moved_truth(truth: GroundTruth, motion: _Matrix) -> GroundTruth:
    scale = abs(np.linalg.det(motion[:3, :3])) ** (1 / 3)
    boxes = truth.boxes.astype(np.float64)
    heading = np.stack((np.cos(boxes[:, 6]), np.sin(boxes[:, 6])), axis=-1) @ motion[:2, :2].T
    boxes[:, :3] = transform_points(motion, boxes)
    boxes[:, 3:6] *= scale
    boxes[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
    boxes[:, 7:9] = boxes[:, 7:9] @ motion[:2, :2].T
    return replace(truth, boxes=boxes.astype(np.float32))
