# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Films can be read back."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from aqr_perception.demo import film
from aqr_perception.demo.film import write_film


def test_a_film_contains_all_its_pictures(tmp_path: Path) -> None:
    pictures = [np.full((64, 96, 3), 30 * index, np.uint8) for index in range(6)]
    played = cv2.VideoCapture(str(write_film(pictures, tmp_path / "drive.mp4", 5.0)))
    levels = []
    while (read := played.read())[0]:
        levels.append(float(read[1].mean()))
    np.testing.assert_allclose(levels, [30.0 * index for index in range(6)], atol=12)


@pytest.mark.skipif(not hasattr(cv2, "imreadanimation"), reason="needs OpenCV 4.11")
def test_without_a_codec_an_animation_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "_CODECS", ())
    pictures = [np.full((32, 48, 3), 40 * index, np.uint8) for index in range(4)]
    written = write_film(pictures, tmp_path / "drive.mp4", 5.0)
    read, animation = cv2.imreadanimation(str(written))
    assert read and written.suffix == ".webp"
    np.testing.assert_allclose([frame[..., :3].mean() for frame in animation.frames], [0, 40, 80, 120], atol=4)


def test_a_film_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no picture"):
        write_film([], tmp_path / "drive.mp4", 5.0)
