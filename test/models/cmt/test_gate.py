# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""CMT with a gate and the other effects of its router: neutral at first, composed as published, learning as asked."""

from pathlib import Path

import pytest
import torch
import yaml
from helpers.sensed_batch import SENSORS
from helpers.small_fusion import write_preset
from torch import Tensor

from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.aqr.gate import OPEN, Gate
from aqr_perception.models.aqr.router import RouterWeights, gated_weights
from aqr_perception.models.cmt.model import CMT
from aqr_perception.models.config.presets import PresetError, load_preset, preset_directory
from aqr_perception.models.model_io import DecodeOptions, Features, ModelOutput
from aqr_perception.options import AqrOptions

VIEWS = 3


def small(folder: Path, proposals: dict[str, int] | None = None, **aqr: object) -> CMT:
    entries = {"description": "small", **yaml.safe_load(SENSORS), "aqr": {"bev_window": 5, "image_window": 5, **aqr}}
    if proposals:
        entries["decoder"]["proposals"] = proposals
    model = build_model(write_preset(folder, entries))
    assert isinstance(model, CMT)
    return model


def features_of(model: CMT, batch: int = 2) -> Features:
    """Return random features of a rig that looks forward; the last sample has no LiDAR."""
    random = torch.Generator().manual_seed(0)
    image, points = model.preset.image, model.preset.points
    assert image is not None and points is not None
    width, height = image.size
    projections = torch.zeros(batch, VIEWS, 4, 4)
    for view, yaw in enumerate(torch.linspace(-1, 1, VIEWS)):
        right = torch.stack((yaw.cos(), yaw.sin(), torch.tensor(0.0)))
        forward = torch.stack((-yaw.sin(), yaw.cos(), torch.tensor(0.0)))
        rotation = torch.stack((right, torch.tensor([0.0, 0.0, -1.0]), forward))
        intrinsics = torch.tensor([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1.0]])
        projections[:, view, :3, :3] = intrinsics @ rotation
        projections[:, view, 3, 3] = 1.0
    cells = (model.preset.decoder.channels, height // 16, width // 16)
    columns, rows = points.bev_cells
    has_points = tuple(sample < batch - 1 or batch == 1 for sample in range(batch))
    return Features(
        torch.randn(batch, VIEWS, *cells, generator=random),
        torch.randn(batch, 2 * points.neck_channels, rows, columns, generator=random),
        projections,
        (height, width),
        has_points,
    )


def decode(model: CMT, features: Features, mode: str = "auto", **options: object) -> ModelOutput:
    return model.decode(features, DecodeOptions(AqrOptions.of_model(mode), True, **options))  # type: ignore[arg-type]


def assert_same(first: ModelOutput, second: ModelOutput, tolerance: float) -> None:
    for one, other in zip(first.predictions, second.predictions, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> CMT:
    return small(tmp_path_factory.mktemp("gate"), mode="gate")


@torch.inference_mode()
@pytest.mark.parametrize("aqr", [{"mode": "gate"}, {"mode": "bias", "bias": "signed"}])
def test_an_untrained_router_changes_nothing(tmp_path: Path, aqr: dict[str, object]) -> None:
    model = small(tmp_path, **aqr)
    features = features_of(model)
    off, on = decode(model, features, "off"), decode(model, features)
    assert_same(off, on, 1e-3)


def weights_by(model: CMT, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    """Let the router return a gate of these logits (Q,), (Q, V) and (1 + V) for every sample."""

    def forward(
        query: Tensor, keys: Tensor, values: Tensor, cells: object, layout: object, *_: object
    ) -> RouterWeights:
        by_sample = Gate(*(logits.expand(len(query), *logits.shape) for logits in gate))
        return gated_weights(by_sample, cells)  # type: ignore[arg-type]

    monkeypatch.setattr(model.aqr, "forward", forward)


@torch.inference_mode()
def test_samples_do_not_mix_even_where_one_has_no_lidar(gated: CMT, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = gated.preset.decoder.queries
    random = torch.Generator().manual_seed(1)
    logits = Gate(
        torch.randn(queries, generator=random),
        torch.randn(queries, VIEWS, generator=random),
        torch.tensor([1.0, 9.0, -1.0, -float("inf")]),
    )
    weights_by(gated, monkeypatch, logits)
    features = features_of(gated, 3)
    together = decode(gated, features)
    assert together.router is not None and together.gate is not None and len(together.gate.sensors) == 3
    assert not together.router.cameras[..., 2].any()
    for sample in range(3):
        alone = decode(gated, features.select([sample]))
        for one, other in zip(together.predictions, alone.predictions, strict=True):
            torch.testing.assert_close(one[:, sample : sample + 1], other, atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_without_any_trust_the_model_decodes_as_without_tokens(gated: CMT, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, nothing = gated.preset.decoder.queries, -float("inf")
    weights_by(
        gated,
        monkeypatch,
        Gate(torch.zeros(queries), torch.zeros(queries, VIEWS), torch.full((1 + VIEWS,), nothing)),
    )
    output = decode(gated, features_of(gated))
    assert all(part.isfinite().all() for part in output.predictions)
    assert output.router is not None and not output.router.modality.any() and not output.router.cameras.any()


@torch.inference_mode()
def test_strength_is_the_exponent_of_the_weights(gated: CMT, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = gated.preset.decoder.queries
    gate = Gate(torch.zeros(queries), torch.full((queries, VIEWS), -2.0), torch.arange(1.0 + VIEWS) - 2.0)
    weights_by(gated, monkeypatch, gate)
    features = features_of(gated, 1)
    off = decode(gated, features, "off")
    silent = gated.decode(features, DecodeOptions(AqrOptions(mode="gate", strength=0.0)))
    assert_same(off, silent, 0.0)
    once, twice = (
        gated.decode(features, DecodeOptions(AqrOptions(mode="gate", strength=strength))) for strength in (1.0, 2.0)
    )
    assert not torch.allclose(once.predictions.class_logits, off.predictions.class_logits, atol=1e-4)
    assert not torch.allclose(once.predictions.class_logits, twice.predictions.class_logits, atol=1e-4)


@torch.inference_mode()
def test_an_equal_doubt_of_all_sensors_changes_nothing(gated: CMT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights choose between sensors. Where there is nothing to choose, they take no evidence away."""
    queries = gated.preset.decoder.queries
    weights_by(gated, monkeypatch, Gate(torch.zeros(queries), torch.zeros(queries, VIEWS), torch.zeros(1 + VIEWS)))
    features = features_of(gated, 1)
    found, off = decode(gated, features), decode(gated, features, "off")
    assert_same(off, found, 1e-5)
    assert found.router is not None and found.router.modality.max() < 0.3  # the weights say the doubt nevertheless


@torch.inference_mode()
def test_a_doubt_of_the_only_sensor_changes_nothing(gated: CMT, monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_of(gated, 1)
    alone = features._replace(image=None, lidar_to_image=features.lidar_to_image[:, :0])
    doubts = torch.linspace(-3, 4, gated.preset.decoder.queries)
    weights_by(gated, monkeypatch, Gate(doubts, doubts[:, None][:, :0], torch.zeros(1)))
    found, off = decode(gated, alone), decode(gated, alone, "off")
    assert_same(off, found, 1e-5)


@pytest.mark.parametrize(
    "aqr",
    [
        {"mode": "gate"},
        {"mode": "bias", "bias": "signed"},
        {"mode": "both"},
        {"mode": "modulation", "modulation": "residual"},
    ],
)
def test_the_detections_teach_the_router_unless_it_is_fixed(tmp_path: Path, aqr: dict[str, object]) -> None:
    model = small(tmp_path, **aqr)
    features = features_of(model, 1)
    for fixed in (False, True):
        model.zero_grad()
        decode(model, features, fixed_router=fixed).predictions.class_logits.square().sum().backward()
        moved = [name for name, part in model.aqr.named_parameters() if part.grad is not None and part.grad.any()]
        assert bool(moved) is not fixed


PROPOSALS = {"bev": 6, "image": 5}


@torch.inference_mode()
def test_an_untrained_gate_that_compares_the_sensors_changes_nothing(tmp_path: Path) -> None:
    model = small(tmp_path, PROPOSALS, mode="gate")
    features = features_of(model)
    off, on = decode(model, features, "off"), decode(model, features)
    assert on.queries is not None and on.queries.agreement is not None
    assert on.gate is not None and (on.gate.sensors == OPEN).all()
    assert_same(off, on, 1e-3)


def test_a_gate_learns_from_the_agreement_of_the_sensors(tmp_path: Path) -> None:
    model = small(tmp_path, PROPOSALS, mode="gate")
    features = features_of(model, 1)
    gate = model.aqr.agreement
    lidar, cameras = gate.lidar_place.logit, gate.cameras
    for last in (part[-1] for part in (lidar, cameras, gate.lidar_trust, gate.camera_trust)):
        torch.nn.init.normal_(last.weight, std=0.1)
        torch.nn.init.constant_(last.bias, -4.0)
    # The scale of the less trusted sensor alone has an effect.
    for doubted in (lidar, cameras, gate.lidar_trust, gate.camera_trust):
        torch.nn.init.constant_(doubted[-1].bias, -8.0)
        decode(model, features).predictions.class_logits.square().sum().backward()
        torch.nn.init.constant_(doubted[-1].bias, -4.0)
    assert all(part.grad is not None and part.grad.any() for part in model.aqr.agreement.parameters())
    assert model.aqr.proposal_scale.grad is not None and model.aqr.proposal_scale.grad.all()
    model.zero_grad()
    decode(model, features, fixed_router=True).predictions.class_logits.square().sum().backward()
    assert model.aqr.proposal_scale.grad is None
    output = decode(model, features_of(model))
    assert output.gate is not None and not torch.equal(output.gate.lidar[0], output.gate.lidar[1])


def test_weights_of_a_gate_that_compares_nothing_are_left_out_by_name(tmp_path: Path, caplog) -> None:
    plain, comparing = small(tmp_path, mode="gate"), small(tmp_path, PROPOSALS, mode="gate")
    state = {key: part for key, part in comparing.state_dict().items() if "agreement" not in key}
    del state["aqr.proposal_scale"]
    load_checkpoint(comparing, state)
    assert not comparing.router_trained and plain.router_trained
    assert "does not compare the proposals of both sensors" in caplog.text and "--train aqr" in caplog.text


def test_weights_of_a_gate_that_compares_all_cameras_at_once_are_left_out_by_name(tmp_path: Path, caplog) -> None:
    """Gates had no network for single pairs of the LiDAR and a camera, and other inputs to the trusts."""
    comparing = small(tmp_path, PROPOSALS, mode="gate")
    state = {key: part for key, part in comparing.state_dict().items() if "agreement.pair" not in key}
    for trust in ("lidar_trust", "camera_trust"):
        state[f"aqr.agreement.{trust}.0.weight"] = torch.zeros(64, 138)
    load_checkpoint(comparing, state)
    assert not comparing.router_trained
    assert "all cameras at once" in caplog.text and "--train aqr" in caplog.text


def test_weights_of_a_gate_that_does_not_see_the_lidars_features_are_left_out_by_name(tmp_path: Path, caplog) -> None:
    comparing = small(tmp_path, PROPOSALS, mode="gate")
    state = {key.replace("lidar_place", "lidar"): part for key, part in comparing.state_dict().items()}
    load_checkpoint(comparing, state)
    assert not comparing.router_trained
    assert "does not see the LiDAR's features around a query" in caplog.text and "--train aqr" in caplog.text


@torch.inference_mode()
def test_residual_modulation_scales_even_where_no_query_is(tmp_path: Path) -> None:
    model = small(tmp_path, mode="modulation", modulation="residual", residual=0.5)
    features = features_of(model, 1)
    changed = decode(model, features).predictions.class_logits
    assert not torch.allclose(changed, decode(model, features, "off").predictions.class_logits, atol=1e-4)


def test_a_router_of_another_kind_is_left_out_by_name(gated: CMT, tmp_path: Path, caplog) -> None:
    plain = small(tmp_path, mode="both")
    load_checkpoint(gated_copy := small(tmp_path, mode="gate"), plain.state_dict())
    assert not gated_copy.router_trained
    assert "kind 'plain', but the preset needs 'gate'" in caplog.text and "aqr.mode: both" in caplog.text
    caplog.clear()
    load_checkpoint(plain, gated.state_dict())
    assert not plain.router_trained and "set aqr.mode: gate in a copy of the preset" in caplog.text
    load_checkpoint(gated_copy, gated.state_dict())
    assert gated_copy.router_trained


def test_a_mode_that_the_router_was_not_trained_for_is_named(gated: CMT, tmp_path: Path) -> None:
    plain = small(tmp_path, mode="both")
    assert "needed 'gate'" in (plain.aqr_problem(AqrOptions.of_model("gate")) or "")
    assert "kind 'gate'" in (gated.aqr_problem(AqrOptions.of_model("both")) or "")
    assert "aqr.bias is 'signed'" in (plain.aqr_problem(AqrOptions(mode="bias", bias="signed")) or "")
    for mode in ("off", "auto"):
        assert gated.aqr_problem(AqrOptions.of_model(mode)) is None  # type: ignore[arg-type]
    plain.router_trained = False
    assert plain.aqr_problem(AqrOptions.of_model("gate")) is None


@pytest.mark.parametrize("aqr", [{"mode": "gate"}, {"bias": "signed"}])
def test_presets_of_other_architectures_refuse_the_gate_by_name(tmp_path: Path, aqr: dict[str, object]) -> None:
    entries = yaml.safe_load((preset_directory() / "petr_tiny.yaml").read_text()) | {"aqr": aqr}
    with pytest.raises(PresetError, match="architecture petr has no such router"):
        load_preset(write_preset(tmp_path, entries))
