# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""AQR-CMT: modes, options, missing sensors, and CMT without AQR."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.sensed_batch import Sensed

from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.aqr_cmt.model import AqrCMT
from aqr_perception.models.config.presets import PresetError, load_preset
from aqr_perception.models.model_io import DecodeOptions, ModelOutput, Queries
from aqr_perception.options import AqrOptions

VARIANTS = ("bias", "modulation")
QUERIES = 60


@pytest.fixture(scope="module", params=VARIANTS)
def model(new_model: Callable[[str], AqrCMT], request: pytest.FixtureRequest) -> AqrCMT:
    return new_model(request.param)


def options(**changes: object) -> AqrOptions:
    return replace(AqrOptions.of_model(), **changes)


def decode(model: AqrCMT, sensed: Sensed, aqr: AqrOptions, queries: Queries | None = None) -> ModelOutput:
    return model.decode(model.features(*sensed), DecodeOptions(aqr, router_weights=True), queries)


@torch.inference_mode()
@pytest.mark.parametrize("views", [3, 1, 0])
@pytest.mark.parametrize("lidar", [True, False])
def test_any_subset_of_the_sensors_works_and_a_missing_one_has_no_weight(
    model: AqrCMT, sensed: Sensed, views: int, lidar: bool
) -> None:
    points = sensed.points if lidar else [torch.zeros(0, 5)] * 3
    fewer = Sensed(sensed.images[:, :views], sensed.lidar_to_image[:, :views], points)
    output = decode(model, fewer, options())
    assert output.predictions.class_logits.shape == (3, 3, QUERIES, 10)
    assert all(part.isfinite().all() for part in output.predictions)
    assert output.router is not None and output.router.cameras.shape == (3, QUERIES, views)
    assert output.router.modality[..., 0].any() == lidar and output.router.modality[..., 1].any() == (views > 0)


@torch.inference_mode()
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("off", [{"mode": "off"}, {"strength": 0.0}])
def test_without_aqr_it_is_plain_cmt_bit_for_bit(
    new_model: Callable[[str], AqrCMT], preset_file: Callable[[str], str], sensed: Sensed, variant: str, off: dict
) -> None:
    model, plain = new_model(variant), build_model(preset_file("plain"))
    shared = {key: value for key, value in model.state_dict().items() if not key.startswith(model.optional_router)}
    load_checkpoint(plain, shared)
    expected = plain(*sensed)
    found = decode(model, sensed, options(**off)).predictions
    assert torch.equal(found.class_logits, expected.class_logits) and torch.equal(found.boxes, expected.boxes)
    on = decode(model, sensed, options()).predictions
    assert not torch.allclose(on.class_logits, expected.class_logits, atol=1e-3)


@torch.inference_mode()
def test_build_model_gives_predictions_of_the_presets_mode(model: AqrCMT, sensed: Sensed) -> None:
    logits, boxes = model(*sensed)
    expected = decode(model, sensed, options()).predictions
    assert torch.equal(logits, expected.class_logits) and torch.equal(boxes, expected.boxes)


@torch.inference_mode()
def test_every_mode_works_and_differs_from_the_others(model: AqrCMT, sensed: Sensed) -> None:
    modes = ("off", "modulation", "bias", "both")
    logits = [decode(model, sensed, options(mode=mode)).predictions.class_logits for mode in modes]
    for index, first in enumerate(logits):
        assert first.isfinite().all()
        assert all(not torch.allclose(first, second, atol=1e-4) for second in logits[index + 1 :])


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("router_attention", "windowed"),
        ("router_attention", "global"),
        ("activation", "tanh"),
        ("activation", "sigmoid"),
    ],
)
def test_options_override_what_the_preset_says_of_the_router(
    model: AqrCMT, sensed: Sensed, name: str, value: str
) -> None:
    own, changed = (decode(model, sensed, aqr).router for aqr in (options(), options(**{name: value})))
    assert own is not None and changed is not None
    assert torch.equal(own.modality, changed.modality) == (getattr(model.preset.aqr, name) == value)


@torch.inference_mode()
@pytest.mark.parametrize("override", [{"residual": 0.2}, {"map_limit": 0.05}])
def test_options_override_what_the_preset_says_of_the_modulation(
    new_model: Callable[[str], AqrCMT], sensed: Sensed, override: dict[str, float]
) -> None:
    model = new_model("modulation")
    own, changed = (decode(model, sensed, aqr).predictions.boxes for aqr in (options(), options(**override)))
    assert not torch.allclose(own, changed, atol=1e-5)


@torch.inference_mode()
def test_the_activation_says_whether_weights_are_signed(model: AqrCMT, sensed: Sensed) -> None:
    for activation, signed in (("tanh", True), ("sigmoid", False)):
        aqr = options(activation=activation)
        output = decode(model, sensed, aqr)
        assert output.router is not None and model.signed_weights(aqr) == signed
        weights = output.router.modality
        assert weights.abs().max() <= 1 and (weights.min() < 0) == signed


