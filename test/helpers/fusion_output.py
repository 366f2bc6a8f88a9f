# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Output of models with cameras and LiDAR for one batch."""

from torch import Tensor

from aqr_perception.models.fusion_model import FusionModel
from aqr_perception.models.model_io import DecodeOptions, ModelOutput
from aqr_perception.options import AqrOptions


def predict(
    model: FusionModel,
    images: Tensor | None,
    lidar_to_image: Tensor | None,
    points: list[Tensor] | None,
    aqr: AqrOptions,
    attention_weights: bool = False,
) -> ModelOutput:
    """Return a model's output; see `DetectionModel.features` and `DecodeOptions` for the arguments."""
    features = model.features(images, lidar_to_image, points)
    return model.decode(features, DecodeOptions(aqr, attention_weights=attention_weights))
