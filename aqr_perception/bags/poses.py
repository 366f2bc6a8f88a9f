"""Poses of the vehicle and its sensors, from a bag's /tf and /tf_static."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
from aqr_perception.geometry import interpolate, rigid_transform


class VehiclePoses:
    """Poses of a vehicle and its sensors in a fixed frame.

    Args:
        moving: TFMessages with the poses of `vehicle` in `fixed`.
        static: TFMessages with the sensors' poses on `vehicle`.
        source: name of the bag, for errors.

    Raises:
        BagError: `moving` holds no pose of the vehicle.
    """

    def __init__(self, moving: Iterable[Any], static: Iterable[Any], fixed: str, vehicle: str, source: str) -> None:
        self._source, self._vehicle = source, vehicle
        self._mounts = {
            entry.child_frame_id: matrix(entry.transform)
            for message in static
            for entry in message.transforms
            if entry.header.frame_id == vehicle
        }
        poses = {
            stamp_to_ns(entry.header.stamp): matrix(entry.transform)
            for message in moving
            for entry in message.transforms
            if (entry.header.frame_id, entry.child_frame_id) == (fixed, vehicle)
        }
        if not poses:
            needed = "the vehicle's motion; record /tf"
            raise BagError(f"{source}: found no transform {fixed} -> {vehicle} on /tf, needed {needed}")
        stamps = sorted(poses)
        self._stamps = np.array(stamps, np.int64)
        self._matrices = np.stack([poses[stamp] for stamp in stamps])

    def vehicle_to_fixed(self, stamp_ns: int) -> NDArray[np.float64]:
        """Return the (4, 4) pose at a time, interpolated; outside the recording, the nearest pose."""
        stamp_ns = int(np.clip(stamp_ns, self._stamps[0], self._stamps[-1]))
        after = int(np.searchsorted(self._stamps, stamp_ns))
        if self._stamps[after] == stamp_ns:
            exact: NDArray[np.float64] = self._matrices[after]
            return exact
        begin, end = self._stamps[after - 1 : after + 1]
        share = float((stamp_ns - begin) / (end - begin))
        return interpolate(self._matrices[after - 1], self._matrices[after], share)

    def sensor_to_fixed(self, frame_id: str, stamp_ns: int) -> NDArray[np.float64]:
        """Return the (4, 4) pose of a sensor at a time.

        Raises:
            BagError: /tf_static lacks the sensor's pose.
        """
        if frame_id not in self._mounts:
            known = ", ".join(sorted(self._mounts)) or "none"
            raise BagError(
                f"{self._source}: found no transform {self._vehicle} -> {frame_id} on /tf_static (found: {known}), "
                "needed each sensor's pose on the vehicle; record /tf_static"
            )
        return self.vehicle_to_fixed(stamp_ns) @ self._mounts[frame_id]


def stamp_to_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec)


def matrix(transform: Any) -> NDArray[np.float64]:
    """Return a geometry_msgs/Transform as a (4, 4) matrix, child frame -> parent frame."""
    translation, rotation = transform.translation, transform.rotation
    quaternion = (rotation.x, rotation.y, rotation.z, rotation.w)
    return rigid_transform((translation.x, translation.y, translation.z), quaternion)
