# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""`Detector`: a model with weights on a device, from `Frame` to `Result`; the only entry into ``models/``."""

import logging
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from aqr_perception.devices import autocast, choose_device, choose_formats, choose_precision
from aqr_perception.frame import (
    CameraView,
    Frame,
    FramePlacement,
    Result,
)
from aqr_perception.frame_features import FeatureBranches, FrameFeatures, ImageBackend, check_image_backend
from aqr_perception.frame_results import ResultBuilder, WeightSource
from aqr_perception.model_clock import ModelClock
from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.config.presets import load_preset
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import (
    LAST_LAYER,
    DecodeOptions,
    Features,
    History,
    ModelOutput,
)
from aqr_perception.models.model_memory import ModelMemory, Moment
from aqr_perception.models.removed_tokens import TokenMask, without_tokens
from aqr_perception.models.weights.checkpoint import CheckpointError
from aqr_perception.models.weights.shipped import RANDOM, choose_weights
from aqr_perception.options import AqrOptions, DetectionOptions, OptionError

_log = logging.getLogger(__name__)


def check_model(
    preset: str, checkpoint: str, device: str, precision: str, image_backend: ImageBackend = "torch"
) -> None:
    """Check a `Detector`'s arguments without building the model.

    Raises:
        PresetError: the preset is unknown or its file is invalid.
        CheckpointError: the checkpoint is not a file.
        DeviceError: the device is unknown or not available, or has no such number format.
        OptionError: the image backend is unknown.
    """
    check_image_backend(image_backend)
    load_preset(preset)
    weights = choose_weights(preset, checkpoint)
    if weights.path is not None and not weights.path.is_file():
        raise CheckpointError(
            f"model.checkpoint is {checkpoint!r}, which is not a file; give a path, '' for the weights shipped for the "
            f"preset, or {RANDOM!r} for random ones"
        )
    choose_precision(precision, choose_device(device))


def preset_classes(preset: str) -> tuple[str, ...]:
    """Return the class names of a preset.

    Raises:
        PresetError: the preset is unknown or its file is invalid.
    """
    return load_preset(preset).classes


class ModelOutputError(ValueError):
    """A model's output has numbers that are not finite; the message names the model and its weights."""


class RoutedQueries(NamedTuple):
    """The router's weights of one frame's queries.

    Attributes:
        reference_points: (Q, 3) float32 in 0..1 of the model's point range.
        camera_weight: (Q,) float32 in 0..1, or in [-1, 1] for signed weights: weight of the camera modality.
        camera_weights: (Q, V) float32 in the same range, weight of each camera in the frame's order; 0 if the camera
            does not see the query.
        lidar_weight: (Q,) float32 in the same range; 0 outside the BEV features.
    """

    reference_points: NDArray[np.float32]
    camera_weight: NDArray[np.float32]
    camera_weights: NDArray[np.float32]
    lidar_weight: NDArray[np.float32]


