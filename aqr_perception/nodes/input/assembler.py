"""Assembly of sensor messages into frame requests: when a frame is due, and which messages it uses."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from message_filters import Cache, SimpleFilter
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from aqr_perception.nodes.input.frame_request import (
    INTENDED,
    LIDAR,
    AssemblerSettings,
    CameraInput,
    CameraSettings,
    FrameRequest,
    SensorUse,
)
from aqr_perception.nodes.input.message_history import MessageHistory
from aqr_perception.nodes.stamps import stamp_to_ns


@dataclass(frozen=True)
class _WaitingFrame:
    """A frame that waits for cameras.

    Attributes:
        sweep: the sweep that triggered the frame; None for a camera-only frame.
        since: start of the wait, in seconds of the assembler's clock.
    """

    sweep: PointCloud2 | None
    since: float

    @property
    def sweep_ns(self) -> int | None:
        return None if self.sweep is None else stamp_to_ns(self.sweep.header.stamp)


class Assembler:
    """Store of the sensors' recent messages, and decision when a frame is due; independent of DDS and TF.

    A sweep triggers a frame. The frame is due when every enabled camera has an image close enough in time, and at the
    latest `camera_wait` after the sweep arrived. Frames do not wait for a camera that missed the last frame; they wait
    for it again after it has delivered in time. Images trigger camera-only frames if the LiDAR is disabled, not
    configured, not used by the model, or silent while images arrive.

    The synchronizers of message_filters are not used: they emit nothing with staggered cameras or a missing sensor.

    Connect the sensors once. Then call `poll` after every message, and from a timer of about 10 ms. Use it from one
    thread.

    Args:
        on_time_jump: called with the seconds by which time jumped back (a bag restarts), after the messages from
            before the jump are dropped.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        settings: AssemblerSettings,
        on_time_jump: Callable[[float], object] = lambda seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._on_time_jump = on_time_jump
        self._clock = clock
        self._images: dict[str, MessageHistory] = {}
        self._infos: dict[str, Cache] = {}
        self._sweeps = MessageHistory(SimpleFilter(), settings.sweep_history, self._after_jump)
        self._lidar_frame = ""
        self._waiting: _WaitingFrame | None = None
        self._overtaken: _WaitingFrame | None = None
        self._last_image_arrival = -math.inf
        self._lidar_silent_since = -math.inf
        self._cameras_with_new_image: set[str] = set()
        self._next_camera_only = -math.inf
        self._last_frame_ns: int | None = None
        self._cameras_that_missed: set[str] = set()

    def connect_lidar(self, sweeps: SimpleFilter) -> None:
        """Take sweeps (PointCloud2) from a filter."""
        self._sweeps = MessageHistory(sweeps, self._settings.sweep_history, self._after_jump)
        sweeps.registerCallback(self._on_sweep)

    def connect_camera(self, name: str, images: SimpleFilter, infos: SimpleFilter) -> None:
        """Take a camera's images (Image or CompressedImage) and calibration (CameraInfo) from filters.

        Raises:
            KeyError: the settings have no such camera.
        """
        delay_ns = round(self._camera(name).offset * 1e9)
        self._images[name] = MessageHistory(images, self._settings.image_history, self._after_jump, delay_ns)
        self._infos[name] = Cache(infos, cache_size=1)
        images.registerCallback(self._on_image, name)

    @property
    def settings(self) -> AssemblerSettings:
        """Settings of the next frames; may be replaced at any time, with the same cameras."""
        return self._settings

    @settings.setter
    def settings(self, settings: AssemblerSettings) -> None:
        self._settings = settings
        self._sweeps.seconds = settings.sweep_history
        for images in self._images.values():
            images.seconds = settings.image_history
        self._drop_waiting_without_sweep()

    def poll(self) -> FrameRequest | None:
        """Return the frame that is due, or None. A newer sweep makes the frame before it due at once."""
        now = self._clock()
        if self._overtaken is not None:
            due, self._overtaken = self._overtaken, None
            return self._request(due.sweep)
        if self._waiting is None and self._camera_only_due(now):
            self._waiting = _WaitingFrame(None, now)
        if self._waiting is None:
            return None
        waited_enough = now - self._waiting.since >= self._settings.camera_wait
        if not waited_enough and not self._complete(self._waiting.sweep_ns):
            return None
        due, self._waiting = self._waiting, None
        if due.sweep is None:
            self._next_camera_only = now + self._settings.camera_only_period
        return self._request(due.sweep)

    # --- Arriving messages -----------------------------------------------------------------------------------------

    def _on_image(self, message: Image | CompressedImage, name: str) -> None:
        now = self._clock()
        if now - self._last_image_arrival > self._settings.lidar_timeout:
            self._lidar_silent_since = now  # after a pause of all sensors, the LiDAR gets its full time again
        self._last_image_arrival = now
        self._cameras_with_new_image.add(name)
        stamp_ns = self._images[name].stamp_ns(message)
        if self._last_frame_ns is not None and self._in_time(stamp_ns, self._last_frame_ns):
            self._cameras_that_missed.discard(name)

    def _on_sweep(self, message: PointCloud2) -> None:
        now = self._clock()
        self._lidar_frame = message.header.frame_id
        self._lidar_silent_since = now
        if self._settings.is_enabled(LIDAR):
            self._wait_for_cameras(_WaitingFrame(message, now))

    def _wait_for_cameras(self, frame: _WaitingFrame) -> None:
        """Let a sweep's frame wait for its cameras; ends the wait of an older frame."""
        waiting = self._waiting
        if waiting is not None and waiting.sweep_ns is not None and frame.sweep_ns is not None:
            if waiting.sweep_ns < frame.sweep_ns:
                self._overtaken = waiting
            elif waiting.sweep_ns > frame.sweep_ns:
                self._overtaken, frame = frame, waiting
        self._waiting = frame

    def _after_jump(self, stamp_ns: int, seconds: float) -> None:
        """Drop the messages and waiting frames from before a time jump."""
        # All messages are old if the sensor is too far ahead for a common frame: its time has not jumped yet.
        horizon_ns = stamp_ns + round(self._settings.max_camera_age * 1e9)
        for history in (self._sweeps, *self._images.values()):
            if history.has_later(horizon_ns):
                history.clear()
        self._last_frame_ns = None
        self._drop_waiting_without_sweep()
        self._cameras_that_missed.clear()
        self._on_time_jump(seconds)

    def _drop_waiting_without_sweep(self) -> None:
        """Drop waiting frames, except those with an enabled sweep that is still in the history."""
        sweeps = self._sweeps.cache_msgs if self._settings.is_enabled(LIDAR) else []
        stored = {stamp_to_ns(sweep.header.stamp) for sweep in sweeps}
        self._waiting = self._waiting if self._waiting and self._waiting.sweep_ns in stored else None
        self._overtaken = self._overtaken if self._overtaken and self._overtaken.sweep_ns in stored else None

    # --- Choice of messages ----------------------------------------------------------------------------------------

    def _camera_only_due(self, now: float) -> bool:
        enabled = filter(self._settings.is_enabled, self._cameras_with_new_image)
        if not any(len(self._images[name]) for name in enabled) or now < self._next_camera_only:
            return False
        if self._last_frame_ns is not None and self._frame_ns(None) <= self._last_frame_ns:
            return False  # the images arrived too late for the frame of their time
        return not self._settings.is_enabled(LIDAR) or now - self._lidar_silent_since > self._settings.lidar_timeout

    def _complete(self, sweep_ns: int | None) -> bool:
        """Whether every camera that the frame waits for has an image."""
        frame_ns = self._frame_ns(sweep_ns)
        awaited = (camera for camera in self._settings.cameras if camera.name not in self._cameras_that_missed)
        choices = (self._choose_image(camera, frame_ns) for camera in awaited)
        return all(isinstance(choice, CameraInput) or choice.reason in INTENDED for choice in choices)

    def _frame_ns(self, sweep_ns: int | None) -> int:
        """Return the stamp of a frame: the stamp of its sweep, or of the newest image without one."""
        if sweep_ns is not None:
            return sweep_ns
        enabled = (images for name, images in self._images.items() if self._settings.is_enabled(name))
        return max(images.newest_ns for images in enabled if images.newest_ns is not None)

    def _in_time(self, stamp_ns: int, frame_ns: int) -> bool:
        return abs(frame_ns - stamp_ns) <= self._settings.max_camera_age * 1e9

    def _choose_image(self, camera: CameraSettings, frame_ns: int) -> CameraInput | SensorUse:
        """Return a camera's image and calibration for a frame, or the reason for leaving the camera out."""
        history = self._images[camera.name]
        image, info = history.nearest(frame_ns), self._infos[camera.name].getLast()
        age = math.nan if image is None else (frame_ns - history.stamp_ns(image)) / 1e9
        if reason := self._settings.reason_left_out(camera.name):
            return SensorUse(camera.name, False, age, reason)
        if image is None:
            return SensorUse(camera.name, False, age, "no data")
        if not self._in_time(history.stamp_ns(image), frame_ns):
            return SensorUse(camera.name, False, age, "too old")
        if info is None:
            return SensorUse(camera.name, False, age, "no camera_info")
        return CameraInput(camera, image, info, history.stamp_ns(image))

    def _request(self, sweep: PointCloud2 | None) -> FrameRequest:
        settings = self._settings
        frame_ns = self._frame_ns(None if sweep is None else stamp_to_ns(sweep.header.stamp))
        cameras: list[CameraInput] = []
        left_out: dict[str, SensorUse] = {}
        if settings.lidar_topic and sweep is None:
            left_out[LIDAR] = self._absent_lidar(frame_ns)
        for camera in settings.cameras:
            choice = self._choose_image(camera, frame_ns)
            if isinstance(choice, CameraInput):
                cameras.append(choice)
            else:
                left_out[camera.name] = choice
        self._cameras_that_missed = {name for name, use in left_out.items() if use.reason not in INTENDED}
        # A newer image that is not in this frame triggers its own frame, because its sweep may never arrive.
        used_until = {camera.settings.name: max(camera.stamp_ns, frame_ns) for camera in cameras}
        self._cameras_with_new_image = {
            name
            for name in self._cameras_with_new_image
            if self._images[name].has_later(used_until.get(name, frame_ns))
        }
        self._last_frame_ns = max(frame_ns, self._last_frame_ns or frame_ns)
        model_frame = settings.model_frame or self._lidar_frame or settings.output_frame
        return FrameRequest(frame_ns, model_frame, self._sweeps_until(sweep), tuple(cameras), settings, left_out)

    def _sweeps_until(self, sweep: PointCloud2 | None) -> tuple[PointCloud2, ...]:
        """Return a sweep and the past sweeps to accumulate, newest first."""
        if sweep is None:
            return ()
        past = self._sweeps.until(stamp_to_ns(sweep.header.stamp) - 1)
        return (sweep, *past)[: self._settings.max_sweeps if self._settings.fixed_frame else 1]

    def _absent_lidar(self, frame_ns: int) -> SensorUse:
        newest_ns = self._sweeps.newest_ns
        age = math.nan if newest_ns is None else (frame_ns - newest_ns) / 1e9
        reason = self._settings.reason_left_out(LIDAR) or ("no data" if newest_ns is None else "too old")
        return SensorUse(LIDAR, False, age, reason)

    def _camera(self, name: str) -> CameraSettings:
        for camera in self._settings.cameras:
            if camera.name == name:
                return camera
        known = ", ".join(camera.name for camera in self._settings.cameras)
        raise KeyError(f"camera {name!r} is not configured; use one of: {known or '(none)'}")
