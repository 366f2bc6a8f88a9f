# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Samples of every stage of the published models, computed with formula weights on made-up frames.

For speed, three cameras give 192 x 96 pixels, and the point range is +-16.2 m instead of +-54 m. No weight depends on
these. BEVFormer-base also has a smaller grid (40 x 30 instead of 200 x 200 cells), whose embedding is a weight.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from aqr_perception.detector import Detector
from aqr_perception.frame import CameraView, Frame
from aqr_perception.geometry import rigid_transform
from aqr_perception.models import load_checkpoint
from aqr_perception.models.config.presets import preset_directory
from aqr_perception.options import AqrMode, AqrOptions, DetectionOptions
from helpers.formula_weights import formula_state, uniform

GOLDENS = Path(__file__).parents[1] / "models" / "goldens"

_IMAGE_SIZE = (192, 96)
_CAMERAS = {"image": {"size": list(_IMAGE_SIZE)}}
_RANGE = {"point_range": [-16.2, -16.2, -5.0, 16.2, 16.2, 3.0]}
_LIDAR_0100 = {**_RANGE, "points": {"grid": [304, 304, 40]}}  # of 324 cells; published: 1024 of 1080
_LIDAR_0075 = {**_RANGE, "points": {"grid": [432, 432, 40]}}

CASES: dict[str, dict[str, Any]] = {
    "cmt_voxel0100_r50_800x320": {**_CAMERAS, **_LIDAR_0100},
    "cmt_voxel0075_vov_1600x640": {**_CAMERAS, **_LIDAR_0075},
    "cmt_lidar_voxel0075": _LIDAR_0075,
    "cmt_camera_vov_1600x640": _CAMERAS,
    "mome_voxel0075_vov_1600x640": {**_CAMERAS, **_LIDAR_0075},
    "aqr_cmt_voxel0100_r50_800x320": {**_CAMERAS, **_LIDAR_0100},
    "aqr_cmt_modulation_voxel0100_r50_800x320": {**_CAMERAS, **_LIDAR_0100},
    "petr_vov_800x320": _CAMERAS,
    "petrv2_vov_800x320": _CAMERAS,
    "bevformer_tiny": _CAMERAS,
    "bevformer_base": {**_CAMERAS, "bevformer": {"grid": [40, 30]}},
}
"""Changes of each preset."""

TOLERANCE = 0.005
"""Greatest difference, relative to the standard deviation of a stage's samples, but at most 0.002 and at least 2e-5.

Numbers of threads change results by less than a twentieth of it.
"""

_AZIMUTHS = (90.0, 34.0, -90.0)
"""Of the cameras in degrees; in the published models' frame, +y is forward."""
_SAMPLES = 256
_STAGES = ("img_backbone", "img_neck", "pts_middle_encoder", "pts_backbone", "pts_neck")
_ROUTER = "pts_bbox_head.transformer.selected_cls"
"""MoME's, which chooses an expert for each query."""
_NORMALISATION = "router mean and deviation"

_CONSTANTS = ("pts_bbox_head.attention_bias_generator.", "pts_bbox_head.weight_renderer.")
_PARAMETERS = ("pts_bbox_head.attention_bias_generator.bias_scale",)
"""Of the modules with constants."""

Golden = dict[str, NDArray[np.float32]]


def load(name: str) -> Golden:
    """Return the recorded samples of a model."""
    return dict(np.load(GOLDENS / f"{name}.npz"))


def assert_close(found: Golden, expected: Golden) -> None:
    """Compare the samples of all stages."""
    assert found.keys() == expected.keys()
    for stage, samples in expected.items():
        tolerance = max(min(TOLERANCE * samples.std(), 2e-3), 2e-5)
        # Places of tens of metres differ by a few millimetres between processors.
        relative = 1e-4 if stage.startswith("boxes/") else 0
        np.testing.assert_allclose(found[stage], samples, atol=tolerance, rtol=relative, err_msg=stage)


