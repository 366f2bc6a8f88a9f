# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The detector: frames in, results out."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.nuscenes_keyframe import read_keyframe
from helpers.own_classes import OWN, write_preset
from helpers.sensed_batch import SENSORS
from helpers.short_grid import BEV_RANGE, CELL, GRID, POINT_RANGE, write_short_grid

from aqr_perception import devices
from aqr_perception.benchmarks.inputs import made_up_frame
from aqr_perception.detector import Detector, ModelOutputError, check_model, preset_classes
from aqr_perception.frame import CLASSES, Frame
from aqr_perception.geometry import project
from aqr_perception.models import build_model
from aqr_perception.models.aqr.router import RouterWeights
from aqr_perception.models.config.presets import PresetError, preset_directory
from aqr_perception.models.model_io import DecodeOptions, History
from aqr_perception.models.removed_tokens import TokenMask
from aqr_perception.models.weights.checkpoint import CheckpointError, save_checkpoint
from aqr_perception.options import AqrOptions, DetectionOptions, OptionError
from aqr_perception.visualization.bev_picture import bev_picture
from aqr_perception.visualization.picture_options import PictureOptions

EVERYTHING = DetectionOptions(score_threshold=0.0)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector("aqr_tiny_sparse", "random", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def frame() -> Frame:
    return made_up_frame()


def test_a_frame_gives_detections_with_weights_for_every_sensor(detector: Detector, frame: Frame) -> None:
    result = detector.detect(frame, EVERYTHING)
    found = result.detections
    assert 0 < len(found) <= 300
    assert found.boxes.shape == (len(found), 9) and found.camera_weights.shape == (len(found), 6)
    assert (np.diff(found.scores) <= 0).all()
    assert ((found.labels >= 0) & (found.labels < len(CLASSES))).all()
    assert (found.boxes[:, 3:6] > 0).all()
    for weights in (found.lidar_weight, found.camera_weight, found.camera_weights):
        assert ((weights >= 0) & (weights <= 1)).all()
    assert result.weight_maps.bev is not None and set(result.weight_maps.cameras) == {v.name for v in frame.cameras}
    assert list(result.seconds) == ["preprocess", "image", "points", "decoder", "postprocess"]


def test_the_same_frame_gives_the_same_result_twice(detector: Detector, frame: Frame) -> None:
    first, second = detector.detect(frame, EVERYTHING), detector.detect(frame, EVERYTHING)
    np.testing.assert_array_equal(first.detections.boxes, second.detections.boxes)


def test_detection_works_with_any_sensor_missing(detector: Detector, frame: Frame) -> None:
    for cameras in (frame.cameras[:1], ()):
        result = detector.detect(dataclasses.replace(frame, cameras=cameras), EVERYTHING)
        assert len(result.detections) > 0 and set(result.weight_maps.cameras) == {view.name for view in cameras}
    for points in (None, np.zeros((0, 5), np.float32)):
        result = detector.detect(dataclasses.replace(frame, points=points), EVERYTHING)
        assert len(result.detections) > 0 and result.weight_maps.bev is None
        assert not result.detections.lidar_weight.any()


@pytest.mark.slow
def test_thresholds_and_the_number_of_detections_are_respected(detector: Detector, frame: Frame) -> None:
    everything = detector.detect(frame, EVERYTHING).detections
    few = detector.detect(frame, DetectionOptions(score_threshold=0.0, max_detections=5)).detections
    np.testing.assert_array_equal(few.boxes, everything.boxes[:5])
    threshold = float(np.median(everything.scores))
    some = detector.detect(frame, DetectionOptions(score_threshold=threshold)).detections
    assert len(some) == (everything.scores >= np.float32(threshold)).sum()
    label = int(everything.labels[0])
    without = DetectionOptions(score_threshold=0.0, class_score_thresholds={CLASSES[label]: 1.0})
    assert label not in detector.detect(frame, without).detections.labels


@pytest.mark.parametrize("source", ["router", "attention"])
def test_weights_come_from_the_requested_source(detector: Detector, frame: Frame, source: str) -> None:
    options = dataclasses.replace(EVERYTHING, weights_source=source, aqr=AqrOptions(mode="off"))
    assert detector.detect(frame, options).weight_maps.source == source


def test_only_router_weights_of_a_model_that_says_so_are_signed(
    detector: Detector, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not detector.detect(frame, EVERYTHING).weight_maps.signed
    asked: list[AqrOptions] = []
    monkeypatch.setattr(detector.model, "signed_weights", lambda aqr: asked.append(aqr) or aqr.mode == "bias")
    for source, mode, signed in (("router", "bias", True), ("router", "off", False), ("attention", "bias", False)):
        aqr = AqrOptions(mode=mode)  # type: ignore[arg-type]
        options = dataclasses.replace(EVERYTHING, weights_source=source, aqr=aqr)  # type: ignore[arg-type]
        assert detector.detect(frame, options).weight_maps.signed is signed
    assert [aqr.mode for aqr in asked] == ["bias", "off"]


def test_a_mode_that_the_router_was_not_trained_for_is_off_and_said_once(
    detector: Detector, frame: Frame, caplog: pytest.LogCaptureFixture
) -> None:
    gated = dataclasses.replace(EVERYTHING, aqr=AqrOptions.of_model("gate"))
    found = [detector.detect(frame, gated).detections.scores for _ in range(2)]
    off = detector.detect(frame, dataclasses.replace(EVERYTHING, aqr=AqrOptions.of_model("off"))).detections.scores
    assert np.array_equal(found[0], off) and np.array_equal(found[1], off)
    assert caplog.text.count("AQR is off: aqr.mode is 'gate'") == 1
    with pytest.raises(OptionError, match=r"aqr\.mode is 'gate'"):
        detector.check_aqr(gated.aqr)


def test_signed_weights_of_the_router_reach_detections_and_maps_with_their_sign(
    detector: Detector, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dataclasses.replace(EVERYTHING, aqr=AqrOptions(mode="off", min_weight=0.0))
    plain = detector.detect(frame, options)
    route = detector.model.aqr.forward

    def negative(*args: Any, **named: Any) -> RouterWeights:
        weights: RouterWeights = route(*args, **named)
        return RouterWeights(-weights.modality, -weights.cameras)

    monkeypatch.setattr(detector.model.aqr, "forward", negative)
    monkeypatch.setattr(detector.model, "signed_weights", lambda aqr: True)
    signed = detector.detect(frame, options)
    assert signed.weight_maps.signed and signed.detections.lidar_weight.min() < -0.5
    for name in ("lidar_weight", "camera_weight", "camera_weights"):
        np.testing.assert_allclose(getattr(signed.detections, name), -getattr(plain.detections, name), atol=1e-5)
    assert signed.weight_maps.bev is not None and plain.weight_maps.bev is not None
    np.testing.assert_allclose(signed.weight_maps.bev, -plain.weight_maps.bev, atol=1e-5)
    for name, weights in plain.weight_maps.cameras.items():
        np.testing.assert_allclose(signed.weight_maps.cameras[name].values, -weights.values, atol=1e-5)


@pytest.fixture
def tanh_detector(tmp_path: Path, frame: Frame) -> Detector:
    """Return a small detector whose signed weights spread over both signs."""
    (tmp_path / "small.yaml").write_text(f"""\
description: for tests
architecture: aqr_cmt
{SENSORS}
aqr: {{mode: bias, activation: tanh, router_attention: global, router_bev_window: 3, router_image_window: 3,
      bev_window: 4, image_window: 4}}
""")
    detector = Detector(str(tmp_path / "small.yaml"), "random", device="cpu", precision="fp32")
    predictor = detector.model.get_submodule("pts_bbox_head.aqr_weight_generator.weight_predictor")
    assert isinstance(predictor, torch.nn.Linear)
    logits: list[torch.Tensor] = []
    with predictor.register_forward_hook(lambda *call: logits.append(call[-1].flatten(0, -2))):
        detector.detect(frame)
    with torch.no_grad():
        predictor.weight /= logits[0].std(0)[:, None]
        predictor.bias.copy_((predictor.bias - logits[0].mean(0)) / logits[0].std(0))
    return detector


@pytest.mark.parametrize("reduce", ["max", "sum"])
def test_a_model_with_signed_weights_has_signed_maps_and_pictures(
    tanh_detector: Detector, frame: Frame, reduce: str
) -> None:
    aqr = dataclasses.replace(AqrOptions.of_model(), reduce=reduce, sigma=1.0)
    result = tanh_detector.detect(frame, dataclasses.replace(EVERYTHING, aqr=aqr))
    found, maps = result.detections, result.weight_maps
    assert maps.signed and maps.bev is not None
    for values in (found.lidar_weight, found.camera_weight, found.camera_weights):
        assert -1 <= values.min() < 0 < values.max() <= 1
    limit = 1.0 if reduce == "max" else 1.5
    for values in (maps.bev, *(weights.values for weights in maps.cameras.values())):
        assert values.any() and np.abs(values).max() <= limit
    assert maps.bev.min() < 0 < maps.bev.max()
    nothing = dataclasses.replace(
        found, **{name: getattr(found, name)[:0] for name in ("boxes", "scores", "labels", "lidar_weight")}
    )
    picture = bev_picture(maps, None, nothing, size=400, options=PictureOptions(by_score=False))
    cells = cv2.resize(maps.bev[::-1], (400, 400), interpolation=cv2.INTER_LINEAR)
    redness = picture[..., 2].astype(int) - picture[..., 0]
    clear = np.abs(cells[:300]) > 0.3
    assert ((np.sign(redness[:300]) == np.sign(cells[:300]))[clear]).mean() > 0.9  # rings hide some cells
    sigmoid = dataclasses.replace(EVERYTHING, aqr=dataclasses.replace(aqr, activation="sigmoid"))
    unsigned = tanh_detector.detect(frame, sigmoid)
    assert not unsigned.weight_maps.signed and unsigned.detections.lidar_weight.min() >= 0
    attention = dataclasses.replace(EVERYTHING, weights_source="attention")
    assert not tanh_detector.detect(frame, attention).weight_maps.signed


@pytest.mark.slow
def test_published_presets_take_their_weights_from_the_attention_mass() -> None:
    detector = Detector("cmt_lidar_voxel0075", device="cpu", precision="fp32")
    sweep = np.zeros((50, 5), np.float32)
    sweep[:, :2] = np.random.default_rng(0).uniform(-20, 20, (50, 2))
    result = detector.detect(Frame(0, sweep), EVERYTHING)
    assert result.weight_maps.source == "attention" and not detector.has_router
    np.testing.assert_allclose(result.detections.lidar_weight, 1.0, atol=1e-4)
    assert not detector.uses_cameras and detector.image_size == (0, 0)


def test_the_gaussians_of_pictures_are_as_wide_as_those_of_the_map(detector: Detector, frame: Frame) -> None:
    """Also where the map's cells are pooled."""
    for sigma in (1.0, 2.0):
        aqr = dataclasses.replace(AqrOptions.of_model(), sigma=sigma)
        maps = detector.detect(frame, dataclasses.replace(EVERYTHING, aqr=aqr)).weight_maps
        assert maps.bev is not None and maps.queries is not None
        x_min, y_min, x_max, y_max = maps.bev_range
        cell = (x_max - x_min) / maps.bev.shape[1], (y_max - y_min) / maps.bev.shape[0]
        assert maps.queries.sigma == pytest.approx((sigma * cell[0], sigma * cell[1]))


def test_a_maps_affine_transform_takes_pixels_to_their_cells(detector: Detector, frame: Frame) -> None:
    weight_map = detector.detect(frame, EVERYTHING).weight_maps.cameras[frame.cameras[0].name]
    rows, columns = weight_map.values.shape
    height, width = frame.cameras[0].image.shape[:2]
    corner = weight_map.image_to_map @ [width, height, 1]
    np.testing.assert_allclose(corner[:2], [columns, rows], atol=0.1)


def test_the_keyframes_objects_project_into_the_models_projection(shared_reference: Path) -> None:
    frame = read_keyframe(shared_reference / "nuscenes_keyframe").frame()
    detector = Detector("aqr_tiny", "random", device="cpu", precision="fp32")
    matrices = detector._branches.projections(frame.cameras)[0].numpy()
    point = np.array([[5.0, 20.0, -1.0]])
    for view, matrix in zip(frame.cameras, matrices, strict=True):
        in_camera = point @ view.extrinsics[:3, :3].T + view.extrinsics[:3, 3]
        pixel, depth = project(view.intrinsics, in_camera)
        if depth[0] <= 0:
            continue
        u, v, d, _ = matrix @ np.r_[point[0], 1.0]
        scale = 352 / 1600
        np.testing.assert_allclose([u / d, v / d], pixel[0] * scale - [0, 198 - 128], atol=0.05)
        return
    pytest.fail("no camera sees the point")


def test_an_unknown_preset_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(PresetError, match="aqr_tiny"):
        Detector("aqr_huge")


@pytest.mark.slow
def test_weights_shipped_for_a_preset_are_used_unless_others_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model("aqr_tiny")
    name, drawn = next(iter(model.named_parameters()))
    own = drawn.detach().clone()

    def loaded(preset: str, checkpoint: str | None) -> torch.Tensor:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            return Detector(preset, checkpoint, "cpu", "fp32").model.get_parameter(name) - own

    def ship(file: str, offset: float) -> str:
        with torch.no_grad():
            drawn.copy_(own + offset)
        save_checkpoint(model, tmp_path / file)
        return str(tmp_path / file)

    ship("aqr_tiny.safetensors", 1.0)
    named = ship("named.safetensors", 2.0)
    monkeypatch.setattr("aqr_perception.models.weights.shipped.weights_directory", lambda: tmp_path)
    for nothing_named in (None, ""):
        torch.testing.assert_close(loaded("aqr_tiny", nothing_named), torch.ones_like(own))
        (record,) = caplog.records
        assert "shipped" in record.message and str(tmp_path) in record.message
    torch.testing.assert_close(loaded("aqr_tiny", named), torch.full_like(own, 2.0))
    for random in (("aqr_tiny", "random"), (str(preset_directory() / "aqr_tiny.yaml"), None)):
        assert not loaded(*random).any()
        (record,) = caplog.records
        assert record.levelname == "WARNING" and "random weights" in record.message


@pytest.mark.slow
def test_detections_have_the_presets_classes_and_thresholds_of_others_are_refused(tmp_path: Path, frame: Frame) -> None:
    preset = write_preset(tmp_path)
    assert preset_classes(preset) == OWN
    detector = Detector(preset, "random", device="cpu", precision="fp32")
    everything = detector.detect(frame, EVERYTHING).detections
    assert detector.classes == everything.classes == OWN
    assert {everything.classes[label] for label in everything.labels} == set(OWN)
    without = DetectionOptions(score_threshold=0.0, class_score_thresholds={"forklift": 1.0})
    assert OWN.index("forklift") not in detector.detect(frame, without).detections.labels
    unknown = DetectionOptions(class_score_thresholds={"bus": 0.5})
    with pytest.raises(OptionError, match="class_score_thresholds is 'bus', but must be one of car, truck, pedestrian"):
        detector.detect(frame, unknown)
    with pytest.raises(OptionError, match="'bus'"):
        Detector(preset, "random", device="cpu", precision="fp32", options=unknown)
    assert unknown.for_classes(OWN) == DetectionOptions()


def test_a_checkpoint_that_is_not_a_file_is_refused_with_the_alternatives() -> None:
    for checkpoint in ("", "random"):
        check_model("aqr_tiny", checkpoint, "cpu", "fp32")
    with pytest.raises(CheckpointError, match=r"'/nowhere\.pth'.* '' .*'random'"):
        check_model("aqr_tiny", "/nowhere.pth", "cpu", "fp32")


class Rememberer(torch.nn.Module):
    """A model that records the history it is given and returns a counter as state."""

    remembers = True

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.given = model, []

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def decode(self, *arguments: object, history: object = None, **named: object) -> object:
        self.given.append(history)
        return self.model.decode(*arguments, **named)._replace(state=len(self.given))


@pytest.mark.slow
def test_memory_is_passed_on_with_the_motion_and_cleared_when_time_jumps_or_motion_is_unknown(frame: Frame) -> None:
    detector = Detector("aqr_tiny", "random", device="cpu", precision="fp32")
    detector.model = remembering = Rememberer(detector.model)
    small = dataclasses.replace(frame, cameras=(), points=frame.points[:200])

    def see(seconds: float, x: float | None) -> History | None:
        pose = None
        if x is not None:
            pose = np.eye(4)
            pose[0, 3] = x
        stamped = dataclasses.replace(small, stamp_ns=10**18 + round(seconds * 1e9), to_fixed=pose)
        detector.detect(stamped, DetectionOptions(max_history_gap=0.5))
        return remembering.given[-1]

    first = see(0.0, 100.0)
    assert first.state is None and first.to_fixed[0, 3] == 100.0  # the pose at the start of the drive is known
    history = see(0.4, 103.0)
    assert history.state == 1 and history.seconds == pytest.approx(0.4)
    np.testing.assert_allclose(history.to_current[:3, 3], (-3.0, 0.0, 0.0), atol=1e-5)
    assert see(1.0, 104.0).state is None  # too long ago
    assert see(0.9, 104.0).state is None  # time jumped back
    assert see(1.0, None) is None and see(1.1, 104.0).state is None  # the motion was not known
    assert see(1.2, 104.0).state is not None
    detector.forget()
    assert see(1.3, 104.0).state is None


def test_routed_queries_are_the_routers_weights_and_need_a_router(detector: Detector, frame: Frame) -> None:
    routed = detector.routed_queries(detector.extract(frame))
    queries = detector.model.preset.decoder.queries
    assert routed.reference_points.shape == (queries, 3) and routed.camera_weights.shape == (queries, 6)
    assert (routed.camera_weights <= routed.camera_weight[:, None] + 1e-6).all() and routed.camera_weights.any()
    without = Detector("petr_tiny", "random", device="cpu", precision="fp32")
    with pytest.raises(ValueError, match=r"petr_tiny .* no trained query router"):
        without.routed_queries(without.extract(frame))


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_an_output_that_is_not_finite_is_an_error_that_names_the_model_and_the_remedy(
    detector: Detector, frame: Frame
) -> None:
    weight = detector.model.pts_neck.deblocks[0][0].weight.data
    before = weight.clone()
    weight.fill_(torch.nan)
    try:
        with pytest.raises(ModelOutputError, match=r"^aqr_tiny_sparse with .*not finite .*check the checkpoint"):
            detector.detect(frame, EVERYTHING)
    finally:
        weight.copy_(before)
    assert len(detector.detect(frame, EVERYTHING).detections) > 0, "the next frame is not affected"


@pytest.mark.slow
@pytest.mark.parametrize("field", ["intrinsics", "extrinsics"])
def test_a_camera_whose_calibration_is_not_finite_is_left_out_by_name_and_the_others_go_on(
    detector: Detector, frame: Frame, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, *others = frame.cameras
    broken = dataclasses.replace(first, **{field: getattr(first, field) * np.nan})
    found = detector.detect(dataclasses.replace(frame, cameras=(broken, *others)), EVERYTHING).detections
    without = detector.detect(dataclasses.replace(frame, cameras=tuple(others)), EVERYTHING).detections
    np.testing.assert_array_equal(found.boxes, without.boxes)
    np.testing.assert_array_equal(found.camera_weights[:, 1:], without.camera_weights)
    assert found.camera_weights.shape[1] == len(frame.cameras) and not found.camera_weights[:, 0].any()
    assert f"cameras['{first.name}'].{field}" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["aqr_tiny", "petr_tiny", "petrv2_tiny", "bevformer_mini"])
def test_a_model_with_broken_weights_is_found_before_it_runs(preset: str) -> None:
    detector = Detector(preset, "random", device="cpu", precision="fp32")
    detector.try_out()
    with torch.no_grad():
        list(detector.model.parameters())[-1].fill_(np.nan)
    with pytest.raises(ModelOutputError, match=rf"^{preset} with random weights.*: found \d+ of \d+ output numbers"):
        detector.try_out()


@pytest.mark.parametrize("preset", ["aqr_tiny", "aqr_tiny_sparse", "petrv2_tiny", "bevformer_mini"])
def test_a_decoder_in_fp32_finds_with_branches_in_bf16_what_a_model_in_fp32_finds(
    preset: str, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    exact = Detector(preset, "random", device="cpu", precision="fp32")
    monkeypatch.setattr(devices, "choose_precision", lambda name, device: torch.bfloat16)
    mixed = Detector(preset, "random", device="cpu", precision="auto")
    mixed.model.load_state_dict(exact.model.state_dict())
    assert mixed.formats == (torch.bfloat16, torch.float32)
    options = DecodeOptions(AqrOptions())
    for stamp in (0, 100_000_000):  # the second frame has memory
        moving = dataclasses.replace(frame, stamp_ns=stamp, to_fixed=np.eye(4))
        maps, rounded = exact.extract(moving).maps, mixed.extract(moving).maps
        assert rounded.image is not None and rounded.image.dtype == torch.bfloat16
        with torch.inference_mode():
            expected, found = (detector.decode(maps, options).predictions for detector in (exact, mixed))
            logits = mixed.decode(rounded, options).predictions.class_logits
        torch.testing.assert_close(found.boxes, expected.boxes)
        assert logits.dtype == torch.float32 and logits.isfinite().all()
        assert len(mixed.detect(moving, EVERYTHING).detections)


@pytest.mark.parametrize("preset", ["aqr_tiny", "petrv2_tiny", "bevformer_mini"])
def test_proposals_of_the_branches_are_those_that_the_decoder_would_make(preset: str, frame: Frame) -> None:
    detector = Detector(preset, "random", device="cpu", precision="fp32")
    for changed in (frame, dataclasses.replace(frame, cameras=()), dataclasses.replace(frame, points=None)):
        maps = detector.extract(changed).maps
        assert (maps.proposals is None) == (preset == "bevformer_mini")  # proposes from the BEV features
        with torch.inference_mode():
            found, expected = (
                detector.decode(some, DecodeOptions(AqrOptions())).predictions
                for some in (maps, maps._replace(proposals=None))
            )
        torch.testing.assert_close(found, expected)


def test_a_sensors_proposals_go_with_its_tokens(frame: Frame) -> None:
    detector = Detector("aqr_tiny", "random", device="cpu", precision="fp32")
    features = detector.extract(frame)
    image, bev = features.maps.image, features.maps.bev
    assert image is not None and bev is not None
    some, every = np.zeros(image.shape[-2:], bool), np.ones(image.shape[-2:], bool)
    some[:, 0] = True
    for mask in (
        TokenMask(np.ones(bev.shape[-2:], bool), {frame.cameras[0].name: every}),
        TokenMask(None, {frame.cameras[0].name: some}),
        TokenMask(None, {view.name: every for view in frame.cameras}),
    ):
        left = detector.without_tokens(features, mask)
        assert left.maps.proposals is not None
        with torch.inference_mode():
            expected = detector.model.propose(left.maps._replace(proposals=None))
        torch.testing.assert_close(left.maps.proposals, expected)


def test_a_frame_with_an_output_that_is_not_finite_leaves_no_memory(frame: Frame) -> None:
    detector = Detector("petrv2_tiny", "random", device="cpu", precision="fp32")
    moving = dataclasses.replace(frame, to_fixed=np.eye(4))
    expected = detector.detect(moving, EVERYTHING).detections
    detector.forget()
    weight = list(detector.model.parameters())[-1]
    whole = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(np.nan)
        with pytest.raises(ModelOutputError):
            detector.detect(moving, EVERYTHING)
        weight.copy_(whole)
    found = detector.detect(dataclasses.replace(moving, stamp_ns=moving.stamp_ns + 100_000_000), EVERYTHING).detections
    np.testing.assert_array_equal(found.boxes, expected.boxes)


@pytest.fixture(scope="module", params=["cmt", "mome", "aqr_cmt"])
def short_sighted(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Detector:
    """A detector whose grid ends before its point range."""
    preset = write_short_grid(tmp_path_factory.mktemp("presets"), request.param)
    return Detector(preset, "random", device="cpu", precision="fp32")


@pytest.mark.parametrize("source", ["router", "attention"])
@pytest.mark.parametrize("position", [(45.0, 33.0), (-52.0, -38.0), (47.5, -20.0), (3.0, 36.0)])
def test_the_weight_of_a_query_is_at_its_position_where_the_grid_ends_before_the_range(
    short_sighted: Detector, position: tuple[float, float], source: str
) -> None:
    lower, upper = np.array(POINT_RANGE[:3]), np.array(POINT_RANGE[3:])
    share = (np.array([*position, -1.0]) - lower) / (upper - lower)
    with torch.no_grad():
        short_sighted.model.get_parameter("pts_bbox_head.reference_points.weight").copy_(torch.from_numpy(share))
    points = np.float32([[*position, -1.0, 0.0, 0.0]]).repeat(5, axis=0)
    options = DetectionOptions(score_threshold=0.0, weights_source=source, aqr=AqrOptions(min_weight=0.0))
    maps = short_sighted.detect(Frame(0, points, ()), options).weight_maps
    assert maps.bev is not None
    assert maps.bev.shape == GRID
    assert maps.bev_range == BEV_RANGE
    assert maps.scene_range == (-54.0, -40.0, 54.0, 40.0)
    row, column = np.unravel_index(maps.bev.argmax(), maps.bev.shape)
    peak = np.array(BEV_RANGE[:2]) + (np.array([column, row]) + 0.5) * CELL
    assert np.abs(peak - position).max() <= CELL / 2


def test_a_query_outside_the_grid_has_no_lidar_weight(tmp_path: Path) -> None:
    detector = Detector(write_short_grid(tmp_path), "random", device="cpu", precision="fp32")
    with torch.no_grad():
        detector.model.get_parameter("pts_bbox_head.reference_points.weight").fill_(0.97)  # x is 50.8 m
    result = detector.detect(Frame(0, np.float32([[10.0, 0, -1, 0, 0]]), ()), EVERYTHING)
    assert result.weight_maps.bev is not None
    assert not result.weight_maps.bev.any()
    assert not result.detections.lidar_weight.any()
