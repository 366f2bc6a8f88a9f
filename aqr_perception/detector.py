"""`Detector`: preset + checkpoint + device -> ``detect(frame) -> Result``; the one way into ``models/``."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqr_perception.devices import choose_device, choose_precision
from aqr_perception.frame import CLASSES, CameraView, CameraWeightMap, Detections, Frame, Result, WeightMaps
from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.boxes.coder import decode
from aqr_perception.models.config.presets import load_preset
from aqr_perception.models.detection_model import DetectionModel, Features, History
from aqr_perception.models.head_output import HeadOutput, QueryWeights
from aqr_perception.models.preprocessing import image_to_model, prepare_image
from aqr_perception.models.weights.checkpoint import CheckpointError
from aqr_perception.models.weights.shipped import RANDOM, choose_weights
from aqr_perception.options import DetectionOptions

_log = logging.getLogger(__name__)


def check_model(preset: str, checkpoint: str, device: str, precision: str) -> None:
    """Raise what `Detector` would for arguments that cannot work, without building anything.

    Raises:
        PresetError, CheckpointError, DeviceError.
    """
    load_preset(preset)
    weights = choose_weights(preset, checkpoint)
    if weights.path is not None and not weights.path.is_file():
        raise CheckpointError(
            f"model.checkpoint is {checkpoint!r}, which is not a file; give a path, '' for the weights shipped for the "
            f"preset, or {RANDOM!r} for random ones"
        )
    choose_precision(precision, choose_device(device))


class StageClock:
    """Wall time by stage; waits for the device at every stage's end, or its work would be counted to a later one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class FrameFeatures(NamedTuple):
    """What a model's branches make of a frame.

    Attributes:
        frame: whose.
        maps: the feature maps.
        lidar_to_image: (1, V, 4, 4), model frame -> pixels of the model's images.
        seconds: wall time by stage.
    """

    frame: Frame
    maps: Features
    lidar_to_image: Tensor
    seconds: dict[str, float]


class _Memory(NamedTuple):
    """What the model remembers of a frame, and when and where that was."""

    stamp_ns: int
    to_fixed: NDArray[np.float64]
    state: object