class Detector:
    """A model on a device, ready for frames.

    Attributes:
        preset_name: the model's preset.
        classes: names of the model's classes.
        weights: source of the model's weights.
        device, formats: where and in which number formats the model runs.
        uses_cameras, uses_lidar: which sensors the model uses.
        image_size: width and height of the model's images; (0, 0) without cameras.
        sweeps: number of LiDAR sweeps that the model was trained with.
        placement: where the model frame of the training data lies on the vehicle; None if unknown.
        has_router: whether the model has a trained query router.
        remembers: whether the model has memory, so that detections depend on earlier frames; see `forget`.
    """

    def __init__(
        self,
        preset: str,
        checkpoint: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        options: DetectionOptions | None = None,
        image_backend: ImageBackend = "torch",
        cuda_graphs: bool = False,
    ) -> None:
        """Build the model, load its weights and log their source.

        Args:
            preset: name, or path of a ``.yaml``.
            checkpoint: file of the weights, or ``random``. Empty or None: the weights shipped for the preset, or random
                ones where there are none.
            device: see `choose_device`.
            precision: see `choose_formats`.
            options: default options of `detect`.
            image_backend: what runs the image branch, ``torch`` or ``openvino`` (CPU only). Where OpenVINO is missing
                or cannot convert the branch, PyTorch runs it, and a warning says so.
            cuda_graphs: whether a GPU runs the image branch as CUDA graphs; without effect on a CPU. Not measured.

        Raises:
            PresetError, CheckpointError, DeviceError: with the value found, the value needed and the remedy.
            OptionError: the image backend is unknown.
            OptionError: a class score threshold is not for a class of the model.
        """
        self.device = choose_device(device)
        choose_precision(precision, self.device)  # an error comes before the model is built
        self.model: DetectionModel = build_model(preset)
        self.formats = choose_formats(precision, self.device, self.model.preset.decoder.channels)
        self.weights = choose_weights(preset, checkpoint)
        if self.weights.path is not None:
            load_checkpoint(self.model, self.weights.path)
        _log.log(logging.INFO if self.weights.path else logging.WARNING, "%s runs with %s", preset, self.weights)
        self.model.to(self.device)
        self.classes = self.model.classes
        self.options = options or DetectionOptions()
        self.options.check_classes(self.classes)
        self._memory = ModelMemory()
        self._said: set[str] = set()
        self.preset_name = self.model.preset.name
        self.sweeps, self.sweep_interval = self.model.preset.sweeps, self.model.preset.sweep_interval
        self.placement: FramePlacement | None = self.model.preset.model_frame
        self.remembers = self.model.remembers
        self._branches = FeatureBranches(self.model, self.device, self.formats.branches, image_backend, cuda_graphs)
        self._result = ResultBuilder(self.model, self._branches)
        self.uses_cameras, self.uses_lidar = self._branches.uses_cameras, self._branches.uses_lidar
        self.image_size = self._branches.image_size

    @property
    def image_backend(self) -> ImageBackend:
        """What runs the image branch, after a fall-back to PyTorch, too."""
        return self._branches.image_backend

    @property
    def has_router(self) -> bool:
        return self.model.router_trained

    def check_aqr(self, aqr: AqrOptions) -> None:
        """Check that the model's query router can act as asked.

        `detect` does without: there, AQR is off where it cannot, and a warning says so once.

        Raises:
            OptionError: it cannot; the message gives the reason and the remedy.
        """
        problem = self.model.aqr_problem(aqr)
        if problem is not None:
            raise OptionError(problem)

    def _usable_aqr(self, aqr: AqrOptions) -> AqrOptions:
        problem = self.model.aqr_problem(aqr)
        if problem is None:
            return aqr
        if problem not in self._said:
            self._said.add(problem)
            _log.warning("AQR is off: %s", problem)
        return replace(aqr, mode="off")

    def detect(self, frame: Frame, options: DetectionOptions | None = None) -> Result:
        """Return the objects in a frame and the weights of its sensors.

        Args:
            frame: points, cameras or both; sensors that the model does not use are ignored.
            options: replace the detector's own options.

        Raises:
            FrameError: a field of the frame is of a wrong shape, type or range; the message names it. A camera whose
                calibration is not finite is left out instead, with a warning and with weights of 0.
            OptionError: a class score threshold is for a class that the model does not have.
            ModelOutputError: the model's output is not finite; the memory of earlier frames is cleared.
        """
        return self.detect_in(self.extract(frame), options)

    @torch.inference_mode()
    def extract(self, frame: Frame, reusable: FrameFeatures | None = None) -> FrameFeatures:
        """Return the features of a frame, which do not depend on options.

        Args:
            frame: see `detect`.
            reusable: features of another frame, reused for each sensor with the same data object in both frames (the
                tuple of cameras, the array of points).

        Raises:
            FrameError: see `detect`.
        """
        return self._branches.extract(frame, reusable)

    @torch.inference_mode()
    def detect_in(self, features: FrameFeatures, options: DetectionOptions | None = None) -> Result:
        """Return the detections for features from `extract`; a model with memory stores the frame for the next one."""
        options = options or self.options
        options.check_classes(self.classes)
        options = replace(options, aqr=self._usable_aqr(options.aqr))
        source = self._source(options)
        needs_attention = options.attention or source == "attention"
        decode_options = DecodeOptions(options.aqr, source == "router", needs_attention, LAST_LAYER)
        moment = self._moment(features.frame)
        history = self._memory.history(moment, options.max_history_gap)
        clock = ModelClock(self.device)
        with clock.stage("decoder"):
            output = self.decode(features.maps, decode_options, history)
            self._check_output(output)
        self._memory.update(moment, output.state)
        with clock.stage("postprocess"):
            result = self._result(output, features, options, source)
        return replace(result, seconds={**features.seconds, **clock.seconds})

    @torch.inference_mode()
    def routed_queries(self, features: FrameFeatures) -> RoutedQueries:
        """Return the router's weights of a frame's queries, with AQR off; does not use or change the memory.

        Raises:
            ValueError: the model has no trained router.
        """
        if not self.has_router:
            raise ValueError(f"{self.preset_name} with {self.weights} has no trained query router; use another model")
        options = DecodeOptions(AqrOptions.of_model("off"), router_weights=True, layers=LAST_LAYER)
        output = self.decode(features.maps, options, None)
        assert output.router is not None and output.queries is not None  # a model with a router returns both
        tensors = (output.queries.reference_points, output.router.modality, output.router.cameras)
        points, modality, cameras = (tensor[0].float().cpu().numpy() for tensor in tensors)
        return RoutedQueries(points, modality[:, 1], self._result.of_all_cameras(cameras, features), modality[:, 0])

    def without_tokens(self, features: FrameFeatures, mask: TokenMask) -> FrameFeatures:
        """Return features without the cells of a mask, for `detect_in`; see `models.removed_tokens`.

        Raises:
            ValueError: the model cannot leave out tokens, or the mask has another shape than the features.
        """
        if not mask.any():
            return features
        if not self.model.removes_tokens:
            raise ValueError(f"{self.preset_name}: found a model whose tokens cannot be removed, needed CMT or AQR-CMT")
        frame = features.frame
        maps, left = without_tokens(features.maps, [view.name for view in self._branches.views(frame)], mask)
        if maps.bev is None:
            frame = replace(frame, points=None)
        if self.uses_cameras:
            frame = replace(frame, cameras=tuple(frame.cameras[index] for index in left))
        return FrameFeatures(frame, features.asked, maps, features.seconds)

    def try_out(self) -> None:
        """Detect in a made-up frame, so that a model with broken weights is found before it runs.

        Raises:
            ModelOutputError: the model's output is not finite.
        """
        rng = np.random.default_rng(0)
        points = np.c_[rng.uniform(-20, 20, (2000, 2)), rng.uniform(-2, 0, 2000), rng.uniform(0, 255, 2000)]
        width, height = (side or 32 for side in self.image_size)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        intrinsics = np.array([[width, 0.0, width / 2], [0.0, width, height / 2], [0.0, 0.0, 1.0]])
        extrinsics = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # looks along x
        view = CameraView("front", image, intrinsics, extrinsics)
        self.detect(Frame(0, np.c_[points, np.zeros(2000)].astype(np.float32), (view,)), DetectionOptions())
        self.forget()

    def forget(self) -> None:
        """Clear the memory of earlier frames."""
        self._memory.clear()

    def decode(self, features: Features, options: DecodeOptions, history: History | None = None) -> ModelOutput:
        """Return the model's output for the maps of `extract`, in the decoder's number format."""
        if history is not None:
            history = history.to(self.device)
        if self.formats.decoder == torch.float32:  # without autocast, layers need the format of their weights
            image, bev = (None if maps is None else maps.float() for maps in (features.image, features.bev))
            features = features._replace(image=image, bev=bev)
        with autocast(self.device, self.formats.decoder):
            return self.model.decode(features, options, history=history)

    def _check_output(self, output: ModelOutput) -> None:
        """Refuse an output that is not finite: its objects would vanish as if nothing were there."""
        logits, boxes = (predicted[-1] for predicted in output.predictions)
        if bool(logits.isfinite().all() & boxes.isfinite().all()):
            return
        self.forget()
        bad = int((~logits.isfinite()).sum()) + int((~boxes.isfinite()).sum())
        raise ModelOutputError(
            f"{self.preset_name} with {self.weights}: found {bad} of {logits.numel() + boxes.numel()} output numbers "
            f"that are not finite (computed in {self.formats}), needed none; "
            "check the checkpoint, or set model.precision to fp32"
        )

    @staticmethod
    def _moment(frame: Frame) -> Moment | None:
        """Return the time and pose of a frame; None if the vehicle's motion is unknown."""
        if frame.to_fixed is None:
            return None
        return Moment(torch.tensor(frame.stamp_ns), torch.from_numpy(np.asarray(frame.to_fixed, np.float64)))

    def _source(self, options: DetectionOptions) -> WeightSource:
        return "router" if self.has_router and options.weights_source != "attention" else "attention"
