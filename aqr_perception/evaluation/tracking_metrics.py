"""nuScenes tracking metrics (AMOTA, AMOTP, switches, fragmentations), computed with nuscenes-devkit's functions.

The devkit does interpolation, matching, thresholds and averages, with its configuration ``tracking_nips_2019``: seven
classes, matches within 2 m. Two things differ from its submission script, which needs nuScenes' tables:

- Boxes come from memory, and their range is measured from the model frame's origin, as in `evaluation.metrics`.
- Only classes with an object in the truth count.

Needs pandas and motmetrics, the extra ``tracking``.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.evaluation.metrics import EvaluationError
from aqr_perception.frame import GroundTruth
from aqr_perception.geometry import invert, transform_points
from aqr_perception.tracking.track_list import Tracks, moved


@dataclass(frozen=True)
class TrackedFrame:
    """Tracks of one frame with its ground truth.

    Attributes:
        stamp_ns: time of the frame in nanoseconds.
        to_world: (4, 4), model frame -> the fixed frame of the tracks.
        truth: true objects in the model frame, with tracks.
        tracks: in the fixed frame.
    """

    stamp_ns: int
    to_world: NDArray[np.float64]
    truth: GroundTruth
    tracks: Tracks


@dataclass(frozen=True)
class TrackingScores:
    """nuScenes tracking metrics of a set of drives.

    Attributes:
        amota: average multi-object tracking accuracy over 40 recalls, averaged over `classes`; 1 is best.
        amotp: average position error in metres over the same; 2 where a recall is not reached.
        switches, fragmentations: of identities and of true tracks, at each class's best MOTA, summed.
        recall: at each class's best MOTA, averaged.
        classes: those of the truth that nuScenes tracks.
        drives, frames: their numbers.
        by_class: the same figures by class.
    """

    amota: float
    amotp: float
    switches: int
    fragmentations: int
    recall: float
    classes: tuple[str, ...]
    drives: int
    frames: int
    by_class: Mapping[str, Mapping[str, float]]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def evaluate_tracks(drives: Mapping[str, Sequence[TrackedFrame]], *, need_lidar_points: bool = True) -> TrackingScores:
    """Return the nuScenes tracking metrics (nuscenes.org/tracking; AMOTA: arXiv:1907.03961) of drives.

    Args:
        drives: frames of each drive, in order of time.
        need_lidar_points: whether to ignore true objects without a LiDAR point in the frame, as the devkit does. The
            truth is that of the frame with all sensors.

    Raises:
        EvaluationError: pandas or motmetrics is missing, or the truth has no tracked object.
    """
    devkit = _devkit()
    config = devkit.config_factory("tracking_nips_2019")
    true, found = {}, {}
    for name, frames in drives.items():
        truth: dict[int, list[Any]] = {}
        tracks: dict[int, list[Any]] = {}
        scores = _mean_scores(frames)
        for frame in frames:
            time = frame.stamp_ns // 1000
            seen = frame.truth.keep((frame.truth.lidar_points > 0) | (not need_lidar_points))
            seen = seen.keep(seen.tracks >= 0)
            names = [seen.classes[label] for label in seen.labels]
            boxes = moved(seen.boxes.astype(np.float64), frame.to_world)
            truth[time] = _boxes(config, frame, boxes, names, seen.tracks, None)
            names = [frame.tracks.classes[label] for label in frame.tracks.labels]
            own = np.array([scores[track] for track in frame.tracks.ids.tolist()])
            tracks[time] = _boxes(config, frame, frame.tracks.boxes, names, frame.tracks.ids, own)
        true[name], found[name] = devkit.interpolate_tracks(_lists(truth)), devkit.interpolate_tracks(_lists(tracks))
    classes = {box.tracking_name for frames in true.values() for boxes in frames.values() for box in boxes}
    if not classes:
        raise EvaluationError(f"found no tracked object of {', '.join(config.class_names)} in {len(drives)} drives")
    by_class = {name: _class_scores(devkit, config, true, found, name) for name in sorted(classes)}
    mean = {key: float(np.nanmean([row[key] for row in by_class.values()])) for key in ("amota", "amotp", "recall")}
    total = {key: int(np.nansum([row[key] for row in by_class.values()])) for key in ("switches", "fragmentations")}
    return TrackingScores(
        amota=mean["amota"],
        amotp=mean["amotp"],
        switches=total["switches"],
        fragmentations=total["fragmentations"],
        recall=mean["recall"],
        classes=tuple(by_class),
        drives=len(drives),
        frames=sum(map(len, drives.values())),
        by_class=by_class,
    )


class _devkit:  # noqa: N801
    """The devkit's functions, imported late: they need pandas and motmetrics."""

    def __init__(self) -> None:
        try:
            import motmetrics  # noqa: F401  # the devkit's own error for it names neither
            import pandas  # noqa: F401
        except ImportError as error:
            needed = "pip install pandas xmltodict && pip install --no-deps motmetrics==1.4.0"
            raise EvaluationError(f"tracking metrics: found no {error.name}, needed it: {needed}") from error
        from nuscenes.eval.common.config import config_factory
        from nuscenes.eval.tracking.algo import TrackingEvaluation
        from nuscenes.eval.tracking.data_classes import TrackingMetricData
        from nuscenes.eval.tracking.loaders import interpolate_tracks

        self.config_factory, self.interpolate_tracks = config_factory, interpolate_tracks
        self.evaluation, self.metric_data = TrackingEvaluation, TrackingMetricData


