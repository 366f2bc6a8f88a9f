"""Samples of every stage of the published models, computed with formula weights on made-up inputs.

For speed, three cameras give 192 x 96 pixels, and the point range is +-16.2 m instead of +-54 m. No weight depends on
these. BEVFormer-base also has a smaller grid (40 x 30 instead of 200 x 200 cells), whose embedding is a weight.
"""

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

from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.boxes.coder import decode
from aqr_perception.models.config.presets import Preset, preset_directory
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.mome.model import MoME
from aqr_perception.options import AqrOptions
from helpers import camera_ring
from helpers.formula_weights import formula_state, uniform

GOLDENS = Path(__file__).parents[1] / "models" / "goldens"

_RANGE = [-16.2, -16.2, -5.0, 16.2, 16.2, 3.0]
_LIDAR_0100 = {"point_range": _RANGE, "points": {"grid": [304, 304, 40]}}  # of 324 cells; published: 1024 of 1080
_LIDAR_0075 = {"point_range": _RANGE, "points": {"grid": [432, 432, 40]}}

CASES: dict[str, dict[str, Any]] = {
    "cmt_voxel0100_r50_800x320": _LIDAR_0100,
    "cmt_voxel0075_vov_1600x640": _LIDAR_0075,
    "cmt_lidar_voxel0075": _LIDAR_0075,
    "cmt_camera_vov_1600x640": {},
    "mome_voxel0075_vov_1600x640": _LIDAR_0075,
    "petr_vov_800x320": {},
    "petrv2_vov_800x320": {},
    "bevformer_tiny": {},
    "bevformer_base": {"bevformer": {"grid": [40, 30]}},
}
"""Changes of each preset."""

TOLERANCE = 0.005
"""Greatest difference, relative to the standard deviation of a stage's samples, but at most 0.002 and at least 2e-5.

Numbers of threads, processors and library versions change results by less, see `assert_close`.
"""

_IMAGE_SIZE = (96, 192)
_AZIMUTHS = (90.0, 34.0, -90.0)
"""Of the cameras in degrees; in the published models' frame, +y is forward."""
_SAMPLES = 256
_STAGES = ("img_backbone", "img_neck", "pts_middle_encoder", "pts_backbone", "pts_neck")
_ROUTER = "pts_bbox_head.transformer.selected_cls"
_NORMALISATION = "router mean and deviation"

Golden = dict[str, NDArray[np.float32]]


def load(name: str) -> Golden:
    """Return the recorded samples of a model."""
    return dict(np.load(GOLDENS / f"{name}.npz"))


def assert_close(found: Golden, expected: Golden) -> None:
    """Compare the samples of all stages."""
    assert found.keys() == expected.keys()
    for stage, samples in expected.items():
        tolerance = max(min(TOLERANCE * samples.std(), 2e-3), 2e-5)
        np.testing.assert_allclose(found[stage], samples, atol=tolerance, rtol=0, err_msg=stage)


@torch.inference_mode()
def compute(name: str, recorded: Golden | None = None) -> Golden:
    """Return samples of every stage of a published model.

    Args:
        recorded: the recorded samples; None to record new ones. They contain the normalisation of MoME's router logits,
            without which a router with formula weights sends nearly all queries to one expert.
    """
    model = _model(name)
    golden: Golden = {}
    images = _images(0) if model.preset.image is not None else None
    points = [_points(model.preset)] if model.preset.points is not None else None
    projections = _projections() if images is not None else None
    if isinstance(model, MoME):
        golden[_NORMALISATION] = (
            _router_logits(model, images, projections, points) if recorded is None else recorded[_NORMALISATION]
        )
        mean, deviation = torch.from_numpy(golden[_NORMALISATION])
        router = model.pts_bbox_head.transformer.selected_cls
        router.weight.div_(deviation[:, None])
        router.bias.sub_(mean).div_(deviation)
    with _recorded_stages(model, golden):
        if model.remembers:
            _add_two_frames(model, golden)
            return golden
        logits, boxes = model(images, projections, points)
    _add_predictions(golden, "", logits, boxes)
    if name == "cmt_voxel0100_r50_800x320":
        _add_aqr(model, golden, images, projections, points)
    return golden


def _model(name: str) -> DetectionModel:
    """Return a model of the changed preset with formula weights."""
    preset = yaml.safe_load((preset_directory() / f"{name}.yaml").read_text())
    for section, changes in CASES[name].items():
        preset[section] = {**preset[section], **changes} if isinstance(changes, dict) else changes
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(yaml.safe_dump(preset))
        model = build_model(str(path))
    load_checkpoint(model, formula_state({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}))
    return model


