# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Recordings as rosbag2 files, with the topics of config/perception.yaml."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from aqr_perception.bags import messages
from aqr_perception.bags.writer import BagWriter
from aqr_perception.data.recordings.recorded_data import (
    Labels,
    Matrix,
    RecordedImage,
    RecordedSweep,
    Recording,
    RecordingError,
)
from aqr_perception.data.recordings.trained_frame import ground_below, trained_frame
from aqr_perception.frame import FramePlacement
from aqr_perception.geometry import interpolate
from aqr_perception.simulator.bag import FIXED_FRAME, LIDAR_FRAME, LIDAR_TOPIC, TRUTH_TOPIC, VEHICLE_FRAME

LABELS_TOPIC = "/ground_truth/detections"
MODEL_FRAME = "model"
"""Frame at the height and with the axes of the model's training."""
GROUND_FRAME = "ground"
_TF_PERIOD_NS = 20_000_000
_SAME = 1e-9
_POINT = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")]
_CODECS = {b"\xff\xd8": "jpeg", b"\x89P": "png"}


class _Entry(NamedTuple):
    stamp_ns: int
    order: int
    topic: str
    make: Callable[[], Any]


def write_recording(
    recording: Recording, path: str | Path, extra_frames: dict[str, Matrix] | None = None, progress: bool = True
) -> None:
    """Write a recording as a bag; image files go in byte for byte.

    /CAMERA/image_raw/compressed and /CAMERA/camera_info, /lidar/points (x, y, z, intensity, and ring and time where
    known), /tf_static (base_link -> lidar and cameras), /tf (odom -> base_link, if the motion is known; mounts that
    change), and the labels as aqr_perception/msg/FusedDetectionArray on /ground_truth/objects (with velocities) and as
    vision_msgs/Detection3DArray on /ground_truth/detections, both in the LiDAR's frame. The recording time of each
    message is its stamp.

    Args:
        path: see `BagWriter`.
        extra_frames: further frames on the vehicle: name -> (4, 4) pose in its frame, for /tf_static.

    Raises:
        BagError: see `BagWriter`.
        RecordingError: a file of the recording is missing or broken.
    """
    static, moving = _mounts(recording)
    static |= extra_frames or {}
    stamps = [sweep.stamp_ns for sweep in recording.sweeps] + [image.stamp_ns for image in recording.images]
    first = min(*stamps, *recording.poses)
    entries = [
        _Entry(stamp, 0, "/tf", _tf(stamp, FIXED_FRAME, {VEHICLE_FRAME: pose})) for stamp, pose in _dense(recording)
    ]
    entries += [_Entry(stamp, 0, "/tf", _tf(stamp, VEHICLE_FRAME, poses)) for stamp, poses in moving.items()]
    for image in recording.images:
        entries.append(_Entry(image.stamp_ns, 1, f"/{image.camera}/camera_info", _info(image)))
        entries.append(_Entry(image.stamp_ns, 2, f"/{image.camera}/image_raw/compressed", _picture(image)))
    for sweep in recording.sweeps:
        entries.append(_Entry(sweep.stamp_ns, 2, LIDAR_TOPIC, _cloud(sweep)))
    for labels in recording.labels:
        entries.append(_Entry(labels.stamp_ns, 3, TRUTH_TOPIC, _truth(labels)))
        entries.append(_Entry(labels.stamp_ns, 3, LABELS_TOPIC, _detections(labels)))
    entries.sort(key=lambda entry: (entry.stamp_ns, entry.order))
    with BagWriter(path) as writer:
        writer.write("/tf_static", _tf(first, VEHICLE_FRAME, static)(), first, latched=True)
        for entry in tqdm(entries, desc="converting", unit="message", disable=not progress):
            writer.write(entry.topic, entry.make(), entry.stamp_ns)


def vehicle_frames(recording: Recording, placement: FramePlacement | None) -> tuple[dict[str, Matrix], list[str]]:
    """Return further frames for `write_recording`, and what could not be found.

    `GROUND_FRAME` is on the ground below the vehicle's frame, `MODEL_FRAME` where a model was trained.

    Args:
        placement: of the model's training frame; None if unknown.
    """
    height = ground_below(recording.sweeps)
    if height is None:
        return {}, [f"the sweeps show no clear ground: {MODEL_FRAME!r} is left out, and boxes are in the LiDAR's frame"]
    ground = np.eye(4)
    ground[2, 3] = -height
    frames = {GROUND_FRAME: ground}
    if placement is not None:
        frames[MODEL_FRAME] = trained_frame(height, placement, recording.sweeps[0].lidar_to_vehicle)
    return frames, []


