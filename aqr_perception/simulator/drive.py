# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Drives through a simulated scene, as labelled frames."""

import cv2
import numpy as np
from numpy.typing import NDArray

from aqr_perception.frame import CameraView, Frame, GroundTruth, LabelledFrame
from aqr_perception.geometry import box_corners, invert, project, transform_points
from aqr_perception.simulator.rig import CameraMount, Rig, nuscenes_rig
from aqr_perception.simulator.scene import Scene, draw_scene
from aqr_perception.simulator.sensors import PlainSensors, RenderedPicture, Sweep
from aqr_perception.simulator.street.street_scene import StreetScene, draw_street_scene
from aqr_perception.simulator.street_sensors.camera_models import draw_rig
from aqr_perception.simulator.street_sensors.sensor_suite import StreetSensors

WORLDS = (1, 2)
"""Versions of the simulated world."""

SWEEP_STEP = 0.1
"""Shortest time in seconds between two sweeps of a frame."""

REACH = 60.0
"""Largest distance in metres of a true object's centre from the LiDAR."""

_NEAR = 0.3
"""Metres in front of a camera within which a box counts as passing it."""


class Drive:
    """A vehicle with sensors in a scene.

    Args:
        scene: of world 1 or of world 2.
        rig: the vehicle's sensors; by default nuScenes' in world 1 and those of the scene's seed in world 2.
        sweeps: LiDAR sweeps in a frame, the newest first.
        sweep_interval: seconds between two sweeps, but at least `SWEEP_STEP`.
        samples: see `sensors.render_picture`.
    """

    def __init__(
        self,
        scene: Scene | StreetScene,
        rig: Rig | None = None,
        sweeps: int = 2,
        sweep_interval: float = 0.0,
        samples: int = 1,
    ) -> None:
        self.scene = scene
        self._sensors: PlainSensors | StreetSensors
        if isinstance(scene, StreetScene):
            self.rig, self._sensors = rig or draw_rig(scene.seed), StreetSensors(scene)
        else:
            self.rig, self._sensors = rig or nuscenes_rig(), PlainSensors(scene)
        self._sweeps, self._sweep_interval, self._samples = sweeps, max(SWEEP_STEP, sweep_interval), samples

    def lidar_to_world(self, time: float) -> NDArray[np.float64]:
        """Return the LiDAR's (4, 4) pose at a time."""
        return self.scene.vehicle_to_world(time) @ self.rig.lidar.to_vehicle

    def frame(self, time: float) -> LabelledFrame:
        """Return the frame with the newest sweep that ends at a time, in seconds since the scene's start.

        The model frame is the LiDAR's: z up; x forward and y left in world 1, and in world 2 as the rig says, perhaps x
        right and y forward.
        """
        points, owners = self.points(time)
        views, pictures = [], []
        for camera in self.rig.cameras:
            view, picture = self.view(camera, time)
            views.append(view)
            pictures.append(picture)
        frame = Frame(stamp_ns=round(time * 1e9), points=points, cameras=tuple(views), frame_id="lidar")
        truth = self._ground_truth(time, owners, pictures)
        return LabelledFrame(frame, truth, self.lidar_to_world(time))

    def picture(self, camera: CameraMount, time: float) -> RenderedPicture:
        """Return a camera's image at a time."""
        rng = self._random(time, 1 + self.rig.cameras.index(camera))
        return self._sensors.picture(camera, time, rng, self._samples)

    def view(self, camera: CameraMount, time: float) -> tuple[CameraView, RenderedPicture]:
        """Return a camera's view in the frame at a time, exposed when the LiDAR's beam passes the camera's axis."""
        age = self.rig.lidar.period - camera.delay
        taken = time - age
        picture = self.picture(camera, taken)
        to_camera = invert(self.scene.vehicle_to_world(taken) @ camera.to_vehicle) @ self.lidar_to_world(time)
        return CameraView(camera.name, picture.image, camera.intrinsics, to_camera, age), picture

    def single_sweep(self, time: float) -> Sweep:
        """Return the sweep that ends at a time."""
        rng = self._random(time, 0)
        return self._sensors.sweep(self.rig.lidar, time, rng)

    def _random(self, time: float, sensor: int) -> np.random.Generator:
        """Return a sensor's random generator at a time, which may be before the scene's start."""
        return np.random.default_rng([self.scene.seed, round((time + 1000.0) * 1e6), sensor])

    def points(self, time: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return points (N, 5) of several sweeps in the newest one's frame, and the newest sweep's owners (M,)."""
        to_lidar = invert(self.lidar_to_world(time))
        parts, newest = [], np.zeros(0, np.int64)
        for index in range(self._sweeps):
            lag = index * self._sweep_interval
            points, owner = self.single_sweep(time - lag)
            moved = transform_points(to_lidar @ self.lidar_to_world(time - lag), points) if index else points[:, :3]
            parts.append(np.c_[moved, points[:, 3], np.full(len(points), lag)].astype(np.float32))
            newest = owner if index == 0 else newest
        return np.concatenate(parts), newest

    def true_boxes(self, time: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return boxes (N, 9), in the LiDAR's frame, and tracks (N,) of all objects within `REACH` at a time."""
        scene, to_lidar = self.scene, invert(self.lidar_to_world(time))
        boxes, tracks = [], []
        for track in range(len(scene.actors)):
            now = to_lidar @ scene.pose_of(track, time)
            if np.hypot(now[0, 3], now[1, 3]) > REACH:
                continue
            step = 0.05
            ahead, behind = (to_lidar @ scene.pose_of(track, time + side * step) for side in (1, -1))
            velocity = (ahead[:2, 3] - behind[:2, 3]) / (2 * step)
            yaw = np.arctan2(now[1, 0], now[0, 0])
            boxes.append(np.r_[now[:3, 3], scene.actors[track].size, yaw, velocity])
            tracks.append(track)
        return np.array(boxes, dtype=np.float64).reshape(-1, 9), np.array(tracks, dtype=np.int64)

    def _ground_truth(self, time: float, owners: NDArray[np.int64], pictures: list[RenderedPicture]) -> GroundTruth:
        boxes, tracks = self.true_boxes(time)
        actors = self.scene.actors
        visibility = np.zeros((len(tracks), len(pictures)), np.float32)
        for column, (camera, picture) in enumerate(zip(self.rig.cameras, pictures, strict=True)):
            taken = time - (self.rig.lidar.period - camera.delay)
            pixels = np.bincount(picture.owner[picture.owner >= 0], minlength=len(actors))
            to_camera = invert(self.scene.vehicle_to_world(taken) @ camera.to_vehicle)
            for row, track in enumerate(tracks):
                if pixels[track]:
                    pose = to_camera @ self.scene.pose_of(track, taken)
                    outline = _outline(actors[track].size, pose, camera)
                    visibility[row, column] = min(pixels[track] / max(outline, 1.0), 1.0)
        return GroundTruth(
            boxes.astype(np.float32),
            np.array([actors[track].label for track in tracks], np.int64),
            tracks,
            np.bincount(owners[owners >= 0], minlength=len(actors))[tracks],
            visibility,
        )


def _outline(size: NDArray[np.float64], pose: NDArray[np.float64], camera: CameraMount) -> float:
    """Return the number of pixels of a box in an unbounded image; those of the whole image if it passes the camera."""
    corners = transform_points(pose, box_corners(np.r_[0, 0, 0, size, 0][None])[0])
    pixels, depths = project(camera.intrinsics, corners)
    if (depths < _NEAR).any():
        return float(camera.size[0] * camera.size[1])
    return float(cv2.contourArea(cv2.convexHull(pixels.astype(np.float32))))


def draw_drive(
    seed: int,
    duration: float = 20.0,
    rig: Rig | None = None,
    world: int = 1,
    *,
    sweeps: int = 2,
    sweep_interval: float = 0.0,
    samples: int = 1,
) -> Drive:
    """Return a drive through the scene of a seed, with the settings of `Drive`.

    Args:
        world: 1, or 2, whose streets are closer to real ones and in which the shipped weights were trained.

    Raises:
        ValueError: there is no such world.
    """
    if world not in WORLDS:
        raise ValueError(f"world is {world}, but must be one of {', '.join(map(str, WORLDS))}")
    scene = draw_scene(seed, duration) if world == 1 else draw_street_scene(seed, duration)
    return Drive(scene, rig, sweeps, sweep_interval, samples)


def world_rig(world: int, seed: int, picture: tuple[int, int]) -> Rig:
    """Return the sensors of a scene's vehicle: nuScenes' in world 1, random ones in world 2.

    Args:
        picture: width and height of the images in pixels.
    """
    return nuscenes_rig(picture) if world == 1 else draw_rig(seed, picture)
