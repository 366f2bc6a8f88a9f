"""A nuScenes keyframe (pictures, sweep, calibration, ego pose in one folder) -> a bag.

The folder holds a ``keyframe.json`` with `stamp`, `ego_to_global` (at the sweep's stamp), `lidar` (file, stamp,
lidar_to_ego) and `cameras` (by name: file, width, height, stamp, intrinsics, camera_to_ego, lidar_to_camera).

`lidar_to_camera` includes the vehicle's motion between sweep and image, the static pair of `camera_to_ego` and
`lidar_to_ego` does not. The ego pose at an image's stamp follows from both, and is what /tf carries. So a reader of the
bag that looks transforms up at each image's own time through ``map`` gets `lidar_to_camera`; one that takes them as
static gets inverse(camera_to_ego) @ lidar_to_ego.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.bags import messages
from aqr_perception.bags.errors import BagError
from aqr_perception.bags.writer import BagWriter
from aqr_perception.geometry import interpolate, invert

FIXED_FRAME, VEHICLE_FRAME, LIDAR_FRAME = "map", "base_link", "LIDAR_TOP"
DEFAULT_PERIOD = 0.1
_TF_PERIOD_NS = 20_000_000

_POINT = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "ring"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2"],
        "offsets": [0, 4, 8, 12, 16],
        "itemsize": 20,
    }
)
_Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class KeyframeCamera:
    """A picture (the JPEG file's bytes), when and how it was taken."""

    name: str
    stamp_ns: int
    jpeg: bytes
    size: tuple[int, int]
    intrinsics: _Matrix
    camera_to_ego: _Matrix
    ego_to_global: _Matrix


@dataclass(frozen=True)
class Keyframe:
    """A keyframe; `points` is (N, 5) float32: x, y, z in metres, intensity 0..255, ring."""

    stamp_ns: int
    points: NDArray[np.float32]
    lidar_to_ego: _Matrix
    ego_to_global: _Matrix
    cameras: tuple[KeyframeCamera, ...]


def read_keyframe(folder: str | Path) -> Keyframe:
    """Read a keyframe's folder.

    Raises:
        BagError: a file or an entry of keyframe.json is missing or not as it should be.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / "keyframe.json").read_text())
        lidar = description["lidar"]
        lidar_to_ego, ego_to_global = _matrix(lidar["lidar_to_ego"]), _matrix(description["ego_to_global"])
        points = np.frombuffer((folder / lidar["file"]).read_bytes(), np.dtype("<f4")).reshape(-1, 5)
        cameras = tuple(
            _read_camera(folder, name, entry, lidar_to_ego, ego_to_global)
            for name, entry in description["cameras"].items()
        )
        return Keyframe(_ns(lidar["stamp"]), points, lidar_to_ego, ego_to_global, cameras)
    except OSError as error:
        raise BagError(f"{folder}: found no readable {error.filename}, needed a keyframe's folder; {error}") from error
    except (KeyError, ValueError, TypeError) as error:
        needed = "keyframe.json with stamp, ego_to_global, lidar and cameras"
        raise BagError(f"{folder}: found {type(error).__name__}: {error}, needed {needed}") from error


def write_keyframe_bag(
    folder: str | Path, path: str | Path, *, repeats: int = 1, period: float = DEFAULT_PERIOD, raw: bool = False
) -> Path:
    """Write a keyframe as a bag with the topics and frames that nuScenes bags usually have.

    /CAM_*/image_rect_compressed (or /CAM_*/image_rect_color), /CAM_*/camera_info, /LIDAR_TOP, /tf (map -> base_link),
    /tf_static (base_link -> LIDAR_TOP and CAM_*).

    Args:
        path: see `BagWriter`.
        repeats: how often the frame is repeated; the vehicle is back at its pose at each repeated sweep.
        period: seconds between two of them.
        raw: write decoded pictures (sensor_msgs/Image, bgr8) instead of the JPEG files' bytes.

    Returns:
        where the bag lies.

    Raises:
        BagError: see `read_keyframe` and `BagWriter`; or a period shorter than the frame itself.
    """
    keyframe = read_keyframe(folder)
    poses = _ego_poses(keyframe)
    period_ns, shortest_ns = round(period * 1e9), max(poses) - min(poses)
    if repeats < 1 or (repeats > 1 and period_ns <= shortest_ns):
        needed = f"1 or more repeats, more than {shortest_ns / 1e9:.3f} s apart"
        raise BagError(f"{path}: found {repeats} repeats {period} s apart, needed {needed}")
    poses = _steady(_repeated_poses(poses, repeats, period_ns))
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
    return Path(path)


def _read_camera(
    folder: Path, name: str, entry: dict[str, Any], lidar_to_ego: _Matrix, ego_to_global: _Matrix
) -> KeyframeCamera:
    camera_to_ego = _matrix(entry["camera_to_ego"])
    if "lidar_to_camera" in entry:
        motion = camera_to_ego @ _matrix(entry["lidar_to_camera"]) @ invert(lidar_to_ego)
        ego_to_global = ego_to_global @ invert(motion)
    return KeyframeCamera(
        name=name,
        stamp_ns=_ns(entry["stamp"]),
        jpeg=(folder / entry["file"]).read_bytes(),
        size=(int(entry["width"]), int(entry["height"])),
        intrinsics=np.array(entry["intrinsics"], dtype=np.float64).reshape(3, 3),
        camera_to_ego=camera_to_ego,
        ego_to_global=ego_to_global,
    )


def _ego_poses(keyframe: Keyframe) -> dict[int, _Matrix]:
    """Return ego_to_global by stamp, in order: at every image and at the sweep."""
    poses = {camera.stamp_ns: camera.ego_to_global for camera in keyframe.cameras}
    poses[keyframe.stamp_ns] = keyframe.ego_to_global
    return dict(sorted(poses.items()))


def _repeated_poses(poses: dict[int, _Matrix], repeats: int, period_ns: int) -> dict[int, _Matrix]:
    """Repeat poses, and go on at either end as the vehicle moved in the keyframe, for as long again."""
    first, last = min(poses), max(poses)
    repeated = {stamp + index * period_ns: pose for index in range(repeats) for stamp, pose in poses.items()}
    motion = invert(poses[first]) @ poses[last]
    repeated.setdefault(2 * first - last, poses[first] @ invert(motion))
    repeated.setdefault(2 * last - first + (repeats - 1) * period_ns, poses[last] @ motion)
    return dict(sorted(repeated.items()))


def _steady(poses: dict[int, _Matrix]) -> dict[int, _Matrix]:
    """Add poses in between, every `_TF_PERIOD_NS`, as odometry tells them: the last one before a pause may be delivered
    with the next one only, and a frame must not wait for that."""
    stamps = list(poses)
    steady = dict(poses)
    for begin, end in itertools.pairwise(stamps):
        for stamp in range(begin + _TF_PERIOD_NS, end, _TF_PERIOD_NS):
            steady[stamp] = interpolate(poses[begin], poses[end], (stamp - begin) / (end - begin))
    return dict(sorted(steady.items()))


def _static_transforms(keyframe: Keyframe, stamp_ns: int) -> Any:
    mounts = [(LIDAR_FRAME, keyframe.lidar_to_ego)]
    mounts += [(camera.name, camera.camera_to_ego) for camera in keyframe.cameras]
    return messages.tf([messages.transform(stamp_ns, VEHICLE_FRAME, child, pose) for child, pose in mounts])


def _cloud(keyframe: Keyframe, stamp_ns: int) -> Any:
    records = np.zeros(len(keyframe.points), _POINT)
    for column, name in enumerate(_POINT.names or ()):
        records[name] = keyframe.points[:, column]
    return messages.cloud(stamp_ns, LIDAR_FRAME, records)


def _picture(camera: KeyframeCamera, stamp_ns: int, raw: bool) -> tuple[str, int, Any]:
    if not raw:
        message = messages.compressed_image(stamp_ns, camera.name, camera.jpeg)
        return f"/{camera.name}/image_rect_compressed", stamp_ns, message
    pixels = cv2.imdecode(np.frombuffer(camera.jpeg, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise BagError(f"{camera.name}: found {len(camera.jpeg)} bytes that OpenCV cannot decode, needed a JPEG file")
    return (
        f"/{camera.name}/image_rect_color",
        stamp_ns,
        messages.image(stamp_ns, camera.name, pixels.astype(np.uint8, copy=False)),
    )


def _matrix(rows: list[list[float]]) -> _Matrix:
    return np.array(rows, dtype=np.float64).reshape(4, 4)


def _ns(seconds: float) -> int:
    return round(seconds * 1e6) * 1000  # nuScenes stamps are whole microseconds, which a float just holds
