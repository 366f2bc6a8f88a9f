# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""`FeatureBranches`: a model's image and point branch on a device, from `Frame` to feature maps and proposals."""

import logging
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqr_perception.devices import autocast
from aqr_perception.frame import CameraView, Frame
from aqr_perception.frame_checks import usable_frame
from aqr_perception.model_clock import ModelClock
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.image.graphed_branch import GraphedBranch
from aqr_perception.models.image.openvino_branch import OpenVinoBranch, OpenVinoError
from aqr_perception.models.model_io import Features, ProposalMaps
from aqr_perception.models.ops.side_by_side import run_all, side_by_side
from aqr_perception.models.preprocessing import image_to_model, prepare_image
from aqr_perception.options import require

_log = logging.getLogger(__name__)

ImageBackend = Literal["torch", "openvino"]
"""What runs the image branch."""


def check_image_backend(name: str) -> None:
    """Check the name of an image backend.

    Raises:
        OptionError: the name is unknown.
    """
    known = get_args(ImageBackend)
    require(name in known, "model.image_backend", name, f"one of {', '.join(known)}")


class FrameFeatures(NamedTuple):
    """Output of the model's feature branches for one frame.

    Attributes:
        frame: the frame from which the features come, without cameras that are not usable.
        asked: the frame as it was given.
        maps: the feature maps and proposals, as a batch of one.
        seconds: wall time by stage.
    """

    frame: Frame
    asked: Frame
    maps: Features
    seconds: dict[str, float]


class FeatureBranches:
    """The branches of a model on a device.

    Attributes:
        uses_cameras, uses_lidar: which sensors the model uses.
        image_size: width and height of the model's images; (0, 0) without cameras.
    """

    def __init__(
        self,
        model: DetectionModel,
        device: torch.device,
        number_format: torch.dtype,
        image_backend: ImageBackend = "torch",
        cuda_graphs: bool = False,
    ) -> None:
        """Take a model that is on the device.

        Args:
            model: with weights.
            device, number_format: where and in which number format the branches run.
            image_backend, cuda_graphs: see `Detector`.

        Raises:
            OptionError: the image backend is unknown.
        """
        check_image_backend(image_backend)
        image = model.preset.image
        self.uses_cameras, self.uses_lidar = image is not None, model.preset.points is not None
        self.image_size: tuple[int, int] = image.size if image is not None else (0, 0)
        self._model, self._device, self._format = model, device, number_format
        self._openvino = self._openvino_branch() if image_backend == "openvino" else None
        graphed = cuda_graphs and device.type == "cuda" and self.uses_cameras
        self._graphed = GraphedBranch(self._features_of_images) if graphed else None
        self._said: set[str] = set()

    @property
    def image_backend(self) -> ImageBackend:
        """What runs the image branch, after a fall-back to PyTorch, too."""
        return "torch" if self._openvino is None else "openvino"

    def extract(self, asked: Frame, reusable: FrameFeatures | None = None) -> FrameFeatures:
        """Return the features of a frame; see `Detector.extract`."""
        frame, left_out = usable_frame(asked, self.uses_cameras, self.uses_lidar)
        for problem in left_out:
            if str(problem) not in self._said:
                self._said.add(str(problem))
                _log.warning("%s", problem)
        clock = ModelClock(self._device)
        views = self.views(frame)
        width, height = self.image_size
        with autocast(self._device, self._format), side_by_side(self._runs_side_by_side()):
            with clock.stage("preprocess"):
                images, lidar_to_image = self._images(views), self.projections(views)
                points = self._points(frame)
            nothing = Features(None, None, lidar_to_image, (height, width) if views else (0, 0), (False,))

            def image_branch() -> Features:
                if reusable is not None and reusable.asked.cameras is asked.cameras:
                    return reusable.maps
                return self._proposed(nothing._replace(image=self._image_features(images)))

            def point_branch() -> Features:
                if reusable is not None and reusable.asked.points is asked.points:
                    return reusable.maps
                bev = self._model.bev_features(points)
                return self._proposed(nothing._replace(bev=bev, has_points=(bev is not None,)))

            # Helpers that have finished the points go on with pictures.
            pictures, cloud = clock.stages({"image": image_branch, "points": point_branch})
        maps = nothing._replace(image=pictures.image, bev=cloud.bev, has_points=(cloud.bev is not None,))
        if pictures.proposals is not None and cloud.proposals is not None:
            maps = maps._replace(proposals=ProposalMaps(cloud.proposals.bev, pictures.proposals.image))
        return FrameFeatures(frame, asked, maps, clock.seconds)

    def views(self, frame: Frame) -> tuple[CameraView, ...]:
        """Return the cameras of a frame that the model uses."""
        return frame.cameras if self.uses_cameras else ()

    def projections(self, views: tuple[CameraView, ...]) -> Tensor:
        """Return (1, V, 4, 4), model frame -> pixels of the model's images."""
        matrices = np.zeros((1, len(views), 4, 4))
        for index, view in enumerate(views):
            projection = np.eye(4)
            projection[:3, :3] = self.image_to_model(view) @ view.intrinsics
            matrices[0, index] = projection @ view.extrinsics
        return torch.from_numpy(matrices).to(self._device, torch.float32)

    def image_to_model(self, view: CameraView) -> NDArray[np.float64]:
        """Return (3, 3), pixels of a camera's image -> pixels of the model's image."""
        return image_to_model((view.image.shape[1], view.image.shape[0]), self.image_size)

    def _proposed(self, features: Features) -> Features:
        return features._replace(proposals=self._model.branch_proposals(features))

    def _runs_side_by_side(self) -> bool:
        """Return whether branches and pictures run side by side; OpenVINO has threads of its own."""
        return self._device.type == "cpu" and self._openvino is None and self._model.has_small_branches

    def _images(self, views: tuple[CameraView, ...]) -> Tensor | None:
        branch = self._model.preset.image
        if branch is None or not views:
            return None
        size, mean, std = branch.size, branch.mean, branch.std
        return torch.stack(
            run_all([partial(prepare_image, view.image, size, mean, std, self._device) for view in views])
        )[None]

    def _points(self, frame: Frame) -> list[Tensor] | None:
        if frame.points is None or not self.uses_lidar:
            return None
        return [torch.from_numpy(np.ascontiguousarray(frame.points, dtype=np.float32)).to(self._device)]

    def _image_features(self, images: Tensor | None) -> Tensor | None:
        if images is not None and self._graphed is not None:
            return self._graphed(images)
        if images is None or self._openvino is None:
            return self._model.image_features(images)
        try:
            return self._openvino(images)
        except OpenVinoError as error:
            _log.warning("PyTorch runs the image branch: %s", error)
            self._openvino = None
            return self._model.image_features(images)

    def _features_of_images(self, images: Tensor) -> Tensor:
        features = self._model.image_features(images)
        assert features is not None  # the model has an image branch
        return features

    def _openvino_branch(self) -> OpenVinoBranch | None:
        """Return the image branch in OpenVINO; None, with a warning, where that is not possible."""
        if not self.uses_cameras:
            return None
        if self._device.type != "cpu":
            _log.warning("model.image_backend is openvino, which runs on CPUs only; %s runs it", self._device)
            return None
        try:
            return OpenVinoBranch(self._model, self._model.image_features, self._format)
        except OpenVinoError as error:
            _log.warning("PyTorch runs the image branch: %s", error)
            return None
