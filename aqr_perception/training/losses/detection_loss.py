# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Loss of a detection model for one batch: set loss, proposal losses and router loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aqr_perception.data.batch import Batch
from aqr_perception.models.aqr.projection import QueryCells, project
from aqr_perception.models.config.presets import Preset
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import NO_LAYER, DecodeOptions, ProposalMaps, Queries
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import OptionError
from aqr_perception.training.history import features_of, history_of
from aqr_perception.training.losses.denoising import DenoisingTargets, denoising_queries
from aqr_perception.training.losses.proposal_loss import proposal_losses
from aqr_perception.training.losses.router_loss import gate_loss, router_loss
from aqr_perception.training.losses.set_loss import set_loss
from aqr_perception.training.trainable import trains_branches, trains_only_branches
from aqr_perception.training.training_options import RouterGradient, Trained


@dataclass(frozen=True)
class DetectionLoss:
    """The `StepLoss` of detection models.

    The router learns in two ways: from the set loss, through the effect of its weights if the options use them,
    and from the router loss, with the health of the sensors at each query's position as target. A model with
    `router_supervised` false has no router loss.

    Attributes:
        router_weight: weight of the router loss; 0 for none. A model without a supervised router in use has none.
        denoising: largest number of denoising queries; None for the number of learned ones. Some models take none.
        train: the trained parameters; if the decoder is not among them, only the proposal losses are computed.
        forgetting: share of the batches without their earlier frames, so that a model with memory learns the start of
            a drive.
        router_gradient: what the router learns from: ``both``, the ``health`` of the sensors alone, or the
            ``detection`` alone, which is `router_weight` 0.
    """

    router_weight: float = 1.0
    denoising: int | None = None
    train: Trained = "all"
    forgetting: float = 0.2
    router_gradient: RouterGradient = "both"

    def __call__(self, model: DetectionModel, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the weighted parts of the loss; see `set_loss`, `proposal_losses` and `router_loss`.

        Raises:
            OptionError: only branches are trained, but the model has no proposals.
        """
        if trains_only_branches(self.train):
            return self._branch_losses(model, batch)
        return self._detection_losses(model, batch, generator)

    def _branch_losses(self, model: DetectionModel, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the proposals, without running the decoder."""
        features = features_of(model, batch)
        maps = model.propose(features)
        if maps is None:
            raise OptionError(
                f"train is {self.train!r}, but {model.preset.name} has no proposals: add decoder.proposals to the "
                "preset, or use train all"
            )
        return self._proposal_losses(model, maps, batch, features.has_points)

    def _detection_losses(self, model: DetectionModel, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the losses of all trained parts of the model."""
        queries, targets = self._denoising(model, batch, generator)
        batch = self._forget(batch, generator)
        history = history_of(model, batch)
        with torch.set_grad_enabled(trains_branches(self.train)):
            features = features_of(model, batch)
        supervises = self.router_weight > 0 and self.router_gradient != "detection"
        trains_router = supervises and model.router_trained and model.router_supervised
        fixed = self.router_gradient == "health"
        # The predictions teach nothing here, and the decoder takes a fifth of a step.
        alone = fixed and trains_router and self.train == "aqr" and model.routes_alone
        options = DecodeOptions(
            model.aqr_options,
            router_weights=trains_router,
            fixed_router=fixed,
            layers=NO_LAYER if alone else slice(None),
        )
        output = model.decode(features, options, queries, history)
        losses = {} if alone else set_loss(output.predictions, batch.boxes, batch.labels, targets)
        if output.proposals is not None:
            losses |= self._proposal_losses(model, output.proposals, batch, features.has_points)
        if trains_router:
            # Proposals change the reference points of the queries.
            assert output.router is not None and output.queries is not None  # models with a router return both
            rows, columns = batch.lidar_health.shape[1:]
            views, image_rows, image_columns = batch.camera_health.shape[1:]
            layout = TokenLayout((rows, columns), views, (image_rows, image_columns))
            cells = _query_cells(output.queries, layout, batch.lidar_to_image, model.preset, features.image_size)
            if output.gate is None:
                loss = router_loss(output.router, cells, batch, layout)
            else:
                loss = gate_loss(output.gate, cells, batch, layout)
            losses["router"] = self.router_weight * loss
        return losses

    def _denoising(
        self, model: DetectionModel, batch: Batch, generator: torch.Generator
    ) -> tuple[Queries | None, DenoisingTargets | None]:
        """Return denoising queries followed by the learned ones, and their targets; None if the model takes none."""
        if not model.takes_queries:
            return None, None
        return denoising_queries(
            model.get_parameter("pts_bbox_head.reference_points.weight"),
            batch.boxes,
            batch.labels,
            model.preset.point_range,
            generator,
            max_queries=model.preset.decoder.queries if self.denoising is None else self.denoising,
        )

    def _forget(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch, without its earlier frames for a random share of the batches."""
        if batch.history and torch.rand((), generator=generator, device=generator.device) < self.forgetting:
            return batch._replace(history=())
        return batch

    def _proposal_losses(
        self, model: DetectionModel, maps: ProposalMaps, batch: Batch, has_points: tuple[bool, ...]
    ) -> dict[str, Tensor]:
        """Return the losses of the trained heat maps.

        With frozen branches, only the BEV maps of a model with BEV features from cameras are trained.
        """
        if not trains_branches(self.train):
            if self.train == "aqr" or not model.bev_of_cameras:
                return {}
            maps = maps._replace(image=None)
        counted = None if model.bev_of_cameras else has_points
        return proposal_losses(maps, batch, counted, model.preset.point_range, model.preset.bev_range)


def _query_cells(
    queries: Queries,
    layout: TokenLayout,
    projections: Tensor | None,
    preset: Preset,
    image_size: tuple[int, int],
) -> QueryCells:
    """Return the cells of the queries on the grids of a layout."""
    lower = queries.reference_points.new_tensor(preset.point_range[:3])
    upper = queries.reference_points.new_tensor(preset.point_range[3:])
    points = lower + queries.reference_points * (upper - lower)
    if projections is None or layout.views == 0:
        projections = points.new_zeros(len(points), 0, 4, 4)
    return project(points, preset.bev_range, projections, image_size, layout)
