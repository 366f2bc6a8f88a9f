# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""The sensors' recent messages, by stamps that are right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from message_filters import Cache, SimpleFilter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from aqr_perception.nodes.clocks.sensor_clocks import Accepted, ClockReport, SensorClocks
from aqr_perception.nodes.clocks.stamp_sequence import Arrival
from aqr_perception.nodes.input.frame_request import LIDAR, AssemblerSettings, CameraSettings
from aqr_perception.nodes.input.message_history import MessageHistory
from aqr_perception.nodes.stamps import stamp_to_ns, with_stamp

SensorMessage: TypeAlias = Image | CompressedImage | PointCloud2

_LONGEST_LAG = 1.0
"""Seconds by which the triggering sweeps may lag behind other sensors; their messages are kept for so much longer."""

_SHORTEST_PERIOD_NS = 1_000_000
"""Smallest step between two messages stamped by arrival."""


@dataclass(frozen=True)
class Listener:
    """Callbacks of `ReceivedMessages`.

    Attributes:
        on_kept: called with the sensor, its message and the time of the monotonic clock after a message was kept.
        on_jump: called when time jumped back, with the latest stamp of the new time in nanoseconds, and the seconds.
        on_dropped: called after messages were dropped because their stamps cannot be used.
    """

    on_kept: Callable[[str, SensorMessage, float], object]
    on_jump: Callable[[int, float], object]
    on_dropped: Callable[[], object]


