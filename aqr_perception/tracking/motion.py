# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Constant-velocity Kalman filter of many objects at once.

The state of an object is its position and velocity on the ground. Noise is the same in all directions, so both axes
share one (2, 2) covariance of position and velocity along an axis, and the filter does not depend on the orientation of
the frame. Source: R. E. Kalman, "A New Approach to Linear Filtering and Prediction Problems", 1960, with the
white-acceleration model of Bar-Shalom et al., "Estimation with Applications to Tracking and Navigation", 2001, section
6.3.2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MotionNoise:
    """Standard deviations along one axis.

    Attributes:
        acceleration: random acceleration, in m/s^1.5: the square root of its spectral density.
        position: detected position, in metres.
        velocity: detected velocity, in m/s. Models that have learned velocities badly detect 0 for a moving car; 5 m/s
            lets its positions tell its velocity.
        unknown_velocity: velocity of a new object whose velocity is not detected, in m/s.
    """

    acceleration: float = 2.0
    position: float = 0.5
    velocity: float = 5.0
    unknown_velocity: float = 8.0


@dataclass(frozen=True)
class Motion:
    """Positions and velocities of N objects in a frame that is fixed to the ground.

    Attributes:
        position: (N, 2) x, y in metres.
        velocity: (N, 2) in m/s.
        covariance: (N, 2, 2) of position and velocity along either axis; m^2, m^2/s and m^2/s^2.
    """

    position: Floats
    velocity: Floats
    covariance: Floats

    def at(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Motion":
        """Return the objects that indices or a mask select."""
        return Motion(self.position[index], self.velocity[index], self.covariance[index])

    def joined(self, other: "Motion") -> "Motion":
        """Return these objects and then those of `other`."""
        return Motion(
            np.concatenate([self.position, other.position]),
            np.concatenate([self.velocity, other.velocity]),
            np.concatenate([self.covariance, other.covariance]),
        )


def begin(position: Floats, velocity: Floats, noise: MotionNoise) -> Motion:
    """Return the motion of new objects.

    Args:
        position: (N, 2) detected positions in metres.
        velocity: (N, 2) detected velocities in m/s; NaN: not detected.
    """
    known = _finite(velocity)
    covariance = np.zeros((len(position), 2, 2))
    covariance[:, 0, 0] = noise.position**2
    covariance[:, 1, 1] = np.where(known, noise.velocity, noise.unknown_velocity) ** 2
    return Motion(position, np.where(known[:, None], velocity, 0.0), covariance)


def predict(motion: Motion, seconds: float, noise: MotionNoise) -> Motion:
    """Return the motion after a time with constant velocity and random acceleration."""
    step = np.array([[1.0, seconds], [0.0, 1.0]])
    added = noise.acceleration**2 * np.array([[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]])
    covariance = step @ motion.covariance @ step.T + added
    return Motion(motion.position + seconds * motion.velocity, motion.velocity, covariance)


def update(motion: Motion, position: Floats, velocity: Floats, noise: MotionNoise) -> Motion:
    """Return the motion after one detection of each object, as in `begin`."""
    # Position and velocity are independent measurements, taken one after the other.
    state = np.stack([motion.position, motion.velocity], axis=1)
    covariance = motion.covariance.copy()
    for row, measured, deviation in ((0, position, noise.position), (1, velocity, noise.velocity)):
        known = _finite(measured)
        gain = covariance[:, :, row] / (covariance[:, row, row] + deviation**2)[:, None] * known[:, None]
        residual = np.where(known[:, None], measured, 0.0) - state[:, row]
        state = state + gain[:, :, None] * residual[:, None, :]
        covariance = covariance - gain[:, :, None] * covariance[:, row, None, :]
    return Motion(state[:, 0], state[:, 1], covariance)


def _finite(values: Floats) -> NDArray[np.bool_]:
    """Return (N,) whether the rows of (N, 2) values are finite."""
    finite: NDArray[np.bool_] = np.isfinite(values[:, 0]) & np.isfinite(values[:, 1])
    return finite
