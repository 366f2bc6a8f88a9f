"""One training step's loss: denoising and matching queries through the model, set loss, and the router's own loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aqr_perception.data.batch import Batch
from aqr_perception.models.aqr.projection import QueryCells, project
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import DecodeOptions, ModelOutput, Queries
from aqr_perception.models.proposals.head import ProposalMaps
from aqr_perception.models.tokens import TokenLayout
from aqr_perception.options import OptionError
from aqr_perception.training.denoising import denoising_queries
from aqr_perception.training.history import features_of, history_of
from aqr_perception.training.losses.proposal_loss import proposal_losses
from aqr_perception.training.losses.router_loss import router_loss
from aqr_perception.training.losses.set_loss import set_loss
from aqr_perception.training.trainable import branches_alone, branches_trained
from aqr_perception.training.training_options import Trained


@dataclass(frozen=True)
class DetectionLoss:
    """The loss of a batch, as `loop.train` wants it.

    AQR is learned in two ways at once: through modulation and window bias, where the model's options use them, from the
    set loss; and directly, from the health of the sensors at the place where each query looks.

    Attributes:
        router_weight: of the router's own loss; 0, or a model whose router is not in use, leaves it out.
        denoising: most denoising queries, in models that take any; None for as many as there are learned ones.
        train: what is trained; without the decoder, the branches' own loss is all there is.
        forgetting: share of the batches whose frames are taken for the first of a drive, though earlier ones are known:
            a model that remembers must learn how a drive starts, too.
    """

    router_weight: float = 1.0
    denoising: int | None = None
    train: Trained = "all"
    forgetting: float = 0.2

    def __call__(self, model: DetectionModel, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the parts of the loss, weighted; see `set_loss`, `proposal_losses`, and ``router``.

        Raises:
            OptionError: the branches alone are to be trained, but the model has no proposals.
        """
        if branches_alone(self.train):
            features = features_of(model, batch)
            maps = model.propose(features)
            if maps is None:
                raise OptionError(
                    f"train is {self.train!r}, but {model.preset.name} has no proposals: add decoder.proposals"
                )
            return self._proposal_losses(model, maps, batch, features.has_points)
        queries, targets = None, None
        if model.takes_queries:
            reference_points = model.get_parameter("pts_bbox_head.reference_points.weight")
            queries, targets = denoising_queries(
                reference_points,
                batch.boxes,
                batch.labels,
                model.preset.point_range,
                generator,
                max_queries=model.preset.decoder.queries if self.denoising is None else self.denoising,
            )
        if batch.before and torch.rand((), generator=generator, device=generator.device) < self.forgetting:
            batch = batch._replace(before=())
        history = history_of(model, batch)
        with torch.set_grad_enabled(branches_trained(self.train)):
            features = features_of(model, batch)
        learns_router = self.router_weight > 0 and model.router_trained
        options = DecodeOptions(model.aqr_options, router_weights=learns_router)
        output = model.decode(features, options, queries, history)
        losses = set_loss(output.predictions, batch.boxes, batch.labels, targets)
        if output.proposals is not None:
            losses |= self._proposal_losses(model, output.proposals, batch, features.has_points)
        if learns_router:
            assert output.router is not None and output.queries is not None  # models with a router give both
            cells = _cells(output.queries, batch, output, model.preset.point_range, features.image_size)
            losses["router"] = self.router_weight * router_loss(output.router, cells, batch)
        return losses

    def _proposal_losses(
        self, model: DetectionModel, maps: ProposalMaps, batch: Batch, has_points: tuple[bool, ...]
    ) -> dict[str, Tensor]:
        """Return the loss of those heat maps that are trained: what lies behind frozen branches may be, too."""
        if not branches_trained(self.train):
            if self.train == "aqr" or not model.bev_of_cameras:
                return {}
            maps = maps._replace(image=None)
        return proposal_losses(maps, batch, None if model.bev_of_cameras else has_points, model.preset.point_range)


def _cells(
    queries: Queries, batch: Batch, output: ModelOutput, point_range: tuple[float, ...], image_size: tuple[int, int]
) -> QueryCells:
    """Return where the queries lie on the grids of the router's weight maps."""
    assert output.router is not None
    weights = output.router
    lower = weights.modality.new_tensor(point_range[:3])
    upper = weights.modality.new_tensor(point_range[3:])
    rows, columns = weights.bev_map.shape[1:]
    views, image_rows, image_columns = weights.camera_maps.shape[1:]
    layout = TokenLayout((rows, columns), views, (image_rows, image_columns))
    points = lower + queries.reference_points * (upper - lower)
    batch_size = len(points)
    projections = batch.lidar_to_image
    if projections is None or views == 0:
        projections = points.new_zeros(batch_size, 0, 4, 4)
    return project(points, point_range, projections, image_size, layout)
