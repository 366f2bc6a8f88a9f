# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detection score of a model during its training."""

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from aqr_perception.data.frames import LabelledFrames, earlier_frames
from aqr_perception.data.health import FrameWithHealth
from aqr_perception.data.sequences import HISTORY_FRAMES, HISTORY_STEP, collate_sequences
from aqr_perception.evaluation.metrics import evaluate
from aqr_perception.frame import Detections, GroundTruth
from aqr_perception.models.boxes.coder import decode
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import LAST_LAYER, DecodeOptions
from aqr_perception.training.history import features_of, history_of


@dataclass(frozen=True)
class Validation:
    """Mean average precision on held-out frames without sensor failures.

    Attributes:
        frames: the held-out frames.
        history: number of earlier frames for models with memory.
    """

    frames: LabelledFrames
    history: int = HISTORY_FRAMES

    def __call__(self, model: DetectionModel) -> float:
        """Return the nuScenes detection mAP of a model in eval mode, 0..1."""
        indices = tqdm(range(len(self.frames)), desc="validating", unit="frame", leave=False)
        return evaluate(self._detect(model, index) for index in indices).mean_ap

    @torch.inference_mode()
    def _detect(self, model: DetectionModel, index: int) -> tuple[Detections, GroundTruth]:
        """Return the detections in one frame with every score, and its ground truth."""
        labelled = self.frames[index]
        earlier = earlier_frames(self.frames, index, self.history, HISTORY_STEP) if model.remembers else ()
        sequence = tuple(map(FrameWithHealth, (*earlier, labelled)))
        batch = collate_sequences([sequence], model.preset).to(next(model.parameters()).device)
        class_logits, boxes = model.decode(
            features_of(model, batch),
            DecodeOptions(model.aqr_options, layers=LAST_LAYER),
            history=history_of(model, batch),
        ).predictions
        (decoded,) = decode(class_logits[-1].float(), boxes[-1].float(), nms=model.preset.decoder.nms)
        scores = decoded.scores.cpu().numpy()
        weights = np.zeros_like(scores)  # the metrics do not use them
        detections = Detections(
            decoded.boxes.cpu().numpy(),
            scores,
            decoded.labels.cpu().numpy(),
            weights,
            weights,
            weights[:, None],
            model.classes,
        )
        return detections, labelled.truth