def compute(name: str, recorded: Golden | None = None, device: str = "cpu", precision: str = "fp32") -> Golden:
    """Return samples of every stage of a published model.

    Args:
        recorded: the recorded samples; None to record new ones. They contain the normalisation of MoME's router logits,
            without which a router with formula weights sends nearly all queries to one expert.
        device, precision: of the `Detector`.
    """
    detector = _detector(name, device, precision)
    golden: Golden = {}
    frame = _frame(0, detector)
    if name.startswith("mome"):
        golden[_NORMALISATION] = _router_statistics(detector, frame) if recorded is None else recorded[_NORMALISATION]
        _normalise_router(detector.model.get_submodule(_ROUTER), golden[_NORMALISATION])
    with _recorded_stages(detector.model, golden), _decoded(detector.model) as outputs:
        features = detector.extract(frame)
        detector.detect_in(features, _options("off"))
        if detector.remembers:
            detector.detect(_frame(1, detector), _options("off"))
        if detector.has_router and not name.startswith("mome"):
            aqr = AqrOptions.of_model() if name.startswith("aqr_cmt") else AqrOptions("both")
            detector.detect_in(features, DetectionOptions(score_threshold=0.0, aqr=aqr))
    for call, output in enumerate(outputs):
        logits, boxes = output.predictions
        golden[f"logits/{call}"] = _samples("logits", logits)
        golden[f"boxes/{call}"] = _samples("boxes", boxes)
        for source in ("router", "attention"):
            weights = getattr(output, source)
            if weights is not None:
                weights = torch.cat((weights.modality, weights.cameras), dim=-1)
                golden[f"{source} weights/{call}"] = _samples("weights", weights)
        if isinstance(output.state, Tensor):
            golden[f"bev/{call}"] = _samples("bev", output.state)
    return golden


def _detector(name: str, device: str, precision: str) -> Detector:
    """Return a detector of the changed preset with formula weights."""
    preset = yaml.safe_load((preset_directory() / f"{name}.yaml").read_text())
    for section, changes in CASES[name].items():
        preset[section] = {**preset[section], **changes} if isinstance(changes, dict) else changes
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(yaml.safe_dump(preset))
        detector = Detector(str(path), "random", device=device, precision=precision)
    own = detector.model.state_dict()
    constants = {key: tensor for key, tensor in own.items() if key.startswith(_CONSTANTS) and key not in _PARAMETERS}
    load_checkpoint(detector.model, formula_state({key: tuple(own[key].shape) for key in own}) | constants)
    return detector


def _options(mode: AqrMode) -> DetectionOptions:
    return DetectionOptions(score_threshold=0.0, aqr=AqrOptions(mode=mode))


def _frame(index: int, detector: Detector) -> Frame:
    """Return one of two frames of a drive, half a second and 1.2 m apart, in which the vehicle turns a little."""
    yaw = -1.05 + 0.03 * index
    pose = rigid_transform(
        [700.0 + 1.2 * index, 900.0 + 0.1 * index, 0.0], [0, 0, math.sin(yaw / 2), math.cos(yaw / 2)]
    )
    return Frame(
        stamp_ns=10**18 + 500_000_000 * index,
        points=_points(detector) if detector.uses_lidar else None,
        cameras=tuple(_view(camera, index) for camera in range(len(_AZIMUTHS))) if detector.uses_cameras else (),
        to_fixed=pose,
    )


def _view(camera: int, frame: int) -> CameraView:
    """Return a camera with an image of stripes and noise."""
    width, height = _IMAGE_SIZE
    rows, columns, channels = np.indices((height, width, 3))
    stripes = np.abs((rows * (5 + channels) + columns * (4 + camera) + 70 * frame) % 256 - 128)
    noise = (40 * uniform(f"image {camera} {frame}", stripes.shape)).astype(np.int64)
    azimuth = math.radians(_AZIMUTHS[camera])
    right, forward = [math.sin(azimuth), -math.cos(azimuth), 0.0], [math.cos(azimuth), math.sin(azimuth), 0.0]
    extrinsics = np.eye(4)
    extrinsics[:3, :3] = [right, [0.0, 0.0, -1.0], forward]
    extrinsics[:3, 3] = [0.0, -0.3, -0.8]
    intrinsics = np.array([[0.79 * width, 0, width / 2], [0, 0.79 * width, height / 2], [0, 0, 1]])
    return CameraView(f"camera_{camera}", (60 + stripes + noise).astype(np.uint8), intrinsics, extrinsics)


