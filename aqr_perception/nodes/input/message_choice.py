# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Choice of the images and sweeps of a frame."""

import math

from sensor_msgs.msg import PointCloud2

from aqr_perception.nodes.input.frame_request import (
    INTENDED,
    AssemblerSettings,
    CameraInput,
    CameraSettings,
    LidarSettings,
    SensorUse,
)
from aqr_perception.nodes.input.received_messages import ReceivedMessages
from aqr_perception.nodes.stamps import stamp_to_ns
from aqr_perception.sweep_choice import spaced_sweeps

Sweeps = tuple[PointCloud2, ...]


class MessageChoice:
    """Choice, for a frame, of each sensor's message nearest in time; or the reason for leaving a sensor out."""

    def __init__(self, received: ReceivedMessages) -> None:
        self._received = received

    @property
    def _settings(self) -> AssemblerSettings:
        return self._received.settings

    def image_in_time(self, stamp_ns: int, frame_ns: int) -> bool:
        """Return whether an image is near enough to a frame."""
        return abs(frame_ns - stamp_ns) <= self._settings.max_camera_age * 1e9

    def image(self, camera: CameraSettings, frame_ns: int) -> CameraInput | SensorUse:
        """Return a camera's image and calibration."""
        history, info = self._received.history(camera.name), self._received.info(camera.name)
        image = history.nearest(frame_ns)
        age = math.nan if image is None else (frame_ns - history.stamp_ns(image)) / 1e9
        reason = self._reason_left_out(camera.name)
        if reason:
            return SensorUse(camera.name, False, age, reason)
        if image is None:
            return SensorUse(camera.name, False, age, "no data")
        if not self.image_in_time(history.stamp_ns(image), frame_ns):
            return SensorUse(camera.name, False, age, "too old")
        if info is None:
            return SensorUse(camera.name, False, age, "no camera_info")
        return CameraInput(camera, image, info, history.stamp_ns(image))

    def awaits_image(self, camera: CameraSettings, frame_ns: int) -> bool:
        """Return whether a frame has no image of a camera that may still send one."""
        choice = self.image(camera, frame_ns)
        if isinstance(choice, CameraInput):
            return False
        return choice.reason not in (*INTENDED, self._received.clocks.fault(camera.name))

    def sweeps(self, lidar: LidarSettings, frame_ns: int, trigger: PointCloud2 | None = None) -> Sweeps | SensorUse:
        """Return a LiDAR's sweep and the past sweeps to accumulate, newest first.

        Args:
            trigger: the sweep of this LiDAR that triggered the frame; None: the nearest one is chosen.
        """
        if trigger is not None:
            return self._with_past(lidar, trigger)
        nearest = self._received.history(lidar.name).nearest(frame_ns)
        age = math.nan if nearest is None else (frame_ns - stamp_to_ns(nearest.header.stamp)) / 1e9
        reason = self._reason_left_out(lidar.name)
        if reason:
            return SensorUse(lidar.name, False, age, reason)
        if nearest is None:
            return SensorUse(lidar.name, False, age, "no data")
        if abs(age) > self._settings.max_lidar_age:
            return SensorUse(lidar.name, False, age, "too old")
        return self._with_past(lidar, nearest)

    def awaits_sweep(self, lidar: LidarSettings, frame_ns: int) -> bool:
        """Return whether a LiDAR's next sweep is expected to be nearer to a frame than its newest one."""
        if self._reason_left_out(lidar.name):
            return False
        history = self._received.history(lidar.name)
        if history.newest_ns is None:
            return True
        behind_ns = frame_ns - history.newest_ns
        if behind_ns <= 0:
            return False
        return history.period_ns is None or history.period_ns < 2 * behind_ns

    def _with_past(self, lidar: LidarSettings, sweep: PointCloud2) -> Sweeps:
        settings = self._settings
        if not settings.fixed_frame:
            return (sweep,)
        stamp_ns = stamp_to_ns(sweep.header.stamp)
        oldest_ns = stamp_ns - round(settings.sweep_history * 1e9)
        past = self._received.history(lidar.name).until(stamp_ns - 1)
        recent = (sweep, *(one for one in past if stamp_to_ns(one.header.stamp) >= oldest_ns))
        stamps_ns = [stamp_to_ns(one.header.stamp) for one in recent]
        return tuple(recent[index] for index in spaced_sweeps(stamps_ns, settings.max_sweeps, settings.sweep_interval))

    def _reason_left_out(self, sensor: str) -> str:
        """Return why a sensor takes no part, by the settings or for its stamps; empty if it does."""
        reason = self._settings.reason_left_out(sensor)
        if reason or self._received.is_used(sensor):
            return reason
        return self._received.clocks.fault(sensor)
