# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Parts for export: equal to the model that they come from, and what is left out by name."""

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml
from helpers import camera_ring, small_bevformer
from helpers.sensed_batch import SENSORS
from helpers.small_fusion import small_aqr_cmt, write_preset

from aqr_perception.export.example_inputs import decoder_geometry, inverted
from aqr_perception.export.parts import Part, model_parts
from aqr_perception.models import build_model
from aqr_perception.models.aqr.agreement import SensorAgreement
from aqr_perception.models.bevformer.head import BirdsEyeView
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import LAST_LAYER, DecodeOptions, Features, OtherEvidence, ProposalRanges, Queries
from aqr_perception.models.petr.model import PETR
from aqr_perception.options import AqrOptions

OWN = AqrOptions.of_model()
CMT = {"description": "small", **yaml.safe_load(SENSORS), "aqr": {"mode": "both", "bev_window": 5, "image_window": 4}}
PILLARS = {**CMT["points"], "encoder": "pillars", "voxel_size": [0.4, 0.4, 8.0], "grid": [64, 64, 1]}
PROPOSALS = {**CMT["decoder"], "proposals": {"bev": 20, "image": 20}}


def model_of(folder: Path, entries: dict[str, object]) -> DetectionModel:
    """Return a model with weights that all matter: the untrained heads give nearly constant outputs."""
    model = build_model(write_preset(folder, entries))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                spread = parameter.std()
                parameter.add_(0.3 * (spread if spread > 0 else 1.0) * torch.randn_like(parameter))
    return model


def part_of(model: DetectionModel, name: str, cameras: int = 3, aqr: AqrOptions = OWN) -> Part:
    """Return a part of a model by its name."""
    return next(part for part in model_parts(model, cameras, aqr).parts if part.name == name)


def outputs_of(part: Part) -> dict[str, torch.Tensor]:
    """Return a part's outputs by name."""
    with torch.no_grad():
        outputs = part.module(*part.inputs.values())
    return dict(zip(part.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))


