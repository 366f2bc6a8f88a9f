"""What is left of a detector when sensors fail: every scenario with AQR off and on, always against the clean truth."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from aqr_perception.detector import Detector
from aqr_perception.evaluation.metrics import DetectionScores, EvaluationError, evaluate
from aqr_perception.evaluation.replay import replay
from aqr_perception.evaluation.scenarios import Scenario, generator
from aqr_perception.frame import Detections, LabelledFrame
from aqr_perception.options import AqrMode, AqrOptions, DetectionOptions
from aqr_perception.training.frames import LabelledFrames, before, each
from aqr_perception.training.sample import HealthyFrame, collate
from aqr_perception.training.sequences import HISTORY_FRAMES, HISTORY_STEP

CLEAN = "clean"
"""The scenario in which nothing fails, to which the others are compared."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RobustnessRow:
    """One scenario with AQR in one mode.

    Attributes:
        share_of_clean: its NDS by the same mode's clean NDS; 0 where that is 0.
        lidar_weight, camera_weight: of all detections, each counted by its score, in 0..1.
    """

    scenario: str
    mode: AqrMode
    scores: DetectionScores
    share_of_clean: float
    lidar_weight: float
    camera_weight: float


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


@dataclass(frozen=True)
class RobustnessTable:
    """Every scenario in every mode.

    Attributes:
        model: the detector's preset.
        frames: how many frames each figure comes from.
        seed: of the scenarios' chances.
        rows: by scenario in the order given, each in every mode.
        blackout: None where there is no router or no frame with a camera.
        history: frames that the detector was shown before each, of the same drive; None where it does not remember.
    """

    model: str
    frames: int
    seed: int
    rows: tuple[RobustnessRow, ...]
    blackout: BlackoutWeights | None = None
    history: int | None = None

    @property
    def scenarios(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.scenario for row in self.rows))

    @property
    def modes(self) -> tuple[AqrMode, ...]:
        return tuple(dict.fromkeys(row.mode for row in self.rows))

    def row(self, scenario: str, mode: AqrMode) -> RobustnessRow:
        """Return one row; KeyError where it was not measured."""
        for row in self.rows:
            if (row.scenario, row.mode) == (scenario, mode):
                return row
        raise KeyError((scenario, mode))

    def mean_failure_nds(self, mode: AqrMode) -> float | None:
        """Return a mode's NDS in the mean over all scenarios but the clean one; None where there is no other."""
        scores = [row.scores.nds for row in self.rows if row.mode == mode and row.scenario != CLEAN]
        return float(np.mean(scores)) if scores else None

    def as_dict(self) -> dict[str, object]:
        means = {mode: self.mean_failure_nds(mode) for mode in self.modes}
        blackout = self.blackout.as_dict() if self.blackout else None
        return {**asdict(self), "mean_failure_nds": means, "blackout": blackout}


def run(
    detector: Detector,
    frames: LabelledFrames,
    scenarios: Mapping[str, Scenario],
    modes: Sequence[AqrMode] = ("off", "auto"),
    *,
    seed: int = 0,
    history: int = HISTORY_FRAMES,
    progress: bool = True,
) -> RobustnessTable:
    """Detect in every frame under every scenario and mode, and score it against the frame's own, clean truth.

    A scenario's chances depend on the seed, its name and the frame alone: all modes, and all models evaluated with the
    same seed, meet the same failures. Every detection counts, however low its score, as average precision wants.

    Args:
        detector: without a trained router, it is only run with AQR off.
        frames: gone through once for every scenario; `LabelledFrame.truth` counts objects without a LiDAR point only
            where no frame has LiDAR.
        scenarios: by name; `CLEAN` must be among them.
        modes: of AQR.
        history: for a detector that remembers: frames that it is shown before each, in which the same fails; where the
            drive starts, fewer. 0 takes its memory away.
        progress: whether to show progress bars.

    Raises:
        EvaluationError: there are no frames, no clean scenario, or no objects to look for.
    """
    if CLEAN not in scenarios:
        raise EvaluationError(
            f"the scenarios are {', '.join(scenarios) or 'none'}; add {CLEAN!r}, to which the others are compared"
        )
    if not len(frames):
        raise EvaluationError("there are no frames to evaluate; give at least one")
    if not detector.has_router:
        _log.warning("%s has no trained router: only AQR off is evaluated", detector.preset_name)
        modes = ("off",)
    shown = history if detector.remembers else 0
    measured = {
        name: _run_scenario(detector, frames, name, scenario, modes, seed, shown, progress)
        for name, scenario in scenarios.items()
    }
    clean = {row.mode: row.scores.nds for row in measured[CLEAN]}
    rows = [
        replace(row, share_of_clean=row.scores.nds / clean[row.mode] if clean[row.mode] else 0.0)
        for of_scenario in measured.values()
        for row in of_scenario
    ]
    blackout = blackout_weights(detector, frames, progress=progress)
    remembered = shown if detector.remembers else None
    return RobustnessTable(detector.preset_name, len(frames), seed, tuple(rows), blackout, remembered)


