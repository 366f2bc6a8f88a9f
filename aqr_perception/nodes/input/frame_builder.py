# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Conversion of a `FrameRequest` to a `Frame`: decoding, calibration and ego motion."""

import math
from collections.abc import Callable, Mapping, MutableSet, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2

from aqr_perception.byte_cache import ByteSet, text_bytes
from aqr_perception.decoding import camera_images, lens
from aqr_perception.decoding.camera_images import Picture
from aqr_perception.decoding.message_error import MessageError, printable
from aqr_perception.decoding.plausibility import camera_doubt, check_distances
from aqr_perception.decoding.sensor_data import no_frame_id, pinhole_image, scaled_points
from aqr_perception.frame import CameraView, Frame, FramePlacement
from aqr_perception.nodes.input.frame_request import LIDAR, CameraInput, FrameRequest, LidarSettings, SensorUse
from aqr_perception.nodes.input.placement import PlacementCheck
from aqr_perception.nodes.input.sweeps import SweepBuffer, joined
from aqr_perception.nodes.input.transforms import FrameTransforms
from aqr_perception.nodes.stamps import stamp_to_ns
from aqr_perception.nodes.worker import WorkerPool
from aqr_perception.stage_clock import in_this_frame, measured

_CHECKED_EACH = 8
"""Of so many points, the distance of one is checked."""

DecodedT = TypeVar("DecodedT")
_MOST_SAID_BYTES = 2**20


class AssembledFrame(NamedTuple):
    """A request after decoding.

    Attributes:
        frame: the frame; None if no sensor has usable data.
        sensors: use of every configured sensor, the LiDARs first.
        warnings: one line for each fault, naming topic or frame. A doubt about usable data comes only once.
        unexpected: errors other than `MessageError`; each is also in the warnings.
        doubts: what is odd about the model frame, as long as it is.
    """

    frame: Frame | None
    sensors: tuple[SensorUse, ...]
    warnings: list[str]
    unexpected: list[Exception]
    doubts: Sequence[MessageError] = ()


class _Report:
    """What one frame reports: the use of its sensors, warnings and unexpected errors."""

    def __init__(self, request: FrameRequest, said: MutableSet[tuple[str, str]]) -> None:
        self.uses = dict(request.left_out)
        self.warnings: list[str] = []
        self.unexpected: list[Exception] = []
        self._said = said

    def guard(
        self, name: str, topic: str, age: float, decode: Callable[[list[MessageError]], DecodedT]
    ) -> DecodedT | None:
        """Return what a sensor's decoding returns; None if it fails in any way. The other sensors are not affected."""
        doubts: list[MessageError] = []
        try:
            decoded = decode(doubts)
        except Exception as error:
            self.leave_out(name, age, topic, error)
            return None
        sentences, problems = "; ".join(map(str, doubts)), ", ".join(doubt.problem for doubt in doubts)
        self.uses[name] = SensorUse(name, True, age, detail=sentences, doubt=problems)
        self.say_once(name, doubts)
        return decoded

    def leave_out(self, name: str, age: float, topic: str, error: Exception) -> None:
        reason = self.failure(topic, error)
        self.uses[name] = SensorUse(name, False, age, reason, detail=self.warnings[-1])

    def failure(self, topic: str, error: Exception) -> str:
        """Warn of an error; return its reason in a few words."""
        if isinstance(error, MessageError):
            self.warnings.append(str(error))
            return error.problem
        reason = printable(f"{type(error).__name__}: {error}")
        self.warnings.append(
            f"{topic}: unexpected error: found {reason}, needed a usable message; report this as a bug"
        )
        self.unexpected.append(error)
        return reason

    def say_once(self, subject: str, doubts: list[MessageError]) -> None:
        for doubt in doubts:
            if (subject, doubt.problem) not in self._said:
                self._said.add((subject, doubt.problem))
                self.warnings.append(str(doubt))


