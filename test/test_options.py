# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Options are validated, and errors name the wrong option and the allowed values."""

import pytest

from aqr_perception.options import AqrOptions, DetectionOptions, OptionError


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"mode": "loud"}, "aqr.mode.*'loud'.*modulation"),
        ({"strength": -0.1}, r"aqr\.strength is -0\.1"),
        ({"bev_window": 32}, r"aqr\.bev_window is 32, but must be in 1\.\.31"),
        ({"router_bev_window": 4}, r"aqr\.router_bev_window is 4, but must be odd"),
        ({"router_attention": "local"}, r"aqr\.router_attention is 'local', but must be one of auto, windowed, global"),
        ({"activation": "relu"}, r"aqr\.activation is 'relu'"),
        ({"residual": -0.5}, r"aqr\.residual is -0\.5, but must be in 0\.\.2"),
        ({"map_limit": 0.0}, r"aqr\.map_limit is 0\.0, but must be above 0"),
        ({"router_image_window": 33}, "router_image_window"),
        ({"min_weight": 1.5}, "min_weight"),
        ({"reduce": "mean"}, "reduce"),
    ],
)
def test_an_invalid_aqr_option_is_named(setting: dict[str, object], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        AqrOptions(**setting)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"score_threshold": 1.1}, "score_threshold"),
        ({"max_detections": 0}, "max_detections"),
        ({"max_detections": 301}, "max_detections"),
        ({"class_score_thresholds": {"car": 2.0}}, r"class_score_thresholds\.car"),
        ({"weights_source": "magic"}, "weights.source"),
    ],
)
def test_an_invalid_detection_option_is_named(setting: dict[str, object], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        DetectionOptions(**setting)


@pytest.mark.parametrize(
    ("mode", "modulates", "biases"),
    [("off", False, False), ("modulation", True, False), ("bias", False, True), ("both", True, True)],
)
def test_strength_zero_equals_off(mode: str, modulates: bool, biases: bool) -> None:
    assert (AqrOptions(mode=mode).modulates, AqrOptions(mode=mode).biases) == (modulates, biases)
    silent = AqrOptions(mode=mode, strength=0.0)
    assert not silent.modulates and not silent.biases


def test_options_of_the_model_resolve_to_its_preset() -> None:
    trained = AqrOptions(mode="bias", bev_window=7, image_window=9, router_bev_window=3, router_image_window=11)
    assert AqrOptions.of_model().resolved(trained) == trained
    chosen = AqrOptions(mode="off", bev_window=5, image_window=0).resolved(trained)
    assert (chosen.mode, chosen.bev_window, chosen.image_window) == ("off", 5, 9)
