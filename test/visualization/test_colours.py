# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Scales of colours are even, rise in lightness, and are readable for colour-blind people.

Distances are those of CAM02-UCS: 1 is just noticeable side by side, 10 is obvious.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.visualization.bev_picture import POINT_COLOUR
from aqr_perception.visualization.colours import (
    CAMERA_COLOUR,
    LIDAR_COLOUR,
    NEITHER_COLOUR,
    heat_colours,
    modality_colour,
    trust_balance,
    trust_colours,
)

colorspacious = pytest.importorskip("colorspacious", reason="pip install colorspacious")

EYES = ("everyone", "deuteranomaly", "protanomaly")
SCALES = {
    "weight": heat_colours(np.linspace(0, 1, 25)),
    "signed": heat_colours(np.linspace(-1, 1, 25), signed=True),
    "trust": trust_colours(np.linspace(-1, 1, 25)),
}


def seen(bgr: np.ndarray, eyes: str = "everyone") -> np.ndarray:
    """Return CAM02-UCS coordinates (N, 3) of (N, 3) BGR; of the colours that people without M or L cones see."""
    rgb = np.asarray(bgr, float)[..., ::-1] / 255
    if eyes != "everyone":
        space = {"name": "sRGB1+CVD", "cvd_type": eyes, "severity": 100}
        rgb = colorspacious.cspace_convert(rgb, space, "sRGB1").clip(0, 1)
    return colorspacious.cspace_convert(rgb, "sRGB1", "CAM02-UCS")


def steps(coordinates: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(coordinates, axis=0), axis=1)


def distance(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.linalg.norm(left - right))


@pytest.mark.parametrize("scale", SCALES)
def test_equal_steps_of_weight_are_equal_steps_of_colour(scale: str) -> None:
    found = steps(seen(SCALES[scale][::2]))  # rounding to 8 bits is small against these steps
    assert found.max() / found.min() < 1.3, found


@pytest.mark.parametrize("eyes", EYES)
def test_lightness_of_weights_rises_for_everyone(eyes: str) -> None:
    assert (np.diff(seen(SCALES["weight"], eyes)[:, 0]) > 0.5).all()


@pytest.mark.parametrize(("scale", "rises"), [("signed", 1), ("trust", -1)])
def test_lightness_of_diverging_scales_is_monotonic_from_the_middle_to_both_ends(scale: str, rises: int) -> None:
    lightness = seen(SCALES[scale])[:, 0]
    for arm in (lightness[12:], lightness[12::-1]):
        assert (np.diff(arm) * rises > 0.3).all()
    assert abs(lightness[0] - lightness[-1]) < 8


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("scale", ["signed", "trust"])
def test_ends_and_middle_are_clearly_apart_for_everyone(scale: str, eyes: str) -> None:
    low, middle, high = seen(SCALES[scale][[0, 12, -1]], eyes)
    assert distance(low, high) > 45 and distance(low, middle) > 25 and distance(high, middle) > 22
    # Weights of 0.5 are common; their signs must be apart, too.
    assert distance(*seen(SCALES[scale][[6, 18]], eyes)) > 20


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("scale", SCALES)
def test_no_weight_looks_like_a_place_without_one(scale: str, eyes: str) -> None:
    ground = seen(np.zeros((1, 3)), eyes)[0]
    assert min(distance(colour, ground) for colour in seen(SCALES[scale], eyes)) > 25


@pytest.mark.parametrize("eyes", EYES)
def test_objects_that_no_sensor_supports_look_like_no_balance(eyes: str) -> None:
    neither = seen(np.array([NEITHER_COLOUR[::-1]]), eyes)[0]
    assert min(distance(colour, neither) for colour in seen(SCALES["trust"], eyes)) > 15


@pytest.mark.parametrize("eyes", EYES)
def test_boxes_stand_out_from_points_and_on_every_weight(eyes: str) -> None:
    rim, point = seen(np.array([(0, 0, 0), POINT_COLOUR]), eyes)
    # A rim separates boxes from bright weights; on dark ones the box itself stands out.
    for box in seen(SCALES["trust"], eyes):
        assert distance(box, point) > 10
        for scale in ("weight", "signed"):
            assert all(max(distance(heat, rim), distance(heat, box)) > 25 for heat in seen(SCALES[scale], eyes))


def test_the_ends_of_trust_are_the_colours_of_the_modalities() -> None:
    assert trust_colours(1.0).tolist() == list(LIDAR_COLOUR[::-1])
    assert trust_colours(-1.0).tolist() == list(CAMERA_COLOUR[::-1])
    assert trust_colours(np.nan).tolist() == list(NEITHER_COLOUR[::-1])


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_the_balance_is_between_its_ends_and_opposite_if_sensors_are_swapped(lidar: float, camera: float) -> None:
    balance, swapped = float(trust_balance(lidar, camera)), float(trust_balance(camera, lidar))
    if max(lidar, camera) <= 0:
        assert np.isnan(balance) and modality_colour(lidar, camera) == NEITHER_COLOUR
    else:
        assert -1 <= balance <= 1 and balance == -swapped and (balance > 0) == (lidar > camera)


@given(st.floats(0.125, 10.0, width=32))
def test_the_sign_decides_the_hue(weight: float) -> None:
    (blue, green, red), (low_blue, low_green, low_red) = heat_colours(np.float32([weight, -weight]), True).astype(int)
    assert red > max(blue, green) and low_blue > max(low_red, low_green)


@given(st.floats(1.0, 100.0, width=32), st.booleans())
def test_values_beyond_the_limit_have_the_colour_of_the_limit(weight: float, signed: bool) -> None:
    beyond, limit = heat_colours(np.float32([weight, -weight]), signed), heat_colours(np.float32([1, -1]), signed)
    np.testing.assert_array_equal(beyond, limit)


def test_colours_keep_the_shape_of_the_values() -> None:
    assert heat_colours(np.zeros((4, 6), np.float32), True).shape == (4, 6, 3)
    np.testing.assert_array_equal(heat_colours(np.zeros(5, np.float32), True), np.tile(SCALES["signed"][12], (5, 1)))
