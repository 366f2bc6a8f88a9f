# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Sensors in a street, as `drive.Drive` reads them."""

import numpy as np

from aqr_perception.simulator.rig import CameraMount, LidarMount
from aqr_perception.simulator.sensors import RenderedPicture, Sweep
from aqr_perception.simulator.street.street_scene import StreetScene
from aqr_perception.simulator.street_sensors.lidar_scan import scan_street
from aqr_perception.simulator.street_sensors.street_pictures import render_street
from aqr_perception.simulator.street_sensors.tracing import StreetTracer


class StreetSensors:
    """Pictures and sweeps of a street scene."""

    def __init__(self, scene: StreetScene) -> None:
        self._scene, self._tracer = scene, StreetTracer(scene)

    def picture(self, camera: CameraMount, time: float, rng: np.random.Generator, samples: int) -> RenderedPicture:
        """Return a camera's image at a time."""
        return render_street(self._scene, self._tracer, camera, time, rng, samples)

    def sweep(self, lidar: LidarMount, time: float, rng: np.random.Generator) -> Sweep:
        """Return the sweep that ends at a time."""
        return scan_street(self._scene, self._tracer, lidar, time, rng)
