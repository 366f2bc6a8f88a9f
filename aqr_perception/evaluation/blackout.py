"""Router weights of a camera before and after a blackout of its image."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aqr_perception.detector import Detector, FrameFeatures
from aqr_perception.options import AqrOptions


@dataclass(frozen=True)
class BlackoutWeights:
    """Mean router weights of the queries that a camera sees, with its intact image and with a black one.

    Weights are in 0..1 and compared by their ratio. Signed weights are in [-1, 1] and compared by their difference,
    because a ratio of means on both sides of 0 says nothing.

    Attributes:
        queries: number of queries in all frames.
        intact, black: weight of the camera with each image.
        modality_intact, modality_black: weight of the camera modality for the same queries; working cameras also see
            some of them.
        signed: whether weights may be negative.
    """

    queries: int
    intact: float
    black: float
    modality_intact: float
    modality_black: float
    signed: bool = False

    @property
    def ratio(self) -> float | None:
        """Ratio of the camera's weight when black to its weight when intact; None for signed weights or intact 0."""
        return self._ratio(self.black, self.intact)

    @property
    def modality_ratio(self) -> float | None:
        """Ratio of the camera modality's weight when the camera is black to its weight when intact; see `ratio`."""
        return self._ratio(self.modality_black, self.modality_intact)

    @property
    def difference(self) -> float:
        """The camera's weight when black minus its weight when intact."""
        return self.black - self.intact

    @property
    def modality_difference(self) -> float:
        """The camera modality's weight when the camera is black minus its weight when intact."""
        return self.modality_black - self.modality_intact

    def as_dict(self) -> dict[str, float | None]:
        if self.signed:
            compared = {"difference": self.difference, "modality_difference": self.modality_difference}
            return {**asdict(self), **compared}
        return {**asdict(self), "ratio": self.ratio, "modality_ratio": self.modality_ratio}

    def _ratio(self, black: float, intact: float) -> float | None:
        return None if self.signed or intact == 0 else black / intact


def has_signed_weights(detector: Detector) -> bool:
    """Return whether `query_weights` of a detector may be negative."""
    # The options of `Detector.routed_queries`.
    return detector.has_router and detector.uses_cameras and detector.model.signed_weights(AqrOptions.of_model("off"))


def mean_weights(by_frame: Sequence[NDArray[np.float64]], signed: bool = False) -> BlackoutWeights | None:
    """Return the means over the queries of all frames, from results of `query_weights`; None without queries.

    Args:
        signed: whether weights may be negative; see `has_signed_weights`.
    """
    queries = np.concatenate([np.zeros((0, 4)), *by_frame])
    if not len(queries):
        return None
    intact, black, modality_intact, modality_black = queries.mean(0).tolist()
    return BlackoutWeights(len(queries), intact, black, modality_intact, modality_black, signed)


def query_weights(detector: Detector, intact_features: FrameFeatures, index: int) -> NDArray[np.float64]:
    """Return (Q, 4) for queries that one camera sees: its weight intact and black, the modality's intact and black.

    Image proposals are left out, because a black image gives other proposals.

    Args:
        intact_features: features of the intact frame, from the detector's `extract`.
        index: index of the frame, which determines the black camera. Without cameras or a router, Q is 0.
    """
    frame = intact_features.frame
    cameras = frame.cameras
    if not cameras or not detector.has_router or not detector.uses_cameras:
        return np.zeros((0, 4))
    camera = index % len(cameras)
    blackened = replace(cameras[camera], image=np.zeros_like(cameras[camera].image))
    black_frame = replace(frame, cameras=(*cameras[:camera], blackened, *cameras[camera + 1 :]))
    black_features = detector.extract(black_frame, intact_features)
    intact, black = detector.routed_queries(intact_features), detector.routed_queries(black_features)
    # The router gives a camera weight 0 for queries that it does not see; signed weights of others may be negative.
    compared = (intact.camera_weights[:, camera] != 0) & (intact.reference_points == black.reference_points).all(-1)
    columns = (
        *(weights.camera_weights[compared, camera] for weights in (intact, black)),
        *(weights.camera_weight[compared] for weights in (intact, black)),
    )
    return np.stack(columns, axis=1).astype(np.float64)
