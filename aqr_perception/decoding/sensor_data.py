# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Decoding of a sweep and of a camera's image with its calibration, step by step as in the node."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aqr_perception.decoding.camera_images import Picture, picture_from_message
from aqr_perception.decoding.clouds import points_from_message
from aqr_perception.decoding.lens import Pinhole, described_size, pinhole_picture
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.plausibility import drop_absurd_intensities, intensity_doubt

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2


def scaled_points(
    sweep: "PointCloud2",
    topic: str,
    intensity_scale: float,
    doubts: list[MessageError],
    scale_parameter: str = "intensity_scale",
) -> NDArray[np.float32]:
    """Return (N, 4) points with scaled intensities, (0, 4) if none is a return.

    Args:
        doubts: receives what is odd about a sweep that is usable nevertheless.
        scale_parameter: name of the parameter that holds the scale.

    Raises:
        MessageError: the frame_id is empty, or the layout is broken; see `points_from_message`.
    """
    if not sweep.header.frame_id:
        raise no_frame_id(topic)
    points = points_from_message(sweep, topic, doubts)
    if not points[:, :3].any():  # many drivers send zeros where no return came back
        return np.zeros((0, 4), np.float32)
    fields = [field.name for field in sweep.fields]
    doubt = intensity_doubt(points[:, 3], intensity_scale, fields, topic, scale_parameter)
    if doubt is not None:
        doubts.append(doubt)
    points[:, 3] *= intensity_scale
    doubt = drop_absurd_intensities(points[:, 3], topic)
    if doubt is not None:
        doubts.append(doubt)
    return points


def pinhole_image(
    image: "Image | CompressedImage",
    info: "CameraInfo",
    image_topic: str,
    info_topic: str,
    rectified: bool,
    baseline_in_tf: bool,
    image_width: int,
    doubts: list[MessageError],
    ahead: Picture | None = None,
) -> Pinhole:
    """Return a camera's image without lens distortion, with its intrinsics; see `pinhole_picture`.

    Args:
        image_width: width in pixels that the model needs; 0 for full size.
        ahead: the image's picture, if another thread has decoded it without doubt.

    Raises:
        MessageError: the image or its calibration is unusable.
    """
    described = described_size(info, info_topic)
    picture = picture_from_message(image, image_topic, image_width, described, doubts, ahead)
    return pinhole_picture(picture, info, rectified, info_topic, baseline_in_tf, doubts)


def no_frame_id(topic: str, also: str = "") -> MessageError:
    """Return the error of a message without a frame."""
    remedy = "set header.frame_id in the driver" + (f", and set {also}" if also else "")
    return MessageError(topic, "empty frame_id", "header.frame_id ''", "the TF frame of the data", remedy)
