"""Colours of signed weights: symmetric, even, readable for colour-blind people, and with hues by sign."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqr_perception.visualization.colours import CAMERA_COLOUR, LIDAR_COLOUR, heat_colours

STEPS = np.linspace(-1.5, 1.5, 25, dtype=np.float32)
BOTH_SIGNS = heat_colours(STEPS, signed=True)

# Machado, Oliveira and Fernandes 2009, table of severity 1.0: linear RGB as seen without M cones and without L cones.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)


def lab(bgr: np.ndarray) -> np.ndarray:
    """Return CIE Lab (N, 3) of (N, 3) uint8 BGR."""
    return cv2.cvtColor((bgr[:, None] / 255).astype(np.float32), cv2.COLOR_BGR2LAB)[:, 0]


def as_seen(bgr: np.ndarray, deficiency: np.ndarray) -> np.ndarray:
    """Return (N, 3) uint8 BGR as colour-blind people see it."""
    encoded = bgr[:, ::-1] / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = (linear @ deficiency.T).clip(0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return np.rint(encoded[:, ::-1] * 255).astype(np.uint8)


def distance(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.linalg.norm(left - right))


def test_lightness_is_symmetric_and_rises_from_neutral_to_both_ends() -> None:
    lightness = lab(BOTH_SIGNS)[:, 0]
    np.testing.assert_allclose(lightness, lightness[::-1], atol=1.0)
    assert (np.diff(lightness[12:]) > 3).all() and (np.diff(lightness[12::-1]) > 3).all()


def test_neutral_is_dark_and_without_hue() -> None:
    lightness, a, b = lab(BOTH_SIGNS)[12]
    assert lightness < 10 and np.hypot(a, b) < 2


def test_equal_steps_of_weight_are_equal_steps_of_colour() -> None:
    steps = np.linalg.norm(np.diff(lab(BOTH_SIGNS), axis=0), axis=1)
    assert steps.max() / steps.min() < 1.25


@pytest.mark.parametrize("deficiency", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["none", "deutan", "protan"])
def test_ends_and_neutral_are_clearly_apart_for_everyone(deficiency: np.ndarray) -> None:
    low, neutral, high = lab(as_seen(BOTH_SIGNS[[0, 12, -1]], deficiency))
    assert distance(low, high) > 70 and distance(low, neutral) > 50 and distance(high, neutral) > 50
    # Weights of 0.5 are common; their signs must be apart, too.
    half_low, half_high = lab(as_seen(BOTH_SIGNS[[8, 16]], deficiency))
    assert distance(half_low, half_high) > 20


@pytest.mark.parametrize("deficiency", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["none", "deutan", "protan"])
def test_points_and_rims_of_boxes_stand_out_on_every_weight(deficiency: np.ndarray) -> None:
    point, rim = np.full((1, 3), 225, np.uint8), np.zeros((1, 3), np.uint8)
    heat = lab(as_seen(BOTH_SIGNS, deficiency))
    assert min(distance(colour, lab(as_seen(point, deficiency))[0]) for colour in heat) > 25
    # A rim separates boxes from bright weights; on dark ones the box itself stands out.
    for box in (LIDAR_COLOUR, CAMERA_COLOUR):
        seen = lab(as_seen(np.array([box[::-1]], np.uint8), deficiency))[0]
        black = lab(as_seen(rim, deficiency))[0]
        assert all(max(distance(colour, black), distance(colour, seen)) > 40 for colour in heat)


@given(st.floats(0.0625, 10.0, width=32))
def test_the_sign_decides_the_hue(weight: float) -> None:
    (blue, green, red), (low_blue, low_green, low_red) = heat_colours(np.float32([weight, -weight]), True).astype(int)
    assert red > max(blue, green) and low_blue > max(low_red, low_green)


@given(st.floats(1.5, 100.0, width=32))
def test_values_beyond_the_limit_have_the_colour_of_the_limit(weight: float) -> None:
    beyond, limit = heat_colours(np.float32([weight, -weight]), True), heat_colours(np.float32([1.5, -1.5]), True)
    np.testing.assert_array_equal(beyond, limit)


def test_colours_keep_the_shape_of_the_values() -> None:
    assert heat_colours(np.zeros((4, 6), np.float32), True).shape == (4, 6, 3)
    np.testing.assert_array_equal(heat_colours(np.zeros(5, np.float32), True), np.tile(BOTH_SIGNS[12], (5, 1)))
