# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""`ResultBuilder`: from a model's output for a frame to `Detections`, `WeightMaps` and `DetectionQueries`."""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqr_perception.frame import (
    CameraView,
    CameraWeightMap,
    DetectionQueries,
    Detections,
    QueryEvidence,
    Result,
    WeightMaps,
)
from aqr_perception.frame_features import FeatureBranches, FrameFeatures
from aqr_perception.models.boxes.coder import DecodedBoxes, decode
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import ModelOutput, QueryWeights
from aqr_perception.options import AqrOptions, DetectionOptions

WeightSource = Literal["router", "attention"]

_FAINTEST_SCORE = 0.05
"""Queries with lower scores would not be visible in pictures."""

_CAMERA_MODEL_CELLS = 128
"""Cells along each edge of the BEV of models without a LiDAR grid, for the size of Gaussians in pictures."""


class ResultBuilder:
    """Results of a model; `branches` made the features."""

    def __init__(self, model: DetectionModel, branches: FeatureBranches) -> None:
        self._model, self._branches = model, branches

    def __call__(
        self, output: ModelOutput, features: FrameFeatures, options: DetectionOptions, source: WeightSource
    ) -> Result:
        """Return the result of a frame, with no times.

        Args:
            output: of a batch of one, with the weights of the source, and those of the attention if asked for.
            features: the features of the output.
            options: see `DetectionOptions`.
            source: where the weights come from.
        """
        weights = output.router if source == "router" else output.attention
        assert weights is not None  # needed from the model's output
        best, query = self._best(output, options)
        detections = self._detections(best, query, weights)
        whole = self.of_all_cameras(detections.camera_weights, features)
        queries = self._queries(output, query, features, options.attention)
        maps = self._weight_maps(weights, output, self._branches.views(features.frame), source, options.aqr)
        return Result(replace(detections, camera_weights=whole), maps, {}, queries)

    def of_all_cameras(self, weights: NDArray[np.float32], features: FrameFeatures) -> NDArray[np.float32]:
        """Return (N, V) weights for the cameras of the frame as it was given: 0 for those left out."""
        if features.frame is features.asked:
            return weights
        asked = self._branches.views(features.asked)
        names = [view.name for view in self._branches.views(features.frame)]
        whole = np.zeros((len(weights), len(asked)), np.float32)
        whole[:, [index for index, view in enumerate(asked) if view.name in names]] = weights
        return whole

    def _best(self, output: ModelOutput, options: DetectionOptions) -> tuple[DecodedBoxes, Tensor]:
        """Return the objects to report, and the query (N,) of each."""
        logits, boxes = output.predictions
        nms = self._model.preset.decoder.nms
        best = decode(logits[-1].float(), boxes[-1].float(), options.max_detections, nms=nms)[0]
        thresholds = torch.tensor(options.least_scores(self._model.classes), device=best.scores.device)
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
            classes=self._model.classes,
        )

    def _queries(
        self, output: ModelOutput, query: Tensor, features: FrameFeatures, attention: bool
    ) -> DetectionQueries | None:
        """Return the queries (N,) of the detections; None if the model does not tell where they are."""
        if output.queries is None:
            return None
        if self._model.weights_at_boxes:
            points = output.predictions.boxes[-1][0, query][:, (0, 1, 4)].float()
        else:
            lower, upper = np.split(np.asarray(self._model.preset.point_range, np.float32), 2)
            shares = output.queries.reference_points[0, query].float()
            points = shares * shares.new_tensor(upper - lower) + shares.new_tensor(lower)
        if not attention:
            return DetectionQueries(points.cpu().numpy())
        weights = output.attention
        assert weights is not None  # requested by `decode_options`
        cameras = self.of_all_cameras(weights.cameras[0, query].float().cpu().numpy(), features)
        mass = np.concatenate([weights.modality[0, query, :1].float().cpu().numpy(), cameras], axis=1)
        return DetectionQueries(points.cpu().numpy(), mass)

    def _weight_maps(
        self,
        weights: QueryWeights,
        output: ModelOutput,
        views: tuple[CameraView, ...],
        source: WeightSource,
        aqr: AqrOptions,
    ) -> WeightMaps:
        bev = weights.bev_map[0].float().cpu().numpy() if weights.bev_map.shape[1] else None
        maps = weights.camera_maps[0].float().cpu().numpy()
        seen, of_cameras = self._evidence(weights, output, aqr)
        cameras = {}
        for index, (view, values) in enumerate(zip(views, maps, strict=True)):
            width, height = self._branches.image_size
            to_cells = np.diag([values.shape[1] / width, values.shape[0] / height, 1.0])
            image_to_map = to_cells @ self._branches.image_to_model(view)
            sigma = (aqr.sigma / image_to_map[0, 0], aqr.sigma / image_to_map[1, 1])
            queries = replace(seen, weights=of_cameras[:, index], sigma=sigma)
            cameras[view.name] = CameraWeightMap(values, image_to_map, queries)
        x_min, y_min, _, x_max, y_max, _ = self._model.preset.point_range
        scene_range = (x_min, y_min, x_max, y_max)
        signed = source == "router" and self._model.signed_weights(aqr)
        return WeightMaps(bev, self._model.preset.bev_range, cameras, source, signed, scene_range, seen)

    def _evidence(
        self, weights: QueryWeights, output: ModelOutput, aqr: AqrOptions
    ) -> tuple[QueryEvidence, NDArray[np.float32]]:
        """Return the queries that are worth drawing with their LiDAR weights, and their weights by camera (Q, V)."""
        logits, boxes = (predicted[-1][0] for predicted in output.predictions)
        scores = logits.float().sigmoid().amax(-1)
        shown = scores >= _FAINTEST_SCORE
        tensors = (boxes[shown][:, (0, 1, 4)], scores[shown], weights.modality[0, shown], weights.cameras[0, shown])
        positions, visibility, modality, cameras = (tensor.float().cpu().numpy() for tensor in tensors)
        x_min, y_min, x_max, y_max = self._model.preset.bev_range
        points, pooling = self._model.preset.points, self._model.preset.decoder.bev_pooling
        features = (_CAMERA_MODEL_CELLS,) * 2 if points is None else points.bev_cells
        columns, rows = (cells // pooling for cells in features)
        sigma = (aqr.sigma * (x_max - x_min) / columns, aqr.sigma * (y_max - y_min) / rows)
        lidar, camera = modality[:, 0], modality[:, 1]
        return QueryEvidence(positions, visibility, lidar, lidar, camera, sigma), cameras
