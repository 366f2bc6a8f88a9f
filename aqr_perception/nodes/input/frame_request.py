# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Settings of frame assembly, and the request for a frame."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from aqr_perception.options import require

LIDAR = "lidar"
"""Sensor name of the first LiDAR, which triggers frames. Users name the cameras."""

DISABLED = "disabled"
UNSUPPORTED = "not used by the model"
INTENDED = (DISABLED, UNSUPPORTED)
"""Reasons for leaving out a working sensor."""

ClockPolicy = Literal["auto", "leave_out", "arrival"]
"""What to do with a sensor whose stamps are wrong; see `AssemblerSettings.clock_policy`."""

_SLOWEST_SWEEP = 0.2
"""Seconds between two sweeps of a LiDAR at 5 Hz, the slowest rate in use."""

MOST_SWEEPS = 20
"""Largest number of accumulated sweeps; the published models use eleven."""


def lidar_name(number: int) -> str:
    """Return the sensor name of a LiDAR: `LIDAR` for number 1, then ``lidar_2``, ``lidar_3``."""
    return LIDAR if number == 1 else f"{LIDAR}_{number}"


@dataclass(frozen=True)
class LidarSettings:
    """One LiDAR.

    Attributes:
        name: see `lidar_name`.
        topic: topic of its sensor_msgs/PointCloud2.
        intensity_scale: factor that scales its intensities to 0..255.
        scale_parameter: the parameter that holds this factor.
    """

    name: str
    topic: str
    intensity_scale: float = 1.0
    scale_parameter: str = "intensity_scale"


@dataclass(frozen=True)
class CameraSettings:
    """One camera.

    Attributes:
        name: unique, and not a LiDAR's.
        image_topic, info_topic: topics of its images and of its sensor_msgs/CameraInfo.
        compressed: whether the images are sensor_msgs/CompressedImage.
        rectified: whether the images are rectified. Then CameraInfo's P holds, otherwise K and D.
        offset: delay of the stamps after the exposure in seconds; subtracted from every stamp.
        baseline_in_tf: whether TF places this camera itself, so that P's baseline does not apply.
    """

    name: str
    image_topic: str
    info_topic: str
    compressed: bool = False
    rectified: bool = False
    offset: float = 0.0
    baseline_in_tf: bool = False


