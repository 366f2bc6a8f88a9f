"""A folder of rosbag2 files with ground truth, as `synthetic.bag.write_bag` writes them, as a data set."""

from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import Poses, stamp_to_ns
from aqr_perception.bags.reader import BagReader
from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.data.outlines import outline_shares
from aqr_perception.data.sources.drives import preceding
from aqr_perception.frame import CLASSES, CameraView, Frame, GroundTruth, LabelledFrame
from aqr_perception.geometry import invert, transform_points
from aqr_perception.simulator.bag import FIXED_FRAME, LIDAR_TOPIC, TRUTH_TOPIC, VEHICLE_FRAME

_SWEEP_STEP = 0.1
_RANGE_NOISE = 0.06
"""Metres by which a point on a flat side may seem to lie beside its box."""
_OLDEST_PICTURE = 0.2
"""Seconds between a sweep and a picture that still belongs to it."""


class _Moment(NamedTuple):
    """One labelled sweep: its bag and when it was recorded."""

    bag: Path
    stamp_ns: int


class BagDataset:
    """Every sweep that has ground truth, in the order of the bags' names.

    Messages are taken to be recorded at their header's stamp, as the simulator does. Boxes are in the frame of the
    truth's header, which is the model frame.

    Args:
        folder: holds the bags: single files (.mcap, .db3) and rosbag2 folders.
        sweeps: LiDAR turns in a frame.

    Raises:
        BagError: there is no bag, or one has no truth.
    """

    def __init__(self, folder: Path, sweeps: int = 2) -> None:
        self._sweeps = sweeps
        if not folder.is_dir():
            raise BagError(f"{folder}: found no such folder, needed one with rosbag2 files")
        bags = sorted(path for path in folder.iterdir() if path.suffix in (".mcap", ".db3") or _is_bag_folder(path))
        if not bags:
            raise BagError(f"{folder}: found no rosbag2 file, needed .mcap or .db3 files, or rosbag2 folders")
        self._moments = [_Moment(bag, stamp_ns) for bag in bags for stamp_ns in _labelled_stamps(bag)]

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: int) -> LabelledFrame:
        moment = self._moments[index]
        poses = _poses(moment.bag)
        window = round((self._sweeps * _SWEEP_STEP + _OLDEST_PICTURE) * 1e9)
        messages: dict[str, list[Any]] = defaultdict(list)
        with BagReader(moment.bag) as bag:
            after = moment.stamp_ns + round(_OLDEST_PICTURE * 1e9)
            for message in bag.messages((), moment.stamp_ns - window, after):
                if not message.topic.startswith(("/tf", "/clock")):
                    messages[message.topic].append(message.decode())
        (truth,) = (message for message in messages[TRUTH_TOPIC] if _stamp(message) == moment.stamp_ns)
        to_fixed = poses.sensor_to_fixed(truth.header.frame_id, moment.stamp_ns)
        views = tuple(_views(messages, poses, to_fixed, moment.stamp_ns))
        points = _points(messages[LIDAR_TOPIC], poses, to_fixed, moment.stamp_ns, self._sweeps)
        frame = Frame(moment.stamp_ns, points, views, truth.header.frame_id, to_fixed)
        return LabelledFrame(frame, _truth(truth, points, views), to_fixed)

    def before(self, index: int, count: int, step: float = 0.5) -> tuple[LabelledFrame, ...]:
        """See `frames.LabelledDrives`: earlier sweeps of the bag that have ground truth."""
        return tuple(self[earlier] for earlier in preceding(self._moments, index, count, step))


def _is_bag_folder(path: Path) -> bool:
    return (path / "metadata.yaml").is_file()


def _labelled_stamps(bag: Path) -> list[int]:
    with BagReader(bag) as reader:
        if TRUTH_TOPIC not in {topic.name for topic in reader.topics}:
            raise BagError(f"{bag}: found no topic {TRUTH_TOPIC}, needed the true objects at every sweep's stamp")
        return [message.stamp_ns for message in reader.messages((TRUTH_TOPIC,))]


