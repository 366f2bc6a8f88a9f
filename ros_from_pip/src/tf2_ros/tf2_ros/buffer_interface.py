"""What every source of transforms offers, and the registries of types that can be transformed and converted."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar

from geometry_msgs.msg import (
    PointStamped,
    PoseStamped,
    PoseWithCovarianceStamped,
    TransformStamped,
    Vector3Stamped,
)
from rclpy.duration import Duration
from rclpy.time import Time
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

MsgStamped = PointStamped | PoseStamped | PoseWithCovarianceStamped | Vector3Stamped | PointCloud2
TransformableObject = Any
"""A stamped message, or an object of any library that has registered its types."""
TransformableObjectType = type


class TypeException(Exception):
    """No function is registered for a type."""

    def __init__(self, errstr: str) -> None:
        super().__init__(errstr)
        self.errstr = errstr


class NotImplementedException(Exception):
    """A subclass of BufferInterface lacks a look-up method."""

    def __init__(self) -> None:
        self.errstr = "CanTransform or LookupTransform not implemented"
        super().__init__(self.errstr)


class BufferInterface:
    """Look-ups to be implemented by a subclass, and the transformation of stamped objects built on them."""

    def __init__(self) -> None:
        self.registration = TransformRegistration()

    def transform(
        self,
        object_stamped: TransformableObject,
        target_frame: str,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
        new_type: TransformableObjectType | None = None,
    ) -> TransformableObject:
        """The object in `target_frame` at its own stamp, converted to `new_type` if one is given.

        Raises TypeException for a type that no package has registered, and what `lookup_transform` raises.
        """
        do_transform = self.registration.get(type(object_stamped))
        header = object_stamped.header
        moved = do_transform(
            object_stamped, self.lookup_transform(target_frame, header.frame_id, header.stamp, timeout)
        )
        return moved if new_type is None else convert(moved, new_type)

    def transform_full(
        self,
        object_stamped: TransformableObject,
        target_frame: str,
        target_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
        new_type: TransformableObjectType | None = None,
    ) -> TransformableObject:
        """The object in `target_frame` at `target_time`, taken over a frame that stands still in between.

        Raises the same as `transform`.
        """
        do_transform = self.registration.get(type(object_stamped))
        header = object_stamped.header
        moved = do_transform(
            object_stamped,
            self.lookup_transform_full(target_frame, target_time, header.frame_id, header.stamp, fixed_frame, timeout),
        )
        return moved if new_type is None else convert(moved, new_type)

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
    ) -> TransformStamped:
        """The transform from `source_frame` to `target_frame` at a time (0: the newest)."""
        raise NotImplementedException()

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
    ) -> TransformStamped:
        """From `source_frame` at `source_time` to `target_frame` at `target_time` over `fixed_frame`."""
        raise NotImplementedException()

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
    ) -> bool | tuple[bool, str]:
        """Whether `lookup_transform` would succeed."""
        raise NotImplementedException()

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),  # noqa: B008 - immutable, and tf2's signature
    ) -> bool | tuple[bool, str]:
        """Whether `lookup_transform_full` would succeed."""
        raise NotImplementedException()


def Stamped(obj: TransformableObject, stamp: Time, frame_id: str) -> TransformableObject:
    """Give an object a header in place, and return it."""
    obj.header = Header(frame_id=frame_id, stamp=stamp)
    return obj


class TransformRegistration:
    """Functions that move an object of a type by a TransformStamped, shared by the whole process."""

    _functions: ClassVar[dict[type, Callable[[Any, TransformStamped], Any]]] = {}

    def print_me(self) -> None:
        """Print all registered types."""
        print(self._functions)

    def add(self, key: type, callback: Callable[[Any, TransformStamped], Any]) -> None:
        """Register the function for a type; a second one replaces the first."""
        self._functions[key] = callback

    def get(self, key: type) -> Callable[[Any, TransformStamped], Any]:
        """The function of a type. Raises TypeException where there is none."""
        return _registered(self._functions, key)


class ConvertRegistration:
    """Conversions between types, directly or through a message, shared by the whole process."""

    _to_message: ClassVar[dict[type, Callable[[Any], Any]]] = {}
    _from_message: ClassVar[dict[type, Callable[[Any], Any]]] = {}
    _direct: ClassVar[dict[tuple[type, type], Callable[[Any], Any]]] = {}

    def add_from_msg(self, key: type, callback: Callable[[Any], Any]) -> None:
        """Register how to make a type from a message."""
        self._from_message[key] = callback

    def add_to_msg(self, key: type, callback: Callable[[Any], Any]) -> None:
        """Register how to make a message from a type."""
        self._to_message[key] = callback

    def add_convert(self, key: tuple[type, type], callback: Callable[[Any], Any]) -> None:
        """Register a direct conversion, by (from, to)."""
        self._direct[key] = callback

    def get_from_msg(self, key: type) -> Callable[[Any], Any]:
        """Raises TypeException where there is none."""
        return _registered(self._from_message, key)

    def get_to_msg(self, key: type) -> Callable[[Any], Any]:
        """Raises TypeException where there is none."""
        return _registered(self._to_message, key)

    def get_convert(self, key: tuple[type, type]) -> Callable[[Any], Any]:
        """Raises TypeException where there is none."""
        return _registered(self._direct, key)


def convert(a: TransformableObject, b_type: TransformableObjectType) -> TransformableObject:
    """The object as another type: directly if that is registered, else a copy or by way of a message.

    Raises TypeException if no way is registered.
    """
    registration = ConvertRegistration()
    try:
        return registration.get_convert((type(a), b_type))(a)
    except TypeException:
        if type(a) is b_type:
            return deepcopy(a)
        to_message = registration.get_to_msg(type(a))
        return registration.get_from_msg(b_type)(to_message(a))


def _registered(functions: dict, key: object) -> Callable[..., Any]:
    if key not in functions:
        raise TypeException(f"Type {key} is not loaded or supported")
    return functions[key]
