"""Reads one nuScenes keyframe (pictures, sweep, calibration, ego pose) from a folder of its own.

The folder holds a ``keyframe.json`` with `stamp`, `ego_to_global` (at the sweep's stamp), `lidar` (file, stamp,
lidar_to_ego) and `cameras` (by name: file, width, height, stamp, intrinsics, camera_to_ego, lidar_to_camera), and may
have `objects` (class, box, velocity, lidar_points, radar_points).

`lidar_to_camera` includes the vehicle's motion between sweep and image, the static pair of `camera_to_ego` and
`lidar_to_ego` does not. The ego pose at an image's stamp follows from both.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView, Frame
from aqr_perception.geometry import invert

LIDAR = "LIDAR_TOP"
"""nuScenes' name of its LiDAR, and of the frame its points are in: x right, y forward, z up."""

Matrix = NDArray[np.float64]


class KeyframeError(ValueError):
    """A file or an entry of keyframe.json is missing or not as it should be; the message names it and what it needs."""


@dataclass(frozen=True)
class KeyframeCamera:
    """A picture (the JPEG file's bytes), when and how it was taken."""

    name: str
    stamp_ns: int
    jpeg: bytes
    size: tuple[int, int]
    intrinsics: Matrix
    camera_to_ego: Matrix
    ego_to_global: Matrix

    def pixels(self) -> NDArray[np.uint8]:
        """Return the picture (H, W, 3), BGR.

        Raises:
            KeyframeError: it cannot be decoded.
        """
        image: NDArray | None = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            found = f"found {len(self.jpeg)} bytes that OpenCV cannot decode"
            raise KeyframeError(f"{self.name}: {found}, needed a JPEG file")
        return image.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Keyframe:
    """A keyframe; `points` is (N, 5) float32: x, y, z in metres, intensity 0..255, ring; `objects` are unchecked."""

    stamp_ns: int
    points: NDArray[np.float32]
    lidar_to_ego: Matrix
    ego_to_global: Matrix
    cameras: tuple[KeyframeCamera, ...]
    objects: object = None

    def frame(self) -> Frame:
        """Return what the detector sees: a single sweep without any lag, and the pictures.

        Raises:
            KeyframeError: a picture cannot be decoded.
        """
        points, lidar_to_world = self.points.astype(np.float32), self.ego_to_global @ self.lidar_to_ego
        points[:, 4] = 0.0
        views = tuple(
            CameraView(
                name=camera_name(camera.name),
                image=camera.pixels(),
                intrinsics=camera.intrinsics,
                extrinsics=invert(camera.ego_to_global @ camera.camera_to_ego) @ lidar_to_world,
                age=(self.stamp_ns - camera.stamp_ns) / 1e9,
            )
            for camera in self.cameras
        )
        return Frame(self.stamp_ns, points, views, LIDAR, lidar_to_world)


def camera_name(channel: str) -> str:
    """Return this package's name of a nuScenes camera: ``front_left`` for ``CAM_FRONT_LEFT``."""
    return channel.removeprefix("CAM_").lower()


def read_keyframe(folder: str | Path) -> Keyframe:
    """Read a keyframe's folder.

    Raises:
        KeyframeError: a file or an entry of keyframe.json is missing or not as it should be.
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
        stamp, objects = _ns(lidar["stamp"]), description.get("objects")
        return Keyframe(stamp, points, lidar_to_ego, ego_to_global, cameras, objects)
    except OSError as error:
        found = f"found no readable {error.filename}"
        raise KeyframeError(f"{folder}: {found}, needed a keyframe's folder; {error}") from error
    except (KeyError, ValueError, TypeError) as error:
        needed = "keyframe.json with stamp, ego_to_global, lidar and cameras"
        raise KeyframeError(f"{folder}: found {type(error).__name__}: {error}, needed {needed}") from error


def _read_camera(
    folder: Path, name: str, entry: dict[str, Any], lidar_to_ego: Matrix, ego_to_global: Matrix
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


def _matrix(rows: list[list[float]]) -> Matrix:
    return np.array(rows, dtype=np.float64).reshape(4, 4)


def _ns(seconds: float) -> int:
    return round(seconds * 1e6) * 1000  # nuScenes stamps are whole microseconds, which a float just holds
