"""Plots show when sensors failed."""

import numpy as np
from helpers.recorded_drives import BLACK, recorded_drive

from aqr_perception.demo.plots import pixels, timeline_figure


def test_the_plots_shade_the_failures() -> None:
    drive = recorded_drive()
    picture, (first, last) = pixels(timeline_figure(drive.timeline, (BLACK,), drive.seconds, (9, 4)), 900, 400)
    assert picture.shape == (400, 900, 3) and 0 < first < last <= 900

    def colour(seconds: float) -> list[int]:
        column = round(first + (last - first) * seconds / drive.seconds)
        return np.median(picture[20:80, column], axis=0).astype(int).tolist()

    assert colour(1.55) != colour(3.55) == [255, 255, 255]
