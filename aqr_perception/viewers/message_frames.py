# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Frames from the node's messages, of ROS 2 or of a bag: detections joined with the data that they come from."""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.detections import detections_from_message
from aqr_perception.bags.poses import stamp_to_ns
from aqr_perception.data.rig_file import RigCamera
from aqr_perception.decoding.camera_images import picture_from_message
from aqr_perception.decoding.clouds import points_from_message
from aqr_perception.decoding.message_error import MessageError
from aqr_perception.decoding.sensor_data import pinhole_image
from aqr_perception.frame import CameraView, Detections
from aqr_perception.geometry import invert, transform_points
from aqr_perception.viewers.object_weights import ObjectFollower
from aqr_perception.viewers.shown_frame import ObjectWeights, ShownCamera, ShownFrame, jpeg, shown_view
from aqr_perception.visualization.camera_picture import camera_picture

BEV = "bev"
_AGE_ERROR_NS = 1000
"""Rounding of a sensor's age, a float32 in seconds, is smaller."""
_KEPT = 20
"""Messages of a topic that are kept until the frame that they belong to arrives."""
_WAITING = 3
"""Newer detections that a frame waits for its pictures, at most."""

Lookup = Callable[[str, str, int], NDArray[np.float64] | None]
"""Returns (4, 4) source frame -> target frame at a time in nanoseconds, for (target, source, time); None if unknown."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutputTopics:
    """Topics that a viewer reads.

    Attributes:
        detections: of type FusedDetectionArray.
        tracks: of type TrackArray; empty: the objects are followed here.
        pictures: topics of the weight maps' pictures by camera, and by `BEV`.
        offsets: by camera, delay of the stamps after the exposure in seconds, where it is not 0.
        images: cameras without such pictures, by name: their boxes are drawn here.
        clouds: topics of the LiDARs.
        infos: topics of the cameras' CameraInfo.
        fixed_frame: TF frame fixed to the world; empty: the vehicle's motion is unknown.
    """

    detections: str
    tracks: str = ""
    pictures: Mapping[str, str] = field(default_factory=dict)
    clouds: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    fixed_frame: str = ""
    offsets: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, RigCamera] = field(default_factory=dict)

    @property
    def all(self) -> frozenset[str]:
        """All topics but those of TF."""
        topics = {self.detections, *self.pictures.values(), *self.clouds, *self.infos}
        topics |= {camera.image_topic for camera in self.images.values()}
        return frozenset(topics | ({self.tracks} if self.tracks else set()))


class _Picture(NamedTuple):
    """A picture of the weight maps, and the TF frame in its header."""

    camera: ShownCamera
    frame_id: str


class MessageFrames:
    """Joins messages to frames by their stamps.

    Call `add` with each message, in the order of arrival; it yields the frames that are then complete. A frame waits
    for its pictures and tracks until a few newer detections have come. What has not come then is left out, and said
    once by topic.

    Args:
        lookup: transforms between TF frames.
        axes: names of the TF frames to show, at each call.
    """

    def __init__(self, topics: OutputTopics, lookup: Lookup, axes: Callable[[], Collection[str]] = frozenset) -> None:
        self.topics, self._lookup, self._axes = topics, lookup, axes
        self._kept: dict[str, deque[tuple[int, Any]]] = {}
        self._infos: dict[str, Any] = {}
        self._pending: list[Any] = []
        self._follower = ObjectFollower()
        self._said: set[str] = set()
        self._names = {topic: name for name, topic in topics.pictures.items()}
        self._images = {camera.image_topic: name for name, camera in topics.images.items()}

    def add(self, topic: str, message: Any) -> Iterator[ShownFrame]:
        """Take a message; yield the frames that are complete, in order."""
        if topic == self.topics.detections:
            self._pending.append(message)
        elif topic in self.topics.infos:
            self._infos[message.header.frame_id] = self._infos[topic] = message
        else:
            # Pictures are kept compressed: raw ones of all cameras would fill the memory.
            kept = self._picture(message, topic) if topic in self._names else message
            self._kept.setdefault(topic, deque(maxlen=_KEPT)).append((stamp_to_ns(message.header.stamp), kept))
        while self._pending and (len(self._pending) > _WAITING or self._is_complete(self._pending[0])):
            yield self._frame(self._pending.pop(0))

    def rest(self) -> Iterator[ShownFrame]:
        """Yield the frames that still wait, as no more messages come."""
        while self._pending:
            yield self._frame(self._pending.pop(0))

    def _is_complete(self, detections: Any) -> bool:
        wanted = [topic for topic in (*self._names, *self._images, self.topics.tracks, *self.topics.clouds)]
        return all(
            self._found(topic, stamp) is not None
            for topic in wanted
            if topic
            for stamp in self.stamps(topic, detections)
        )

    def stamps(self, topic: str, detections: Any) -> list[int]:
        """Return the stamps of a topic's messages that belong to detections; none if the frame does not have them."""
        stamp_ns, used = stamp_to_ns(detections.header.stamp), used_stamps(detections)
        lidars = [stamp for name, stamp in used.items() if is_lidar(name)]
        name = self._names.get(topic) or self._images.get(topic)
        if name == BEV:
            return [stamp_ns] if lidars else []
        if name is not None:
            # The age in the message is that of the exposure; the picture has the stamp of the camera's message.
            delay = round(self.topics.offsets.get(name, 0.0) * 1e9)
            return [used[name] + delay] if name in used else []
        if topic == self.topics.tracks:
            return [stamp_ns]
        if topic in self.topics.clouds:
            place = self.topics.clouds.index(topic)
            by_place = used.get("lidar" if place == 0 else f"lidar_{place + 1}")
            return [] if by_place is None else [by_place]
        return []

    def _found(self, topic: str, stamp_ns: int) -> Any:
        kept = self._kept.get(topic, ())
        return next((entry for stamp, entry in kept if abs(stamp - stamp_ns) <= _AGE_ERROR_NS), None)

    def _of_frame(self, topic: str, detections: Any) -> Any:
        """Return what a topic has for a frame; None, and a sentence once by topic, if it is missing."""
        for stamp in self.stamps(topic, detections):
            found = self._found(topic, stamp)
            if found is not None:
                return found
            if topic not in self._said:
                self._said.add(topic)
                stamps = [stamp for stamp, _ in self._kept.get(topic, ())]
                had = f"stamps up to {max(stamps) / 1e9:.6f} s" if stamps else "no message"
                _log.warning(
                    "%s: found %s, needed %.6f s for a frame; it is left out there, and in others like it",
                    topic,
                    had,
                    stamp / 1e9,
                )
        return None

    def _frame(self, message: Any) -> ShownFrame:
        stamp_ns, frame_id = stamp_to_ns(message.header.stamp), message.header.frame_id
        detections = detections_from_message(message)
        fixed = self.topics.fixed_frame
        to_fixed = self._lookup(fixed, frame_id, stamp_ns) if fixed else None
        cameras: dict[str, ShownCamera] = {}
        for name, topic in self.topics.pictures.items():
            picture = None if name == BEV else self._of_frame(topic, message)
            if picture is not None:
                cameras[name] = self._placed(picture, frame_id, stamp_ns)
        for name, camera in self.topics.images.items():
            image = self._of_frame(camera.image_topic, message)
            drawn = None if image is None else self._drawn(camera, image, detections, frame_id, stamp_ns)
            cameras |= {} if drawn is None else {name: drawn}
        bev = self.topics.pictures.get(BEV)
        above = None if bev is None else self._of_frame(bev, message)
        orientations = [[getattr(found.pose.orientation, axis) for axis in "xyzw"] for found in message.detections]
        return ShownFrame(
            stamp_ns=stamp_ns,
            frame_id=frame_id,
            detections=detections,
            camera_names=tuple(message.camera_names),
            quaternions=np.array(orientations, np.float64).reshape(-1, 4),
            points=self._points(message, frame_id, stamp_ns),
            cameras=cameras,
            bev=None if above is None else above.camera.jpeg,
            unused={sensor.name: sensor.reason for sensor in message.sensors if not sensor.used},
            to_fixed=to_fixed,
            axes=self._frames(frame_id, stamp_ns),
            objects=self._objects(message, stamp_ns, detections, to_fixed),
            weights_source=message.weights_source,
        )

    def _objects(
        self, message: Any, stamp_ns: int, detections: Detections, to_fixed: NDArray[np.float64] | None
    ) -> Mapping[int, ObjectWeights]:
        if not self.topics.tracks:
            return self._follower.follow(stamp_ns, detections, to_fixed)
        tracks = self._of_frame(self.topics.tracks, message)
        return {
            track.id: ObjectWeights(track.class_name, track.lidar_weight, track.camera_weight)
            for track in (tracks.tracks if tracks is not None else ())
            if not track.predicted
        }

    def _points(self, message: Any, frame_id: str, stamp_ns: int) -> NDArray[np.float32] | None:
        clouds = []
        for topic in self.topics.clouds:
            sweep = self._of_frame(topic, message)
            place = None if sweep is None else self._lookup(frame_id, sweep.header.frame_id, stamp_ns)
            if place is None:
                continue
            try:
                points = points_from_message(sweep, topic, [])
            except MessageError as error:
                self._say(topic, str(error))
                continue
            clouds.append(transform_points(place, points[:, :3]).astype(np.float32))
        return np.concatenate(clouds) if clouds else None

    def _picture(self, message: Any, topic: str) -> _Picture | None:
        """Return a picture with its optical frame; None if it is broken."""
        try:
            pixels = picture_from_message(message, topic, 0, (0, 0), []).pixels
        except MessageError as error:
            self._say(topic, str(error))
            return None
        height, width = pixels.shape[:2]
        return _Picture(ShownCamera(jpeg(pixels), (width, height)), message.header.frame_id)

    def _drawn(
        self, camera: RigCamera, image: Any, detections: Detections, frame_id: str, stamp_ns: int
    ) -> ShownCamera | None:
        """Return a camera's image with the boxes; None if image, calibration or place are missing or broken."""
        info, fixed = self._infos.get(camera.info_topic), self.topics.fixed_frame
        if info is None:
            self._say(camera.info_topic, "found no CameraInfo, needed it to draw boxes in the camera's images")
            return None
        try:
            pinhole = pinhole_image(
                image, info, camera.image_topic, camera.info_topic, camera.rectified, camera.baseline_in_tf, 0, []
            )
        except MessageError as error:
            self._say(camera.image_topic, str(error))
            return None
        taken = stamp_to_ns(image.header.stamp) - round(camera.offset * 1e9)
        optical = image.header.frame_id or info.header.frame_id
        then = self._lookup(fixed, optical, taken) if fixed else self._lookup(frame_id, optical, stamp_ns)
        now = self._lookup(fixed, frame_id, stamp_ns) if fixed else np.eye(4)
        if then is None or now is None:
            return None
        extrinsics = invert(then) @ now
        extrinsics[:3, 3] += pinhole.baseline
        view = CameraView(camera.name, pinhole.pixels, pinhole.intrinsics, extrinsics)
        return shown_view(view, camera_picture(view, None, detections))

    def _placed(self, picture: _Picture, frame_id: str, stamp_ns: int) -> ShownCamera:
        """Return a camera's picture with its calibration and place, where both are known."""
        camera, optical = picture
        info, place = self._infos.get(optical), self._lookup(frame_id, optical, stamp_ns)
        if info is None or place is None or not (info.width and info.height):
            return camera
        # A rectified picture has the pinhole matrix P; without one, as with a distorted lens, K holds.
        matrix = np.asarray(info.p, np.float64).reshape(3, 4)[:, :3]
        matrix = matrix if matrix[0, 0] > 0 else np.asarray(info.k, np.float64).reshape(3, 3)
        if not matrix[0, 0] > 0:
            return camera
        scale = np.diag([camera.size[0] / info.width, camera.size[1] / info.height, 1.0])
        return ShownCamera(camera.jpeg, camera.size, scale @ matrix, place)

    def _frames(self, frame_id: str, stamp_ns: int) -> Mapping[str, NDArray[np.float64]]:
        found = {
            name: self._lookup(frame_id, name, stamp_ns) for name in self._axes() if name != self.topics.fixed_frame
        }
        return {name: place for name, place in found.items() if place is not None and name != frame_id}

    def _say(self, topic: str, problem: str) -> None:
        if problem not in self._said:
            self._said.add(problem)
            _log.warning("%s: left out: %s", topic, problem)


def used_stamps(detections: Any) -> dict[str, int]:
    """Return the stamp in nanoseconds of each sensor's data in a frame, by name."""
    stamp_ns = stamp_to_ns(detections.header.stamp)
    return {sensor.name: stamp_ns - round(sensor.age * 1e9) for sensor in detections.sensors if sensor.used}


def is_lidar(name: str) -> bool:
    """Return whether a sensor's name in detections is that of a LiDAR: ``lidar``, ``lidar_2`` and so on."""
    return name == "lidar" or (name.startswith("lidar_") and name[6:].isdecimal())
