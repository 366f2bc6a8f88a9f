# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""`Detector`: a model with weights on a device, from `Frame` to `Result`; the only entry into ``models/``."""

import logging
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqr_perception.devices import autocast, choose_device, choose_formats, choose_precision
from aqr_perception.frame import (
    CameraView,
    CameraWeightMap,
    DetectionQueries,
    Detections,
    Frame,
    FramePlacement,
    QueryEvidence,
    Result,
    WeightMaps,
)
from aqr_perception.frame_checks import usable_frame
from aqr_perception.model_clock import ModelClock
from aqr_perception.models import build_model, load_checkpoint
from aqr_perception.models.boxes.coder import DecodedBoxes, decode
from aqr_perception.models.config.presets import load_preset
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.image.graphed_branch import GraphedBranch
from aqr_perception.models.image.openvino_branch import OpenVinoBranch, OpenVinoError
from aqr_perception.models.model_io import (
    LAST_LAYER,
    DecodeOptions,
    Features,
    History,
    ModelOutput,
    ProposalMaps,
    QueryWeights,
)
from aqr_perception.models.model_memory import ModelMemory, Moment
from aqr_perception.models.ops.side_by_side import run_all, side_by_side
from aqr_perception.models.preprocessing import image_to_model, prepare_image
from aqr_perception.models.removed_tokens import TokenMask, without_tokens
from aqr_perception.models.weights.checkpoint import CheckpointError
from aqr_perception.models.weights.shipped import RANDOM, choose_weights
from aqr_perception.options import AqrOptions, DetectionOptions, OptionError, require

_log = logging.getLogger(__name__)

_FAINTEST_SCORE = 0.05
"""Queries with lower scores would not be visible in pictures."""

_CAMERA_MODEL_CELLS = 128
"""Cells along each edge of the BEV of models without a LiDAR grid, for the size of Gaussians in pictures."""


ImageBackend = Literal["torch", "openvino"]
"""What runs the image branch."""


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
    _check_image_backend(image_backend)
    load_preset(preset)
    weights = choose_weights(preset, checkpoint)
    if weights.path is not None and not weights.path.is_file():
        raise CheckpointError(
            f"model.checkpoint is {checkpoint!r}, which is not a file; give a path, '' for the weights shipped for the "
            f"preset, or {RANDOM!r} for random ones"
        )
    choose_precision(precision, choose_device(device))


def _check_image_backend(name: str) -> None:
    known = get_args(ImageBackend)
    require(name in known, "model.image_backend", name, f"one of {', '.join(known)}")


def preset_classes(preset: str) -> tuple[str, ...]:
    """Return the class names of a preset.

    Raises:
        PresetError: the preset is unknown or its file is invalid.
    """
    return load_preset(preset).classes


class ModelOutputError(ValueError):
    """A model's output has numbers that are not finite; the message names the model and its weights."""


