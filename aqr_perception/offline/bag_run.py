# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Detection in one bag: frames in bag time, through the node's steps, into the journal and the output files."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from rclpy.node import Node

from aqr_perception.bags.reader import BagReader
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.frame import Result, WeightMaps
from aqr_perception.nodes.frame_steps import FrameSteps, Placed, no_output
from aqr_perception.nodes.output.autoware_objects import AutowareObjects
from aqr_perception.nodes.output.publishers import Publishers
from aqr_perception.nodes.output.track_publisher import TrackPublisher
from aqr_perception.nodes.parameters.node_settings import ModelSettings, Settings
from aqr_perception.nodes.running_model import load_detector, supported_settings
from aqr_perception.offline.answers import answered, replayed, to_report
from aqr_perception.offline.bag_playback import BagPlayback, DueFrame
from aqr_perception.offline.bag_state import JOURNAL, BagState, made_by, open_state
from aqr_perception.offline.journal import Journal
from aqr_perception.offline.offline_error import OfflineError
from aqr_perception.offline.output_files import pictures_every, token, write_files
from aqr_perception.offline.read_ahead import read_ahead
from aqr_perception.offline.recorded_topics import RecordedTopics
from aqr_perception.offline.settings import GivenParameters, settings_for

if TYPE_CHECKING:
    from aqr_perception.detector import Detector

PICTURES, RAW = "pictures", "raw"
"""Choices of weight maps in the output: ~/weights/*/image with the BEV grid, and ~/weights/*/raw."""

_ALWAYS = ("detections", "detections_3d", "objects", "markers", "tracks", "tracks_3d", "track_markers")
_PICTURE_TOPIC = re.compile(r"~/weights/.+/(image|grid)")
_RAW_TOPIC = re.compile(r"~/weights/.+/raw")
_READ_AHEAD = 2

_log = logging.getLogger("aqr_perception.process")

Progress = Callable[[float, int], object]
"""Called with the seconds of the bag that are done, and the number of answered frames."""


@dataclass(frozen=True)
class BagJob:
    """A bag to process.

    Attributes:
        folder: where the output files go.
        weight_maps: `PICTURES`, `RAW`, both or none.
        redo: whether output of other settings is replaced instead of refused.
        report_every: every n-th frame of the report has pictures; 0: there is no report; None: see `pictures_every`.
    """

    bag: Path
    folder: Path
    given: GivenParameters
    weight_maps: tuple[str, ...] = ()
    redo: bool = False
    report_every: int | None = None


class BagOutcome(NamedTuple):
    """What became of a bag.

    Attributes:
        frames, unanswered: numbers of answered frames, and of those without an answer.
        resumed: number of frames that were there before; all of them if the bag was finished.
        error: why the bag is not finished; empty if it is.
        files: names of the output files.
    """

    bag: Path
    frames: int = 0
    unanswered: int = 0
    resumed: int = 0
    finished_before: bool = False
    error: str = ""
    files: tuple[str, ...] = ()


def process_bag(job: BagJob, progress: Progress = lambda seconds, frames: None) -> BagOutcome:
    """Detect in a bag and write its output files; go on where an earlier call ended.

    Raises:
        OfflineError, BagError, OptionError, PresetError, CheckpointError, DeviceError, OSError: with the remedy.
    """
    with BagReader(job.bag) as bag:
        found = settings_for(job.given, bag)
        nuscenes = find_spec("nuscenes") is not None
        report = "automatic" if job.report_every is None else job.report_every
        outputs = {"weight_maps": sorted(job.weight_maps), "nuscenes results": nuscenes, "report": report}
        state = open_state(job.folder, made_by(found.values, job.bag, outputs), job.redo)
        if state.finished:
            return BagOutcome(job.bag, state.frames, state.unanswered, state.frames, finished_before=True)
        with Journal(job.folder / JOURNAL) as journal:
            resumed = journal.count
            run = _BagRun(job, bag, found.settings, journal, state, nuscenes)
            for remark in found.remarks:
                _log.info("%s: %s", job.bag.name, remark)
            files = run.finish(progress)
        (job.folder / JOURNAL).unlink()
    return BagOutcome(job.bag, state.frames, state.unanswered, resumed, files=tuple(files))


