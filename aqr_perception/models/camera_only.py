"""What models that look with cameras alone share."""

from collections.abc import Sequence

from torch import Tensor

from aqr_perception.models.config.presets import ImageBranch, Preset
from aqr_perception.models.detection_model import DetectionModel, Features, History
from aqr_perception.models.head_output import Predictions, Queries


class CameraOnlyModel(DetectionModel):
    """A model without a LiDAR branch and without a query router: AQR's modes and windows do not apply.

    Attributes:
        image: the preset's image branch.
        router_trained: always false.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        if preset.image is None:
            raise ValueError(f"preset {preset.name!r} has no image branch, which its model needs: add 'image'")
        self.image: ImageBranch = preset.image
        self.router_trained = False

    def forward(
        self,
        images: Tensor | None,
        lidar_to_image: Tensor | None,
        points: Sequence[Tensor] | None = None,
        queries: Queries | None = None,
        history: History | None = None,
    ) -> Predictions:
        """Return every decoder layer's predictions.

        Args:
            images: (B, V, 3, H, W) float, BGR, normalised by the preset's mean and deviation. None, or V = 0, without
                cameras.
            lidar_to_image: (B, V, 4, 4), model frame -> pixels of these images; None without cameras.
            points: not looked at.
            queries: instead of the learned queries alone, for models that take any (training).
            history: for models that remember; see `decode`.
        """
        features = self.features(images, points, self.image_features(images), None)
        return self.decode(features, lidar_to_image, self.aqr_options, queries=queries, history=history).predictions

    def bev_features(self, points: Sequence[Tensor] | None) -> None:
        """Return nothing: points are not looked at."""

    @staticmethod
    def features(
        images: Tensor | None, points: Sequence[Tensor] | None, image: Tensor | None, bev: Tensor | None
    ) -> Features:
        """Return the feature maps of these inputs; only the batch's size is taken from the points."""
        if images is not None:
            return Features(None, image, (False,) * len(images), (images.shape[-2], images.shape[-1]))
        return Features(None, None, (False,) * (1 if points is None else len(points)), (0, 0))
