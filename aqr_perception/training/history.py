# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Features and history of a training batch."""

import torch

from aqr_perception.data.batch import Batch
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.fusion_model import FusionModel
from aqr_perception.models.model_io import LAST_LAYER, DecodeOptions, Features, History
from aqr_perception.models.model_memory import ModelMemory, Moment


def features_of(model: DetectionModel, batch: Batch) -> Features:
    """Return the feature maps of a batch's labelled frames; a cache of features keeps none of changed pictures."""
    if isinstance(model, FusionModel) and model.backbone_cache is not None:
        model.backbone_cache.passing = batch.changed
    return model.features(batch.images, batch.lidar_to_image, batch.points)


def history_of(model: DetectionModel, batch: Batch) -> History | None:
    """Return the history of a batch: the model decodes `Batch.history` in order, without gradients.

    As in `Detector`, it is None for models without memory and for unknown vehicle motion; without earlier frames, it is
    the start of a drive. The model keeps its mode, so past and present features have the same statistics.
    """
    if not model.remembers or batch.to_fixed is None:
        return None
    options, memory = DecodeOptions(model.aqr_options, layers=LAST_LAYER), ModelMemory()
    with torch.no_grad():
        for frame in batch.history:
            moment = _moment(frame)
            output = model.decode(features_of(model, frame), options, history=memory.history(moment))
            memory.update(moment, output.state)
    # PyTorch 2.9 reuses tensors that autocast cast without gradients in the pass that needs gradients (pull request
    # 165068).
    torch.clear_autocast_cache()
    return memory.history(_moment(batch))


def _moment(batch: Batch) -> Moment | None:
    if batch.to_fixed is None or batch.stamps_ns is None:
        return None
    return Moment(batch.stamps_ns, batch.to_fixed)
