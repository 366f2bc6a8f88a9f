# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Plots show when sensors failed."""

import numpy as np
from helpers.recorded_drives import BLACK, recorded_drive

from aqr_perception.demo.plots import pixels, timeline_figure


def test_the_plots_of_signed_weights_contain_them_and_colour_maps_by_sign() -> None:
    for black_weight, lowest in ((0.2, -0.03), (-0.6, -1.05)):
        drive = recorded_drive(black_weight=black_weight)
        figure = timeline_figure(drive.timeline, (BLACK,), drive.seconds, (9, 4))
        weights, maps = figure.axes[:2]
        drawn = np.concatenate(
            [np.asarray(line.get_ydata(), float) for line in weights.lines if line.get_label()[0] != "_"]
        )
        low, high = weights.get_ylim()
        assert low == lowest and low <= np.nanmin(drawn) and np.nanmax(drawn) <= high
        (strip,) = maps.images
        assert strip.get_clim() == ((-1, 1) if drive.timeline.signed else (0, 1))
        red, _, blue, _ = strip.cmap(strip.norm(black_weight))
        if drive.timeline.signed:
            assert blue > red + 0.1, "a suppressed camera is blue"
            red, _, blue, _ = strip.cmap(strip.norm(0.8))
            assert red > blue + 0.1, "a trusted one red"
            neutral = strip.cmap(strip.norm(0.0))[:3]
            assert max(neutral) - min(neutral) < 0.03 and max(neutral) < 0.4, "a neutral one dark grey"
        else:
            lowest_colour, highest_colour = (strip.cmap(strip.norm(weight)) for weight in (0.0, 1.0))
            assert lowest_colour[2] > max(lowest_colour[:2]), "weight 0 is violet"
            assert min(highest_colour[:2]) > highest_colour[2] + 0.5, "weight 1 is yellow"


def test_the_plots_shade_the_failures() -> None:
    drive = recorded_drive()
    picture, (first, last) = pixels(timeline_figure(drive.timeline, (BLACK,), drive.seconds, (9, 4)), 900, 400)
    assert picture.shape == (400, 900, 3) and 0 < first < last <= 900

    def colour(seconds: float) -> list[int]:
        column = round(first + (last - first) * seconds / drive.seconds)
        return np.median(picture[20:80, column], axis=0).astype(int).tolist()

    assert colour(1.55) != colour(3.55) == [255, 255, 255]
