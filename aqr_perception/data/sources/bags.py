"""A folder of rosbag2 files with ground truth, as `simulator.bag.write_bag` writes them, as a data set."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags.errors import BagError
from aqr_perception.bags.poses import VehiclePoses, stamp_to_ns
from aqr_perception.bags.reader import BagReader
from aqr_perception.data.corruption.lidar_corruption import points_in_box
from aqr_perception.data.outlines import outline_shares
from aqr_perception.data.sources.class_lists import class_problem
from aqr_perception.data.sources.drives import preceding
from aqr_perception.frame import CLASSES, CameraView, Frame, GroundTruth, LabelledFrame
from aqr_perception.geometry import invert, transform_points
from aqr_perception.simulator.bag import FIXED_FRAME, LIDAR_TOPIC, TRUTH_TOPIC, VEHICLE_FRAME

_SWEEP_STEP = 0.1
"""Seconds between two sweeps."""
_RANGE_NOISE = 0.06
"""Metres by which measured points on a box's side may lie outside the box."""
_MAX_PICTURE_AGE = 0.2
"""Largest time difference in seconds between a sweep and its pictures."""


class _Moment(NamedTuple):
    """One labelled sweep: its bag and its recording time."""

    bag: Path
    stamp_ns: int


class BagDataset:
    """All sweeps with ground truth, in the order of the bags' names.

    Messages must be recorded at their header's stamp, as the simulator does. The model frame is the frame of the
    truth's header.

    Args:
        folder: holds the bags: single files (.mcap, .db3) and rosbag2 folders.
        sweeps: LiDAR sweeps in a frame.
        classes: of the truth; objects of other classes are left out.

    Raises:
        BagError: there is no bag, a bag has no truth, or no object of any bag has one of the classes.
    """

    def __init__(self, folder: Path, sweeps: int = 2, classes: tuple[str, ...] = CLASSES) -> None:
        self._sweeps, self._classes = sweeps, classes
        if not folder.is_dir():
            raise BagError(f"{folder}: found no such folder, needed one with rosbag2 files")
        bags = sorted(path for path in folder.iterdir() if path.suffix in (".mcap", ".db3") or _is_bag_folder(path))
        if not bags:
            raise BagError(f"{folder}: found no rosbag2 file, needed .mcap or .db3 files, or rosbag2 folders")
        self._moments = [_Moment(bag, stamp_ns) for bag in bags for stamp_ns in _truth_stamps(bag)]
        problem = class_problem(classes, _class_names(bags, classes))
        if problem is not None:
            raise BagError(f"{folder}: {problem}")

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: int) -> LabelledFrame:
        bag_path, stamp_ns = self._moments[index]
        poses = _vehicle_poses(bag_path)
        begin_ns = stamp_ns - round((self._sweeps * _SWEEP_STEP + _MAX_PICTURE_AGE) * 1e9)
        end_ns = stamp_ns + round(_MAX_PICTURE_AGE * 1e9)
        messages: dict[str, list[Any]] = defaultdict(list)
        with BagReader(bag_path) as bag:
            for message in bag.messages((), begin_ns, end_ns):
                if not message.topic.startswith(("/tf", "/clock")):
                    messages[message.topic].append(message.decode())
        (truth,) = (message for message in messages[TRUTH_TOPIC] if _stamp_ns(message) == stamp_ns)
        to_fixed = poses.sensor_to_fixed(truth.header.frame_id, stamp_ns)
        views = tuple(_views(messages, poses, to_fixed, stamp_ns))
        points = _points(messages[LIDAR_TOPIC], poses, to_fixed, stamp_ns, self._sweeps)
        frame = Frame(stamp_ns, points, views, truth.header.frame_id, to_fixed)
        return LabelledFrame(frame, _ground_truth(truth, points, views, self._classes), to_fixed)

    def earlier_frames(self, index: int, count: int, step: float = 0.5) -> tuple[LabelledFrame, ...]:
        """See `frames.LabelledDrives`: earlier sweeps of the bag with ground truth."""
        return tuple(self[earlier] for earlier in preceding(self._moments, index, count, step))


def _is_bag_folder(path: Path) -> bool:
    return (path / "metadata.yaml").is_file()


def _truth_stamps(bag: Path) -> list[int]:
    with BagReader(bag) as reader:
        if TRUTH_TOPIC not in {topic.name for topic in reader.topics}:
            raise BagError(f"{bag}: found no topic {TRUTH_TOPIC}, needed the true objects at every sweep's stamp")
        return [message.stamp_ns for message in reader.messages((TRUTH_TOPIC,))]


def _class_names(bags: Sequence[Path], classes: Collection[str]) -> set[str]:
    """Return the classes of the true objects, up to the first message with one of the given classes."""
    names: set[str] = set()
    for bag in bags:
        with BagReader(bag) as reader:
            for message in reader.messages((TRUTH_TOPIC,)):
                names |= {entry.class_name for entry in message.decode().detections}
                if not names.isdisjoint(classes):
                    return names
    return names


