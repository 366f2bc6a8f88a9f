# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Assembly of sensor messages into frame requests: when a frame is due, and which messages it uses."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from message_filters import SimpleFilter
from sensor_msgs.msg import PointCloud2

from aqr_perception.nodes.clocks.sensor_clocks import ClockReport
from aqr_perception.nodes.clocks.stamp_sequence import LATE_NS, TOLERANCE_NS
from aqr_perception.nodes.input.frame_request import (
    INTENDED,
    LIDAR,
    AssemblerSettings,
    CameraInput,
    FrameRequest,
    SensorUse,
)
from aqr_perception.nodes.input.lidar_trigger import LidarTrigger
from aqr_perception.nodes.input.message_choice import MessageChoice
from aqr_perception.nodes.input.received_messages import Listener, ReceivedMessages, SensorMessage
from aqr_perception.nodes.stamps import stamp_to_ns

_BEHIND_SECONDS = 1.0
"""Seconds of messages from before the last frame, and no others, after which time has jumped back."""


@dataclass(frozen=True)
class _WaitingFrame:
    """A frame that waits for cameras and LiDARs.

    Attributes:
        sweep: the sweep that triggered the frame; None for a camera-only frame.
        since: start of the wait, in seconds of the assembler's clock.
        trigger: the LiDAR of the sweep.
    """

    sweep: PointCloud2 | None
    since: float
    trigger: str = ""

    @property
    def sweep_ns(self) -> int | None:
        return None if self.sweep is None else stamp_to_ns(self.sweep.header.stamp)