@torch.inference_mode()
def test_each_query_has_one_camera_the_first_that_sees_it(model: AqrCMT, sensed: Sensed) -> None:
    doubled = Sensed(
        torch.cat((sensed.images, sensed.images), 1), torch.cat((sensed.lidar_to_image,) * 2, 1), sensed.points
    )
    router = decode(model, doubled, options()).router
    assert router is not None
    assert ((router.cameras != 0).sum(-1) == 1).all() and not router.cameras[..., 3:].any()
    torch.testing.assert_close(router.cameras.sum(-1), router.modality[..., 1])


@torch.inference_mode()
def test_a_batch_with_different_sensors_equals_each_sample_separately(model: AqrCMT, sensed: Sensed) -> None:
    batch = sensed._replace(points=[sensed.points[0], torch.zeros(0, 5), sensed.points[2]])
    together = decode(model, batch, options())
    for sample in range(3):
        alone = decode(model, batch.of(sample), options())
        one = slice(sample, sample + 1)
        for found, expected in zip(together.predictions, alone.predictions, strict=True):
            torch.testing.assert_close(found[:, one], expected, atol=1e-4, rtol=1e-4)
        assert together.router is not None and alone.router is not None
        torch.testing.assert_close(together.router.modality[one], alone.router.modality, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_modulation_leaves_the_residual_where_no_query_is(new_model: Callable[[str], AqrCMT], sensed: Sensed) -> None:
    model = new_model("modulation")
    head, aqr = model.pts_bbox_head, options().resolved(model.preset.aqr)
    features = model.features(*sensed)
    tokens = head.tokens(features)
    queries = head.learned_queries(3)
    cells = head.published_cells(queries, features, tokens.layout)
    maps = head.feature_maps(torch.ones(3, QUERIES, 2), cells, tokens.layout, aqr, 0)
    flat = torch.cat((maps.bev.flatten(1), maps.cameras.flatten(1)), dim=1)
    scaled = head.modulated(tokens, maps, aqr).features
    assert (flat == 0).any() and (flat > 0).any()
    torch.testing.assert_close(scaled, tokens.features * (flat + 0.7)[..., None])
    half = head.modulated(tokens, maps, replace(aqr, strength=0.5)).features
    torch.testing.assert_close(half, tokens.features * (1 + 0.5 * (flat - 0.3))[..., None])


@torch.inference_mode()
def test_denoising_queries_have_weights_but_do_not_draw_the_maps(model: AqrCMT, sensed: Sensed) -> None:
    learned = model.pts_bbox_head.learned_queries(3).reference_points
    extra = torch.full((3, 5, 3), 0.37)
    mask = torch.zeros(QUERIES + 5, QUERIES + 5, dtype=torch.bool)
    mask[5:, :5] = True
    with_denoising = Queries(torch.cat((extra, learned), 1), 5, mask)
    own, denoised = (decode(model, sensed, options(), queries).router for queries in (None, with_denoising))
    assert own is not None and denoised is not None
    torch.testing.assert_close(denoised.modality[:, 5:], own.modality, atol=1e-5, rtol=1e-4)
    assert denoised.modality[:, :5].any()
    torch.testing.assert_close(denoised.bev_map, own.bev_map, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(denoised.camera_maps, own.camera_maps, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ("aqr: {mode: bias, activation: auto}", r"aqr\.activation is 'auto'; say what the weights were trained with"),
        ("aqr: {mode: bias, residual: -1}", r"aqr\.residual is -1"),
        ("aqr: {mode: bias, bev_window: 0}", r"aqr\.bev_window is 0"),
        ("aqr: {mode: bias, bev_window: 8, image_window: 7}", r"aqr\.bev_window is 8 and aqr\.image_window 7"),
        ("aqr: {mode: bias}\naqr_cmt: {render_method: bilinear}", r"render_method is 'bilinear'.*gaussian or direct"),
        ("aqr: {mode: bias}\naqr_cmt: {sigma: 0}", r"aqr_cmt\.sigma is 0"),
        ("aqr: {mode: bias}\naqr_cmt: {min_weight: 2}", r"aqr_cmt\.min_weight is 2"),
        ("aqr: {mode: bias}\naqr_cmt: {bias_scale: -1}", r"aqr_cmt\.bias_scale is -1"),
    ],
)
def test_a_preset_says_all_that_the_keys_of_a_file_do_not_tell(
    preset_file: Callable[[str], str], tmp_path: Path, changed: str, named: str
) -> None:
    text = Path(preset_file("plain")).read_text().replace("architecture: cmt", "architecture: aqr_cmt")
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace('aqr: {mode: "off"}', changed))
    with pytest.raises(PresetError, match=named):
        load_preset(str(path))
