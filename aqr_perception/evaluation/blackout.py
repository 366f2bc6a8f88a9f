"""What a router makes of a camera that goes black."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from aqr_perception.data.batch import collate
from aqr_perception.data.health import FrameWithHealth
from aqr_perception.detector import Detector
from aqr_perception.frame import LabelledFrame
from aqr_perception.options import AqrOptions


@dataclass(frozen=True)
class BlackoutWeights:
    """What the router makes of a camera that goes black: mean weights in 0..1 of the queries that this camera sees.

    Attributes:
        queries: how many were asked, over all frames.
        intact, black: the weight of that camera itself, before and after.
        modality_intact, modality_black: the weight of the camera modality as a whole, of the same queries; some of
            them are also seen by a camera that still works.
    """

    queries: int
    intact: float
    black: float
    modality_intact: float
    modality_black: float

    @property
    def ratio(self) -> float:
        """The camera's weight when black by its weight when intact."""
        return self.black / self.intact

    @property
    def modality_ratio(self) -> float:
        """As `ratio`, of the camera modality as a whole."""
        return self.modality_black / self.modality_intact

    def as_dict(self) -> dict[str, float]:
        return {**asdict(self), "ratio": self.ratio, "modality_ratio": self.modality_ratio}


def mean_weights(by_frame: Sequence[NDArray[np.float64]]) -> BlackoutWeights | None:
    """Return the means over all queries of all frames, of what `query_weights` gives; None without any query."""
    queries = np.concatenate([np.zeros((0, 4)), *by_frame])
    if not len(queries):
        return None
    intact, black, modality_intact, modality_black = queries.mean(0).tolist()
    return BlackoutWeights(len(queries), intact, black, modality_intact, modality_black)


@torch.inference_mode()
def query_weights(detector: Detector, labelled: LabelledFrame, index: int) -> NDArray[np.float64]:
    """Return (Q, 4), for queries that one camera sees: its weight intact and black, the modality's intact and black.

    Queries that the pictures themselves propose are left out: they are others when the camera is black.

    Args:
        index: of the frame; cameras go black in turn. A frame without cameras has no such queries, nor is there any
            where the detector has no router or looks at no camera.
    """
    cameras = list(labelled.frame.cameras)
    if not cameras or not detector.has_router or not detector.uses_cameras:
        return np.zeros((0, 4))
    blackened = index % len(cameras)
    cameras[blackened] = replace(cameras[blackened], image=np.zeros_like(cameras[blackened].image))
    black = replace(labelled, frame=replace(labelled.frame, cameras=tuple(cameras)))
    batch = collate([FrameWithHealth(labelled), FrameWithHealth(black)], detector.model.preset).to(detector.device)
    with torch.autocast(detector.device.type, detector.dtype, enabled=detector.dtype != torch.float32):
        model = detector.model
        image, bev = model.image_features(batch.images), model.bev_features(batch.points)
        features = model.features(batch.images, batch.points, image, bev)
        aqr = AqrOptions.of_model("off")
        output = model.decode(features, batch.lidar_to_image, aqr, route=True, layers=slice(-1, None))
    assert output.router is not None  # there is one
    own, modality = output.router.cameras[..., blackened], output.router.modality[..., 1]
    seen = own[0] > 0  # exactly the queries that the camera sees
    if output.queries is not None:
        intact, black_ones = output.queries.reference_points
        seen &= (intact == black_ones).all(-1)
    return torch.cat((own[:, seen], modality[:, seen])).T.double().cpu().numpy()
