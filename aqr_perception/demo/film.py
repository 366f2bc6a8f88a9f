# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Video of a sequence of pictures, playable in browsers."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_CODECS = ("vp09", "avc1", "mp4v")
"""Video codecs in order of preference: VP9 (in every OpenCV from PyPI, and in browsers), H.264, MPEG-4."""


def write_film(pictures: Iterable[NDArray[np.uint8]], path: Path, rate: float) -> Path:
    """Write BGR pictures of equal size as a video with `rate` pictures per second.

    Returns:
        the path; if OpenCV has no video codec, the path of a .webp animation instead.

    Raises:
        ValueError: there is no picture.
        OSError: OpenCV has no video codec and no support for animations.
    """
    frames = iter(pictures)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: found no picture, needed at least one")
    writer = _writer(path, rate, (first.shape[1], first.shape[0]))
    if writer is None:
        return _write_animation([first, *frames], path.with_suffix(".webp"), rate)
    for picture in (first, *frames):
        writer.write(picture)
    writer.release()
    return path


def _writer(path: Path, rate: float, size: tuple[int, int]) -> cv2.VideoWriter | None:
    for codec in _CODECS:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
        if writer.isOpened():
            return writer
    path.unlink(missing_ok=True)
    return None


def _write_animation(pictures: list[NDArray[np.uint8]], path: Path, rate: float) -> Path:
    if not hasattr(cv2, "imwriteanimation"):
        needed = f"one of {', '.join(_CODECS)}, or OpenCV 4.11 for an animation"
        raise OSError(f"{path.stem}: found no video codec in OpenCV {cv2.__version__}, needed {needed}; update OpenCV")
    animation = cv2.Animation()
    animation.frames = pictures
    animation.durations = [round(1000 / rate)] * len(pictures)
    cv2.imwriteanimation(str(path), animation)
    return path