@lru_cache(maxsize=32)
def _poses(bag: Path) -> Poses:
    with BagReader(bag) as reader:
        recorded = {"/tf", "/tf_static"} & {topic.name for topic in reader.topics}
        read = [(message.topic, message.decode()) for message in reader.messages(recorded)] if recorded else []
    moving = [message for topic, message in read if topic == "/tf"]
    static = [message for topic, message in read if topic == "/tf_static"]
    return Poses(moving, static, FIXED_FRAME, VEHICLE_FRAME, str(bag))


def _stamp(message: Any) -> int:
    return stamp_to_ns(message.header.stamp)


def _views(
    messages: dict[str, list[Any]], poses: Poses, to_fixed: NDArray[np.float64], stamp_ns: int
) -> list[CameraView]:
    """Return each camera's picture nearest to a time, by name."""
    views = []
    for topic, infos in sorted(messages.items()):
        camera, _, kind = topic.rpartition("/")
        if kind != "camera_info":
            continue
        pictures = messages.get(f"{camera}/image_raw", []) + messages.get(f"{camera}/image_raw/compressed", [])
        nearest = min(pictures, key=lambda picture: abs(_stamp(picture) - stamp_ns), default=None)
        if nearest is None or abs(_stamp(nearest) - stamp_ns) > _OLDEST_PICTURE * 1e9:
            continue
        to_camera = invert(poses.sensor_to_fixed(nearest.header.frame_id, _stamp(nearest))) @ to_fixed
        age = (stamp_ns - _stamp(nearest)) / 1e9
        intrinsics = np.asarray(infos[-1].k, np.float64).reshape(3, 3)
        views.append(CameraView(camera.removeprefix("/"), _picture(nearest), intrinsics, to_camera, age))
    return views


def _picture(message: Any) -> NDArray[np.uint8]:
    data = np.asarray(message.data, np.uint8)
    if hasattr(message, "encoding"):
        return data.reshape(message.height, message.width, 3)  # the simulator's are bgr8
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if picture is None:
        raise BagError(f"{message.header.frame_id}: found {len(data)} bytes that OpenCV cannot decode, needed a JPEG")
    return picture.astype(np.uint8, copy=False)


def _points(
    clouds: list[Any], poses: Poses, to_fixed: NDArray[np.float64], stamp_ns: int, sweeps: int
) -> NDArray[np.float32] | None:
    """Return (N, 5) points of the newest sweeps up to a time, in the model frame; None where there is none."""
    newest = sorted((cloud for cloud in clouds if _stamp(cloud) <= stamp_ns), key=_stamp)[-sweeps:]
    parts = []
    for cloud in newest:
        values = np.frombuffer(cloud.data, np.float32).reshape(-1, 4)  # the simulator's: x, y, z, intensity
        moved = transform_points(invert(to_fixed) @ poses.sensor_to_fixed(cloud.header.frame_id, _stamp(cloud)), values)
        lag = np.full(len(values), (stamp_ns - _stamp(cloud)) / 1e9)
        parts.append(np.c_[moved, values[:, 3], lag].astype(np.float32))
    return np.concatenate(parts[::-1]) if parts else None


def _truth(message: Any, points: NDArray[np.float32] | None, views: tuple[CameraView, ...]) -> GroundTruth:
    boxes = np.array([_box(entry) for entry in message.detections], np.float32).reshape(-1, 9)
    hits = np.zeros(len(boxes), np.int64)
    if points is not None:
        now = points[points[:, 4] < _SWEEP_STEP / 2]
        hits = np.array([len(points_in_box(now, box, margin=_RANGE_NOISE)) for box in boxes], np.int64).reshape(-1)
    # Whether something stands in the way is not recorded, but what the LiDAR does not hit either is taken for hidden.
    shown = np.array([entry.score > 0 for entry in message.detections], np.float32)[:, None]
    return GroundTruth(
        boxes,
        np.array([CLASSES.index(entry.class_name) for entry in message.detections], np.int64),
        np.full(len(boxes), -1, np.int64),
        hits,
        (outline_shares(boxes, views) * shown).astype(np.float32),
    )


def _box(entry: Any) -> list[float]:
    place, turned, size, speed = entry.pose.position, entry.pose.orientation, entry.size, entry.velocity
    return [place.x, place.y, place.z, size.x, size.y, size.z, 2 * np.arctan2(turned.z, turned.w), speed.x, speed.y]