def expected_of(model: DetectionModel, part: Part, aqr: AqrOptions) -> dict[str, torch.Tensor]:
    """Return the model's own outputs for a decoder's inputs."""
    given, image = part.inputs, model.preset.image
    size = (0, 0) if image is None else (image.size[1], image.size[0])
    projections = given.get("lidar_to_image", torch.zeros(1, 0, 4, 4))
    bev = given.get("bev_features")
    features = Features(given.get("image_features"), bev, projections, size, (bev is not None,))
    queries = None
    if "query_points" in given:
        points, content, logits, codes = (
            given[f"query_{name}"] for name in ("points", "content", "class_logits", "codes")
        )
        counts = model.preset.decoder.proposals
        places = ProposalRanges.after(0, counts.bev, counts.image)
        queries = Queries(points, 0, None, content, logits, codes, at_proposals=places)
        compared = {kind: [given[name] for name in given if name.startswith(kind)] for kind in ("agreement_", "other_")}
        if compared["agreement_"]:
            queries = queries._replace(agreement=SensorAgreement(*compared["agreement_"]))
        if compared["other_"]:
            queries = queries._replace(other=OtherEvidence(*compared["other_"]))
        model.proposals = None
    options = DecodeOptions(aqr, model.router_trained, not model.router_trained, LAST_LAYER)
    with torch.inference_mode():
        output = model.decode(features, options, queries)
    weights = output.router if model.router_trained else output.attention
    assert weights is not None
    return dict(zip(part.outputs, (*(each[-1] for each in output.predictions), *weights), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entries", "aqr"),
    [
        (CMT, OWN),
        (CMT, AqrOptions.of_model("off")),
        (CMT, AqrOptions.of_model("bias")),
        ({**CMT, "aqr": {"mode": "gate", "bev_window": 5, "image_window": 4}}, OWN),
        ({**CMT, "aqr": {"mode": "bias", "bias": "signed"}}, OWN),
        ({**CMT, "aqr": {"mode": "modulation", "modulation": "residual"}}, OWN),
        ({**CMT, "aqr": {"mode": "off"}}, OWN),
        ({**CMT, "decoder": PROPOSALS}, OWN),
        ({**CMT, "decoder": PROPOSALS, "aqr": {"mode": "gate", "bev_window": 5, "image_window": 4}}, OWN),
        ({name: entry for name, entry in CMT.items() if name != "image"}, OWN),
        ({name: entry for name, entry in CMT.items() if name != "points"}, OWN),
        (small_aqr_cmt("bias"), OWN),
        (small_aqr_cmt("modulation"), OWN),
        (small_aqr_cmt("bias"), dataclasses.replace(OWN, router_attention="global")),
    ],
    ids=[
        "both",
        "off",
        "bias",
        "gate",
        "signed",
        "residual",
        "mass",
        "proposals",
        "comparing gate",
        "lidar",
        "cameras",
        "research bias",
        "research maps",
        "all tokens",
    ],
)
def test_a_decoder_with_static_shapes_gives_the_models_output(
    entries: dict[str, object], aqr: AqrOptions, tmp_path: Path
) -> None:
    model = model_of(tmp_path, entries)
    part = part_of(model, "decoder", aqr=aqr)
    found, expected = outputs_of(part), expected_of(model, part, aqr)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, atol=1e-3, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert expected["boxes"].std() > 0.1, "outputs that are all equal compare nothing"


@pytest.mark.slow
@pytest.mark.parametrize("points", [CMT["points"], PILLARS], ids=["sparse", "pillars"])
def test_the_dense_point_branch_continues_where_the_encoder_ends(points: dict[str, object], tmp_path: Path) -> None:
    model = model_of(tmp_path, {**CMT, "points": points})
    cloud = torch.rand(400, 5, generator=torch.Generator().manual_seed(0)) * 20 - 10
    cloud[:, 2] = cloud[:, 2] / 10
    encoded: list[torch.Tensor] = []
    first = model.pts_middle_encoder.stages[0][0] if points is PILLARS else model.pts_backbone.blocks[0][0]  # type: ignore
    part = part_of(model, "bev")
    with torch.enable_grad():  # with gradients, convolutions run as modules, which hooks see
        hook = first.register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0].detach()))
        expected = model.bev_features([cloud])
        hook.remove()
    assert expected is not None and encoded[0].shape == part.inputs["encoded"].shape
    with torch.no_grad():
        torch.testing.assert_close(part.module(encoded[0]), expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frames", [1, 2])
def test_petr_takes_places_and_inverses_of_each_frame_as_inputs(frames: int, tmp_path: Path) -> None:
    entries = {name: CMT[name] for name in ("description", "point_range", "image", "decoder")}
    model = model_of(tmp_path, {**entries, "architecture": "petr", "petr": {"frames": frames}})
    assert isinstance(model, PETR)
    part, head = part_of(model, "decoder", cameras=2), model.pts_bbox_head
    image = model.preset.image
    assert image is not None
    size, inputs = (image.size[1], image.size[0]), part.inputs
    features = Features(inputs["image_features"], None, inputs["lidar_to_image"], size, (False,))
    inputs["places"][:] = head.camera_frame(features).places  # type: ignore[union-attr]
    if frames == 2:
        moved = inputs["lidar_to_image"].clone()
        moved[..., :3, 3] += moved[..., :3, 0]
        inputs["past_lidar_to_image"][:], inputs["past_image_to_lidar"][:] = moved, inverted(moved)
        inputs["past_places"][:] = inputs["places"]
        inputs["past_seconds"].fill_(0.7)
    found = outputs_of(part)
    with torch.inference_mode():
        current = head.camera_frame(features)
        assert current is not None
        past = current._replace(lidar_to_image=inputs["past_lidar_to_image"], seconds=0.7) if frames == 2 else None
        queries, all_frames = head.learned_queries(1), head.frames(current, past)
        position = head.query_embedding.embed(queries.reference_points)
        decoded = head.transformer.decoder(position, head.memory(all_frames, features), None, None, True)
        expected = head.predict(decoded.queries, queries, all_frames, LAST_LAYER)
        weights = head.attention_weights(decoded.mass, all_frames, queries, size, OWN)
    torch.testing.assert_close(found["class_logits"], expected.class_logits[-1], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found["boxes"], expected.boxes[-1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found["cameras"], weights.cameras, atol=1e-4, rtol=1e-3)  # type: ignore[union-attr]


def test_bevformers_decoder_starts_at_its_bev_features() -> None:
    model = small_bevformer.small_model()
    assert set(model_parts(model, 6, OWN).left_in_torch) == {"preprocessing", "BEV encoder", "camera weights"}
    part = part_of(model, "decoder")
    with torch.inference_mode():
        bev = BirdsEyeView(part.inputs["bev_cells"], model.pts_bbox_head.grid, None)  # type: ignore[arg-type]
        queries = model.pts_bbox_head.learned_queries(1)
        expected = model.pts_bbox_head.predict(model.pts_bbox_head.decode(bev, queries), queries, LAST_LAYER)
    torch.testing.assert_close(outputs_of(part)["boxes"], expected.boxes[-1], atol=1e-4, rtol=1e-4)


def test_what_stays_in_torch_is_named_with_a_reason(tmp_path: Path) -> None:
    mome = {**{name: entry for name, entry in CMT.items() if name != "aqr"}, "architecture": "mome"}
    parts = model_parts(model_of(tmp_path, mome), 2, OWN)
    assert [part.name for part in parts.parts] == ["image", "bev"]
    assert set(parts.left_in_torch) == {"preprocessing", "sparse encoder", "router and decoder"}
    assert "experts" in parts.left_in_torch["router and decoder"]


def test_the_model_itself_is_not_changed(tmp_path: Path) -> None:
    model = model_of(tmp_path, {**CMT, "decoder": PROPOSALS})
    kinds = [type(module) for module in model.modules()]
    model_parts(model, 2, OWN)
    assert [type(module) for module in model.modules()] == kinds and model.proposals is not None


def test_example_cameras_have_inverses_and_look_around() -> None:
    preset = small_bevformer.PRESET
    geometry = decoder_geometry(len(camera_ring.AZIMUTHS), preset)
    product = geometry["lidar_to_image"] @ geometry["image_to_lidar"]
    torch.testing.assert_close(product, torch.eye(4).expand_as(product), atol=1e-3, rtol=0)
