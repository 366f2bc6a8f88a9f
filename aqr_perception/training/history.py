"""What a model remembers of a batch's earlier frames."""

import torch

from aqr_perception.data.batch import Batch
from aqr_perception.models.detection_model import DetectionModel, Features, History


def features_of(model: DetectionModel, batch: Batch) -> Features:
    """Return the feature maps of a batch's own frames."""
    image, bev = model.image_features(batch.images), model.bev_features(batch.points)
    return model.features(batch.images, batch.points, image, bev)


def history_of(model: DetectionModel, batch: Batch) -> History | None:
    """Return what a model is given of `Batch.history`, which it is shown in order, without gradients.

    As in `Detector`: None for models that do not remember and where the vehicle's motion is not known; without earlier
    frames, the start of a drive. The model stays in its mode, so that past and present are seen alike. All samples
    share the mean time between two frames, as `History` has one.
    """
    if not model.remembers or batch.to_fixed is None:
        return None
    known: Batch | None = None
    state: object | None = None
    with torch.no_grad():
        for frame in batch.history:
            output = model.decode(
                features_of(model, frame),
                frame.lidar_to_image,
                model.aqr_options,
                layers=slice(-1, None),
                history=_seen_from(frame, known, state),
            )
            known, state = frame, output.state
    # PyTorch 2.9 keeps what autocast has cast in here for the pass that needs gradients (its pull request 165068).
    torch.clear_autocast_cache()
    return _seen_from(batch, known, state)


def _seen_from(now: Batch, known: Batch | None, state: object | None) -> History | None:
    """Return what is known of one batch's frames as seen from the next ones."""
    if now.to_fixed is None:
        return None
    to_fixed = now.to_fixed.float()
    if known is None or known.to_fixed is None or state is None:
        return History(None, torch.eye(4, device=to_fixed.device), to_fixed, 0.0)
    assert now.stamps_ns is not None and known.stamps_ns is not None  # given together with the poses
    seconds = float((now.stamps_ns - known.stamps_ns).double().mean()) / 1e9
    to_current = torch.linalg.inv(now.to_fixed) @ known.to_fixed
    return History(state, to_current.float(), to_fixed, seconds)