class FrameFeatures(NamedTuple):
    """Output of the model's feature branches for one frame.

    Attributes:
        frame: the frame from which the features come, without cameras that are not usable.
        asked: the frame as it was given.
        maps: the feature maps, as a batch of one.
        seconds: wall time by stage.
    """

    frame: Frame
    asked: Frame
    maps: Features
    seconds: dict[str, float]


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
        image = self.model.preset.image
        self.uses_cameras = image is not None
        self.sweeps, self.sweep_interval = self.model.preset.sweeps, self.model.preset.sweep_interval
        self.placement: FramePlacement | None = self.model.preset.model_frame
        self.uses_lidar = self.model.preset.points is not None
        self.remembers = self.model.remembers
        self.image_size: tuple[int, int] = image.size if image is not None else (0, 0)
        _check_image_backend(image_backend)
        self._openvino = self._openvino_branch() if image_backend == "openvino" else None
        graphed = cuda_graphs and self.device.type == "cuda" and self.uses_cameras
        self._graphed = GraphedBranch(self._features_of_images) if graphed else None

    @property
    def image_backend(self) -> ImageBackend:
        """What runs the image branch, after a fall-back to PyTorch, too."""
        return "torch" if self._openvino is None else "openvino"

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
        asked = frame
        frame, left_out = usable_frame(asked, self.uses_cameras, self.uses_lidar)
        for problem in left_out:
            if str(problem) not in self._said:
                self._said.add(str(problem))
                _log.warning("%s", problem)
        clock = ModelClock(self.device)
        views = self._views(frame)
        width, height = self.image_size
        with autocast(self.device, self.formats.branches), side_by_side(self._runs_side_by_side()):
            with clock.stage("preprocess"):
                images, lidar_to_image = self._images(views), self._projections(views)
                points = self._points(frame)
            nothing = Features(None, None, lidar_to_image, (height, width) if views else (0, 0), (False,))

            def image_branch() -> Features:
                if reusable is not None and reusable.asked.cameras is asked.cameras:
                    return reusable.maps
                return self._proposed(nothing._replace(image=self._image_features(images)))

            def point_branch() -> Features:
                if reusable is not None and reusable.asked.points is asked.points:
                    return reusable.maps
                bev = self.model.bev_features(points)
                return self._proposed(nothing._replace(bev=bev, has_points=(bev is not None,)))

            # Helpers that have finished the points go on with pictures.
            pictures, cloud = clock.stages({"image": image_branch, "points": point_branch})
        maps = nothing._replace(image=pictures.image, bev=cloud.bev, has_points=(cloud.bev is not None,))
        if pictures.proposals is not None and cloud.proposals is not None:
            maps = maps._replace(proposals=ProposalMaps(cloud.proposals.bev, pictures.proposals.image))
        return FrameFeatures(frame, asked, maps, clock.seconds)

    def _proposed(self, features: Features) -> Features:
        return features._replace(proposals=self.model.branch_proposals(features))

    @torch.inference_mode()
    def detect_in(self, features: FrameFeatures, options: DetectionOptions | None = None) -> Result:
        """Return the detections for features from `extract`; a model with memory stores the frame for the next one."""
        options = options or self.options
        options.check_classes(self.classes)
        options = replace(options, aqr=self._usable_aqr(options.aqr))
        frame, source = features.frame, self._source(options)
        needs_attention = options.attention or source == "attention"
        decode_options = DecodeOptions(options.aqr, source == "router", needs_attention, LAST_LAYER)
        moment = self._moment(frame)
        history = self._memory.history(moment, options.max_history_gap)
        clock = ModelClock(self.device)
        with clock.stage("decoder"):
            output = self.decode(features.maps, decode_options, history)
            self._check_output(output)
        self._memory.update(moment, output.state)
        with clock.stage("postprocess"):
            weights = output.router if source == "router" else output.attention
            assert weights is not None  # requested by `decode_options`
            best, query = self._best(output, options)
            detections = self._detections(best, query, weights)
            detections = replace(detections, camera_weights=self._of_all_cameras(detections.camera_weights, features))
            queries = self._queries(output, query, features, options.attention)
            maps = self._weight_maps(weights, output, self._views(frame), source, options.aqr)
        return Result(detections, maps, {**features.seconds, **clock.seconds}, queries)

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
        return RoutedQueries(points, modality[:, 1], self._of_all_cameras(cameras, features), modality[:, 0])

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
        maps, left = without_tokens(features.maps, [view.name for view in self._views(frame)], mask)
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

    def _openvino_branch(self) -> OpenVinoBranch | None:
        """Return the image branch in OpenVINO; None, with a warning, where that is not possible."""
        if not self.uses_cameras:
            return None
        if self.device.type != "cpu":
            _log.warning("model.image_backend is openvino, which runs on CPUs only; %s runs it", self.device)
            return None
        try:
            return OpenVinoBranch(self.model, self.model.image_features, self.formats.branches)
        except OpenVinoError as error:
            _log.warning("PyTorch runs the image branch: %s", error)
            return None

    def _features_of_images(self, images: Tensor) -> Tensor:
        features = self.model.image_features(images)
        assert features is not None  # the model has an image branch
        return features

    def _image_features(self, images: Tensor | None) -> Tensor | None:
        if images is not None and self._graphed is not None:
            return self._graphed(images)
        if images is None or self._openvino is None:
            return self.model.image_features(images)
        try:
            return self._openvino(images)
        except OpenVinoError as error:
            _log.warning("PyTorch runs the image branch: %s", error)
            self._openvino = None
            return self.model.image_features(images)

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

    def _source(self, options: DetectionOptions) -> Literal["router", "attention"]:
        return "router" if self.has_router and options.weights_source != "attention" else "attention"

    def _views(self, frame: Frame) -> tuple[CameraView, ...]:
        return frame.cameras if self.uses_cameras else ()

    def _runs_side_by_side(self) -> bool:
        """Return whether branches and pictures run side by side; OpenVINO has threads of its own."""
        return self.device.type == "cpu" and self._openvino is None and self.model.has_small_branches

    def _images(self, views: tuple[CameraView, ...]) -> Tensor | None:
        branch = self.model.preset.image
        if branch is None or not views:
            return None
        size, mean, std = branch.size, branch.mean, branch.std
        return torch.stack(
            run_all([partial(prepare_image, view.image, size, mean, std, self.device) for view in views])
        )[None]

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

    def _of_all_cameras(self, weights: NDArray[np.float32], features: FrameFeatures) -> NDArray[np.float32]:
        """Return (N, V) weights for the cameras of the frame as it was given: 0 for those left out."""
        if features.frame is features.asked:
            return weights
        asked = self._views(features.asked)
        names = [view.name for view in self._views(features.frame)]
        whole = np.zeros((len(weights), len(asked)), np.float32)
        whole[:, [index for index, view in enumerate(asked) if view.name in names]] = weights
        return whole

    def _best(self, output: ModelOutput, options: DetectionOptions) -> tuple[DecodedBoxes, Tensor]:
        """Return the objects to report, and the query (N,) of each."""
        logits, boxes = output.predictions
        best = decode(logits[-1].float(), boxes[-1].float(), options.max_detections)[0]
        thresholds = torch.tensor(options.least_scores(self.classes), device=best.scores.device)
        selected = best.scores >= thresholds[best.labels]
        best = DecodedBoxes(*(values[selected] for values in best))
        return best, best.query_index

    def _detections(self, best: DecodedBoxes, query: Tensor, weights: QueryWeights) -> Detections:
        modality = weights.modality[0, query].float().cpu().numpy()
        return Detections(
            boxes=best.boxes.cpu().numpy(),
            scores=best.scores.cpu().numpy(),
            labels=best.labels.cpu().numpy(),
            lidar_weight=modality[:, 0],
            camera_weight=modality[:, 1],
            camera_weights=weights.cameras[0, query].float().cpu().numpy(),
            classes=self.classes,
        )

    def _queries(
        self, output: ModelOutput, query: Tensor, features: FrameFeatures, attention: bool
    ) -> DetectionQueries | None:
        """Return the queries (N,) of the detections; None if the model does not tell where they are."""
        if output.queries is None:
            return None
        if self.model.weights_at_boxes:
            points = output.predictions.boxes[-1][0, query][:, (0, 1, 4)].float()
        else:
            lower, upper = np.split(np.asarray(self.model.preset.point_range, np.float32), 2)
            shares = output.queries.reference_points[0, query].float()
            points = shares * shares.new_tensor(upper - lower) + shares.new_tensor(lower)
        if not attention:
            return DetectionQueries(points.cpu().numpy())
        weights = output.attention
        assert weights is not None  # requested by `decode_options`
        cameras = self._of_all_cameras(weights.cameras[0, query].float().cpu().numpy(), features)
        mass = np.concatenate([weights.modality[0, query, :1].float().cpu().numpy(), cameras], axis=1)
        return DetectionQueries(points.cpu().numpy(), mass)

    def _weight_maps(
        self,
        weights: QueryWeights,
        output: ModelOutput,
        views: tuple[CameraView, ...],
        source: Literal["router", "attention"],
        aqr: AqrOptions,
    ) -> WeightMaps:
        bev = weights.bev_map[0].float().cpu().numpy() if weights.bev_map.shape[1] else None
        maps = weights.camera_maps[0].float().cpu().numpy()
        seen, of_cameras = self._evidence(weights, output, aqr)
        cameras = {}
        for index, (view, values) in enumerate(zip(views, maps, strict=True)):
            width, height = self.image_size
            to_cells = np.diag([values.shape[1] / width, values.shape[0] / height, 1.0])
            image_to_map = to_cells @ self._image_to_model(view)
            sigma = (aqr.sigma / image_to_map[0, 0], aqr.sigma / image_to_map[1, 1])
            queries = replace(seen, weights=of_cameras[:, index], sigma=sigma)
            cameras[view.name] = CameraWeightMap(values, image_to_map, queries)
        x_min, y_min, _, x_max, y_max, _ = self.model.preset.point_range
        scene_range = (x_min, y_min, x_max, y_max)
        signed = source == "router" and self.model.signed_weights(aqr)
        return WeightMaps(bev, self.model.preset.bev_range, cameras, source, signed, scene_range, seen)

    def _evidence(
        self, weights: QueryWeights, output: ModelOutput, aqr: AqrOptions
    ) -> tuple[QueryEvidence, NDArray[np.float32]]:
        """Return the queries that are worth drawing with their LiDAR weights, and their weights by camera (Q, V)."""
        logits, boxes = (predicted[-1][0] for predicted in output.predictions)
        scores = logits.float().sigmoid().amax(-1)
        shown = scores >= _FAINTEST_SCORE
        tensors = (boxes[shown][:, (0, 1, 4)], scores[shown], weights.modality[0, shown], weights.cameras[0, shown])
        positions, visibility, modality, cameras = (tensor.float().cpu().numpy() for tensor in tensors)
        x_min, y_min, x_max, y_max = self.model.preset.bev_range
        points, pooling = self.model.preset.points, self.model.preset.decoder.bev_pooling
        features = (_CAMERA_MODEL_CELLS,) * 2 if points is None else points.bev_cells
        columns, rows = (cells // pooling for cells in features)
        sigma = (aqr.sigma * (x_max - x_min) / columns, aqr.sigma * (y_max - y_min) / rows)
        lidar, camera = modality[:, 0], modality[:, 1]
        return QueryEvidence(positions, visibility, lidar, lidar, camera, sigma), cameras
