# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""nuScenes tracking metrics (AMOTA, AMOTP, switches, fragmentations), computed with nuscenes-devkit's functions.

The devkit does interpolation, matching, thresholds and averages, with its configuration ``tracking_nips_2019``: seven
classes, matches within 2 m. On nuScenes' tables the figures equal those of its ``TrackingEval``. Other data has no
bicycle racks, and ranges are measured from the model frame's origin, as in `evaluation.metrics`.

Needs pandas and motmetrics, the extra ``tracking``.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from aqr_perception.evaluation.devkit_boxes import EvaluationError, bicycle_racks, in_rack, sensor_points, world_boxes
from aqr_perception.frame import GroundTruth
from aqr_perception.tracking.motion import Floats
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


def evaluate_tracks(
    drives: Mapping[str, Sequence[TrackedFrame]], *, need_points: bool = True, progress: bool = False
) -> TrackingScores:
    """Return the nuScenes tracking metrics (nuscenes.org/tracking; AMOTA: arXiv:1907.03961) of drives.

    Args:
        drives: frames of each drive, in order of time.
        need_points: whether to ignore true objects without a LiDAR or radar point in the frame, as the devkit does.
            The truth is that of the frame with all sensors.
        progress: whether to show a progress bar.

    Raises:
        EvaluationError: pandas or motmetrics is missing, or the truth has no tracked object.
    """
    devkit = _devkit()
    config = devkit.config_factory("tracking_nips_2019")
    true, found = {}, {}
    for name, frames in drives.items():
        truth: dict[int, list[Any]] = {}
        tracks: dict[int, list[Any]] = {}
        for frame in frames:
            time = frame.stamp_ns // 1000
            seen = frame.truth if not need_points else frame.truth.keep(sensor_points(frame.truth) > 0)
            truth[time] = _true_boxes(config, frame, seen.keep(seen.tracks >= 0))
            tracks[time] = _found_boxes(config, frame)
        _give_mean_scores(tracks)
        true[name], found[name] = devkit.interpolate_tracks(_lists(truth)), devkit.interpolate_tracks(_lists(tracks))
    classes = {box.tracking_name for frames in true.values() for boxes in frames.values() for box in boxes}
    if not classes:
        raise EvaluationError(
            f"found no object with points and an identity of {', '.join(config.class_names)} in {len(drives)} drives"
        )
    bar = tqdm(sorted(classes), desc="scoring", unit="class", leave=False, disable=not progress)
    by_class = {name: _class_scores(devkit, config, true, found, name) for name in bar}
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


def _true_boxes(config: Any, frame: TrackedFrame, truth: GroundTruth) -> list[Any]:
    names, ids = [truth.classes[label] for label in truth.labels], [str(track) for track in truth.tracks]
    if truth.world is not None:  # unrounded, and with roll and pitch
        rows = truth.world.boxes
        return _counted(config, frame, rows[:, :6], rows[:, 6:10], rows[:, 10:12], names, ids, [-1.0] * len(ids))
    boxes = moved(truth.boxes.astype(np.float64), frame.to_world)
    return _boxes_of(config, frame, boxes, names, ids, [-1.0] * len(ids))


def _found_boxes(config: Any, frame: TrackedFrame) -> list[Any]:
    tracks = frame.tracks
    names = [tracks.classes[label] for label in tracks.labels]
    ids = [str(track) for track in tracks.ids]
    return _boxes_of(config, frame, tracks.boxes, names, ids, tracks.scores.tolist())


def _boxes_of(
    config: Any, frame: TrackedFrame, boxes: Floats, names: Sequence[str], ids: Sequence[str], scores: Sequence[float]
) -> list[Any]:
    rows = world_boxes(boxes, None)
    return _counted(config, frame, rows[:, :6], rows[:, 6:10], rows[:, 10:12], names, ids, scores)


def _counted(
    config: Any,
    frame: TrackedFrame,
    places: Floats,
    rotations: Floats,
    velocities: Floats,
    names: Sequence[str],
    ids: Sequence[str],
    scores: Sequence[float],
) -> list[Any]:
    """Return the devkit's boxes of the tracked classes within the range of their class and outside bicycle racks."""
    from nuscenes.eval.tracking.data_classes import TrackingBox

    world = frame.truth.world
    ego = frame.to_world[:3, 3] if world is None else world.ego_position
    apart = places[:, :3] - ego
    if world is None:  # the range is that in the model frame's plane
        apart = apart @ frame.to_world[:3, :3]
    racks = bicycle_racks(world)
    result = []
    for index, name in enumerate(names):
        if name not in config.class_range or not np.hypot(*apart[index, :2]) < config.class_range[name]:
            continue
        x, y, z, *size = places[index].tolist()
        if in_rack(name, (x, y, z), racks):
            continue
        result.append(
            TrackingBox(
                sample_token=str(frame.stamp_ns) if world is None else world.token,
                translation=(x, y, z),
                size=tuple(size),
                rotation=tuple(rotations[index].tolist()),
                velocity=tuple(velocities[index].tolist()),
                ego_translation=tuple(apart[index].tolist()),
                tracking_id=ids[index],
                tracking_name=name,
                tracking_score=scores[index],
            )
        )
    return result


def _give_mean_scores(frames: Mapping[int, Sequence[Any]]) -> None:
    """Give each box the mean score of its track, as the devkit does."""
    scores: dict[str, list[float]] = defaultdict(list)
    for box in (box for boxes in frames.values() for box in boxes):
        scores[box.tracking_id].append(box.tracking_score)
    for box in (box for boxes in frames.values() for box in boxes):
        box.tracking_score = float(np.mean(scores[box.tracking_id]))


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
