"""Settings of frame assembly, and the request for one frame."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from aqr_perception.options import OptionError

LIDAR = "lidar"
"""The LiDAR's name among the sensors. Cameras have the names that the user gives them."""

DISABLED = "disabled"
NOT_SEEN = "not seen by the model"
ON_PURPOSE = (DISABLED, NOT_SEEN)
"""Reasons for leaving out a sensor that works."""

_SLOWEST_SWEEP = 0.2
"""Seconds between the sweeps of a LiDAR that spins at 5 Hz, the slowest one in use."""


@dataclass(frozen=True)
class CameraSettings:
    """One camera.

    Attributes:
        name: unique, not ``lidar``.
        image_topic, info_topic: topics of its images and of its sensor_msgs/CameraInfo.
        compressed: whether the images are sensor_msgs/CompressedImage.
        rectified: whether the images are rectified. Then CameraInfo's P holds, otherwise K and D.
        offset: seconds by which the stamps are later than the exposure; subtracted from every stamp.
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
        lidar_topic: empty if there is no LiDAR.
        max_camera_age: an image further from the frame's stamp, earlier or later, does not take part.
        camera_wait: longest wait for missing cameras after a sweep arrived.
        lidar_timeout: a LiDAR silent for longer counts as dead, and frames consist of cameras only.
        camera_only_period: shortest time between two such frames.
        max_sweeps: sweeps accumulated, 1 to 10; more than one needs `fixed_frame`.
        intensity_scale: factor on the LiDAR's intensities. The published models expect 0..255.
        fixed_frame: TF frame that does not move with the vehicle. Empty: extrinsics are static, and sweeps are not
            accumulated.
        model_frame: TF frame of points and boxes; empty: the sweep's frame.
        output_frame: TF frame of the published boxes; the model frame if no LiDAR message has arrived yet.
        transform_wait: longest wait of one frame for late transforms.
        enabled: names of the sensors that take part (``lidar`` and camera names); None: all.
        unseen: names of the sensors that the model does not use. Their messages are ignored.
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
        _require(bool(names) or bool(self.lidar_topic), "cameras", names, "not empty if lidar_topic is empty")
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

    @property
    def image_history(self) -> float:
        """Seconds of images to keep.

        A frame takes images up to `max_camera_age` before its sweep. When it is due, the newest image is later than the
        sweep by the LiDAR's latency, which may reach `max_camera_age` too, and by the frame's wait.
        """
        return 2 * self.max_camera_age + self.camera_wait

    @property
    def sweep_history(self) -> float:
        """Seconds of sweeps to keep: as many sweeps as are accumulated, of a LiDAR that spins at 5 Hz or faster."""
        return _SLOWEST_SWEEP * self.max_sweeps + self.camera_wait

    def reason_left_out(self, sensor: str) -> str:
        """Return why a sensor must not take part; empty if it may."""
        if self.enabled is not None and sensor not in self.enabled:
            return DISABLED
        return NOT_SEEN if sensor in self.unseen else ""

    def is_enabled(self, sensor: str) -> bool:
        return sensor in self.sensors and not self.reason_left_out(sensor)

    @property
    def is_blind(self) -> bool:
        """Whether no sensor takes part."""
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
    """An image of a frame, and its calibration.

    Attributes:
        stamp_ns: time of exposure: the header's stamp less the camera's `offset`.
    """

    settings: CameraSettings
    image: Image | CompressedImage
    info: CameraInfo
    stamp_ns: int


@dataclass(frozen=True)
class FrameRequest:
    """The messages of one frame, still encoded.

    Attributes:
        stamp_ns: the newest sweep's stamp, or the newest image's in a camera-only frame.
        model_frame: TF frame of the frame's points and boxes; empty if none is known.
        sweeps: point clouds, newest first; empty in a camera-only frame.
        cameras: in configured order.
        settings: those in force when the request was made.
        left_out: sensors that do not take part, by name.
    """

    stamp_ns: int
    model_frame: str
    sweeps: tuple[PointCloud2, ...]
    cameras: tuple[CameraInput, ...]
    settings: AssemblerSettings
    left_out: Mapping[str, SensorUse] = field(default_factory=dict)

    def supersedes(self, other: "FrameRequest") -> bool:
        """Whether the other request need not be processed any more.

        Only a newer sweep supersedes a sweep. On a busy machine sweeps arrive late, and the camera-only frames made in
        the meantime do not replace them.
        """
        return self.stamp_ns >= other.stamp_ns and (bool(self.sweeps) or not other.sweeps)


def _require(holds: bool, name: str, found: object, needed: str) -> None:
    if not holds:
        raise OptionError(f"{name} is {found!r}, but must be {needed}")