@lru_cache(maxsize=1)
def _detector(model: ModelSettings) -> "Detector":
    """Return a detector; the bags of a process share it."""
    detector = load_detector(model.preset, model.checkpoint or None, model.device, model.precision, model.image_backend)
    detector.try_out()
    return detector


class _Prepared(NamedTuple):
    """A frame that is ready for the detector; `placed` is None if there is no answer."""

    due: DueFrame
    placed: Placed | None


class _BagRun:
    """One pass over a bag."""

    def __init__(
        self, job: BagJob, bag: BagReader, settings: Settings, journal: Journal, state: BagState, nuscenes: bool
    ) -> None:
        self._job, self._bag, self._settings = job, bag, settings
        self._journal, self._state, self._nuscenes = journal, state, nuscenes
        self._said: Counter[str] = Counter()
        self._unanswered = journal.last.unanswered if journal.last is not None else 0
        self._detector = _detector(settings.model)
        self._detector.forget()
        assembler = supported_settings(settings.assembler, self._detector)
        if assembler.has_no_sensors:
            raise OfflineError(
                f"{bag.path}: model.preset {settings.model.preset} uses none of the enabled sensors; choose another "
                "model (--model), or enable a sensor that it uses"
            )
        self._playback = BagPlayback(bag, assembler, self._warn)
        self._topics = RecordedTopics(job.given.node, self._is_wanted)
        node = cast(Node, self._topics)
        cameras = [camera.name for camera in assembler.cameras]
        autoware = AutowareObjects(self._warn) if settings.autoware_objects else None
        outputs = Publishers(node, cameras, assembler.marker_lifetime, autoware)
        self._tracks = TrackPublisher(
            node, settings.tracking, count(1), assembler.fixed_frame, assembler.marker_lifetime, self._warn
        )
        self._steps = FrameSteps(
            self._playback.buffer, outputs, self._tracks, self._playback.clock, self._playback.pause, patient=True
        )
        self._report_every = pictures_every(job.report_every, bag, assembler)
        options = settings.detection.for_classes(self._detector.classes)
        self._options = replace(options, attention=options.attention or self._report_every > 0)

    def finish(self, progress: Progress) -> list[str]:
        """Process the rest of the bag and write the output files; return their names."""
        self._replay_tracks()
        start_ns = self._bag.start_ns
        for prepared in read_ahead(self._prepared(), _READ_AHEAD, "aqr_build"):
            if prepared.placed is not None:
                self._answer(prepared.due, prepared.placed)
            elif prepared.due.number > self._last_number:
                self._unanswered += 1
            progress((prepared.due.due_ns - start_ns) / 1e9, self._journal.count)
        if not self._journal.count:
            reasons = "; ".join(list(self._said)[:3]) or "no sensor's messages make a frame"
            raise OfflineError(f"{self._bag.path}: found no frame with an answer, needed one: {reasons}")
        files = write_files(
            self._job.folder,
            self._journal,
            self._nuscenes_frame(),
            self._detector.uses_cameras,
            self._detector.uses_lidar,
            self._report_every,
            [("model", Path(self._settings.model.preset).stem), ("without an answer", str(self._unanswered))],
        )
        self._state.finished, self._state.frames = True, self._journal.count
        self._state.unanswered, self._state.warnings = self._unanswered, dict(self._said)
        self._state.write(self._job.folder)
        return files

    @property
    def _last_number(self) -> int:
        return self._journal.last.number if self._journal.last is not None else 0

    def _prepared(self) -> Iterator[_Prepared]:
        """Yield the frames of the bag. Those that have an answer are built only for a model with memory."""
        last, remembers, number = self._journal.last, self._detector.remembers, 0
        for due in self._playback.frames():
            number = due.number
            if last is not None and due.number == last.number and due.request.stamp_ns != last.stamp_ns:
                raise OfflineError(
                    f"{self._bag.path}: found frame {due.number} at {due.request.stamp_ns} ns, needed {last.stamp_ns} "
                    "ns, as before the interruption; the bag has changed: give --redo"
                )
            if last is not None and due.number <= last.number and not remembers:
                yield _Prepared(due, None)
            else:
                yield _Prepared(due, self._placed(due))
        if last is not None and number < last.number:
            raise OfflineError(
                f"{self._bag.path}: found {number} frames, needed {last.number}, as before the interruption; the bag "
                "has changed: give --redo"
            )

    def _placed(self, due: DueFrame) -> Placed | None:
        """Return a frame with its place; None, with a warning, if it cannot have an answer."""
        request, detector = due.request, self._detector
        assembled, transforms = self._steps.build(request, detector.image_size[0], detector.placement)
        for warning in assembled.warnings:
            self._warn(warning)
        if assembled.frame is None:
            return None
        try:
            placed = self._steps.place(request, assembled.frame, assembled.sensors, transforms)
        except MessageError as error:
            self._warn(no_output(request.settings.output_frame, error))
            return None
        if placed.doubt:
            self._warn(placed.doubt)
        return placed

    def _answer(self, due: DueFrame, placed: Placed) -> None:
        """Detect in a frame and append the answer to the journal."""
        again = due.number <= self._last_number
        try:
            result = self._detector.detect(placed.frame, self._options)
        except Exception as error:  # a failed frame must not end the bag, as it does not end the node
            if not again:
                self._unanswered += 1
                self._warn(f"a frame failed and has no answer: {type(error).__name__}: {error}")
            return
        if again:
            return
        self._steps.publish(placed, result, due.epoch)
        name = token(self._job.folder.name, placed.frame.stamp_ns) if self._has_place(placed) else ""
        messages, tracking = self._topics.take(), self._settings.tracking.enabled
        report = None
        if self._report_every:
            with_pictures = self._journal.count % self._report_every == 0
            report = to_report(placed, result, self._options.aqr.sigma, with_pictures)
        self._journal.append(answered(due, placed, result, messages, self._unanswered, name, tracking, report))

    def _replay_tracks(self) -> None:
        """Give the tracker the frames of the journal."""
        if not self._settings.tracking.enabled:
            return
        for frame in self._journal.frames():
            observed = replayed(frame)
            if observed is not None:
                seen, detections, to_output, output_frame, epoch = observed
                result = Result(detections, WeightMaps(None, (0.0, 0.0, 0.0, 0.0), {}, "attention"))
                self._tracks.publish(seen, result, to_output, output_frame, epoch)
                self._topics.take()

    def _has_place(self, placed: Placed) -> bool:
        """Return whether the boxes of a frame belong in the result file of nuScenes."""
        if not self._nuscenes:
            return False
        if self._settings.assembler.fixed_frame and placed.frame.to_fixed is None:
            self._warn("a frame is not in the nuScenes results: found no transform to fixed_frame at its time")
            return False
        return True

    def _nuscenes_frame(self) -> str:
        """Return the frame of the boxes in nuScenes' result file; empty, with a warning, without nuscenes-devkit."""
        if not self._nuscenes:
            self._warn(
                "nuScenes results are left out: found no nuscenes-devkit, needed it; run: pip install --no-deps "
                "nuscenes-devkit==1.2.0"
            )
            return ""
        if not self._settings.assembler.fixed_frame:
            self._warn("nuScenes results are in the moving model frame, because fixed_frame is not set")
        return self._settings.assembler.fixed_frame or "model frame"

    def _is_wanted(self, topic: str) -> bool:
        if _PICTURE_TOPIC.fullmatch(topic):
            return PICTURES in self._job.weight_maps
        if _RAW_TOPIC.fullmatch(topic):
            return RAW in self._job.weight_maps
        return topic.removeprefix("~/") in _ALWAYS

    def _warn(self, text: str) -> None:
        """Log a warning once; those that differ only in numbers are of one kind."""
        kind = re.sub(r"\d+", "#", text)
        self._said[kind] += 1
        if self._said[kind] == 1:
            _log.warning("%s: %s", self._job.bag.name, text)