@lru_cache(maxsize=32)
def _vehicle_poses(bag: Path) -> VehiclePoses:
    with BagReader(bag) as reader:
        topics = {"/tf", "/tf_static"} & {topic.name for topic in reader.topics}
        decoded = [(message.topic, message.decode()) for message in reader.messages(topics)] if topics else []
    moving = [message for topic, message in decoded if topic == "/tf"]
    static = [message for topic, message in decoded if topic == "/tf_static"]
    return VehiclePoses(moving, static, FIXED_FRAME, VEHICLE_FRAME, str(bag))


def _stamp_ns(message: Any) -> int:
    return stamp_to_ns(message.header.stamp)


def _views(
    messages: dict[str, list[Any]], poses: VehiclePoses, to_fixed: NDArray[np.float64], stamp_ns: int
) -> list[CameraView]:
    """Return each camera's picture nearest to a time, in the order of the cameras' names."""
    views = []
    for topic, infos in sorted(messages.items()):
        camera, _, kind = topic.rpartition("/")
        if kind != "camera_info":
            continue
        pictures = messages.get(f"{camera}/image_raw", []) + messages.get(f"{camera}/image_raw/compressed", [])
        nearest = min(pictures, key=lambda picture: abs(_stamp_ns(picture) - stamp_ns), default=None)
        if nearest is None or abs(_stamp_ns(nearest) - stamp_ns) > _MAX_PICTURE_AGE * 1e9:
            continue
        to_camera = invert(poses.sensor_to_fixed(nearest.header.frame_id, _stamp_ns(nearest))) @ to_fixed
        age = (stamp_ns - _stamp_ns(nearest)) / 1e9
        intrinsics = np.asarray(infos[-1].k, np.float64).reshape(3, 3)
        views.append(CameraView(camera.removeprefix("/"), _pixels(nearest), intrinsics, to_camera, age))
    return views


def _pixels(message: Any) -> NDArray[np.uint8]:
    """Return the (H, W, 3) BGR pixels of an Image (bgr8, as the simulator writes it) or a CompressedImage."""
    data = np.asarray(message.data, np.uint8)
    if hasattr(message, "encoding"):
        return data.reshape(message.height, message.width, 3)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if picture is None:
        raise BagError(f"{message.header.frame_id}: found {len(data)} bytes that OpenCV cannot decode, needed a JPEG")
    return picture.astype(np.uint8, copy=False)


def _points(
    clouds: list[Any], poses: VehiclePoses, to_fixed: NDArray[np.float64], stamp_ns: int, sweeps: int
) -> NDArray[np.float32] | None:
    """Return the points (N, 5) of the newest sweeps up to a time, in the model frame; None without a sweep."""
    newest = sorted((cloud for cloud in clouds if _stamp_ns(cloud) <= stamp_ns), key=_stamp_ns)[-sweeps:]
    parts = []
    for cloud in newest:
        values = np.frombuffer(cloud.data, np.float32).reshape(-1, 4)  # x, y, z, intensity, as the simulator writes it
        to_model = invert(to_fixed) @ poses.sensor_to_fixed(cloud.header.frame_id, _stamp_ns(cloud))
        lag = np.full(len(values), (stamp_ns - _stamp_ns(cloud)) / 1e9)
        parts.append(np.c_[transform_points(to_model, values), values[:, 3], lag].astype(np.float32))
    return np.concatenate(parts[::-1]) if parts else None


def _ground_truth(
    message: Any, points: NDArray[np.float32] | None, views: tuple[CameraView, ...], classes: tuple[str, ...]
) -> GroundTruth:
    entries = [entry for entry in message.detections if entry.class_name in classes]
    boxes = np.array([_box(entry) for entry in entries], np.float32).reshape(-1, 9)
    hits = np.zeros(len(boxes), np.int64)
    if points is not None:
        newest = points[points[:, 4] < _SWEEP_STEP / 2]
        hits = np.array([len(points_in_box(newest, box, margin=_RANGE_NOISE)) for box in boxes], np.int64).reshape(-1)
    # Bags do not record occlusion: an object without a LiDAR hit counts as hidden.
    hit = np.array([entry.score > 0 for entry in entries], np.float32)[:, None]
    return GroundTruth(
        boxes,
        np.array([classes.index(entry.class_name) for entry in entries], np.int64),
        np.full(len(boxes), -1, np.int64),
        hits,
        (outline_shares(boxes, views) * hit).astype(np.float32),
        classes,
    )


def _box(entry: Any) -> list[float]:
    place, rotation, size, velocity = entry.pose.position, entry.pose.orientation, entry.size, entry.velocity
    yaw = 2 * np.arctan2(rotation.z, rotation.w)
    return [place.x, place.y, place.z, size.x, size.y, size.z, yaw, velocity.x, velocity.y]