class Detector:
    """A model on a device, ready for frames.

    Attributes:
        preset_name: the model's preset.
        weights: where the model's come from.
        device, dtype: where and in which number format it runs.
        uses_cameras, uses_lidar: which sensors the model can look at.
        image_size: width and height of the model's images; (0, 0) without cameras.
        sweeps: LiDAR sweeps that the model was trained to see at once.
        has_router: whether query weights of a trained router are to be had.
        remembers: whether detections depend on the frames before; see `forget`.
    """

    def __init__(
        self,
        preset: str,
        checkpoint: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        options: DetectionOptions | None = None,
    ) -> None:
        """Build the model and load its weights; the log tells which.

        Args:
            preset: name, or path of a ``.yaml``.
            checkpoint: file of the weights, or ``random``. Empty or None: those shipped for the preset, or random ones
                where there are none.
            device: see `choose_device`.
            precision: see `choose_precision`.
            options: of `detect`, where it is given none.

        Raises:
            PresetError, CheckpointError, DeviceError: with what was found, what is needed and what to do.
        """
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.model: DetectionModel = build_model(preset)
        self.weights = choose_weights(preset, checkpoint)
        if self.weights.path is not None:
            load_checkpoint(self.model, self.weights.path)
        _log.log(logging.INFO if self.weights.path else logging.WARNING, "%s runs with %s", preset, self.weights)
        self.model.to(self.device)
        self.options = options or DetectionOptions()
        self._memory: _Memory | None = None
        self.preset_name = self.model.preset.name
        image = self.model.preset.image
        self.uses_cameras = image is not None
        self.sweeps = self.model.preset.sweeps
        self.uses_lidar = self.model.preset.points is not None
        self.remembers = self.model.remembers
        self.image_size: tuple[int, int] = image.size if image is not None else (0, 0)

    @property
    def has_router(self) -> bool:
        return self.model.router_trained

    def detect(self, frame: Frame, options: DetectionOptions | None = None) -> Result:
        """Return the objects in a frame and the weights of its sensors.

        Args:
            frame: points, cameras or both; sensors that the model cannot look at are ignored.
            options: instead of the detector's own.
        """
        return self.detect_in(self.extract(frame), options)

    @torch.inference_mode()
    def extract(self, frame: Frame, known: FrameFeatures | None = None) -> FrameFeatures:
        """Return the features of a frame, which no option changes.

        Args:
            frame: see `detect`.
            known: of another frame, whose feature maps serve again where both frames share a sensor's data: the same
                tuple of cameras, the same array of points.
        """
        clock = StageClock(self.device)
        views = self._views(frame)
        with self._autocast():
            with clock.stage("preprocess"):
                images, lidar_to_image = self._images(views), self._projections(views)
                points = self._points(frame)
            with clock.stage("image"):
                if known is not None and known.frame.cameras is frame.cameras:
                    image = known.maps.image
                else:
                    image = self.model.image_features(images)
            with clock.stage("points"):
                if known is not None and known.frame.points is frame.points:
                    bev = known.maps.bev
                else:
                    bev = self.model.bev_features(points)
        return FrameFeatures(frame, self.model.features(images, points, image, bev), lidar_to_image, clock.seconds)

    @torch.inference_mode()
    def detect_in(self, features: FrameFeatures, options: DetectionOptions | None = None) -> Result:
        """As `detect`, of a frame whose features are known; a detector that remembers takes it for the next one."""
        options = options or self.options
        frame, source = features.frame, self._source(options)
        clock = StageClock(self.device)
        with self._autocast(), clock.stage("decoder"):
            output = self.model.decode(
                features.maps,
                features.lidar_to_image,
                options.aqr,
                route=source == "router",
                attention_weights=source == "attention",
                layers=slice(-1, None),
                history=self._history(frame, options),
            )
        self._remember(frame, output.state)
        with clock.stage("postprocess"):
            weights = output.router if source == "router" else output.attention
            assert weights is not None  # asked for above
            detections = self._detections(output, weights, options)
            maps = self._weight_maps(weights, self._views(frame), source)
        return Result(detections, maps, {**features.seconds, **clock.seconds})

    def forget(self) -> None:
        """Drop what a model with a memory remembers of the frame before."""
        self._memory = None

    def _history(self, frame: Frame, options: DetectionOptions) -> History | None:
        """Return the frame before, as seen from this one; without its state where there is none, or where time jumped.

        None where the vehicle's motion is not known.
        """
        if frame.to_fixed is None:
            return None

        def tensor(matrix: NDArray[np.float64]) -> Tensor:
            return torch.from_numpy(matrix).to(self.device, torch.float32)

        to_fixed = tensor(frame.to_fixed)
        memory = self._memory
        seconds = 0.0 if memory is None else (frame.stamp_ns - memory.stamp_ns) / 1e9
        if memory is None or not 0 < seconds <= options.max_history_gap:
            return History(None, tensor(np.eye(4)), to_fixed, 0.0)
        return History(memory.state, tensor(np.linalg.inv(frame.to_fixed) @ memory.to_fixed), to_fixed, seconds)

    def _remember(self, frame: Frame, state: object | None) -> None:
        if state is None or frame.to_fixed is None:
            self._memory = None
        else:
            self._memory = _Memory(frame.stamp_ns, frame.to_fixed, state)

    def _source(self, options: DetectionOptions) -> Literal["router", "attention"]:
        wanted = options.weights_source
        if wanted == "attention" or not self.has_router:
            return "attention"
        return "router"

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _views(self, frame: Frame) -> tuple[CameraView, ...]:
        return frame.cameras if self.uses_cameras else ()

    def _images(self, views: tuple[CameraView, ...]) -> Tensor | None:
        branch = self.model.preset.image
        if branch is None or not views:
            return None
        images = [prepare_image(view.image, branch.size, branch.mean, branch.std, self.device) for view in views]
        return torch.stack(images)[None]

    def _projections(self, views: tuple[CameraView, ...]) -> Tensor:
        """Return (1, V, 4, 4), model frame -> pixels of the model's images."""
        matrices = np.zeros((1, len(views), 4, 4))
        for index, view in enumerate(views):
            projection = np.eye(4)
            projection[:3, :3] = self._image_to_model(view) @ view.intrinsics
            matrices[0, index] = projection @ view.extrinsics
        return torch.from_numpy(matrices).to(self.device, torch.float32)

    def _image_to_model(self, view: CameraView) -> NDArray[np.float64]:
        return image_to_model((view.image.shape[1], view.image.shape[0]), self.image_size)

    def _points(self, frame: Frame) -> list[Tensor] | None:
        if frame.points is None or not self.uses_lidar:
            return None
        return [torch.from_numpy(np.ascontiguousarray(frame.points, dtype=np.float32)).to(self.device)]

    def _detections(self, output: HeadOutput, weights: QueryWeights, options: DetectionOptions) -> Detections:
        logits, boxes = output.predictions
        best = decode(logits[-1].float(), boxes[-1].float(), options.max_detections)[0]
        thresholds = [options.class_score_thresholds.get(name, options.score_threshold) for name in CLASSES]
        kept = best.scores >= torch.tensor(thresholds, device=best.scores.device)[best.labels]
        query = best.query_index[kept]
        modality = weights.modality[0, query].float().cpu().numpy()
        return Detections(
            boxes=best.boxes[kept].cpu().numpy(),
            scores=best.scores[kept].cpu().numpy(),
            labels=best.labels[kept].cpu().numpy(),
            lidar_weight=modality[:, 0],
            camera_weight=modality[:, 1],
            camera_weights=weights.cameras[0, query].float().cpu().numpy(),
        )

    def _weight_maps(
        self, weights: QueryWeights, views: tuple[CameraView, ...], source: Literal["router", "attention"]
    ) -> WeightMaps:
        bev = weights.bev_map[0].float().cpu().numpy() if weights.bev_map.shape[1] else None
        maps = weights.camera_maps[0].float().cpu().numpy()
        cameras = {}
        for view, values in zip(views, maps, strict=True):
            width, height = self.image_size
            to_cells = np.diag([values.shape[1] / width, values.shape[0] / height, 1.0])
            cameras[view.name] = CameraWeightMap(values, to_cells @ self._image_to_model(view))
        x_min, y_min, _, x_max, y_max, _ = self.model.preset.point_range
        return WeightMaps(bev, (x_min, y_min, x_max, y_max), cameras, source)
