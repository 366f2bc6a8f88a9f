"""The vehicle's motion and the sensors' places, from a bag's /tf and /tf_static."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
from aqr_perception.geometry import interpolate, rigid_transform


class Poses:
    """Transforms between a vehicle, its sensors and the ground it moves on.

    Args:
        moving: TFMessages with the poses of `vehicle` in `fixed`.
        static: TFMessages with the sensors' places on `vehicle`.
        source: the bag, for errors.

    Raises:
        BagError: there is no pose of the vehicle.
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
            raise BagError(f"{source}: found no transform {fixed} -> {vehicle} on /tf, needed the vehicle's motion")
        stamps = sorted(poses)
        self._stamps = np.array(stamps, np.int64)
        self._matrices = np.stack([poses[stamp] for stamp in stamps])

    def vehicle_to_fixed(self, stamp_ns: int) -> NDArray[np.float64]:
        """Return the (4, 4) pose at a time; at either end of the recording the nearest one."""
        stamp_ns = int(np.clip(stamp_ns, self._stamps[0], self._stamps[-1]))
        after = int(np.searchsorted(self._stamps, stamp_ns))
        if self._stamps[after] == stamp_ns:
            return self._matrices[after]
        begin, end = self._stamps[after - 1 : after + 1]
        share = float((stamp_ns - begin) / (end - begin))
        return interpolate(self._matrices[after - 1], self._matrices[after], share)

    def sensor_to_fixed(self, frame_id: str, stamp_ns: int) -> NDArray[np.float64]:
        """Return the (4, 4) pose of a sensor at a time.

        Raises:
            BagError: /tf_static does not say where the sensor is.
        """
        if frame_id not in self._mounts:
            known = ", ".join(sorted(self._mounts)) or "none"
            raise BagError(
                f"{self._source}: found no transform {self._vehicle} -> {frame_id} on /tf_static (there are: {known}), "
                "needed each sensor's place on the vehicle"
            )
        return self.vehicle_to_fixed(stamp_ns) @ self._mounts[frame_id]


def stamp_to_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def matrix(transform: Any) -> NDArray[np.float64]:
    """Return a geometry_msgs/Transform as a (4, 4) matrix, child frame -> parent frame."""
    moved, turned = transform.translation, transform.rotation
    return rigid_transform((moved.x, moved.y, moved.z), (turned.x, turned.y, turned.z, turned.w))
