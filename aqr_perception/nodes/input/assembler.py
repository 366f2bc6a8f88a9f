"""Messages -> frame requests: which images go with which sweep, and what is missing."""

import bisect
import math
import threading
from dataclasses import dataclass
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from aqr_perception.nodes.input.frame_request import (
    LIDAR,
    ON_PURPOSE,
    AssemblerSettings,
    CameraInput,
    CameraSettings,
    FrameRequest,
    SensorUse,
)
from aqr_perception.nodes.stamps import stamp_to_ns

__all__ = ["Assembler", "AssemblerSettings", "CameraSettings", "FrameRequest", "SensorUse"]

_IMAGES_KEPT = 4
_SWEEPS_KEPT = 10
_LATE_NS = 200_000_000
"""A message older than its sensor's last one by no more than this came late; by more, time jumped back."""


@dataclass(frozen=True)
class _Pending:
    """A frame that waits for cameras: its sweep's stamp (None: camera-only), and since when, seconds."""

    sweep_ns: int | None
    since: float


class Assembler:
    """Stores messages and says when a frame is due. Pure logic: no clock, no timers, no DDS of its own.

    The sweep triggers a frame. It goes as soon as every enabled camera has an image close enough in time, and after
    `camera_wait` without the missing ones; a camera that missed a frame is not waited for until it delivers again.
    Where the LiDAR is disabled, not configured, not seen by the model, or silent while images come, the images trigger
    camera-only frames.

    The `on_` methods only store. Call `poll` after each of them and from a timer of some 10 ms. `now` is in seconds on
    any monotonic clock, always the same one.
    """

    def __init__(self, settings: AssemblerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._images: dict[str, list[tuple[int, Image | CompressedImage]]] = {}  # oldest first, stamps of exposure
        self._infos: dict[str, CameraInfo] = {}
        self._sweeps: list[tuple[int, PointCloud2]] = []  # oldest first
        self._lidar_frame = ""
        self._pending: _Pending | None = None
        self._overtaken: _Pending | None = None
        self._image_heard = -math.inf
        self._lidar_awaited_since = -math.inf
        self._new_images: set[str] = set()
        self._next_camera_only = -math.inf
        self._last_frame_ns: int | None = None
        self._unpunctual: set[str] = set()

    @property
    def settings(self) -> AssemblerSettings:
        """May be replaced at any time; frames already requested keep theirs."""
        return self._settings

    @settings.setter
    def settings(self, settings: AssemblerSettings) -> None:
        with self._lock:
            self._settings = settings
            self._keep_waiting_sweeps()

    def on_image(self, name: str, message: Image | CompressedImage, now: float) -> float:
        """Store a camera's image.

        Returns:
            0, or the seconds by which time jumped back (a bag that starts over). What was stored of the old future is
            forgotten by then; where the jump is longer than the TF buffer's cache time, clear that buffer too.
        """
        with self._lock:
            stamp_ns = stamp_to_ns(message.header.stamp) - round(self._camera(name).offset * 1e9)
            images = self._images.setdefault(name, [])
            jump = self._store(images, stamp_ns, message)
            del images[:-_IMAGES_KEPT]
            if now - self._image_heard > self._settings.lidar_timeout:
                self._lidar_awaited_since = now  # after a pause the LiDAR gets its full time again
            self._image_heard = now
            self._new_images.add(name)
            if self._last_frame_ns is not None and self._in_time(stamp_ns, self._last_frame_ns):
                self._unpunctual.discard(name)
            return jump

    def on_info(self, name: str, message: CameraInfo) -> None:
        """Store a camera's calibration; the latest holds."""
        with self._lock:
            self._infos[self._camera(name).name] = message

    def on_cloud(self, message: PointCloud2, now: float) -> float:
        """Store a sweep. Returns what `on_image` returns."""
        with self._lock:
            stamp_ns = stamp_to_ns(message.header.stamp)
            jump = self._store(self._sweeps, stamp_ns, message)
            del self._sweeps[:-_SWEEPS_KEPT]
            self._lidar_frame = message.header.frame_id
            self._lidar_awaited_since = now
            if self._settings.is_enabled(LIDAR):
                self._await_cameras(_Pending(stamp_ns, now))
            return jump

    def poll(self, now: float) -> FrameRequest | None:
        """Return the frame that is due, if any. A frame that a newer sweep overtakes goes at once, without waiting."""
        with self._lock:
            if self._overtaken is not None:
                due, self._overtaken = self._overtaken, None
                return self._request(due.sweep_ns)
            if self._pending is None and self._camera_only_due(now):
                self._pending = _Pending(None, now)
            if self._pending is None:
                return None
            waited_enough = now - self._pending.since >= self._settings.camera_wait
            if not waited_enough and not self._complete(self._pending.sweep_ns):
                return None
            due, self._pending = self._pending, None
            if due.sweep_ns is None:
                self._next_camera_only = now + self._settings.camera_only_period
            return self._request(due.sweep_ns)

    def _camera(self, name: str) -> CameraSettings:
        for camera in self._settings.cameras:
            if camera.name == name:
                return camera
        known = ", ".join(camera.name for camera in self._settings.cameras)
        raise KeyError(f"camera {name!r} is not configured; configured are: {known or '(none)'}")

    def _store(self, stored: list[Any], stamp_ns: int, message: Any) -> float:
        """Store a sensor's message in the order of stamps, in place of an equal one; return what `on_image` returns."""
        jump_ns = max((stored[-1][0] if stored else stamp_ns) - stamp_ns, 0)
        if jump_ns > _LATE_NS:
            self._forget_future(stored, stamp_ns)
        stored[:] = [entry for entry in stored if entry[0] != stamp_ns]
        bisect.insort(stored, (stamp_ns, message), key=lambda entry: entry[0])
        return jump_ns / 1e9 if jump_ns > _LATE_NS else 0.0

    def _forget_future(self, stored: list[Any], stamp_ns: int) -> None:
        """Time jumped back: drop what this sensor sent for later moments, and what others sent of the old future."""
        stored[:] = [entry for entry in stored if entry[0] < stamp_ns]
        # Other sensors may be a little ahead; only what is too far ahead to belong together is of the old future.
        horizon_ns = stamp_ns + round(self._settings.max_camera_age * 1e9)
        for other in (self._sweeps, *self._images.values()):
            other[:] = [entry for entry in other if entry[0] <= horizon_ns]
        self._last_frame_ns = None
        self._keep_waiting_sweeps()
        self._unpunctual.clear()

    def _await_cameras(self, frame: _Pending) -> None:
        """Let a sweep's frame wait for its cameras; the older one of two sweeps goes at once."""
        waiting = self._pending
        if waiting is not None and waiting.sweep_ns not in (None, frame.sweep_ns):
            self._overtaken, frame = sorted((waiting, frame), key=lambda pending: pending.sweep_ns)
        self._pending = frame

    def _keep_waiting_sweeps(self) -> None:
        """Of the frames that wait, keep those of sweeps that are still stored and take part."""
        stored = {stamp_ns for stamp_ns, _ in self._sweeps} if self._settings.is_enabled(LIDAR) else set()
        self._pending = self._pending if self._pending and self._pending.sweep_ns in stored else None
        self._overtaken = self._overtaken if self._overtaken and self._overtaken.sweep_ns in stored else None

    def _camera_only_due(self, now: float) -> bool:
        fresh = any(self._settings.is_enabled(name) and self._images[name] for name in self._new_images)
        if not fresh or now < self._next_camera_only:
            return False
        if self._last_frame_ns is not None and self._frame_ns(None) <= self._last_frame_ns:
            return False  # stragglers of a frame that went without them
        return not self._settings.is_enabled(LIDAR) or now - self._lidar_awaited_since > self._settings.lidar_timeout

    def _in_time(self, stamp_ns: int, frame_ns: int) -> bool:
        return abs(frame_ns - stamp_ns) <= self._settings.max_camera_age * 1e9

    def _nearest(self, name: str, frame_ns: int) -> tuple[int, Image | CompressedImage] | None:
        """Return a camera's image nearest to a moment; the newer of two equally near ones."""
        images = self._images.get(name)
        return min(reversed(images), key=lambda image: abs(image[0] - frame_ns)) if images else None

    def _frame_ns(self, sweep_ns: int | None) -> int:
        if sweep_ns is not None:
            return sweep_ns
        enabled = (self._images[name] for name in self._images if self._settings.is_enabled(name))
        return max(images[-1][0] for images in enabled if images)

    def _missing(self, name: str, frame_ns: int) -> str:
        """Say why a camera cannot take part in a frame; empty where it can."""
        if reason := self._settings.reason_left_out(name):
            return reason
        nearest = self._nearest(name, frame_ns)
        if nearest is None:
            return "no data"
        if not self._in_time(nearest[0], frame_ns):
            return "too old"
        return "" if name in self._infos else "no camera_info"

    def _complete(self, sweep_ns: int | None) -> bool:
        frame_ns = self._frame_ns(sweep_ns)
        awaited = (camera.name for camera in self._settings.cameras if camera.name not in self._unpunctual)
        return all(self._missing(name, frame_ns) in ("", *ON_PURPOSE) for name in awaited)

    def _request(self, sweep_ns: int | None) -> FrameRequest:
        settings = self._settings
        frame_ns = self._frame_ns(sweep_ns)
        cameras: list[CameraInput] = []
        left_out: dict[str, SensorUse] = {}
        if settings.lidar_topic and sweep_ns is None:
            left_out[LIDAR] = self._absent_lidar(frame_ns)
        for camera in settings.cameras:
            nearest = self._nearest(camera.name, frame_ns)
            reason = self._missing(camera.name, frame_ns)
            if reason or nearest is None:
                age = (frame_ns - nearest[0]) / 1e9 if nearest else math.nan
                left_out[camera.name] = SensorUse(camera.name, False, age, reason)
            else:
                cameras.append(CameraInput(camera, nearest[1], self._infos[camera.name], nearest[0]))
        self._unpunctual = {name for name, use in left_out.items() if use.reason not in ON_PURPOSE}
        # Images newer than this frame and not in it, of a moment whose sweep may never come, trigger one of their own.
        newest_used = {camera.settings.name: max(camera.stamp_ns, frame_ns) for camera in cameras}
        self._new_images = {
            name
            for name in self._new_images
            if self._images[name] and self._images[name][-1][0] > newest_used.get(name, frame_ns)
        }
        self._last_frame_ns = max(frame_ns, self._last_frame_ns or frame_ns)
        model_frame = settings.model_frame or self._lidar_frame or settings.output_frame
        return FrameRequest(frame_ns, model_frame, self._sweeps_until(sweep_ns), tuple(cameras), settings, left_out)

    def _sweeps_until(self, sweep_ns: int | None) -> tuple[PointCloud2, ...]:
        if sweep_ns is None:
            return ()
        wanted = self._settings.max_sweeps if self._settings.fixed_frame else 1
        return tuple(message for stamp_ns, message in reversed(self._sweeps) if stamp_ns <= sweep_ns)[:wanted]

    def _absent_lidar(self, frame_ns: int) -> SensorUse:
        age = (frame_ns - self._sweeps[-1][0]) / 1e9 if self._sweeps else math.nan
        reason = self._settings.reason_left_out(LIDAR) or ("too old" if self._sweeps else "no data")
        return SensorUse(LIDAR, False, age, reason)