def _points(detector: Detector) -> NDArray[np.float32]:
    """Return (N, 5) points of 24 rings on hilly ground, each close to the centre of a voxel, where rounding is safe."""
    preset = detector.model.preset
    assert preset.points is not None
    size, low = np.array(preset.points.voxel_size), np.array(preset.point_range[:3])
    azimuth, ring = np.meshgrid(np.linspace(-np.pi, np.pi, 400, endpoint=False), np.arange(24))
    reach = 3.0 + 0.5 * ring + 1.5 * np.sin(5 * azimuth + ring)
    x, y = reach * np.cos(azimuth), reach * np.sin(azimuth)
    place = np.stack((x, y, -1.5 + np.sin(0.4 * x) + np.cos(0.3 * y)), axis=-1).reshape(-1, 3)
    inside = 0.3 * uniform("points", place.shape)
    place = (np.floor((place - low) / size) + 0.5 + inside) * size + low
    intensity, lag = 127.0 * (1 + uniform("intensity", (len(place), 1))), 0.2 * (1 + uniform("lag", (len(place), 1)))
    return np.hstack((place, intensity, lag)).astype(np.float32)


@contextmanager
def _recorded_stages(model: nn.Module, golden: Golden) -> Iterator[None]:
    """Record samples of what the stages return, numbered if there are several calls or tensors."""
    calls: dict[str, int] = {}

    def record(stage: str, output: Any) -> None:
        call = calls[stage] = calls.get(stage, -1) + 1
        for index, tensor in enumerate((output,) if isinstance(output, Tensor) else output):
            golden[f"{stage}/{call}/{index}"] = _samples(stage, tensor)

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, stage=name: record(stage, output))
        for name, module in model.named_modules()
        if name in (*_STAGES, _ROUTER)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _decoded(model: Any) -> Iterator[list[Any]]:
    """Collect what the model's decoder returns."""
    decode, outputs = model.decode, []

    def recorded_decode(*arguments: Any, **options: Any) -> Any:
        outputs.append(decode(*arguments, **options))
        return outputs[-1]

    model.decode = recorded_decode
    try:
        yield outputs
    finally:
        del model.decode


def _router_statistics(detector: Detector, frame: Frame) -> NDArray[np.float32]:
    """Return (2, 3): mean and deviation over the queries of each expert's logits."""
    logits: list[Tensor] = []
    router = detector.model.get_submodule(_ROUTER)
    hook = router.register_forward_hook(lambda _module, _inputs, output: logits.append(output.flatten(0, 1)))
    detector.detect(frame, _options("off"))
    hook.remove()
    deviation, mean = torch.std_mean(logits[0], dim=0)
    return torch.stack((mean, deviation)).cpu().numpy()


@torch.no_grad()
def _normalise_router(router: Any, statistics: NDArray[np.float32]) -> None:
    """Change the router so that logits of these statistics get mean 0 and deviation 1."""
    mean, deviation = torch.from_numpy(statistics).to(router.weight.device)
    router.weight.div_(deviation[:, None])
    router.bias.sub_(mean).div_(deviation)


def _samples(stage: str, tensor: Tensor) -> NDArray[np.float32]:
    places = (0.5 + 0.5 * uniform(stage, (_SAMPLES,)).astype(np.float64)) * tensor.numel()
    return tensor.flatten()[torch.from_numpy(places.astype(np.int64))].float().cpu().numpy()
