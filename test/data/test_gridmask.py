# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""GridMask masks a regular grid of squares, with a probability that grows during training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from aqr_perception.data.gridmask import GridMask, grid_squares
from aqr_perception.frame import CameraView, Frame, GroundTruth, LabelledFrame

NO_TRUTH = GroundTruth(
    np.zeros((0, 9), np.float32),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros((0, 2), np.float32),
)


def labelled(*pictures: NDArray[np.uint8]) -> LabelledFrame:
    views = [CameraView(str(i), picture, np.eye(3), np.eye(4)) for i, picture in enumerate(pictures)]
    return LabelledFrame(Frame(0, None, tuple(views)), NO_TRUTH)


def grey(height: int = 32, width: int = 48) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 200, np.uint8)


def always() -> GridMask:
    return GridMask(probability=1.0, fill=(1, 2, 3))


@given(st.integers(2, 30), st.floats(0, 1), st.integers(0, 29), st.integers(0, 29))
def test_squares_repeat_with_the_period_in_both_directions(period: int, ratio: float, down: int, right: int) -> None:
    lost = grid_squares((90, 70), period, ratio, (down, right))
    assert np.array_equal(lost[period:], lost[:-period])
    assert np.array_equal(lost[:, period:], lost[:, :-period])
    edge = round(np.sqrt(lost[:period, :period].sum()))
    assert 1 <= edge < period
    assert lost[:period, :period].sum() == edge**2
    assert abs(edge - (1 - ratio) * period) <= 1


def test_a_ratio_of_one_half_masks_a_quarter_of_the_image() -> None:
    assert grid_squares((80, 80), 8, 0.5, (3, 5)).mean() == 0.25


@given(st.integers(0, 2**32 - 1))
def test_masked_pixels_get_the_fill_and_others_stay(seed: int) -> None:
    before = np.random.default_rng(seed).integers(10, 255, (24, 40, 3), dtype=np.uint8)
    after = always()(labelled(before.copy()), 1.0, np.random.default_rng(seed)).frame.cameras[0].image
    lost = (after == (1, 2, 3)).all(axis=-1)
    assert lost.any()
    assert np.array_equal(after[~lost], before[~lost])


def test_all_cameras_get_the_same_grid_and_the_source_stays_unchanged() -> None:
    source = labelled(grey(), grey())
    first, second = always()(source, 1.0, np.random.default_rng(0)).frame.cameras
    assert np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, source.frame.cameras[0].image)
    assert (source.frame.cameras[0].image == 200).all()


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.5, 0.35), (1.0, 0.7)])
def test_the_probability_rises_linearly_to_seven_tenths(progress: float, share: float) -> None:
    random, source, mask = np.random.default_rng(0), labelled(grey(8, 8)), GridMask()
    masked = np.mean([mask(source, progress, random) is not source for _ in range(2000)])
    assert masked == pytest.approx(share, abs=0.04)


def test_a_frame_without_cameras_stays_as_it_is() -> None:
    source = labelled()
    assert always()(source, 1.0, np.random.default_rng(0)) is source


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_outside_of_training_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match="progress is"):
        GridMask()(labelled(grey()), progress, np.random.default_rng(0))


def test_settings_outside_0_and_1_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ratio is 1\.5"):
        GridMask(ratio=1.5)