class Assembler:
    """Store of the sensors' recent messages, and decision when a frame is due; independent of DDS and TF.

    A sweep of the first LiDAR triggers a frame; while that LiDAR is silent, the next one triggers. The frame is due
    when every enabled camera has an image close enough in time and every other LiDAR its sweep nearest in time, and at
    the latest `camera_wait` after the sweep arrived. Frames do not wait for a sensor that missed the last frame; they
    wait for it again after it has delivered in time. Images trigger camera-only frames if every LiDAR is disabled, not
    configured, not used by the model, or silent while images arrive.

    The synchronizers of message_filters are not used: they emit nothing with staggered cameras or a missing sensor.

    Connect the sensors once. Then call `poll` after every message, and from a timer of about 10 ms. Use it from one
    thread.

    Stamps are judged by `ReceivedMessages`: time jumps back where the stamps of most sensors do. The stamps of the
    frames increase; a sweep that arrives after a later frame makes none.

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
        self._on_time_jump = on_time_jump
        self._clock = clock
        listener = Listener(self._on_kept, self._after_jump, self._drop_waiting_without_sweep)
        self._received = ReceivedMessages(settings, listener, clock, clock_ns, simulated)
        self._choice = MessageChoice(self._received)
        self._trigger = LidarTrigger([lidar.name for lidar in settings.lidars])
        self._late_sweeps = 0
        self._behind_since: float | None = None
        self._lidar_frames: dict[str, str] = {}
        self._waiting: _WaitingFrame | None = None
        self._overtaken: _WaitingFrame | None = None
        self._cameras_with_new_image: set[str] = set()
        self._next_camera_only = -math.inf
        self._last_frame_ns: int | None = None
        self._last_frame_since = -math.inf
        self._cameras_that_missed: set[str] = set()
        self._lidars_that_missed: set[str] = set()

    def connect_lidar(self, sweeps: SimpleFilter, name: str = LIDAR) -> None:
        """Take a LiDAR's sweeps (PointCloud2) from a filter.

        Raises:
            KeyError: the settings have no such LiDAR.
        """
        self._received.connect_lidar(name, sweeps)

    def connect_camera(self, name: str, images: SimpleFilter, infos: SimpleFilter) -> None:
        """Take a camera's images (Image or CompressedImage) and calibration (CameraInfo) from filters.

        Raises:
            KeyError: the settings have no such camera.
        """
        self._received.connect_camera(name, images, infos)

    @property
    def settings(self) -> AssemblerSettings:
        """Settings of the next frames; may be replaced at any time, with the same sensors."""
        return self._received.settings

    @settings.setter
    def settings(self, settings: AssemblerSettings) -> None:
        self._received.use(settings)
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
        waited_enough = now - self._waiting.since >= self.settings.camera_wait
        if not waited_enough and not self._complete(self._waiting):
            return None
        due, self._waiting = self._waiting, None
        if due.sweep is None:
            self._next_camera_only = now + self.settings.camera_only_period
        return self._request(due)

    def clock_reports(self) -> dict[str, ClockReport]:
        """Return the state of every sensor's stamps."""
        return self._received.reports()

    @property
    def stamps_to_clock(self) -> float:
        """Seconds from the node's clock to the time of the sensors, latency included; NaN if unknown."""
        return self._received.clocks.to_clock

    @property
    def in_clock_time(self) -> bool:
        """Whether the node's clock shows the time of the stamps."""
        return self._received.clocks.agree_with_clock

    @property
    def late_sweeps(self) -> int:
        """Number of triggering sweeps that arrived after a later frame, and so made none."""
        return self._late_sweeps

    def now_ns(self) -> int:
        """Return the present in the time of the stamps, minus the sensors' latency; 0 if it is unknown."""
        arrival, clocks = self._received.arrival(), self._received.clocks
        return clocks.now_ns(arrival) if clocks.has_clock or clocks.has_reference else 0

    def forget(self, seconds: float) -> None:
        """Forget the messages from before a jump of the clock back by some seconds; those of the new time stay."""
        self._after_jump(self._received.arrival().clock_ns + TOLERANCE_NS, seconds)
        self._received.clocks.forget()

    # --- Arriving messages -----------------------------------------------------------------------------------------

    def _on_kept(self, sensor: str, message: SensorMessage, now: float) -> None:
        """Note what a kept message triggers."""
        stamp_ns = self._received.history(sensor).stamp_ns(message)
        self._trigger.add(sensor, now, self.settings.lidar_timeout)
        if isinstance(message, PointCloud2):
            self._after_sweep(sensor, message, now)
        else:
            self._after_image(sensor, stamp_ns)
        self._notice_unseen_jump(stamp_ns, now)

    def _after_image(self, name: str, stamp_ns: int) -> None:
        self._cameras_with_new_image.add(name)
        if self._last_frame_ns is not None and self._choice.image_in_time(stamp_ns, self._last_frame_ns):
            self._cameras_that_missed.discard(name)

    def _after_sweep(self, lidar: str, sweep: PointCloud2, now: float) -> None:
        if sweep.header.frame_id:
            self._lidar_frames[lidar] = sweep.header.frame_id
        if lidar == self._triggering(now):
            self._received.keep_for(lidar, stamp_to_ns(sweep.header.stamp))
            self._wait_for_sensors(_WaitingFrame(sweep, now, lidar))
        elif lidar in self._lidars_that_missed and now - self._last_frame_since <= self.settings.camera_wait:
            self._lidars_that_missed = set(self._awaited_lidars(self._last_frame_ns or 0, self._lidars_that_missed))

    def _notice_unseen_jump(self, stamp_ns: int, now: float) -> None:
        """Let frames go on where all messages are from before the last frame: its stamp was wrong, or time jumped."""
        if self._last_frame_ns is None or stamp_ns > self._last_frame_ns - LATE_NS:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        elif now - self._behind_since >= _BEHIND_SECONDS:
            horizon_ns = stamp_ns + round(self.settings.max_camera_age * 1e9)
            self._after_jump(horizon_ns, (self._last_frame_ns - stamp_ns) / 1e9)

    def _wait_for_sensors(self, frame: _WaitingFrame) -> None:
        """Let a sweep's frame wait for the other sensors; ends the wait of an older frame."""
        waiting = self._waiting
        if waiting is not None and waiting.sweep_ns is not None and frame.sweep_ns is not None:
            if waiting.sweep_ns < frame.sweep_ns:
                self._overtaken = waiting
            elif waiting.sweep_ns > frame.sweep_ns:
                self._overtaken, frame = frame, waiting
        self._waiting = frame

    def _after_jump(self, horizon_ns: int, seconds: float) -> None:
        """Drop the messages and waiting frames from before a time jump, after which no stamp is above a horizon."""
        self._received.drop_later(horizon_ns)
        self._last_frame_ns = self._behind_since = None
        self._drop_waiting_without_sweep()
        self._cameras_that_missed.clear()
        self._lidars_that_missed.clear()
        self._on_time_jump(seconds)

    def _drop_waiting_without_sweep(self) -> None:
        """Drop waiting frames, except those with a sweep of an enabled LiDAR that is still in the history."""

        def is_kept(frame: _WaitingFrame | None) -> bool:
            if frame is None or frame.sweep_ns is None or not self.settings.is_enabled(frame.trigger):
                return False
            return frame.sweep_ns in self._received.history(frame.trigger)

        self._waiting = self._waiting if is_kept(self._waiting) else None
        self._overtaken = self._overtaken if is_kept(self._overtaken) else None

    # --- Due frames ------------------------------------------------------------------------------------------------

    def _triggering(self, now: float) -> str:
        """Return the LiDAR that triggers frames; empty if the cameras do."""
        return self._trigger.current(now, self.settings.lidar_timeout, self._received.is_used)

    def _camera_only_due(self, now: float) -> bool:
        if self._triggering(now):
            return False
        if now < self._next_camera_only or not self._new_images():
            return False
        # Otherwise the images arrived too late for the frame of their time.
        return self._last_frame_ns is None or self._frame_ns(None) > self._last_frame_ns

    def _complete(self, frame: _WaitingFrame) -> bool:
        """Return whether every sensor that a frame waits for has its message."""
        frame_ns = self._frame_ns(frame.sweep_ns)
        cameras = (camera for camera in self.settings.cameras if camera.name not in self._cameras_that_missed)
        if any(self._choice.awaits_image(camera, frame_ns) for camera in cameras):
            return False
        others = {lidar.name for lidar in self.settings.lidars} - self._lidars_that_missed - {frame.trigger}
        return frame.sweep is None or not self._awaited_lidars(frame_ns, others)

    def _awaited_lidars(self, frame_ns: int, among: set[str]) -> list[str]:
        """Return the LiDARs among some whose next sweep should be nearer to a frame than those that have arrived."""
        lidars = (lidar for lidar in self.settings.lidars if lidar.name in among)
        return [lidar.name for lidar in lidars if self._choice.awaits_sweep(lidar, frame_ns)]

    def _new_images(self) -> dict[str, int]:
        """Return the newest stamps of the cameras that have sent images since the last frame."""
        used = filter(self._received.is_used, self._cameras_with_new_image)
        newest = {name: self._received.history(name).newest_ns for name in used}
        return {name: stamp_ns for name, stamp_ns in newest.items() if stamp_ns is not None}

    def _frame_ns(self, sweep_ns: int | None) -> int:
        """Return the stamp of a frame: that of its sweep, or without one, that of the newest image.

        A few cameras ahead of the others do not count: the stamp is one that most of the new images are near to.
        """
        if sweep_ns is not None:
            return sweep_ns
        stamps = list(self._new_images().values())
        return max(stamps, key=lambda one: (sum(self._choice.image_in_time(other, one) for other in stamps), one))

    def _request(self, due: _WaitingFrame) -> FrameRequest | None:
        """Return a frame, unless it is not newer than the last one."""
        settings = self.settings
        if due.sweep is None and not self._new_images():
            return None  # the sensors were left out in the meantime
        frame_ns = self._frame_ns(due.sweep_ns)
        if self._last_frame_ns is not None and frame_ns <= self._last_frame_ns:
            self._late_sweeps += due.sweep is not None
            return None
        sweeps, left_out = self._sweeps(due, frame_ns)
        cameras: list[CameraInput] = []
        for camera in settings.cameras:
            choice = self._choice.image(camera, frame_ns)
            if isinstance(choice, CameraInput):
                cameras.append(choice)
            else:
                left_out[camera.name] = choice
        self._after_frame(due, frame_ns, cameras, left_out)
        return FrameRequest(
            frame_ns,
            self._model_frame(),
            sweeps.pop(LIDAR, ()),
            tuple(cameras),
            settings,
            left_out,
            due.since,
            self.in_clock_time,
            sweeps,
            due.trigger,
        )

    def _sweeps(
        self, due: _WaitingFrame, frame_ns: int
    ) -> tuple[dict[str, tuple[PointCloud2, ...]], dict[str, SensorUse]]:
        """Return the sweeps of a frame by LiDAR, and the use of the LiDARs that it leaves out."""
        sweeps: dict[str, tuple[PointCloud2, ...]] = {}
        left_out: dict[str, SensorUse] = {}
        for lidar in self.settings.lidars:
            choice = self._choice.sweeps(lidar, frame_ns, due.sweep if lidar.name == due.trigger else None)
            if isinstance(choice, SensorUse):
                left_out[lidar.name] = choice
            elif due.sweep is not None:
                sweeps[lidar.name] = choice
            else:  # late sweeps of a silent LiDAR do not belong in a camera-only frame
                age = (frame_ns - stamp_to_ns(choice[0].header.stamp)) / 1e9
                left_out[lidar.name] = SensorUse(lidar.name, False, age, "too old")
        return sweeps, left_out

    def _after_frame(
        self, due: _WaitingFrame, frame_ns: int, cameras: list[CameraInput], left_out: dict[str, SensorUse]
    ) -> None:
        """Note which sensors a frame had to do without, and which images are new to the next one."""
        names = {camera.name for camera in self.settings.cameras}
        self._cameras_that_missed = {
            name for name, use in left_out.items() if name in names and use.reason not in INTENDED
        }
        # A newer image that is not in this frame triggers its own frame, because its sweep may never arrive.
        used_until = {camera.settings.name: max(camera.stamp_ns, frame_ns) for camera in cameras}
        self._cameras_with_new_image = {
            name
            for name in self._cameras_with_new_image
            if self._received.history(name).has_later(used_until.get(name, frame_ns))
        }
        self._last_frame_ns = frame_ns
        if due.sweep is not None:
            self._last_frame_since = due.since
            others = {lidar.name for lidar in self.settings.lidars} - {due.trigger}
            self._lidars_that_missed = set(self._awaited_lidars(frame_ns, others))

    def _model_frame(self) -> str:
        """Return the configured model frame, or the first LiDAR's frame; the output frame before its first sweep."""
        first = self._lidar_frames.get(LIDAR, "")
        others = (self._lidar_frames.get(lidar.name, "") for lidar in self.settings.lidars)
        return self.settings.model_frame or first or self.settings.output_frame or next(filter(None, others), "")
