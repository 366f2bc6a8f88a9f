# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Simulated drives as rosbag2 files: sensors, transforms, clock and true objects."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from aqr_perception.bags import messages
from aqr_perception.bags.writer import BagWriter
from aqr_perception.frame import CLASSES
from aqr_perception.simulator.drive import Drive

FIXED_FRAME, VEHICLE_FRAME, LIDAR_FRAME = "odom", "base_link", "lidar"
LIDAR_TOPIC, TRUTH_TOPIC = "/lidar/points", "/ground_truth/objects"

START_NS = 1_700_000_000_000_000_000
"""Start stamp of every drive in nanoseconds; not 0, because many tools interpret 0 as "unknown"."""

_TF_PERIOD = 0.02
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])


class Entry(NamedTuple):
    """A serialized message with its topic, its type and its time in seconds since the drive's start."""

    time: float
    topic: str
    message_type: str
    data: bytes


def write_bag(
    drive: Drive,
    path: str | Path,
    duration: float,
    *,
    rate: float = 10.0,
    raw: bool = False,
    storage: str = "mcap",
    progress: bool = True,
    sensor_frames: Iterable[Sequence[Entry]] | None = None,
) -> Path:
    """Write a drive as a bag with the topics of config/perception.yaml.

    /CAMERA/image_raw/compressed (JPEG; /CAMERA/image_raw if `raw`), /CAMERA/camera_info, /lidar/points, /tf (odom ->
    base_link), /tf_static (base_link -> lidar and cameras), /clock, and the true objects as
    aqr_perception/msg/FusedDetectionArray on /ground_truth/objects, in the LiDAR's frame at each sweep's stamp.

    Args:
        path, storage: see `BagWriter`.
        duration: seconds.
        rate: sweeps, and images of each camera, per second.
        raw: write decoded images (sensor_msgs/Image, bgr8).
        sensor_frames: `sensor_messages` of each time of `sweep_times`, for example from several processes; None: they
            are made here.

    Raises:
        BagError: see `BagWriter`.
    """
    times = sweep_times(duration, rate)
    frames = len(times)
    sensed = iter(sensor_frames if sensor_frames is not None else (sensor_messages(drive, time, raw) for time in times))
    with BagWriter(path, storage) as writer:
        writer.write("/tf_static", _mounts(drive), START_NS, latched=True)
        for frame in tqdm(range(frames + 1), desc="simulating", unit="frame", disable=not progress):
            begin, end = frame / rate, (frame + 1) / rate
            if frame == frames:  # poses after the last sweep, for interpolation at its stamp
                entries = [*_poses_and_clock(drive, begin, begin + 3 * _TF_PERIOD)]
            else:
                entries = [*next(sensed), *_poses_and_clock(drive, begin, end)]
            for entry in sorted(entries, key=lambda entry: (entry.time, entry.topic != "/clock", entry.topic != "/tf")):
                writer.write_raw(entry.topic, entry.message_type, entry.data, _ns(entry.time))
    return Path(path)


def sweep_times(duration: float, rate: float) -> list[float]:
    """Return the times in seconds at which the sweeps of a drive end."""
    return [(frame + 1) / rate for frame in range(int(duration * rate))]


def _ns(time: float) -> int:
    return START_NS + round(time * 1e6) * 1000


def sensor_messages(drive: Drive, time: float, raw: bool = False) -> list[Entry]:
    """Return images, calibration, sweep and ground truth of the frame with the sweep that ends at a time."""
    return list(_sensor_messages(drive, time, raw))


def _entry(time: float, topic: str, message: Any) -> Entry:
    data = messages.TYPESTORE.serialize_cdr(message, message.__msgtype__)
    return Entry(time, topic, message.__msgtype__, bytes(data))


def _sensor_messages(drive: Drive, time: float, raw: bool) -> Iterator[Entry]:
    for camera in drive.rig.cameras:
        taken = time - (drive.rig.lidar.period - camera.delay)
        image = drive.picture(camera, taken).image
        info = messages.camera_info(_ns(taken), camera.name, camera.size, camera.intrinsics)
        yield _entry(taken, f"/{camera.name}/camera_info", info)
        if raw:
            yield _entry(taken, f"/{camera.name}/image_raw", messages.image(_ns(taken), camera.name, image))
        else:
            jpeg = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 92))[1].tobytes()
            message = messages.compressed_image(_ns(taken), camera.name, jpeg)
            yield _entry(taken, f"/{camera.name}/image_raw/compressed", message)
    points, owners = drive.single_sweep(time)
    records = np.zeros(len(points), _POINT)
    for column, name in enumerate(_POINT.names or ()):
        records[name] = points[:, column]
    yield _entry(time, LIDAR_TOPIC, messages.cloud(_ns(time), LIDAR_FRAME, records))
    yield _entry(time, TRUTH_TOPIC, _objects(drive, time, owners))


def _poses_and_clock(drive: Drive, begin: float, end: float) -> Iterator[Entry]:
    """Yield the vehicle's pose and the clock at the rate of its odometry."""
    for index in range(round(begin / _TF_PERIOD), round(end / _TF_PERIOD)):
        time = index * _TF_PERIOD
        pose = messages.transform(_ns(time), FIXED_FRAME, VEHICLE_FRAME, drive.scene.vehicle_to_world(time))
        yield _entry(time, "/tf", messages.tf([pose]))
        yield _entry(time, "/clock", messages.make("rosgraph_msgs/msg/Clock", clock=messages.time(_ns(time))))


def _mounts(drive: Drive) -> Any:
    mounts = [(LIDAR_FRAME, drive.rig.lidar.to_vehicle)]
    mounts += [(camera.name, camera.to_vehicle) for camera in drive.rig.cameras]
    return messages.tf([messages.transform(START_NS, VEHICLE_FRAME, name, pose) for name, pose in mounts])


def _objects(drive: Drive, time: float, owners: NDArray[np.int64]) -> Any:
    """Return all true objects; the score is 1 for objects with LiDAR points and 0 for others."""
    boxes, tracks = drive.true_boxes(time)
    hits = np.bincount(owners[owners >= 0], minlength=len(drive.scene.actors))
    labels = [drive.scene.actors[track].label for track in tracks]
    detections = [
        messages.fused_detection(CLASSES[label], box, score=float(hits[track] > 0))
        for box, label, track in zip(boxes, labels, tracks, strict=True)
    ]
    return messages.fused_detections(_ns(time), LIDAR_FRAME, detections)