@dataclass(frozen=True)
class AssemblerSettings:
    """Settings of frame assembly. All times are in seconds.

    Attributes:
        cameras: the cameras, in the order of `Frame.cameras`.
        lidar_topic: topic of the first LiDAR's sensor_msgs/PointCloud2; empty without LiDAR.
        max_camera_age: largest time between an image and the frame's stamp, earlier or later.
        camera_wait: longest wait for missing cameras and LiDARs after a sweep arrives.
        lidar_timeout: time without a sweep after which the next LiDAR triggers frames, and after the last LiDAR the
            cameras.
        camera_only_period: shortest time between two camera-only frames.
        max_sweeps: number of accumulated sweeps, 1 to `MOST_SWEEPS`; more than one needs `fixed_frame`.
        sweep_interval: time between two accumulated sweeps; see `sweep_choice.spaced_sweeps`.
        intensity_scale: factor that scales the first LiDAR's intensities to 0..255.
        further_lidars: the LiDARs after the first one.
        max_lidar_age: largest time between the frame's stamp and the sweep of a LiDAR that did not trigger it.
        fixed_frame: TF frame that does not move with the vehicle. Empty: extrinsics are static, and sweeps are not
            accumulated.
        model_frame: TF frame of points and boxes; empty: the frame of the first LiDAR's sweeps.
        output_frame: TF frame of the published boxes; the model frame if no sweep of the first LiDAR has arrived yet.
        base_frame: TF frame of the vehicle on the ground, in which the BEV grid lies; empty: `output_frame`.
        marker_lifetime: time after which RViz markers vanish unless a newer frame replaces them.
        transform_wait: longest wait of one frame for late transforms.
        clock_policy: use of a sensor whose stamps are missing, constant, or far from the other sensors' and the clock:
            ``leave_out`` drops its messages, ``arrival`` stamps them with their time of arrival, and ``auto`` leaves
            the sensor out while another one has right stamps, and goes on by arrival otherwise.
        max_latency: results older than this are dropped.
        enabled: names of the sensors that take part (of LiDARs and cameras); None: all.
        unsupported: names of the sensors that the model does not use. Their messages are ignored.
    """

    cameras: tuple[CameraSettings, ...] = ()
    lidar_topic: str = ""
    max_camera_age: float = 0.2
    camera_wait: float = 0.05
    lidar_timeout: float = 0.5
    camera_only_period: float = 0.1
    max_sweeps: int = 1
    sweep_interval: float = 0.0
    intensity_scale: float = 1.0
    further_lidars: tuple[LidarSettings, ...] = ()
    max_lidar_age: float = 0.2
    fixed_frame: str = ""
    model_frame: str = ""
    output_frame: str = ""
    base_frame: str = ""
    marker_lifetime: float = 0.8
    transform_wait: float = 0.1
    clock_policy: ClockPolicy = "auto"
    max_latency: float = 1.0
    enabled: frozenset[str] | None = None
    unsupported: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        require(len(set(names)) == len(names), "cameras", names, "distinct names")
        taken = {"": "''", LIDAR: repr(LIDAR)} | {lidar.name: repr(lidar.name) for lidar in self.lidars}
        require(taken.keys().isdisjoint(names), "cameras", names, f"names other than {', '.join(taken.values())}")
        require(bool(names) or bool(self.lidar_topic), "cameras", names, "not empty if lidar_topic is empty")
        self._check_lidars()
        positive = ("max_camera_age", "lidar_timeout", "camera_only_period", "max_lidar_age", "marker_lifetime")
        for name in (*positive, "max_latency"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, name, value, "a positive number")
        for name in ("camera_wait", "transform_wait"):
            value = getattr(self, name)
            require(0 <= value <= 10, name, value, "in 0..10 s")
        policies = get_args(ClockPolicy)
        require(self.clock_policy in policies, "clock_policy", self.clock_policy, f"one of {', '.join(policies)}")
        require(1 <= self.max_sweeps <= MOST_SWEEPS, "max_sweeps", self.max_sweeps, f"in 1..{MOST_SWEEPS}")
        unknown = sorted((self.enabled or frozenset()) - set(self.sensors))
        require(not unknown, "enabled", unknown, f"among {', '.join(self.sensors)}")

    def _check_lidars(self) -> None:
        require(bool(self.lidar_topic) or not self.further_lidars, "lidar_topic", self.lidar_topic, "the first LiDAR's")
        names, topics = [lidar.name for lidar in self.lidars], [lidar.topic for lidar in self.lidars]
        require(len(set(names)) == len(names), "further_lidars", names, "distinct names")
        require(
            len(set(topics)) == len(topics) and all(topics), "further_lidars", topics, "distinct topics, none empty"
        )
        for scale in (self.intensity_scale, *(lidar.intensity_scale for lidar in self.further_lidars)):
            require(math.isfinite(scale) and scale > 0, "intensity_scale", scale, "a positive number")

    @property
    def lidars(self) -> tuple[LidarSettings, ...]:
        """All configured LiDARs, in the order in which they take over the triggering of frames."""
        if not self.lidar_topic:
            return ()
        parameter = "lidar.1.intensity_scale" if self.further_lidars else "intensity_scale"
        return (LidarSettings(LIDAR, self.lidar_topic, self.intensity_scale, parameter), *self.further_lidars)

    @property
    def sensors(self) -> tuple[str, ...]:
        """Names of all configured sensors, the LiDARs first."""
        return (*(lidar.name for lidar in self.lidars), *(camera.name for camera in self.cameras))

    @property
    def ground_frame(self) -> str:
        """TF frame whose plane z = 0 is the ground; empty if unknown."""
        return self.base_frame or self.output_frame

    @property
    def image_history(self) -> float:
        """Seconds of images to keep.

        A frame uses images up to `max_camera_age` before its sweep. When it is due, the newest image may be later than
        the sweep by the LiDAR's latency (at most `max_camera_age`) plus the frame's wait.
        """
        return 2 * self.max_camera_age + self.camera_wait

    @property
    def sweep_history(self) -> float:
        """Seconds of sweeps to keep: enough for `max_sweeps` sweeps of a LiDAR at 5 Hz or faster."""
        return (_SLOWEST_SWEEP + self.sweep_interval) * self.max_sweeps + self.camera_wait

    @property
    def further_sweep_history(self) -> float:
        """Seconds of sweeps to keep of LiDARs beside the triggering one, whose sweeps may be later or earlier."""
        return self.sweep_history + 2 * self.max_lidar_age

    def reason_left_out(self, sensor: str) -> str:
        """Return why a sensor is left out by the settings; empty if it is not."""
        if self.enabled is not None and sensor not in self.enabled:
            return DISABLED
        return UNSUPPORTED if sensor in self.unsupported else ""

    def is_enabled(self, sensor: str) -> bool:
        return sensor in self.sensors and not self.reason_left_out(sensor)

    @property
    def has_no_sensors(self) -> bool:
        """Whether no sensor takes part."""
        return not any(map(self.is_enabled, self.sensors))