def _run_scenario(
    detector: Detector,
    frames: LabelledFrames,
    name: str,
    scenario: Scenario,
    modes: Sequence[AqrMode],
    seed: int,
    history: int,
    progress: bool,
) -> list[RobustnessRow]:
    options = {mode: DetectionOptions(score_threshold=0.0, aqr=AqrOptions(mode=mode)) for mode in modes}
    found: dict[AqrMode, list[Detections]] = {mode: [] for mode in modes}
    truths = []
    has_lidar = False
    for index, labelled in enumerate(
        tqdm(each(frames), total=len(frames), desc=name, unit="frame", leave=False, disable=not progress)
    ):
        drive = (*before(frames, index, history, HISTORY_STEP), labelled) if history else (labelled,)
        *earlier, failing = (scenario(frame, generator(name, frame, seed)) for frame in drive)
        for mode in modes:
            replay(detector, (frame.frame for frame in earlier), options[mode])
            found[mode].append(detector.detect(failing.frame, options[mode]).detections)
        truths.append(labelled.truth)
        has_lidar |= labelled.frame.points is not None
    rows = []
    for mode in modes:
        scores = evaluate(zip(found[mode], truths, strict=True), need_lidar_points=has_lidar)
        weights = _mean_weights(found[mode])
        rows.append(RobustnessRow(name, mode, scores, 0.0, *weights))
    return rows


def _mean_weights(found: Sequence[Detections]) -> tuple[float, float]:
    """Return the LiDAR's and the cameras' mean weight, detections counted by their scores; 0 without any."""
    scores = np.concatenate([detections.scores for detections in found]).astype(np.float64)
    total = scores.sum()
    if not total > 0:
        return 0.0, 0.0
    lidar = np.concatenate([detections.lidar_weight for detections in found])
    camera = np.concatenate([detections.camera_weight for detections in found])
    return float(scores @ lidar / total), float(scores @ camera / total)


@torch.inference_mode()
def blackout_weights(detector: Detector, frames: LabelledFrames, *, progress: bool = True) -> BlackoutWeights | None:
    """Return what the router makes of a black camera: each frame with one camera black and intact, cameras in turn.

    The queries are the learned ones, so that they are the same whatever the pictures show.
    """
    if not detector.has_router or not detector.uses_cameras:
        return None
    weights = [np.zeros((0, 4))]
    for index, labelled in enumerate(
        tqdm(each(frames), total=len(frames), desc="black camera", unit="frame", leave=False, disable=not progress)
    ):
        cameras = labelled.frame.cameras
        if cameras:
            weights.append(_weights_with_one_black(detector, labelled, index % len(cameras)))
    queries = np.concatenate(weights)
    if not len(queries):
        return None
    intact, black, modality_intact, modality_black = queries.mean(0).tolist()
    return BlackoutWeights(len(queries), intact, black, modality_intact, modality_black)


def _weights_with_one_black(detector: Detector, labelled: LabelledFrame, blackened: int) -> np.ndarray:
    """Return (Q, 4), for queries that a camera sees: its weight intact and black, the modality's intact and black."""
    cameras = list(labelled.frame.cameras)
    cameras[blackened] = replace(cameras[blackened], image=np.zeros_like(cameras[blackened].image))
    black = replace(labelled, frame=replace(labelled.frame, cameras=tuple(cameras)))
    batch = collate([HealthyFrame(labelled), HealthyFrame(black)], detector.model.preset).to(detector.device)
    with torch.autocast(detector.device.type, detector.dtype, enabled=detector.dtype != torch.float32):
        model = detector.model
        image, bev = model.image_features(batch.images), model.bev_features(batch.points)
        features = model.features(batch.images, batch.points, image, bev)
        output = model.decode(
            features, batch.lidar_to_image, AqrOptions(mode="off"), route=True, layers=slice(-1, None)
        )
    assert output.router is not None  # the caller asked whether there is one
    own, modality = output.router.cameras[..., blackened], output.router.modality[..., 1]
    seen = own[0] > 0  # exactly the queries that the camera sees
    return torch.cat((own[:, seen], modality[:, seen])).T.double().cpu().numpy()