def _router_logits(model: MoME, *inputs: Any) -> NDArray[np.float32]:
    """Return (2, 3): mean and deviation over the queries of each expert's logits."""
    logits: list[Tensor] = []
    router = model.pts_bbox_head.transformer.selected_cls
    hook = router.register_forward_hook(lambda _module, _inputs, output: logits.append(output.flatten(0, 1)))
    model(*inputs)
    hook.remove()
    deviation, mean = torch.std_mean(logits[0], dim=0)
    return torch.stack((mean, deviation)).numpy()


def _images(frame: int) -> Tensor:
    """Return (1, 3, 3, H, W): waves and noise."""
    rows, columns = np.meshgrid(*(np.linspace(0, 1, size) for size in _IMAGE_SIZE), indexing="ij")
    views = np.stack(
        [
            np.sin(2 * np.pi * ((2 + channel) * rows + (3 + view) * columns + 0.3 * frame))
            for view in range(len(_AZIMUTHS))
            for channel in range(3)
        ]
    )
    noise = uniform(f"images {frame}", views.shape)
    return torch.from_numpy((views + 0.7 * noise).astype(np.float32)).view(1, len(_AZIMUTHS), 3, *_IMAGE_SIZE)


def _projections() -> Tensor:
    height, width = _IMAGE_SIZE
    return camera_ring.projections(azimuths=_AZIMUTHS, focal=0.79 * width, centre=(width / 2, height / 2))


def _points(preset: Preset) -> Tensor:
    """Return (N, 5) points of 24 rings on hilly ground, each close to the centre of a voxel, where rounding is safe."""
    assert preset.points is not None
    size, low = np.array(preset.points.voxel_size), np.array(preset.point_range[:3])
    azimuth, ring = np.meshgrid(np.linspace(-np.pi, np.pi, 400, endpoint=False), np.arange(24))
    reach = 3.0 + 0.5 * ring + 1.5 * np.sin(5 * azimuth + ring)
    x, y = reach * np.cos(azimuth), reach * np.sin(azimuth)
    place = np.stack((x, y, -1.5 + np.sin(0.4 * x) + np.cos(0.3 * y)), axis=-1).reshape(-1, 3)
    inside = 0.3 * uniform("points", place.shape)
    place = (np.floor((place - low) / size) + 0.5 + inside) * size + low
    intensity, lag = 127.0 * (1 + uniform("intensity", (len(place), 1))), 0.2 * (1 + uniform("lag", (len(place), 1)))
    return torch.from_numpy(np.hstack((place, intensity, lag)).astype(np.float32))


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


def _samples(stage: str, tensor: Tensor) -> NDArray[np.float32]:
    places = (0.5 + 0.5 * uniform(stage, (_SAMPLES,)).astype(np.float64)) * tensor.numel()
    return tensor.flatten()[torch.from_numpy(places.astype(np.int64))].float().cpu().numpy()


def _add_predictions(golden: Golden, prefix: str, logits: Tensor, boxes: Tensor) -> None:
    """Add samples of (L, B, Q, C) logits and (L, B, Q, 10) boxes, and the best scores of the last layer."""
    golden[f"{prefix}logits"] = _samples("logits", logits)
    golden[f"{prefix}boxes"] = _samples("boxes", boxes)
    golden[f"{prefix}scores"] = decode(logits[-1], boxes[-1], 32)[0].scores.numpy()


def _add_aqr(model: Any, golden: Golden, images: Tensor, projections: Tensor, points: list[Tensor]) -> None:
    """Add the query weights, and the predictions with modulation and window bias."""
    output = model.predict(images, projections, points, AqrOptions(mode="both"))
    golden["aqr/modality"] = _samples("modality", output.router.modality)
    golden["aqr/cameras"] = _samples("cameras", output.router.cameras)
    _add_predictions(golden, "aqr/", *output.predictions)


def _add_two_frames(model: DetectionModel, golden: Golden) -> None:
    """Add the predictions of two frames of a drive; the second remembers the first."""
    before, now = camera_ring.pose(700.0, 900.0, -1.05), camera_ring.pose(701.2, 900.1, -1.02)
    state = None
    for frame, pose in enumerate((before, now)):
        images = _images(frame)
        features = model.features(images, None, model.image_features(images), None)
        history = camera_ring.history(state, before, pose)
        output = model.decode(features, _projections(), AqrOptions(), history=history)
        state = output.state
        _add_predictions(golden, f"frame {frame}/", *output.predictions)
        if isinstance(state, Tensor):
            golden[f"frame {frame}/bev"] = _samples("bev", state)
