"""How good a model is in the middle of its training."""

from dataclasses import dataclass

import torch
from tqdm import tqdm

from aqr_perception.data.batch import FrameWithHealth
from aqr_perception.data.frames import LabelledFrames, before
from aqr_perception.data.sequences import HISTORY_FRAMES, HISTORY_STEP, collate_sequences
from aqr_perception.evaluation.metrics import evaluate
from aqr_perception.frame import Detections
from aqr_perception.models.boxes.coder import decode
from aqr_perception.models.detection_model import DetectionModel
from aqr_perception.models.model_io import LAST_LAYER, DecodeOptions
from aqr_perception.training.history import features_of, history_of


@dataclass(frozen=True)
class Validation:
    """Mean average precision on held-out frames whose sensors all work.

    Attributes:
        frames: what is seen.
        history: frames before each of them that a model that remembers is shown first.
    """

    frames: LabelledFrames
    history: int = HISTORY_FRAMES

    def __call__(self, model: DetectionModel) -> float:
        """Return the nuScenes detection mAP of a model in eval mode, 0..1."""
        device = next(model.parameters()).device
        found, truths = [], []
        with torch.inference_mode():
            for index in tqdm(range(len(self.frames)), desc="validating", unit="frame", leave=False):
                labelled = self.frames[index]
                earlier = before(self.frames, index, self.history, HISTORY_STEP) if model.remembers else ()
                sequence = tuple(map(FrameWithHealth, (*earlier, labelled)))
                batch = collate_sequences([sequence], model.preset).to(device)
                predictions = model.decode(
                    features_of(model, batch),
                    DecodeOptions(model.aqr_options, layers=LAST_LAYER),
                    history=history_of(model, batch),
                ).predictions
                best = decode(predictions.class_logits[-1].float(), predictions.boxes[-1].float())[0]
                weights = best.scores.new_zeros(len(best.scores)).cpu().numpy()
                found.append(
                    Detections(
                        best.boxes.cpu().numpy(),
                        best.scores.cpu().numpy(),
                        best.labels.cpu().numpy(),
                        weights,
                        weights,
                        weights[:, None],
                    )
                )
                truths.append(labelled.truth)
        return evaluate(zip(found, truths, strict=True)).mean_ap
