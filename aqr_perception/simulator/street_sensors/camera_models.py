# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensor rigs of world 2: one to six cameras and a LiDAR, drawn from a seed.

The frame of the LiDAR is the model frame. Half of the rigs have x forward and y left (REP-103), the others y forward
and x right (nuScenes' LiDAR). Points, boxes, velocities and extrinsics follow, so weights that learn both serve both.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from aqr_perception.simulator.rig import CameraMount, LidarMount, Rig
from aqr_perception.simulator.street_sensors.lidar_models import LIDAR_MODELS, SHARES, ray_directions

_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Optical axes (x right, y down, z forward) in a frame with x forward, y left, z up."""
_HEADINGS = {
    "front": 0.0,
    "front_right": -58.0,
    "front_left": 58.0,
    "back": 180.0,
    "back_left": 113.0,
    "back_right": -113.0,
}
_SUBSETS = {
    1: ("front",),
    2: ("front", "back"),
    3: ("front", "front_right", "front_left"),
    4: ("front", "front_right", "front_left", "back"),
    5: ("front", "front_right", "front_left", "back_left", "back_right"),
    6: tuple(_HEADINGS),
}
_NUMBERS, _NUMBER_SHARES = (1, 2, 3, 4, 5, 6), (0.08, 0.06, 0.08, 0.08, 0.1, 0.6)

Forward = Literal["x", "y"]


@dataclass(frozen=True)
class RollingCamera(CameraMount):
    """A camera that reads its rows one after the other, from the top.

    Attributes:
        readout: seconds from the first row to the last; the middle row is exposed at the image's stamp.
        balance: gains (3,) of blue, green and red.
        grain: standard deviation of the noise at a gain of 1, share of full scale.
        softness: standard deviation of the lens' blur in pixels.
        vignetting: share of the light that is lost in the corners.
    """

    readout: float = 0.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    grain: float = 0.01
    softness: float = 0.4
    vignetting: float = 0.1


@dataclass(frozen=True)
class ModelledLidar(LidarMount):
    """A LiDAR with its own table of elevations; see `lidar_models.LidarModel`.

    Attributes:
        model: name of the model.
        table: (beams,) elevations in degrees, highest first.
        forward: axis of the LiDAR's frame that points forward on the vehicle.
        sensitivity: range in metres at which half of the pulses on a target of 10 % reflectivity return.
        compensated: whether the driver moves each point to the sweep's end, by the vehicle's motion.
        fading: whether intensities fall with the range, uncorrected.
    """

    model: str = ""
    table: tuple[float, ...] = ()
    forward: Forward = "x"
    sensitivity: float = 50.0
    compensated: bool = True
    fading: bool = False

    def directions(self) -> NDArray[np.float64]:
        """Return (beams * columns, 3) unit vectors in the LiDAR's frame; the sweep starts at the vehicle's back."""
        return ray_directions(np.array(self.table), self.columns) @ axes(self.forward)[:3, :3]


def axes(forward: Forward) -> NDArray[np.float64]:
    """Return the (4, 4) rotation from a LiDAR's frame with this forward axis to x forward, y left, z up."""
    turn = np.eye(4)
    if forward == "y":
        turn[:2, :2] = [[0.0, 1.0], [-1.0, 0.0]]
    return turn


def draw_rig(seed: int, picture: tuple[int, int] = (352, 128), forward: Forward | None = None) -> Rig:
    """Return the random rig of a seed.

    Args:
        picture: width and height of the images in pixels.
        forward: axis of the LiDAR's frame that points forward; random if None, without effect on anything else.
    """
    rng = np.random.default_rng([0x419, seed])
    drawn: Forward = "x" if rng.random() < 0.5 else "y"
    lidar = _draw_lidar(rng, forward or drawn)
    number = int(rng.choice(_NUMBERS, p=_NUMBER_SHARES))
    height = rng.uniform(1.2, 1.9)
    focal_share = rng.uniform(0.55, 0.95)
    shared = {"readout": float(rng.uniform(0.0, 0.03)), "grain": float(rng.uniform(0.004, 0.02))}
    softness, vignetting = float(rng.uniform(0.3, 0.75)), float(rng.uniform(0.0, 0.35))
    cameras = []
    for name in _SUBSETS[number]:
        heading = _HEADINGS[name] + rng.normal(0, 4.0 if name in ("front", "back") else 7.0)
        share = focal_share * rng.uniform(0.94, 1.06) * (0.65 if name == "back" and rng.random() < 0.5 else 1.0)
        angle = np.radians(heading)
        position = np.array([0.85 + 0.8 * np.cos(angle), 0.55 * np.sin(angle), height + rng.normal(0, 0.04)])
        pitch, roll = np.radians(rng.normal(0, 2.0)), np.radians(rng.normal(0, 0.7))
        camera = RollingCamera(
            name,
            picture,
            _intrinsics(picture, share, rng),
            _mount(position, angle, pitch, roll),
            (heading + 180.0) % 360.0 / 360.0 * lidar.period,
            **shared,
            balance=tuple(float(gain) for gain in rng.uniform(0.92, 1.08, 3)),  # type: ignore[arg-type]
            softness=softness,
            vignetting=vignetting,
        )
        cameras.append(camera)
    return Rig(tuple(cameras), lidar)


def turned(rig: Rig, forward: Forward) -> Rig:
    """Return the rig with another forward axis of the LiDAR's frame."""
    assert isinstance(rig.lidar, ModelledLidar)
    upright = rig.lidar.to_vehicle @ axes(rig.lidar.forward).T
    return replace(rig, lidar=replace(rig.lidar, to_vehicle=upright @ axes(forward), forward=forward))


def _draw_lidar(rng: np.random.Generator, forward: Forward) -> ModelledLidar:
    name = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    model = LIDAR_MODELS[name]
    position = np.array([rng.uniform(0.5, 1.3), rng.normal(0, 0.05), rng.uniform(1.55, 2.25)])
    tilt = np.radians(rng.normal(0, 0.5, 2))
    to_vehicle = np.eye(4)
    to_vehicle[:3, :3] = Rotation.from_euler("xy", tilt).as_matrix()
    to_vehicle[:3, 3] = position
    return ModelledLidar(
        to_vehicle @ axes(forward),
        beams=model.beams,
        elevations=(min(model.elevations), max(model.elevations)),
        columns=model.columns,
        reach=model.reach,
        noise=model.noise * float(rng.uniform(0.7, 1.6)),
        dropout=float(rng.choice((rng.uniform(0.0, 0.03), rng.uniform(0.03, 0.15)), p=(0.8, 0.2))),
        period=float(rng.choice(model.periods)),
        model=name,
        table=model.elevations,
        forward=forward,
        sensitivity=model.sensitivity * float(rng.uniform(0.7, 1.3)),
        compensated=bool(rng.random() < 0.8),
        fading=bool(rng.random() < 0.35),
    )


def _intrinsics(picture: tuple[int, int], share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the pinhole matrix; `share` is the focal length over the width: 0.5 is a field of view of 90 degrees."""
    width, height = picture
    focal = share * width
    # Models keep the bottom rows of a picture, so the horizon lies in its upper half.
    centre = (width * (0.5 + rng.normal(0, 0.01)), height * rng.uniform(0.32, 0.55))
    return np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])


def _mount(position: NDArray[np.float64], heading: float, pitch: float, roll: float) -> NDArray[np.float64]:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("ZYX", (heading, pitch, roll)).as_matrix() @ _OPTICAL
    pose[:3, 3] = position
    return pose
