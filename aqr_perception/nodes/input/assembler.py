"""Assembly of sensor messages into frame requests: when a frame is due, and which messages it uses."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from message_filters import Cache, SimpleFilter
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from aqr_perception.nodes.clocks.sensor_clocks import Accepted, ClockReport, SensorClocks
from aqr_perception.nodes.clocks.stamp_sequence import LATE_NS, TOLERANCE_NS, Arrival
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
from aqr_perception.nodes.stamps import stamp_to_ns, with_stamp

_LONGEST_LAG = 1.0
"""Seconds by which sweeps may lag behind images; images are kept for so much longer."""

_SHORTEST_PERIOD_NS = 1_000_000
"""Smallest step between two messages stamped by arrival."""

_BEHIND_SECONDS = 1.0
"""Seconds of messages from before the last frame, and no others, after which time has jumped back."""


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

    Stamps are judged by `SensorClocks`: time jumps back where the stamps of most sensors do, and a sensor whose stamps
    are wrong is left out or used by its time of arrival, as `clock_policy` says. The stamps of the frames increase; a
    sweep that arrives after a later frame makes none.

    Args:
        on_time_jump: called with the seconds by which time jumped back (a bag restarts), after the messages from
            before the jump are dropped.
        clock: a monotonic clock, in seconds.
        clock_ns: the clock that stamps are compared with, in nanoseconds: the node's clock, which follows /clock with
            `use_sim_time`; 0 as long as it shows no time. None: stamps are compared with each other only.
        simulated: returns whether that clock follows /clock, which may lag behind the stamps a little.
    """

    def __init__(
        self,
        settings: AssemblerSettings,
        on_time_jump: Callable[[float], object] = lambda seconds: None,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] | None = None,
        simulated: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._on_time_jump = on_time_jump
        self._clock, self._clock_ns, self._simulated = clock, clock_ns, simulated
        self._images: dict[str, MessageHistory] = {}
        self._infos: dict[str, Cache] = {}
        self._sweeps = MessageHistory(settings.sweep_history)
        same_frame = settings.max_camera_age
        self._clocks = SensorClocks(
            (LIDAR, *(camera.name for camera in settings.cameras)),
            round(same_frame * 1e9),
            round((same_frame + settings.camera_wait) * 1e9),
        )
        self._by_arrival: dict[str, bool] = {}
        self._late_sweeps = 0
        self._behind_since: float | None = None
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
        sweeps.registerCallback(self._on_message, LIDAR)

    def connect_camera(self, name: str, images: SimpleFilter, infos: SimpleFilter) -> None:
        """Take a camera's images (Image or CompressedImage) and calibration (CameraInfo) from filters.

        Raises:
            KeyError: the settings have no such camera.
        """
        delay_ns = round(self._camera(name).offset * 1e9)
        self._images[name] = MessageHistory(self._settings.image_history, delay_ns)
        self._infos[name] = Cache(infos, cache_size=1)
        images.registerCallback(self._on_message, name)

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
            return self._request(due)
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
        return self._request(due)

    def clock_reports(self) -> dict[str, ClockReport]:
        """Return the state of every sensor's stamps."""
        now = self._clock()
        return {
            name: replace(self._clocks.report(name, now), by_arrival=self._by_arrival.get(name, False))
            for name in self._settings.sensors
        }

    @property
    def stamps_to_clock(self) -> float:
        """Seconds from the node's clock to the time of the sensors, latency included; NaN if unknown."""
        return self._clocks.to_clock

    @property
    def in_clock_time(self) -> bool:
        """Whether the node's clock shows the time of the stamps."""
        return self._clocks.agree_with_clock

    @property
    def late_sweeps(self) -> int:
        """Number of sweeps that arrived after a later frame, and so made none."""
        return self._late_sweeps

    def now_ns(self) -> int:
        """Return the present in the time of the stamps, minus the sensors' latency; 0 if it is unknown."""
        arrival = self._arrival()
        known = self._clocks.has_clock or self._clocks.has_reference
        return self._clocks.now_ns(arrival) if known else 0

    def forget(self, seconds: float) -> None:
        """Forget the messages from before a jump of the clock back by some seconds; those of the new time stay."""
        self._after_jump(self._arrival().clock_ns + TOLERANCE_NS, seconds)
        self._clocks.forget()

    # --- Arriving messages -----------------------------------------------------------------------------------------

    def _on_message(self, message: Image | CompressedImage | PointCloud2, sensor: str) -> None:
        arrival, history = self._arrival(), self._history(sensor)
        if stamp_to_ns(message.header.stamp) <= 0:
            self._clocks.add_unstamped(sensor, arrival)
            accepted = Accepted()
        else:
            accepted = self._clocks.add(sensor, history.stamp_ns(message), arrival, message)
        if accepted.jump:
            earliest_ns = min(self._history(name).stamp_ns(held) for name, held in accepted.messages)
            # All messages are old if a sensor is too far ahead for a common frame: its time has not jumped yet.
            self._after_jump(earliest_ns + round(self._settings.max_camera_age * 1e9), accepted.jump)
        self._clear(accepted.restarted)
        self._follow_policy(arrival.steady)
        if self._by_arrival.get(sensor):
            now_ns = self._clocks.now_ns(arrival)
            if history.newest_ns is not None:
                now_ns = max(now_ns, history.newest_ns + _SHORTEST_PERIOD_NS)  # the clock may be paused
            self._store(sensor, with_stamp(message, history.header_ns(now_ns)), arrival.steady)
        for name, usable in accepted.messages:
            if not self._clocks.fault(name):
                self._store(name, usable, arrival.steady)

    def _store(self, sensor: str, message: Image | CompressedImage | PointCloud2, now: float) -> None:
        """Keep a message for frames, and note what it triggers."""
        history = self._history(sensor)
        history.add(message)
        stamp_ns = history.stamp_ns(message)
        if sensor == LIDAR:
            self._after_sweep(message, now)
        else:
            self._after_image(sensor, stamp_ns, now)
        self._notice_unseen_jump(stamp_ns, now)

    def _after_image(self, name: str, stamp_ns: int, now: float) -> None:
        if now - self._last_image_arrival > self._settings.lidar_timeout:
            self._lidar_silent_since = now  # after a pause of all sensors, the LiDAR gets its full time again
        self._last_image_arrival = now
        self._cameras_with_new_image.add(name)
        if self._last_frame_ns is not None and self._in_time(stamp_ns, self._last_frame_ns):
            self._cameras_that_missed.discard(name)

    def _after_sweep(self, message: PointCloud2, now: float) -> None:
        self._lidar_frame = message.header.frame_id
        self._lidar_silent_since = now
        self._keep_images_for(stamp_to_ns(message.header.stamp))
        if self._settings.is_enabled(LIDAR):
            self._wait_for_cameras(_WaitingFrame(message, now))

    def _keep_images_for(self, sweep_ns: int) -> None:
        """Keep images for as long as the sweeps lag behind them."""
        newest = [images.newest_ns for images in self._images.values() if images.newest_ns is not None]
        lag = min(max([0.0, *((newest_ns - sweep_ns) / 1e9 for newest_ns in newest)]), _LONGEST_LAG)
        for images in self._images.values():
            images.seconds = max(images.seconds, self._settings.image_history + lag)

    def _notice_unseen_jump(self, stamp_ns: int, now: float) -> None:
        """Let frames go on where all messages are from before the last frame: its stamp was wrong, or time jumped."""
        if self._last_frame_ns is None or stamp_ns > self._last_frame_ns - LATE_NS:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        elif now - self._behind_since >= _BEHIND_SECONDS:
            horizon_ns = stamp_ns + round(self._settings.max_camera_age * 1e9)
            self._after_jump(horizon_ns, (self._last_frame_ns - stamp_ns) / 1e9)

    def _wait_for_cameras(self, frame: _WaitingFrame) -> None:
        """Let a sweep's frame wait for its cameras; ends the wait of an older frame."""
        waiting = self._waiting
        if waiting is not None and waiting.sweep_ns is not None and frame.sweep_ns is not None:
            if waiting.sweep_ns < frame.sweep_ns:
                self._overtaken = waiting
            elif waiting.sweep_ns > frame.sweep_ns:
                self._overtaken, frame = frame, waiting
        self._waiting = frame

    def _after_jump(self, horizon_ns: int, seconds: float) -> None:
        """Drop the messages and waiting frames from before a time jump, after which no stamp is above a horizon."""
        for history in (self._sweeps, *self._images.values()):
            if history.has_later(horizon_ns):
                history.clear()
        self._last_frame_ns = self._behind_since = None
        self._drop_waiting_without_sweep()
        self._cameras_that_missed.clear()
        self._on_time_jump(seconds)

    def _drop_waiting_without_sweep(self) -> None:
        """Drop waiting frames, except those with an enabled sweep that is still in the history."""
        if not self._settings.is_enabled(LIDAR):
            self._waiting = self._overtaken = None
        for frame in (self._waiting, self._overtaken):
            if frame is not None and (frame.sweep_ns is None or frame.sweep_ns not in self._sweeps):
                self._waiting = None if frame is self._waiting else self._waiting
                self._overtaken = None if frame is self._overtaken else self._overtaken

    # --- Wrong stamps ----------------------------------------------------------------------------------------------

    def _arrival(self) -> Arrival:
        """Return the present; without the node's clock, the monotonic one stands in."""
        now, clock_ns = self._clock(), self._clock_ns() if self._clock_ns is not None else 0
        self._clocks.has_clock, self._clocks.coarse = clock_ns > 0, self._simulated()
        return Arrival(now, clock_ns if clock_ns > 0 else round(now * 1e9))

    def _follow_policy(self, now: float) -> None:
        """Choose between stamps and times of arrival; a sensor that changes over loses its earlier messages."""
        if self._clocks.all_right and not any(self._by_arrival.values()):
            return
        for sensor in self._settings.sensors:
            by_arrival = bool(self._clocks.fault(sensor)) and self._wants_arrival(now)
            before = self._by_arrival.get(sensor, False)
            if by_arrival != before or (self._clocks.fault(sensor) and not by_arrival):
                self._clear([sensor])
            self._by_arrival[sensor] = by_arrival

    def _wants_arrival(self, now: float) -> bool:
        if self._settings.clock_policy == "auto":
            return not any(self._clocks.healthy(name, now) for name in self._settings.sensors if self._is_used(name))
        return self._settings.clock_policy == "arrival"

    def _is_used(self, sensor: str) -> bool:
        """Return whether a sensor takes part by its settings, and has stamps or times of arrival to use."""
        if not self._settings.is_enabled(sensor):
            return False
        return not self._clocks.fault(sensor) or self._by_arrival.get(sensor, False)

    def _clear(self, sensors: Sequence[str]) -> None:
        """Drop the messages of some sensors."""
        for sensor in sensors:
            history = self._history(sensor)
            if len(history):
                history.clear()
                if sensor == LIDAR:
                    self._drop_waiting_without_sweep()

    def _history(self, sensor: str) -> MessageHistory:
        return self._sweeps if sensor == LIDAR else self._images[sensor]

    # --- Choice of messages ----------------------------------------------------------------------------------------

    def _camera_only_due(self, now: float) -> bool:
        if self._is_used(LIDAR) and now - self._lidar_silent_since <= self._settings.lidar_timeout:
            return False
        if now < self._next_camera_only or not self._new_images():
            return False
        # Otherwise the images arrived too late for the frame of their time.
        return self._last_frame_ns is None or self._frame_ns(None) > self._last_frame_ns

    def _complete(self, sweep_ns: int | None) -> bool:
        """Whether every camera that the frame waits for has an image."""
        frame_ns = self._frame_ns(sweep_ns)
        awaited = (camera for camera in self._settings.cameras if camera.name not in self._cameras_that_missed)
        choices = (self._choose_image(camera, frame_ns) for camera in awaited)
        return all(
            isinstance(choice, CameraInput) or choice.reason in (*INTENDED, self._clocks.fault(choice.name))
            for choice in choices
        )

    def _new_images(self) -> dict[str, int]:
        """Return the newest stamps of the cameras that have sent images since the last frame."""
        newest = {name: self._images[name].newest_ns for name in self._cameras_with_new_image if self._is_used(name)}
        return {name: stamp_ns for name, stamp_ns in newest.items() if stamp_ns is not None}

    def _frame_ns(self, sweep_ns: int | None) -> int:
        """Return the stamp of a frame: that of its sweep, or without one, that of the newest image.

        A few cameras ahead of the others do not count: the stamp is one that most of the new images are near to.
        """
        if sweep_ns is not None:
            return sweep_ns
        stamps = list(self._new_images().values())
        return max(stamps, key=lambda one: (sum(self._in_time(other, one) for other in stamps), one))

    def _in_time(self, stamp_ns: int, frame_ns: int) -> bool:
        return abs(frame_ns - stamp_ns) <= self._settings.max_camera_age * 1e9

    def _choose_image(self, camera: CameraSettings, frame_ns: int) -> CameraInput | SensorUse:
        """Return a camera's image and calibration for a frame, or the reason for leaving the camera out."""
        history = self._images[camera.name]
        image, info = history.nearest(frame_ns), self._infos[camera.name].getLast()
        age = math.nan if image is None else (frame_ns - history.stamp_ns(image)) / 1e9
        reason = self._settings.reason_left_out(camera.name)
        if reason or not self._is_used(camera.name):
            return SensorUse(camera.name, False, age, reason or self._clocks.fault(camera.name))
        if image is None:
            return SensorUse(camera.name, False, age, "no data")
        if not self._in_time(history.stamp_ns(image), frame_ns):
            return SensorUse(camera.name, False, age, "too old")
        if info is None:
            return SensorUse(camera.name, False, age, "no camera_info")
        return CameraInput(camera, image, info, history.stamp_ns(image))

    def _request(self, due: _WaitingFrame) -> FrameRequest | None:
        """Return a frame, unless it is not newer than the last one."""
        settings, sweep = self._settings, due.sweep
        if sweep is None and not self._new_images():
            return None  # the sensors were left out in the meantime
        frame_ns = self._frame_ns(due.sweep_ns)
        if self._last_frame_ns is not None and frame_ns <= self._last_frame_ns:
            self._late_sweeps += sweep is not None
            return None
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
        self._last_frame_ns = frame_ns
        model_frame = settings.model_frame or self._lidar_frame or settings.output_frame
        sweeps, in_clock_time = self._sweeps_until(sweep), self._clocks.agree_with_clock
        return FrameRequest(frame_ns, model_frame, sweeps, tuple(cameras), settings, left_out, due.since, in_clock_time)

    def _sweeps_until(self, sweep: PointCloud2 | None) -> tuple[PointCloud2, ...]:
        """Return a sweep and the past sweeps to accumulate, newest first."""
        if sweep is None:
            return ()
        past = self._sweeps.until(stamp_to_ns(sweep.header.stamp) - 1)
        return (sweep, *past)[: self._settings.max_sweeps if self._settings.fixed_frame else 1]

    def _absent_lidar(self, frame_ns: int) -> SensorUse:
        newest_ns = self._sweeps.newest_ns
        age = math.nan if newest_ns is None else (frame_ns - newest_ns) / 1e9
        reason = self._settings.reason_left_out(LIDAR)
        if not reason:
            reason = self._clocks.fault(LIDAR) or ("no data" if newest_ns is None else "too old")
        return SensorUse(LIDAR, False, age, reason)

    def _camera(self, name: str) -> CameraSettings:
        for camera in self._settings.cameras:
            if camera.name == name:
                return camera
        known = ", ".join(camera.name for camera in self._settings.cameras)
        raise KeyError(f"camera {name!r} is not configured; use one of: {known or '(none)'}")
