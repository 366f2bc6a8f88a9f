# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Checks of data that is valid but probably not what the user means; a human would see it in RViz."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from aqr_perception.decoding.message_error import MessageError

_BRIGHTEST = 255.0
"""Largest intensity that models are trained with, after `intensity_scale`."""
_TOLERANCE = 1.05
_MOST_INTENSE = 65_535.0
"""Largest scaled intensity that is passed on: that of 16-bit integers without a scale. Models bear a few of them."""
_FEWEST_POINTS = 100
_SAMPLE = 4000
_FURTHEST_MEDIAN = 500.0
"""Metres; half the points of a sweep are nearer, also on a motorway."""
_FURTHEST_CAMERA = 100.0
"""Metres; the longest vehicles are shorter."""
_STEEP = 0.9
_UPRIGHT = 0.5


def intensity_doubt(
    intensities: NDArray[np.float32],
    scale: float,
    fields: Iterable[str],
    topic: str,
    parameter: str = "intensity_scale",
) -> MessageError | None:
    """Return a doubt if intensities cannot lie in 0..255 after scaling, with the scale that would fit.

    Args:
        intensities: (N,) as sent.
        scale: factor to 0..255.
        fields: names of the point cloud's fields.
        parameter: name of the parameter that holds the factor.
    """
    if len(intensities) < _FEWEST_POINTS:
        return None
    sample = intensities[:: max(1, len(intensities) // _SAMPLE)]
    low, top = float(sample.min()), float(np.quantile(sample, 0.995))
    needed = f"0 to 255 after `{parameter}`"
    reflectivity = "; the field `reflectivity` may fit better" if "reflectivity" in fields else ""
    if top == low:
        found = f"intensity {low:g} for every point"
        return MessageError(topic, "constant intensity", found, needed, "let the driver publish the field `intensity`")
    if low >= 0 and 1.0 < top * scale <= _BRIGHTEST * _TOLERANCE:
        return None
    found = f"{low:.4g} to {top:.4g}, times `{parameter}` {scale:g}"
    if low < 0:
        return MessageError(topic, "negative intensity", found, needed, f"publish intensities from 0{reflectivity}")
    remedy = f"`{parameter}` {fitting_scale(top):.4g} would fit{reflectivity}"
    return MessageError(topic, "intensity out of range", found, needed, remedy)


def fitting_scale(top: float) -> float:
    """Return the factor that brings intensities to 0..255 whose 99.5th percentile, as sent, is `top`."""
    return _BRIGHTEST if top <= 1.0 else _BRIGHTEST / top if top > _BRIGHTEST else 1.0


def drop_absurd_intensities(intensities: NDArray[np.float32], topic: str) -> MessageError | None:
    """Set scaled intensities (N,) of no LiDAR to 0 in place; return a doubt if there are any.

    A single one can hide the objects in a whole sweep: normalisation layers spread it.
    """
    absurd = np.abs(intensities) > _MOST_INTENSE
    if not absurd.any():
        return None
    found = f"{int(absurd.sum())} of {len(intensities)} beyond {_MOST_INTENSE:g} after scaling, taken as 0"
    intensities[absurd] = 0.0
    return MessageError(topic, "absurd intensities", found, "0..255 after `intensity_scale`", "check the driver")


def check_distances(points: NDArray[np.float32], topic: str) -> None:
    """Check that a sweep's points (N, >=3), in the model frame, are around the vehicle.

    Raises:
        MessageError: half the points are too far away for a LiDAR; their unit is probably not metres.
    """
    sample = points[:: max(1, len(points) // _SAMPLE), :2]
    median = float(np.median(np.hypot(sample[:, 0], sample[:, 1]))) if len(sample) else 0.0
    if median <= _FURTHEST_MEDIAN:
        return
    found, needed = f"a median distance of {median:.0f} m", f"metres around the vehicle, at most {_FURTHEST_MEDIAN:g}"
    remedy = "publish metres, not millimetres, in the TF frame that frame_id names"
    raise MessageError(topic, "implausible distances", found, needed, remedy)


def camera_doubt(extrinsics: NDArray[np.float64], frame: str, topic: str) -> MessageError | None:
    """Return a doubt if a camera looks up or down, or if its image is not upright.

    Args:
        extrinsics: (4, 4), model frame (z up) -> optical frame (REP-103: x right, y down, z forward).
        frame: TF name of the optical frame.

    Raises:
        MessageError: the camera is not on the vehicle.
    """
    distance = float(np.linalg.norm(extrinsics[:3, 3]))
    if not distance <= _FURTHEST_CAMERA:
        found, needed = f"{frame!r} {distance:g} m away from the model frame", f"at most {_FURTHEST_CAMERA:g} m"
        raise MessageError(topic, "implausible transform", found, needed, "correct the camera's place in TF")
    down, forward = extrinsics[1, 2], extrinsics[2, 2]  # the vehicle's up, along the image's down and the view
    needed = f"an optical frame (x right, y down, z forward), not {frame!r}"
    remedy = "put the optical frame in the images' frame_id, usually NAME_optical_frame"
    if abs(forward) > _STEEP:
        angle = np.degrees(np.arcsin(np.clip(forward, -1.0, 1.0)))
        found = f"an optical axis {angle:+.0f} degrees above the horizon, as in a body frame"
        return MessageError(topic, "camera frame is not optical", found, needed, remedy)
    if down > -_UPRIGHT * np.sqrt(1.0 - forward**2):
        angle = np.degrees(np.arccos(np.clip(-down, -1.0, 1.0)))
        found = f"an image whose down is {angle:.0f} degrees off the vehicle's down"
        return MessageError(topic, "image not upright", found, needed, f"{remedy}; turn images of a camera on its side")
    return None
