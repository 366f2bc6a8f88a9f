# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""One nuScenes keyframe (images, sweep, calibration, ego pose) in a folder with a ``keyframe.json``.

keyframe.json holds `stamp`, `ego_to_global` (at the sweep's stamp), `lidar` (file, stamp, lidar_to_ego), `cameras` (by
name: file, width, height, stamp, intrinsics, camera_to_ego, lidar_to_camera) and, in the reference data, `objects`
(class, box, velocity, lidar_points, radar_points).

`lidar_to_camera` includes the vehicle's motion between sweep and image; the static pair of `camera_to_ego` and
`lidar_to_ego` does not. The ego pose at an image's stamp follows from both.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.data.sources.nuscenes_tables import LIDAR, camera_name
from aqr_perception.frame import CLASSES, CameraView, Frame
from aqr_perception.geometry import invert

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class KeyframeCamera:
    """An image (the JPEG file's bytes) with its time and calibration."""

    name: str
    stamp_ns: int
    jpeg: bytes
    size: tuple[int, int]
    intrinsics: Matrix
    camera_to_ego: Matrix
    ego_to_global: Matrix

    def pixels(self) -> NDArray[np.uint8]:
        """Return the image (H, W, 3), BGR."""
        image = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        return image.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Keyframe:
    """A keyframe.

    Attributes:
        points: (N, 5) float32: x, y, z in metres, intensity 0..255, ring.
        objects: the entries of keyframe.json.
    """

    stamp_ns: int
    points: NDArray[np.float32]
    lidar_to_ego: Matrix
    ego_to_global: Matrix
    cameras: tuple[KeyframeCamera, ...]
    objects: tuple[dict[str, Any], ...] = ()

    def frame(self) -> Frame:
        """Return the detector's input: a single sweep without lag, and the images."""
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

    def boxes(self) -> tuple[Matrix, NDArray[np.int64]]:
        """Return boxes (N, 9) as `Detections.boxes` and their LiDAR points (N,), of detection classes that a LiDAR or
        radar point hits."""
        kept = [
            entry
            for entry in self.objects
            if entry["class"] in CLASSES and entry["lidar_points"] + entry["radar_points"] > 0
        ]
        boxes = np.array([[*entry["box"], *entry["velocity"]] for entry in kept], np.float64).reshape(-1, 9)
        return boxes, np.array([entry["lidar_points"] for entry in kept], np.int64)


def read_keyframe(folder: Path) -> Keyframe:
    """Read a keyframe's folder."""
    description = json.loads((folder / "keyframe.json").read_text())
    lidar = description["lidar"]
    lidar_to_ego, ego_to_global = _matrix(lidar["lidar_to_ego"]), _matrix(description["ego_to_global"])
    return Keyframe(
        stamp_ns=_ns(lidar["stamp"]),
        points=np.fromfile(folder / lidar["file"], "<f4").reshape(-1, 5),
        lidar_to_ego=lidar_to_ego,
        ego_to_global=ego_to_global,
        cameras=tuple(
            _read_camera(folder, name, entry, lidar_to_ego, ego_to_global)
            for name, entry in description["cameras"].items()
        ),
        objects=tuple(description.get("objects", ())),
    )


def _read_camera(
    folder: Path, name: str, entry: dict[str, Any], lidar_to_ego: Matrix, ego_to_global: Matrix
) -> KeyframeCamera:
    camera_to_ego = _matrix(entry["camera_to_ego"])
    motion = camera_to_ego @ _matrix(entry["lidar_to_camera"]) @ invert(lidar_to_ego)
    return KeyframeCamera(
        name=name,
        stamp_ns=_ns(entry["stamp"]),
        jpeg=(folder / entry["file"]).read_bytes(),
        size=(int(entry["width"]), int(entry["height"])),
        intrinsics=np.array(entry["intrinsics"], dtype=np.float64).reshape(3, 3),
        camera_to_ego=camera_to_ego,
        ego_to_global=ego_to_global @ invert(motion),
    )


def _matrix(rows: list[list[float]]) -> Matrix:
    return np.array(rows, dtype=np.float64).reshape(4, 4)


def _ns(seconds: float) -> int:
    return round(seconds * 1e6) * 1000  # nuScenes stamps are whole microseconds, which a float just holds
