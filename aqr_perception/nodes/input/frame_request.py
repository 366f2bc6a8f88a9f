"""How frames are put together (settings), and what goes into the next one (request)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from aqr_perception.options import OptionError

LIDAR = "lidar"
"""The LiDAR's name among the sensors; cameras have the names that the user gives them."""

DISABLED = "disabled"
NOT_SEEN = "not seen by the model"
ON_PURPOSE = (DISABLED, NOT_SEEN)
"""Reasons for which a sensor takes no part although nothing is wrong with it."""


@dataclass(frozen=True)
class CameraSettings:
    """One camera.

    Attributes:
        name: unique, not ``lidar``.
        image_topic, info_topic: where its pictures and its sensor_msgs/CameraInfo come from.
        compressed: whether the pictures are sensor_msgs/CompressedImage.
        rectified: whether they are rectified already: then CameraInfo's P holds, otherwise K and D.
        offset: seconds by which the stamps are later than the exposure; it is taken off every stamp.
    """

    name: str
    image_topic: str
    info_topic: str
    compressed: bool = False
    rectified: bool = False
    offset: float = 0.0


@dataclass(frozen=True)
class AssemblerSettings:
    """How messages become frames. Times in seconds.

    Attributes:
        cameras: in the order in which frames list them.
        lidar_topic: empty where there is no LiDAR.
        max_camera_age: an image further than this from the frame's stamp, earlier or later, does not take part.
        camera_wait: longest wait for missing cameras after a sweep came.
        lidar_timeout: a LiDAR silent for longer is taken for dead, and frames are made of the cameras alone.
        camera_only_period: shortest time between two such frames.
        max_sweeps: sweeps accumulated, 1 to 10; more than one needs `fixed_frame`.
        intensity_scale: factor on the LiDAR's intensities, so that they span 0..255 as the published models expect.
        fixed_frame: TF frame that does not move with the vehicle; empty: extrinsics are static, and sweeps are not
            accumulated.
        model_frame: TF frame of points and boxes; empty: the sweep's own.
        output_frame: TF frame of what the node publishes; the model frame where no LiDAR was ever seen.
        transform_wait: longest wait of one frame for late transforms.
        enabled: names of the sensors that take part (``lidar`` and camera names); None: all.
        unseen: names of those that the model cannot look at; they are neither waited for nor decoded.
    """

    cameras: tuple[CameraSettings, ...] = ()
    lidar_topic: str = ""
    max_camera_age: float = 0.2
    camera_wait: float = 0.05
    lidar_timeout: float = 0.5
    camera_only_period: float = 0.1
    max_sweeps: int = 1
    intensity_scale: float = 1.0
    fixed_frame: str = ""
    model_frame: str = ""
    output_frame: str = ""
    transform_wait: float = 0.1
    enabled: frozenset[str] | None = None
    unseen: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        _require(len(set(names)) == len(names), "cameras", names, "distinct names")
        _require("" not in names and LIDAR not in names, "cameras", names, f"names other than '' and {LIDAR!r}")
        _require(bool(names) or bool(self.lidar_topic), "cameras", names, "not empty where lidar_topic is empty")
        for name in ("max_camera_age", "lidar_timeout", "camera_only_period", "intensity_scale"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, value, "a positive number")
        for name in ("camera_wait", "transform_wait"):
            value = getattr(self, name)
            _require(0 <= value <= 10, name, value, "in 0..10 s")
        _require(1 <= self.max_sweeps <= 10, "max_sweeps", self.max_sweeps, "in 1..10")
        unknown = sorted((self.enabled or frozenset()) - set(self.sensors))
        _require(not unknown, "enabled", unknown, f"among {', '.join(self.sensors)}")

    @property
    def sensors(self) -> tuple[str, ...]:
        """Names of all configured sensors, the LiDAR first."""
        return ((LIDAR,) if self.lidar_topic else ()) + tuple(camera.name for camera in self.cameras)

    def reason_left_out(self, sensor: str) -> str:
        """Say why a sensor is not to take part; empty where it is."""
        if self.enabled is not None and sensor not in self.enabled:
            return DISABLED
        return NOT_SEEN if sensor in self.unseen else ""

    def is_enabled(self, sensor: str) -> bool:
        return sensor in self.sensors and not self.reason_left_out(sensor)

    @property
    def is_blind(self) -> bool:
        """Whether no sensor takes part at all."""
        return not any(map(self.is_enabled, self.sensors))


@dataclass(frozen=True)
class SensorUse:
    """Whether a sensor took part in a frame; the fields of aqr_perception/msg/SensorState."""

    name: str
    used: bool
    age: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class CameraInput:
    """An image chosen for a frame, and its calibration.

    Attributes:
        stamp_ns: time of exposure: the header's stamp less the camera's `offset`.
    """

    settings: CameraSettings
    image: Image | CompressedImage
    info: CameraInfo
    stamp_ns: int


@dataclass(frozen=True)
class FrameRequest:
    """Messages of one frame, still encoded.

    Attributes:
        stamp_ns: the newest sweep's stamp, or the newest image's in a camera-only frame.
        model_frame: TF frame of the frame's points and boxes; empty where none is known.
        sweeps: clouds, newest first; empty in a camera-only frame.
        cameras: in configured order.
        settings: those in force when the frame was put together.
        left_out: sensors that do not take part, by name.
    """

    stamp_ns: int
    model_frame: str
    sweeps: tuple[PointCloud2, ...]
    cameras: tuple[CameraInput, ...]
    settings: AssemblerSettings
    left_out: Mapping[str, SensorUse] = field(default_factory=dict)

    def supersedes(self, other: "FrameRequest") -> bool:
        """Whether the other frame, not yet begun, is needless beside this one.

        A sweep's frame gives way to newer sweeps alone: on a busy machine a sweep comes late, and the cameras' frames
        that were made in its absence are no substitute for it.
        """
        return self.stamp_ns >= other.stamp_ns and (bool(self.sweeps) or not other.sweeps)


def _require(holds: bool, name: str, found: object, needed: str) -> None:
    if not holds:
        raise OptionError(f"{name} is {found!r}, but must be {needed}")