def _mounts(recording: Recording) -> tuple[dict[str, Matrix], dict[int, dict[str, Matrix]]]:
    """Return the sensors' poses on the vehicle: the fixed ones by name, and by stamp those that change."""
    found: dict[str, list[tuple[int, Matrix]]] = {}
    for sweep in recording.sweeps:
        found.setdefault(LIDAR_FRAME, []).append((sweep.stamp_ns, sweep.lidar_to_vehicle))
    for image in recording.images:
        found.setdefault(image.camera, []).append((image.stamp_ns, image.camera_to_vehicle))
    static: dict[str, Matrix] = {}
    moving: dict[int, dict[str, Matrix]] = {}
    for name, poses in found.items():
        if all(np.abs(pose - poses[0][1]).max() < _SAME for _, pose in poses):
            static[name] = poses[0][1]
            continue
        for stamp, pose in poses:
            moving.setdefault(stamp, {})[name] = pose
    return static, moving


def _dense(recording: Recording) -> Iterator[tuple[int, Matrix]]:
    """Yield the vehicle's poses, with interpolated ones in between, as odometry publishes them."""
    poses = sorted(recording.poses.items())
    for (begin, first), (end, second) in itertools.pairwise(poses):
        yield begin, first
        for stamp in range(begin + _TF_PERIOD_NS, end, _TF_PERIOD_NS):
            yield stamp, interpolate(first, second, (stamp - begin) / (end - begin))
    yield from poses[-1:]


def _tf(stamp_ns: int, parent: str, poses: dict[str, Matrix]) -> Callable[[], Any]:
    def make() -> Any:
        return messages.tf([messages.transform(stamp_ns, parent, name, pose) for name, pose in poses.items()])

    return make


def _info(image: RecordedImage) -> Callable[[], Any]:
    def make() -> Any:
        return messages.camera_info(image.stamp_ns, image.camera, image.size, image.intrinsics, image.distortion)

    return make


def _picture(image: RecordedImage) -> Callable[[], Any]:
    def make() -> Any:
        image.pixels()  # a broken file or a wrong size ends the conversion here, not in the node
        file = image.path.read_bytes()
        codec = _CODECS.get(file[:2])
        if codec is None:
            raise RecordingError(f"{image.path}: found neither a JPEG nor a PNG file, needed one of them; convert it")
        return messages.compressed_image(image.stamp_ns, image.camera, file, "png" if codec == "png" else "jpeg")

    return make


def _cloud(sweep: RecordedSweep) -> Callable[[], Any]:
    def make() -> Any:
        points = sweep.read()
        times = None if sweep.read_times is None else sweep.read_times()
        has_ring = bool(len(points)) and bool((points[:, 4] >= 0).all())
        fields = [*_POINT, *([("ring", "<u2")] if has_ring else []), *([] if times is None else [("time", "<f4")])]
        records = np.zeros(len(points), fields)
        for column, (name, _) in enumerate(_POINT):
            records[name] = points[:, column]
        if has_ring:
            records["ring"] = points[:, 4]
        if times is not None:
            records["time"] = times
        return messages.cloud(sweep.stamp_ns, LIDAR_FRAME, records)

    return make


def _truth(labels: Labels) -> Callable[[], Any]:
    def make() -> Any:
        detections = [
            messages.fused_detection(entry.class_name, entry.box, score=float(entry.lidar_points > 0))
            for entry in labels.objects
        ]
        return messages.fused_detections(labels.stamp_ns, LIDAR_FRAME, detections)

    return make


def _detections(labels: Labels) -> Callable[[], Any]:
    def make() -> Any:
        detections = [
            messages.detection3d(
                labels.stamp_ns,
                LIDAR_FRAME,
                entry.class_name,
                (entry.box[:3].tolist(), entry.quaternion()),
                entry.box[3:6].tolist(),
                "" if entry.track < 0 else str(entry.track),
            )
            for entry in labels.objects
        ]
        return messages.detections3d(labels.stamp_ns, LIDAR_FRAME, detections)

    return make