def _lists(frames: dict[int, list[Any]]) -> defaultdict[int, list[Any]]:
    return defaultdict(list, sorted(frames.items()))


def _mean_scores(frames: Sequence[TrackedFrame]) -> dict[int, float]:
    """Return the mean score of each track, which the devkit uses as the score of all its boxes."""
    scores: dict[int, list[float]] = defaultdict(list)
    for frame in frames:
        for track, score in zip(frame.tracks.ids.tolist(), frame.tracks.scores.tolist(), strict=True):
            scores[track].append(score)
    return {track: float(np.mean(values)) for track, values in scores.items()}


def _boxes(
    config: Any,
    frame: TrackedFrame,
    boxes: NDArray[np.float64],
    names: Sequence[str],
    ids: NDArray[np.int64],
    scores: NDArray[np.float64] | None,
) -> list[Any]:
    """Return the devkit's boxes of the tracked classes within the range of their class."""
    from nuscenes.eval.tracking.data_classes import TrackingBox

    distances = np.hypot(*transform_points(invert(frame.to_world), boxes)[:, :2].T)
    result = []
    for index, name in enumerate(names):
        if name not in config.class_range or distances[index] >= config.class_range[name]:
            continue
        x, y, z, length, width, height, yaw, *velocity = boxes[index].tolist()
        result.append(
            TrackingBox(
                sample_token=str(frame.stamp_ns),
                translation=(x, y, z),
                size=(width, length, height),
                rotation=(float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))),
                velocity=tuple(velocity),
                tracking_id=str(ids[index]),
                tracking_name=name,
                tracking_score=-1.0 if scores is None else float(scores[index]),
            )
        )
    return result


def _class_scores(devkit: _devkit, config: Any, true: Any, found: Any, name: str) -> dict[str, float]:
    """Return the figures of one class, as the devkit's ``TrackingEval.evaluate`` combines them."""
    data = devkit.evaluation(
        true, found, name, config.dist_fcn_callable, config.dist_th_tp, config.min_recall,
        devkit.metric_data.nelem, config.metric_worst, verbose=False,
    ).accumulate()  # fmt: skip
    figures = {}
    for figure, curve in (("amota", data.motar), ("amotp", data.motp)):
        figures[figure] = float(np.nanmean(np.where(np.isnan(curve), config.metric_worst[figure], curve)))
    # The traditional figures are those at the best MOTA.
    best = None if np.isnan(data.mota).all() else int(np.nanargmax(data.mota))
    for figure, curve in (("recall", data.recall), ("switches", data.ids), ("fragmentations", data.frag)):
        figures[figure] = float("nan") if best is None else float(curve[best])
    return figures