@dataclass(frozen=True)
class SensorUse:
    """Use of a sensor in a frame, with the fields of aqr_perception/msg/SensorState.

    Attributes:
        detail: the reason or doubt in a sentence, with the value found, the value needed and the remedy; may be empty.
        doubt: what is odd about the data of a used sensor, in a few words.
    """

    name: str
    used: bool
    age: float = math.nan
    reason: str = ""
    detail: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class CameraInput:
    """A camera's image in a frame, and its calibration.

    Attributes:
        stamp_ns: time of exposure: the header's stamp minus the camera's `offset`.
    """

    settings: CameraSettings
    image: Image | CompressedImage
    info: CameraInfo
    stamp_ns: int


@dataclass(frozen=True)
class FrameRequest:
    """The messages of one frame, still encoded.

    Attributes:
        stamp_ns: stamp of the sweep that triggered the frame, or of the newest image in a camera-only frame. The stamps
            of an assembler's requests increase.
        model_frame: TF frame of the frame's points and boxes; empty if none is known.
        sweeps: point clouds of the first LiDAR, newest first; empty if the frame is without it.
        cameras: in configured order.
        settings: the settings at the time of the request.
        left_out: use of the sensors that the frame leaves out, by name.
        received: time in seconds of a monotonic clock at which the newest data arrived; NaN if unknown.
        in_clock_time: whether the node's clock shows the time of the stamps, so that it shows the frame's age, too.
        further_sweeps: point clouds of the other LiDARs in the frame, by name, each newest first.
        trigger: name of the LiDAR that triggered the frame; empty in a camera-only frame.
    """

    stamp_ns: int
    model_frame: str
    sweeps: tuple[PointCloud2, ...]
    cameras: tuple[CameraInput, ...]
    settings: AssemblerSettings
    left_out: Mapping[str, SensorUse] = field(default_factory=dict)
    received: float = math.nan
    in_clock_time: bool = False
    further_sweeps: Mapping[str, tuple[PointCloud2, ...]] = field(default_factory=dict)
    trigger: str = ""

    def sweeps_of(self, lidar: str) -> tuple[PointCloud2, ...]:
        """Return a LiDAR's point clouds, newest first; empty if the frame is without it."""
        return self.sweeps if lidar == LIDAR else self.further_sweeps.get(lidar, ())

    @property
    def has_sweeps(self) -> bool:
        """Whether the frame has a sweep of any LiDAR."""
        return bool(self.sweeps) or any(self.further_sweeps.values())

    def age(self, now: float, clock_ns: int) -> float:
        """Return the seconds since the measurement, or since the arrival if the clock shows another time.

        Args:
            now: time of the monotonic clock.
            clock_ns: time of the node's clock.
        """
        return (clock_ns - self.stamp_ns) / 1e9 if self.in_clock_time else now - self.received

    def supersedes(self, other: "FrameRequest") -> bool:
        """Whether this request makes the other one unnecessary.

        Only a newer sweep supersedes a sweep. On a busy machine, sweeps arrive late, and camera-only frames made in
        the meantime must not replace them.
        """
        return self.stamp_ns >= other.stamp_ns and (self.has_sweeps or not other.has_sweeps)