class ReceivedMessages:
    """Store of the sensors' recent messages; judges their stamps by `SensorClocks`.

    A sensor whose stamps are wrong is left out or used by its time of arrival, as `clock_policy` says.

    Args:
        clock: a monotonic clock, in seconds.
        clock_ns: the node's clock, in nanoseconds, 0 as long as it shows no time; None: there is none.
        simulated: returns whether that clock follows /clock.

    Attributes:
        settings: settings of the sensors; replace them by `use`.
        clocks: state of the stamps.
    """

    def __init__(
        self,
        settings: AssemblerSettings,
        listener: Listener,
        clock: Callable[[], float],
        clock_ns: Callable[[], int] | None,
        simulated: Callable[[], bool],
    ) -> None:
        self.settings = settings
        self._listener = listener
        self._clock, self._clock_ns, self._simulated = clock, clock_ns, simulated
        self._histories = {name: MessageHistory(self._seconds(name)) for name in _lidars(settings)}
        self._infos: dict[str, Cache] = {}
        same_frame = settings.max_camera_age
        self.clocks = SensorClocks(
            (*_lidars(settings), *(camera.name for camera in settings.cameras)),
            round(same_frame * 1e9),
            round((same_frame + settings.camera_wait) * 1e9),
        )
        self._by_arrival: dict[str, bool] = {}

    def connect_lidar(self, name: str, sweeps: SimpleFilter) -> None:
        """Take a LiDAR's sweeps from a filter; raises KeyError if the settings have no such LiDAR."""
        if name not in self._histories:
            raise _unknown("LiDAR", name, _lidars(self.settings))
        sweeps.registerCallback(self._on_message, name)

    def connect_camera(self, name: str, images: SimpleFilter, infos: SimpleFilter) -> None:
        """Take a camera's images and calibration from filters; raises KeyError if the settings have no such camera."""
        delay_ns = round(self._camera(name).offset * 1e9)
        self._histories[name] = MessageHistory(self._seconds(name), delay_ns)
        self._infos[name] = Cache(infos, cache_size=1)
        images.registerCallback(self._on_message, name)

    def use(self, settings: AssemblerSettings) -> None:
        """Replace the settings, with the same sensors."""
        self.settings = settings
        for name, history in self._histories.items():
            history.seconds = self._seconds(name)

    def history(self, sensor: str) -> MessageHistory:
        """Return the kept messages of a sensor."""
        return self._histories[sensor]

    def info(self, camera: str) -> CameraInfo | None:
        """Return a camera's calibration; None if none has arrived."""
        return self._infos[camera].getLast()

    def is_used(self, sensor: str) -> bool:
        """Return whether a sensor takes part by its settings, and has stamps or times of arrival to use."""
        if not self.settings.is_enabled(sensor):
            return False
        return not self.clocks.fault(sensor) or self._by_arrival.get(sensor, False)

    def arrival(self) -> Arrival:
        """Return the present; without the node's clock, the monotonic one stands in."""
        now, clock_ns = self._clock(), self._clock_ns() if self._clock_ns is not None else 0
        self.clocks.has_clock, self.clocks.coarse = clock_ns > 0, self._simulated()
        return Arrival(now, clock_ns if clock_ns > 0 else round(now * 1e9))

    def reports(self) -> dict[str, ClockReport]:
        """Return the state of every sensor's stamps."""
        now = self._clock()
        return {
            name: replace(self.clocks.report(name, now), by_arrival=self._by_arrival.get(name, False))
            for name in self.settings.sensors
        }

    def keep_for(self, trigger: str, sweep_ns: int) -> None:
        """Keep the other sensors' messages for as long as the triggering LiDAR's sweeps lag behind them."""
        others = {name: history for name, history in self._histories.items() if name != trigger}
        newest = [history.newest_ns for history in others.values() if history.newest_ns is not None]
        lag = min(max([0.0, *((newest_ns - sweep_ns) / 1e9 for newest_ns in newest)]), _LONGEST_LAG)
        for name, history in others.items():
            history.seconds = max(history.seconds, self._seconds(name) + lag)

    def drop_later(self, horizon_ns: int) -> None:
        """Drop the messages of every sensor that has one later than a stamp: they are from before a time jump."""
        for history in self._histories.values():
            if history.has_later(horizon_ns):
                history.clear()

    # --- Arriving messages -----------------------------------------------------------------------------------------

    def _on_message(self, message: SensorMessage, sensor: str) -> None:
        arrival, history = self.arrival(), self.history(sensor)
        if stamp_to_ns(message.header.stamp) <= 0:
            self.clocks.add_unstamped(sensor, arrival)
            accepted = Accepted()
        else:
            accepted = self.clocks.add(sensor, history.stamp_ns(message), arrival, message)
        if accepted.jump:
            earliest_ns = min(self.history(name).stamp_ns(held) for name, held in accepted.messages)
            # All messages are old if a sensor is too far ahead for a common frame: its time has not jumped yet.
            self._listener.on_jump(earliest_ns + round(self.settings.max_camera_age * 1e9), accepted.jump)
        self._drop(accepted.restarted)
        self._follow_policy(arrival.steady)
        if self._by_arrival.get(sensor):
            now_ns = self.clocks.now_ns(arrival)
            if history.newest_ns is not None:
                now_ns = max(now_ns, history.newest_ns + _SHORTEST_PERIOD_NS)  # the clock may be paused
            self._keep(sensor, with_stamp(message, history.header_ns(now_ns)), arrival.steady)
        for name, usable in accepted.messages:
            if not self.clocks.fault(name):
                self._keep(name, usable, arrival.steady)

    def _keep(self, sensor: str, message: SensorMessage, now: float) -> None:
        self.history(sensor).add(message)
        self._listener.on_kept(sensor, message, now)

    def _drop(self, sensors: Sequence[str]) -> None:
        """Drop the messages of some sensors."""
        held = [sensor for sensor in sensors if len(self.history(sensor))]
        for sensor in held:
            self.history(sensor).clear()
        if held:
            self._listener.on_dropped()

    def _follow_policy(self, now: float) -> None:
        """Choose between stamps and times of arrival; a sensor that changes over loses its earlier messages."""
        if self.clocks.all_right and not any(self._by_arrival.values()):
            return
        for sensor in self.settings.sensors:
            by_arrival = bool(self.clocks.fault(sensor)) and self._wants_arrival(now)
            before = self._by_arrival.get(sensor, False)
            if by_arrival != before or (self.clocks.fault(sensor) and not by_arrival):
                self._drop([sensor])
            self._by_arrival[sensor] = by_arrival

    def _wants_arrival(self, now: float) -> bool:
        if self.settings.clock_policy == "auto":
            return not any(self.clocks.healthy(name, now) for name in self.settings.sensors if self.is_used(name))
        return self.settings.clock_policy == "arrival"

    # --- Settings --------------------------------------------------------------------------------------------------

    def _seconds(self, sensor: str) -> float:
        """Return the seconds for which a sensor's messages are kept."""
        settings, lidars = self.settings, _lidars(self.settings)
        if sensor not in lidars:
            return settings.image_history
        # Any of several LiDARs may trigger frames.
        return settings.further_sweep_history if len(lidars) > 1 else settings.sweep_history

    def _camera(self, name: str) -> CameraSettings:
        for camera in self.settings.cameras:
            if camera.name == name:
                return camera
        raise _unknown("camera", name, [camera.name for camera in self.settings.cameras])


def _lidars(settings: AssemblerSettings) -> list[str]:
    """Return the names of the configured LiDARs; without one, that of a LiDAR that never sends."""
    return [lidar.name for lidar in settings.lidars] or [LIDAR]


def _unknown(kind: str, name: str, known: Sequence[str]) -> KeyError:
    return KeyError(f"{kind} {name!r} is not configured; use one of: {', '.join(known) or '(none)'}")
