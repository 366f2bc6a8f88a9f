"""Conversion of a `FrameRequest` to a `Frame`: decoding, calibration and ego motion."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2

from aqr_perception.frame import CameraView, Frame
from aqr_perception.nodes.input.conversions import picture_from_message, points_from_message
from aqr_perception.nodes.input.frame_request import LIDAR, AssemblerSettings, CameraInput, FrameRequest, SensorUse
from aqr_perception.nodes.input.lens import pinhole_picture
from aqr_perception.nodes.input.message_error import MessageError
from aqr_perception.nodes.input.sweeps import SweepBuffer
from aqr_perception.nodes.input.transforms import FrameTransforms
from aqr_perception.nodes.stamps import stamp_to_ns


class AssembledFrame(NamedTuple):
    """A request after decoding.

    Attributes:
        frame: the frame; None if no sensor has usable data.
        sensors: use of every configured sensor, the LiDAR first.
        warnings: one line for each fault, naming topic or frame.
    """

    frame: Frame | None
    sensors: tuple[SensorUse, ...]
    warnings: list[str]


class FrameBuilder:
    """Decoder of requests, which decodes each sweep only once. Use it from one thread."""

    def __init__(self) -> None:
        self._sweeps = SweepBuffer()

    def build(self, request: FrameRequest, transforms: FrameTransforms, image_width: int = 0) -> AssembledFrame:
        """Decode a request. A sensor with bad data is left out and named in the warnings.

        Args:
            transforms: transform lookups of this frame.
            image_width: width in pixels that the model needs; see `picture_from_message`.
        """
        if not request.model_frame:
            return _without_model_frame(request)
        uses, warnings = dict(request.left_out), list[str]()

        points: NDArray[np.float32] | None = None
        if request.sweeps:
            try:
                points = self._points(request, transforms, warnings)
                uses[LIDAR] = SensorUse(LIDAR, True, 0.0)
            except MessageError as error:
                warnings.append(str(error))
                uses[LIDAR] = SensorUse(LIDAR, False, 0.0, error.problem, str(error))

        views: list[CameraView] = []
        for camera in request.cameras:
            name, age = camera.settings.name, (request.stamp_ns - camera.stamp_ns) / 1e9
            try:
                views.append(_view(camera, request, transforms, image_width))
                uses[name] = SensorUse(name, True, age)
            except MessageError as error:
                warnings.append(str(error))
                uses[name] = SensorUse(name, False, age, error.problem, str(error))

        sensors = tuple(uses[name] for name in request.settings.sensors)
        if points is None and not views:
            reasons = ", ".join(f"{use.name}: {use.reason}" for use in sensors)
            warnings.append(f"no sensor is left for the frame at {request.stamp_ns / 1e9:.6f} s ({reasons})")
            return AssembledFrame(None, sensors, warnings)
        to_fixed = _to_fixed(request, transforms)
        frame = Frame(request.stamp_ns, points, tuple(views), request.model_frame, to_fixed)
        return AssembledFrame(frame, sensors, warnings)

    def _points(self, request: FrameRequest, transforms: FrameTransforms, warnings: list[str]) -> NDArray[np.float32]:
        """Decode the new sweeps and accumulate them; raise MessageError if the newest one is unusable."""
        settings = request.settings
        if self._sweeps.max_sweeps != settings.max_sweeps:
            self._sweeps = SweepBuffer(settings.max_sweeps)
        self._sweeps.keep_only({stamp_to_ns(sweep.header.stamp) for sweep in request.sweeps[1:]})
        for index, sweep in enumerate(request.sweeps):
            stamp_ns = stamp_to_ns(sweep.header.stamp)
            if stamp_ns in self._sweeps:
                continue
            try:
                points = _scaled_points(sweep, settings)
            except MessageError as error:
                if index == 0:
                    raise
                warnings.append(str(error))
                continue
            self._sweeps.add(stamp_ns, sweep.header.frame_id, points)
            if len(points) == 0:
                warnings.append(
                    f"{settings.lidar_topic}: empty point cloud: found no finite point, needed one; check the sensor"
                )
        accumulated, left_out = self._sweeps.accumulate(request.model_frame, request.stamp_ns, transforms)
        warnings.extend(left_out)
        return accumulated


def _without_model_frame(request: FrameRequest) -> AssembledFrame:
    """Return no frame, with a warning that names the remedy."""
    warning = (
        "no model frame for a camera-only frame: found no LiDAR message yet, needed a TF frame for the boxes; "
        "set the parameter `model_frame` or `output_frame`"
    )
    unused = (SensorUse(name, False, math.nan, "no model frame") for name in request.settings.sensors)
    return AssembledFrame(None, tuple(request.left_out.get(use.name, use) for use in unused), [warning])


def _to_fixed(request: FrameRequest, transforms: FrameTransforms) -> NDArray[np.float64] | None:
    """Return (4, 4), model frame -> fixed frame; None if the vehicle's motion is unknown."""
    fixed_frame = request.settings.fixed_frame
    if not fixed_frame:
        return None
    try:
        return transforms.lookup(fixed_frame, request.stamp_ns, request.model_frame, request.stamp_ns)
    except MessageError:
        return None  # only models with memory need it; TF failures of the sensors are already reported


def _scaled_points(sweep: PointCloud2, settings: AssemblerSettings) -> NDArray[np.float32]:
    points = points_from_message(sweep, settings.lidar_topic)
    points[:, 3] *= settings.intensity_scale
    return points


def _view(camera: CameraInput, request: FrameRequest, transforms: FrameTransforms, image_width: int) -> CameraView:
    settings = camera.settings
    picture = picture_from_message(camera.image, settings.image_topic, image_width)
    pinhole = pinhole_picture(picture, camera.info, settings.rectified, settings.info_topic)
    optical_frame = camera.image.header.frame_id or camera.info.header.frame_id
    extrinsics = transforms.lookup(optical_frame, camera.stamp_ns, request.model_frame, request.stamp_ns)
    extrinsics[:3, 3] += pinhole.baseline
    age = (request.stamp_ns - camera.stamp_ns) / 1e9
    return CameraView(settings.name, pinhole.pixels, pinhole.intrinsics, extrinsics, age)