class FrameBuilder:
    """Decoder of requests, which decodes each sweep only once. Use it from one thread."""

    def __init__(self) -> None:
        self._sweeps: dict[str, SweepBuffer] = {}
        self._decoders = WorkerPool("aqr_decode")
        self._placement = PlacementCheck()
        self._said: ByteSet[tuple[str, str]] = ByteSet(_MOST_SAID_BYTES, lambda said: text_bytes(*said))

    def build(
        self,
        request: FrameRequest,
        transforms: FrameTransforms,
        image_width: int = 0,
        placement: FramePlacement | None = None,
    ) -> AssembledFrame:
        """Decode a request. A sensor with bad data is left out and named in the warnings.

        Args:
            transforms: transform lookups of this frame.
            image_width: width in pixels that the model needs; see `picture_from_message`.
            placement: where the model's frame lies; None if unknown.
        """
        report = _Report(request, self._said)
        if not request.model_frame:
            return _without_model_frame(request, report)
        points = self._joined_points(request, transforms, report)
        ahead = self._decode_ahead(request.cameras, image_width)
        views: list[CameraView] = []
        for camera in request.cameras:
            view = _guarded_view(camera, request, transforms, image_width, report, ahead)
            if view is not None:
                views.append(view)

        sensors = tuple(report.uses[name] for name in request.settings.sensors)
        if points is None and not views:
            reasons = ", ".join(f"{use.name}: {use.reason}" for use in sensors)
            report.warnings.append(f"no sensor is left for the frame at {request.stamp_ns / 1e9:.6f} s ({reasons})")
            return AssembledFrame(None, sensors, report.warnings, report.unexpected)
        to_fixed = _to_fixed(request, transforms)
        frame = Frame(request.stamp_ns, points, tuple(views), request.model_frame, to_fixed)
        topics = ", ".join(lidar.topic for lidar in request.settings.lidars)
        doubts = self._placement.doubts(frame, placement, topics)
        report.say_once(request.model_frame, doubts)
        return AssembledFrame(frame, sensors, report.warnings, report.unexpected, doubts)

    def _decode_ahead(self, cameras: Sequence[CameraInput], image_width: int) -> dict[int, Picture]:
        """Return the pictures that decode without error or doubt, by the `id` of their message."""
        work = [in_this_frame(partial(_sound_picture, camera, image_width), "decode") for camera in cameras]
        with measured("wait"):
            pictures = self._decoders.run(work)
        return {id(camera.image): picture for camera, picture in zip(cameras, pictures, strict=True) if picture}

    def _joined_points(
        self, request: FrameRequest, transforms: FrameTransforms, report: _Report
    ) -> NDArray[np.float32] | None:
        """Return the points (N, 5) of all LiDARs in the model frame; None if no LiDAR has a usable message."""
        report.say_once(request.model_frame, _model_frame_doubts(request))
        clouds: list[NDArray[np.float32]] | None = None
        for lidar in request.settings.lidars:
            sweeps = request.sweeps_of(lidar.name)
            if not sweeps:
                continue
            age = (request.stamp_ns - stamp_to_ns(sweeps[0].header.stamp)) / 1e9
            decode = partial(self._points, lidar, sweeps, request, transforms, report)
            found = report.guard(lidar.name, lidar.topic, age, decode)
            if found is None:
                continue
            if not found:
                report.leave_out(lidar.name, age, lidar.topic, _no_returns(sweeps[0], lidar.topic))
            clouds = [*(clouds or ()), *found]
        return None if clouds is None else joined(clouds)

    def _points(
        self,
        lidar: LidarSettings,
        sweeps: tuple[PointCloud2, ...],
        request: FrameRequest,
        transforms: FrameTransforms,
        report: _Report,
        doubts: list[MessageError],
    ) -> list[NDArray[np.float32]]:
        """Return a LiDAR's sweeps in the model frame, newest first; raise an error if the newest one is unusable.

        Past sweeps are left out if the newest one has no returns: the LiDAR is blind, and they would hide it.
        """
        buffer = self._sweeps.setdefault(lidar.name, SweepBuffer())
        stamps_ns = [stamp_to_ns(sweep.header.stamp) for sweep in sweeps]
        settings = request.settings
        # Sweeps between the chosen ones stay, for the frames to come.
        span_ns = round(settings.sweep_interval * (settings.max_sweeps - 1) * 1e9)
        buffer.keep_between(min(stamps_ns[-1], stamps_ns[0] - span_ns), stamps_ns[0] - 1)
        newest, *past = sweeps
        for sweep in past:
            try:
                _add(sweep, lidar, buffer, [])
            except Exception as error:
                report.failure(lidar.topic, error)
        _add(newest, lidar, buffer, doubts)
        if buffer.is_empty(stamps_ns[0]):
            return []
        moved, left_out = buffer.moved(stamps_ns, request.model_frame, request.stamp_ns, transforms)
        report.warnings.extend(left_out)
        check_distances(np.concatenate([cloud[::_CHECKED_EACH] for cloud in moved]), lidar.topic)
        return moved


