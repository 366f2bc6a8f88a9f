# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""An assembler fed message by message, in milliseconds, and the contents of its frames."""

from message_filters import SimpleFilter
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2

from aqr_perception.nodes.input.assembler import Assembler
from aqr_perception.nodes.input.frame_request import AssemblerSettings, CameraSettings, FrameRequest
from aqr_perception.nodes.stamps import ns_to_stamp, stamp_to_ns

MS = 1_000_000
START = 1_500_000_000_000 * MS
UNSTAMPED = -START // MS
"""Milliseconds for a header without a stamp."""


def settings(**changes: object) -> AssemblerSettings:
    cameras = tuple(CameraSettings(name, f"/{name}/image", f"/{name}/info", True) for name in ("front", "back"))
    defaults = {
        "cameras": cameras,
        "lidar_topic": "/points",
        "max_camera_age": 0.2,
        "camera_wait": 0.05,
        "lidar_timeout": 0.5,
        "camera_only_period": 0.1,
    }
    return AssemblerSettings(**(defaults | changes))


class Drive:
    """An assembler, its sensors and its clock. Times in milliseconds; a stamp is the time of arrival if not given.

    Args:
        calibrated: cameras that have sent their CameraInfo; None: all.
        with_clock: whether stamps are compared with the node's clock, which shows the time of arrival plus
            `clock_error` milliseconds, and 0 while `clock_error` is None.
    """

    def __init__(
        self,
        chosen: AssemblerSettings | None = None,
        calibrated: tuple[str, ...] | None = None,
        with_clock: bool = False,
    ) -> None:
        self._now = 0
        self._jump = 0.0
        self.jumps: list[float] = []
        self.clock_error: int | None = 0
        chosen = chosen or settings()
        self.assembler = Assembler(
            chosen, self._on_time_jump, lambda: self._now / 1e3, self._clock_ns if with_clock else None
        )
        self._images = {camera.name: SimpleFilter() for camera in chosen.cameras}
        self._sweeps = {lidar.name: SimpleFilter() for lidar in chosen.lidars}
        for name, sweeps in self._sweeps.items():
            self.assembler.connect_lidar(sweeps, name)
        for name, images in self._images.items():
            infos = SimpleFilter()
            self.assembler.connect_camera(name, images, infos)
            if calibrated is None or name in calibrated:
                infos.signalMessage(CameraInfo())

    def image(self, name: str, now: int, stamp: int | None = None) -> float:
        """Send a camera's image; return the seconds by which time jumped back."""
        return self._send(self._images[name], CompressedImage(), now, stamp)

    def sweep(self, now: int, stamp: int | None = None, frame_id: str = "lidar", lidar: str = "lidar") -> float:
        """Send a LiDAR's sweep; return the seconds by which time jumped back."""
        message = PointCloud2()
        message.header.frame_id = frame_id
        return self._send(self._sweeps[lidar], message, now, stamp)

    def poll(self, now: int) -> FrameRequest | None:
        self._now = now
        return self.assembler.poll()

    def frames(self, now: int) -> list[FrameRequest]:
        """Poll from `now` for as long as frames come; return them."""
        found = []
        while (request := self.poll(now)) is not None:
            found.append(request)
        return found

    def _clock_ns(self) -> int:
        return 0 if self.clock_error is None else START + (self._now + self.clock_error) * MS

    def _send(self, sensor: SimpleFilter, message: CompressedImage | PointCloud2, now: int, stamp: int | None) -> float:
        message.header.stamp = ns_to_stamp(max(START + (now if stamp is None else stamp) * MS, 0))
        self._now, self._jump = now, 0.0
        sensor.signalMessage(message)
        return self._jump

    def _on_time_jump(self, seconds: float) -> None:
        self._jump = seconds
        self.jumps.append(seconds)


def used(request: FrameRequest) -> dict[str, int]:
    """Return the cameras of a request and the stamps of their images, in milliseconds."""
    return {camera.settings.name: (camera.stamp_ns - START) // MS for camera in request.cameras}


def used_sweeps(request: FrameRequest) -> dict[str, list[int]]:
    """Return the LiDARs of a request and the stamps of their sweeps, in milliseconds."""
    stamps = {
        lidar.name: [(stamp_to_ns(sweep.header.stamp) - START) // MS for sweep in request.sweeps_of(lidar.name)]
        for lidar in request.settings.lidars
    }
    return {name: found for name, found in stamps.items() if found}


def reasons(request: FrameRequest) -> dict[str, str]:
    return {name: use.reason for name, use in request.left_out.items()}


def frames_of(drive: Drive, begin: int, end: int) -> list[tuple[int, bool]]:
    """Poll every 10 ms; return the frames' stamps in milliseconds, and whether a frame has a sweep."""
    requests = [request for now in range(begin, end, 10) if (request := drive.poll(now))]
    return [((request.stamp_ns - START) // MS, bool(request.sweeps)) for request in requests]
