# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""A nuScenes keyframe written as a bag, with the topics and frames that nuScenes bags usually have.

/tf carries the ego pose at every image's stamp. A reader that looks transforms up at each image's own time through
``map`` gets the keyframe's `lidar_to_camera`; a reader that treats them as static gets inverse(camera_to_ego) @
lidar_to_ego.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from aqr_perception.bags import messages
from aqr_perception.bags.writer import BagWriter
from aqr_perception.data.sources.nuscenes_tables import LIDAR
from aqr_perception.geometry import interpolate, invert
from helpers.nuscenes_keyframe import Keyframe, KeyframeCamera, Matrix, read_keyframe

FIXED_FRAME, VEHICLE_FRAME = "map", "base_link"
_TF_PERIOD_NS = 20_000_000

_POINT = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "ring"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2"],
        "offsets": [0, 4, 8, 12, 16],
        "itemsize": 20,
    }
)


def write_keyframe_bag(
    folder: Path, path: Path, *, repeats: int = 1, period_ns: int = 100_000_000, raw: bool = False
) -> Path:
    """Write a keyframe's folder (see `read_keyframe`) as a bag, and return its path.

    /CAM_*/image_rect_compressed (or /CAM_*/image_rect_color), /CAM_*/camera_info, /LIDAR_TOP, /tf (map -> base_link),
    /tf_static (base_link -> LIDAR_TOP and CAM_*).

    Args:
        path: see `BagWriter`.
        repeats: how often the frame is repeated; the vehicle is back at its pose at each repeated sweep.
        period_ns: time between two repeats, longer than the frame itself.
        raw: write decoded pictures (sensor_msgs/Image, bgr8) instead of the JPEG files' bytes.
    """
    keyframe = read_keyframe(folder)
    poses = _ego_poses(keyframe)
    assert repeats == 1 or period_ns > max(poses) - min(poses)
    poses = _interpolated(_repeated(poses, repeats, period_ns))
    entries = [("/tf_static", min(poses), _static_transforms(keyframe, min(poses)))]
    entries += [
        ("/tf", stamp, messages.tf([messages.transform(stamp, FIXED_FRAME, VEHICLE_FRAME, pose)]))
        for stamp, pose in poses.items()
    ]
    for shift in range(0, repeats * period_ns, period_ns):
        entries.append(("/LIDAR_TOP", keyframe.stamp_ns + shift, _cloud(keyframe, keyframe.stamp_ns + shift)))
        for camera in keyframe.cameras:
            stamp = camera.stamp_ns + shift
            info = messages.camera_info(stamp, camera.name, camera.size, camera.intrinsics)
            entries += [(f"/{camera.name}/camera_info", stamp, info), _picture(camera, stamp, raw)]
    entries.sort(key=lambda entry: (entry[1], not entry[0].startswith("/tf")))
    with BagWriter(path) as writer:
        for topic, stamp, message in entries:
            writer.write(topic, message, stamp, latched=topic == "/tf_static")
    return path


def _ego_poses(keyframe: Keyframe) -> dict[int, Matrix]:
    """Return ego_to_global by stamp, in order: at every image and at the sweep."""
    poses = {camera.stamp_ns: camera.ego_to_global for camera in keyframe.cameras}
    poses[keyframe.stamp_ns] = keyframe.ego_to_global
    return dict(sorted(poses.items()))


def _repeated(poses: dict[int, Matrix], repeats: int, period_ns: int) -> dict[int, Matrix]:
    """Repeat poses, and extrapolate the keyframe's motion by its own duration at either end."""
    first, last = min(poses), max(poses)
    repeated = {stamp + index * period_ns: pose for index in range(repeats) for stamp, pose in poses.items()}
    motion = invert(poses[first]) @ poses[last]
    repeated.setdefault(2 * first - last, poses[first] @ invert(motion))
    repeated.setdefault(2 * last - first + (repeats - 1) * period_ns, poses[last] @ motion)
    return dict(sorted(repeated.items()))


def _interpolated(poses: dict[int, Matrix]) -> dict[int, Matrix]:
    """Add poses in between, every `_TF_PERIOD_NS`, as odometry publishes them.

    With gaps, the last pose before a pause may arrive only with the next one, and a frame would wait for it.
    """
    result = dict(poses)
    for begin, end in itertools.pairwise(poses):
        for stamp in range(begin + _TF_PERIOD_NS, end, _TF_PERIOD_NS):
            result[stamp] = interpolate(poses[begin], poses[end], (stamp - begin) / (end - begin))
    return dict(sorted(result.items()))


def _static_transforms(keyframe: Keyframe, stamp_ns: int) -> Any:
    mounts = [(LIDAR, keyframe.lidar_to_ego)]
    mounts += [(camera.name, camera.camera_to_ego) for camera in keyframe.cameras]
    return messages.tf([messages.transform(stamp_ns, VEHICLE_FRAME, child, pose) for child, pose in mounts])


def _cloud(keyframe: Keyframe, stamp_ns: int) -> Any:
    records = np.zeros(len(keyframe.points), _POINT)
    for column, name in enumerate(_POINT.names or ()):
        records[name] = keyframe.points[:, column]
    return messages.cloud(stamp_ns, LIDAR, records)


def _picture(camera: KeyframeCamera, stamp_ns: int, raw: bool) -> tuple[str, int, Any]:
    if raw:
        message = messages.image(stamp_ns, camera.name, camera.pixels())
        return f"/{camera.name}/image_rect_color", stamp_ns, message
    message = messages.compressed_image(stamp_ns, camera.name, camera.jpeg)
    return f"/{camera.name}/image_rect_compressed", stamp_ns, message