def _add(sweep: PointCloud2, lidar: LidarSettings, buffer: SweepBuffer, doubts: list[MessageError]) -> None:
    """Decode a sweep, unless it is in the buffer."""
    stamp_ns = stamp_to_ns(sweep.header.stamp)
    if stamp_ns not in buffer:
        points = scaled_points(sweep, lidar.topic, lidar.intensity_scale, doubts, lidar.scale_parameter)
        buffer.add(stamp_ns, sweep.header.frame_id, points)


def _model_frame_doubts(request: FrameRequest) -> list[MessageError]:
    """Return a doubt if the model frame will change as soon as the first of several LiDARs sends its first sweep."""
    settings = request.settings
    first = request.left_out.get(LIDAR)
    if settings.model_frame or not request.has_sweeps or first is None or not math.isnan(first.age):
        return []
    topic, found = settings.lidar_topic, f"{request.model_frame!r}, because no sweep of the first LiDAR has arrived"
    remedy = "set `model_frame`"
    return [MessageError(topic, "model frame may change", found, "one frame for all sweeps", remedy)]


def _without_model_frame(request: FrameRequest, report: _Report) -> AssembledFrame:
    """Return no frame, with a warning that names the remedy."""
    if request.has_sweeps:
        report.failure("", no_frame_id(request.settings.lidar_topic, "`model_frame` or `output_frame` for the cameras"))
    else:
        report.warnings.append(
            "no model frame for a camera-only frame: found no LiDAR message yet, needed a TF frame for the boxes; "
            "set the parameter `model_frame` or `output_frame`"
        )
    unused = (SensorUse(name, False, math.nan, "no model frame") for name in request.settings.sensors)
    sensors = tuple(request.left_out.get(use.name, use) for use in unused)
    return AssembledFrame(None, sensors, report.warnings, report.unexpected)


def _to_fixed(request: FrameRequest, transforms: FrameTransforms) -> NDArray[np.float64] | None:
    """Return (4, 4), model frame -> fixed frame; None if the vehicle's motion is unknown."""
    fixed_frame = request.settings.fixed_frame
    if not fixed_frame:
        return None
    try:
        return transforms.lookup(fixed_frame, request.stamp_ns, request.model_frame, request.stamp_ns)
    except MessageError:
        return None  # only models with memory need it; TF failures of the sensors are already reported


def _no_returns(sweep: PointCloud2, topic: str) -> MessageError:
    found = f"{sweep.width} x {sweep.height} points, none finite and away from the origin"
    return MessageError(topic, "empty point cloud", found, "one or more returns", "check the sensor")


def _sound_picture(camera: CameraInput, image_width: int) -> Picture | None:
    """Return a camera's picture; None if it has a fault, which its view then reports in turn."""
    settings, doubts = camera.settings, list[MessageError]()
    try:
        described = lens.described_size(camera.info, settings.info_topic)
        picture = camera_images.picture_from_message(camera.image, settings.image_topic, image_width, described, doubts)
    except Exception:
        return None
    return None if doubts else picture


def _guarded_view(
    camera: CameraInput,
    request: FrameRequest,
    transforms: FrameTransforms,
    image_width: int,
    report: _Report,
    ahead: Mapping[int, Picture],
) -> CameraView | None:
    """Return a camera's view; None, with a report, if its data is unusable."""
    age = (request.stamp_ns - camera.stamp_ns) / 1e9

    def decode(doubts: list[MessageError]) -> CameraView:
        return _view(camera, request, transforms, image_width, doubts, ahead)

    return report.guard(camera.settings.name, camera.settings.image_topic, age, decode)


def _view(
    camera: CameraInput,
    request: FrameRequest,
    transforms: FrameTransforms,
    image_width: int,
    doubts: list[MessageError],
    ahead: Mapping[int, Picture],
) -> CameraView:
    settings, info = camera.settings, camera.info
    optical_frame = camera.image.header.frame_id or info.header.frame_id
    if not optical_frame:
        raise no_frame_id(settings.image_topic)
    pinhole = pinhole_image(
        camera.image,
        info,
        settings.image_topic,
        settings.info_topic,
        settings.rectified,
        settings.baseline_in_tf,
        image_width,
        doubts,
        ahead.get(id(camera.image)),
    )
    extrinsics = transforms.lookup(optical_frame, camera.stamp_ns, request.model_frame, request.stamp_ns)
    doubt = camera_doubt(extrinsics, optical_frame, settings.image_topic)
    if doubt is not None:
        doubts.append(doubt)
    extrinsics[:3, 3] += pinhole.baseline
    age = (request.stamp_ns - camera.stamp_ns) / 1e9
    return CameraView(settings.name, pinhole.pixels, pinhole.intrinsics, extrinsics, age)
